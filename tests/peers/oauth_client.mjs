// An OAuth client by openid-client: a token by client credentials, a request with it, its introspection, its end, its introspection again.
//
//   oauth_client.mjs PEERS BASE ISSUER client_secret_basic ID SECRET    PEERS is the folder of its packages
//   oauth_client.mjs PEERS BASE ISSUER private_key_jwt ID KEYFILE
import { createPrivateKey, webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Node 18 has it under this name alone.
globalThis.crypto ??= webcrypto;
const [, , peers, base, issuer, method, id, secret] = process.argv;
const oauth = await import(pathToFileURL(createRequire(`${peers}/`).resolve("openid-client")));

const privateKey = async () => {
  const der = createPrivateKey(readFileSync(secret)).export({ format: "der", type: "pkcs8" });
  return crypto.subtle.importKey("pkcs8", der, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
};
const proof = method === "private_key_jwt"
  ? oauth.PrivateKeyJwt({ key: await privateKey(), kid: "a" })
  : oauth.ClientSecretBasic(secret);
// What the metadata names is the public address; the tests are at another one.
const here = (url, options) => fetch(String(url).replace(issuer, base), options);
const config = await oauth.discovery(new URL(issuer), id, undefined, proof, { algorithm: "oauth2", [oauth.customFetch]: here });
const { access_token: token } = await oauth.clientCredentialsGrant(config);
const tell = async () => {
  const { status } = await fetch(`${base}/api/x`, { headers: { authorization: `Bearer ${token}` } });
  console.log(status, (await oauth.tokenIntrospection(config, token)).active);
};
await tell();
await oauth.tokenRevocation(config, token);
await tell();
