#!/usr/bin/env python3
"""Measures what a feature of routes costs beside a plain forwarded request: a rate limit, and a check for another proxy.

One worker, one backend, wrk with 64 connections in interleaved rounds. CPU time a request is what authgate used, from /proc, over the
requests that were answered. A check must cost at most 0.6 of a forwarded request.

    benches/gateway/features.py [--rounds N] [--seconds N] [--binary FILE]
"""

import argparse
import pathlib
import statistics
import sys
import tempfile

import protocols
import run

PORT, BACKEND, ADMIN = protocols.PLAIN["authgate"], protocols.BACKEND, protocols.ADMIN
ASKED = [f"X-Forwarded-{name}: {value}" for name, value in
         {"Method": "GET", "Proto": "https", "Host": "shop.example.com", "Uri": "/api/orders/1"}.items()]
ROWS = {
    "forwarded": ("/api/orders/1", []),
    "forwarded, one rate limit": ("/limited/orders/1", []),
    "asked at /auth/verify": ("/auth/verify", ASKED),
}


class Load(protocols.Load):
    def start(self):
        self.nginx("backend", f"""server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{
            default_type application/json; return 200 '{{"id":1,"state":"shipped"}}'; }} }}""", "multi_accept on;")
        config = self.folder / "authgate.yaml"
        config.write_text(f"""
listeners: [{{address: "127.0.0.1:{PORT}"}}]
admin: {{address: "127.0.0.1:{ADMIN}"}}
workers: 1
trusted_proxies: [127.0.0.1/32]
store: {{url: "sqlite:authgate.db"}}
auth: {{issuer: bench, audience: bench, access_token_ttl: 1d, signing: {{algorithm: HS256, secret: {run.SECRET}}}}}
upstreams: {{backend: {{servers: [{{url: "http://127.0.0.1:{BACKEND}"}}], idle_connections: 1024}}}}
routes:
  - {{path: /api/**, upstream: backend}}
  - {{path: /limited/**, upstream: backend, rate_limit: {{requests: 10000000, per: 1s, by: user}}}}
log: {{access: false, level: warn}}
""")
        self.pids["authgate"] = self.spawn("authgate", [str(self.binary), "serve", "--config", str(config)]).pid
        run.wait_for(BACKEND, "backend")
        run.wait_for(PORT, "authgate")
        self.bearer = f"Authorization: Bearer {self.account(PORT, 'bench-user')}"

    def row(self, path, headers):
        return self.by_wrk("authgate", f"http://127.0.0.1:{PORT}{path}", 64, headers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--binary", type=pathlib.Path, default=run.ROOT / "target/dist/authgate")
    options = parser.parse_args()
    run.install()
    run.raise_open_files(8_192)
    measured = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        load = Load(pathlib.Path(folder), options.binary, options.seconds)
        try:
            load.start()
            for _ in range(options.rounds):
                for name, (path, headers) in ROWS.items():
                    measured[name].append(load.row(path, headers)["cpu_us"])
        finally:
            load.stop()
    medians = {name: statistics.median(rounds) for name, rounds in measured.items()}
    for name, rounds in measured.items():
        print(f"{name:28} {medians[name]:6.2f} us ({min(rounds):.2f}-{max(rounds):.2f})")
    share = medians["asked at /auth/verify"] / medians["forwarded"]
    print(f"{'ok  ' if share <= 0.6 else 'OVER'} asked / forwarded {share:.2f} (at most 0.60)")
    sys.exit(share > 0.6)


if __name__ == "__main__":
    main()
