"""The API of the sample: it knows who calls by the headers of the gateway, and authenticates nobody itself.

    python3 api.py [PORT]
"""

import collections
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDERS = collections.defaultdict(list)


class Api(BaseHTTPRequestHandler):
    # HTTP/1.0, as by default: a connection ends with its response. This module leaves a body that nobody reads on it, and would take that
    # for the next request, with headers that the gateway has not written.

    def do_GET(self):
        self.respond(200, {"user": self.headers["X-User-Name"], "orders": ORDERS[self.headers["X-User-Id"]]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        ORDERS[self.headers["X-User-Id"]].append(json.loads(body)["what"])
        self.do_GET()

    def respond(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    # Only the gateway is to reach it: whoever does can say who they are.
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9002), Api).serve_forever()
