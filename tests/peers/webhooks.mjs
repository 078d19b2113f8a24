// Verifies messages by the library of Standard Webhooks.
//
//   webhooks.mjs PEERS SECRET FILE    PEERS is the folder of its packages; FILE holds [{"headers": {…}, "body": "…"}]
//
// Prints how many are genuine, and how many still are once their body or their time is another.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , peers, secret, file] = process.argv;
const { Webhook } = createRequire(`${peers}/`)("standardwebhooks");
const receiver = new Webhook(secret);
const messages = JSON.parse(readFileSync(file, "utf8"));
const genuine = (headers, body) => {
  try {
    receiver.verify(body, headers);
    return 1;
  } catch {
    return 0;
  }
};
const count = (each) => messages.reduce((sum, message) => sum + each(message), 0);
console.log(
  count(({ headers, body }) => genuine(headers, body)),
  count(({ headers, body }) => genuine(headers, `${body} `)),
  count(({ headers, body }) => genuine({ ...headers, "webhook-timestamp": String(headers["webhook-timestamp"] - 1) }, body)),
);
