// An application on Node's own server, of HTTP/1.1 (`http`) or HTTP/2 (`http2`). Prints `port N`; ends with its input.
import { createHash } from "node:crypto";
import http from "node:http";
import http2 from "node:http2";

const server = (process.argv[2] === "http2" ? http2 : http).createServer((request, response) => {
  const body = createHash("sha256");
  let length = 0;
  request.on("data", (part) => {
    length += part.length;
    body.update(part);
  });
  request.on("end", () => {
    const [path, query = ""] = request.url.split("?");
    if (path.endsWith("/parts")) {
      const write = (number) => {
        if (number === 100) return response.end();
        response.write(String(number).padStart(4, "0").repeat(250));
        number % 20 ? write(number + 1) : setTimeout(write, 5, number + 1);
      };
      return write(0);
    }
    const { method, headers, httpVersion: version } = request;
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({
        method, path, query, version, length,
        user: headers["x-user-name"] ?? null,
        token: headers.authorization ?? null,
        host: headers.host ?? headers[":authority"] ?? null,
        sha256: body.digest("hex"),
      }),
    );
  });
});
server.listen(0, "127.0.0.1", () => console.log("port", server.address().port));
process.stdin.resume().on("end", () => process.exit(0));
