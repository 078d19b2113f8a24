#!/usr/bin/env python3
"""How long a logout takes to hold on other gateways.

  benches/revocation/run.py [--rounds N] [--rate R]

Three gateways on one throw-away PostgreSQL, each under a load of protected requests (wrk, if --rate is not
0: as many connections as keep about that rate). A user logs out on the first; the others are asked with the
token until they refuse. Counted from the logout's answer to the first refusal. Needs a release build.
"""

import argparse
import http.client
import importlib.util
import json
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("accounts", HERE.parent / "accounts/run.py")
accounts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(accounts)

CONFIG = """
listeners: [{{address: "127.0.0.1:{port}"}}]
admin: {{address: "127.0.0.1:{admin}"}}
workers: 1
store: {{url: "{store}"}}
auth:
  issuer: https://login.example.com
  audience: bench
  master_key: bench-gateways-share-Hq7vK2xR9mB4wZ8nD5cF
  password: {{argon2: {{memory: 64KiB, iterations: 1}}}}
  throttle: {{registrations: {{requests: 1000000, per: 1s}}, address: {{failures: 1000000, per: 1s}}}}
routes:
  - path: /api/**
    respond: {{json: {{ok: true}}}}
log: {{level: error, access: false}}
"""


class Load(threading.Thread):
    """About `rate` protected requests a second on one connection."""

    def __init__(self, port, token, rate):
        super().__init__(daemon=True)
        self.port, self.token, self.rate, self.sent, self.ending = port, token, rate, 0, False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        begun = time.perf_counter()
        while not self.ending:
            connection.request("GET", "/api/x", headers={"Authorization": f"Bearer {self.token}"})
            connection.getresponse().read()
            self.sent += 1
            wait = begun + self.sent / self.rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)


def call(connection, method, path, token=None, body=None):
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    return response.status, response.read()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--rate", type=int, default=300, help="protected requests a second on each gateway")
    options = parser.parse_args()
    accounts.CONFIG = CONFIG
    with accounts.Cluster() as url, tempfile.TemporaryDirectory() as root:
        gateways = []
        for index in range(3):
            folder = pathlib.Path(root) / str(index)
            folder.mkdir()
            gateways.append(accounts.Gateway(folder, url).__enter__())
        connections = [http.client.HTTPConnection("127.0.0.1", gateway.port) for gateway in gateways]
        register = lambda name: json.loads(
            call(connections[0], "POST", "/auth/register", body={"username": name, "password": accounts.PASSWORD})[1]
        )["access_token"]
        loads = []
        if options.rate:
            token = register("load")
            loads = [Load(gateway.port, token, options.rate) for gateway in gateways]
            [load.start() for load in loads]
        delays = []
        begun = time.perf_counter()
        for index in range(options.rounds):
            token = register(f"user{index}")
            for connection in connections:
                assert call(connection, "GET", "/api/x", token)[0] == 200
            assert call(connections[0], "POST", "/auth/logout", token)[0] == 200
            answered = time.perf_counter()
            assert call(connections[0], "GET", "/api/x", token)[0] == 401, "a success after the logout's answer"
            waiting = connections[1:]
            while waiting:
                refused = [connection for connection in waiting if call(connection, "GET", "/api/x", token)[0] == 401]
                delays += [(time.perf_counter() - answered) * 1000] * len(refused)
                waiting = [connection for connection in waiting if connection not in refused]
        took = time.perf_counter() - begun
        for load in loads:
            load.ending = True
        rates = ", ".join(f"{load.sent / took:.0f}" for load in loads) or "none"
        for gateway in gateways:
            gateway.__exit__()
    print(f"{options.rounds} logouts, three gateways, protected requests a second on each: {rates}")
    print(f"first refusal on another gateway, from the logout's answer: p50 {statistics.median(delays):.2f} ms, "
          f"p99 {percentile(delays, 0.99):.2f} ms, max {max(delays):.2f} ms")


if __name__ == "__main__":
    main()
