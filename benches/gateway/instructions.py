#!/usr/bin/env python3
"""Instructions of user code that one request takes, and lines of code that miss a simulated cache of 32 KiB, counted by
valgrind: the same on a busy machine.

  benches/gateway/instructions.py [--log] [--traces MODE] [--limited] [--check] [--h2c]
                                  [--cookie | --key | --foreign] [BINARY]

One keep-alive connection, one worker, a cached token, nginx with a fixed answer as the upstream. Counted is what the
worker's thread executes, its runtime included. Two runs of different length are subtracted, so that the start does not
count. With --log the access log is on. --traces says what becomes of them: `off` (no `traceparent` is made), `on` (the
default: it is made, nothing is exported) or `sampled-out` (they are exported, but none of these requests). With --limited the
route has a rate limit by user; with --h2c the upstream is spoken to in HTTP/2; with --check another proxy asks about each request at /auth/verify; with --cookie the caller is known by a
browser's cookie, with --key by an API key, with --foreign by another issuer's token (RS256). Needs valgrind, nginx, openssl and
the build of `./run release` with its symbols, or another release build.
"""

import argparse
import http.client
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import issuer

SHORT, LONG = 200, 2_200
# The kernel's code, which shares the real caches, is not in the simulation.
CACHES = ["--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64"]
# What only a worker's thread runs, in every build.
SERVES = "gateway::state::ConnectionState"

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; keepalive_requests 1000000;
  server {{ listen 127.0.0.1:{upstream}{http2}; location / {{ return 200 "hello"; }} }}
}}
"""

CONFIG = """
listeners: [{{address: "127.0.0.1:{port}"}}]
admin: {{address: "127.0.0.1:{admin}"}}
workers: 1
store: {{url: "sqlite:authgate.db"}}
auth: {{issuer: https://login.example.com, audience: bench, access_token_ttl: 1d}}
upstreams: {{backend: {{servers: [{{url: "{scheme}://127.0.0.1:{upstream}"}}]}}}}
routes: [{{path: /api/**, upstream: backend{limit}}}]
log: {{level: error, access: {log}}}
trusted_proxies: [127.0.0.1/32]
{traces}
{pages}
{issuers}
"""
TRACES = {
    "off": "telemetry: {traceparent: false}",
    # What builds before there were traces take, too.
    "on": "",
    # Nothing listens there, and nothing is sent.
    "sampled-out": "telemetry: {otlp: {endpoint: 'http://127.0.0.1:9', protocol: grpc, sample: 0}}",
}
PAGES = "public_url: 'http://127.0.0.1:{port}'\npages: {{name: Bench}}"
TOLD = {"X-Forwarded-Method": "GET", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example.com", "X-Forwarded-Uri": "/api/x"}
LIMIT = ", rate_limit: {requests: 10000000, per: 1s, by: user}"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.2)
    sys.exit(f"nothing listens on {port}")


def account(connection, name):
    """Makes an account. Returns the header of its access token."""
    body = json.dumps({"username": name, "password": "a long enough password"})
    connection.request("POST", "/auth/register", body, {"Content-Type": "application/json"})
    return {"Authorization": f"Bearer {json.loads(connection.getresponse().read())['access_token']}"}


def person(connection, name):
    """Makes an account by the page. Returns the header of its session's cookie."""
    connection.request("GET", "/auth/ui/register")
    page = connection.getresponse()
    visitor, text = page.headers["Set-Cookie"].split(";")[0], page.read().decode()
    token = re.search(r'name="form_token" value="([^"]+)"', text)[1]
    body = urllib.parse.urlencode({"form_token": token, "username": name, "password": "a long enough password"})
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": visitor}
    connection.request("POST", "/auth/ui/register", body, headers)
    response = connection.getresponse()
    response.read()
    cookies = (value.split(";")[0] for value in response.headers.get_all("Set-Cookie"))
    return {"Cookie": next(cookie for cookie in cookies if cookie.startswith("__Host-authgate="))}


def program(connection, name):
    """Makes an account and a key of it. Returns the header of the key."""
    body, headers = b'{"name": "bench"}', {**account(connection, name), "Content-Type": "application/json"}
    connection.request("POST", "/auth/keys", body, headers)
    return {"Authorization": f"Bearer {json.loads(connection.getresponse().read())['key']}"}


def count(binary, folder, ports, requests, identify, target, told):
    output = folder / f"callgrind.{requests}"
    tool = ["--tool=callgrind", f"--callgrind-out-file={output}", "--separate-threads=yes", *CACHES]
    command = ["valgrind", *tool, binary]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    gateway = subprocess.Popen([*command, "serve", "--config", folder / "gateway.yaml"], **quiet)
    try:
        wait_for(ports["port"])
        connection = http.client.HTTPConnection("127.0.0.1", ports["port"], timeout=120)
        credential = identify(connection, f"user{requests}")
        for _ in range(requests):
            connection.request("GET", target, headers={**credential, **told})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
        connection.close()
    finally:
        gateway.terminate()
        gateway.wait()
    threads = [text for text in (file.read_text() for file in folder.glob(f"{output.name}-*")) if SERVES in text]
    if len(threads) != 1:
        sys.exit(f"{len(threads)} threads have run {SERVES}; are the symbols there?")
    # Instructions, reads and writes of data, and the lines of code that were missed.
    counts = re.search(r"^(?:summary|totals): (\d+) \d+ \d+ (\d+)", threads[0], re.MULTILINE)
    return [int(count) for count in counts.groups()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", action="store_true")
    parser.add_argument("--traces", choices=TRACES, default="on")
    parser.add_argument("--limited", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--h2c", action="store_true")
    caller = parser.add_mutually_exclusive_group()
    caller.add_argument("--cookie", action="store_true")
    caller.add_argument("--key", action="store_true")
    caller.add_argument("--foreign", action="store_true")
    built = pathlib.Path(__file__).resolve().parents[2] / "target/dist/authgate"
    parser.add_argument("binary", type=pathlib.Path, nargs="?", default=built)
    options = parser.parse_args()
    target, told = ("/auth/verify", TOLD) if options.check else ("/api/x", {})
    identify = person if options.cookie else program if options.key else account
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        other = issuer.Issuer(folder) if options.foreign else None
        if other:
            identify = lambda _, name: {"Authorization": f"Bearer {other.token(name, 'bench')}"}
        ports = {"port": free_port(), "admin": free_port(), "upstream": free_port()}
        (folder / "gateway.yaml").write_text(CONFIG.format(
            log=str(options.log).lower(),
            scheme="h2c" if options.h2c else "http",
            traces=TRACES[options.traces],
            limit=LIMIT if options.limited else "",
            issuers=other.config("bench") if other else "",
            pages=PAGES.format(**ports) if options.cookie else "",
            **ports,
        ))
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, http2=" http2" if options.h2c else "", **ports))
        nginx = subprocess.Popen(["nginx", "-c", folder / "nginx.conf"])
        try:
            wait_for(ports["upstream"])
            short, long = (count(options.binary, folder, ports, requests, identify, target, told) for requests in (SHORT, LONG))
        finally:
            nginx.terminate()
            nginx.wait()
    executed, missed = ((more - less) / (LONG - SHORT) for less, more in zip(short, long))
    print(f"{executed:,.0f} instructions and {missed:,.0f} missed lines of code a request")


if __name__ == "__main__":
    main()
