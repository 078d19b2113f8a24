#!/usr/bin/env python3
"""Measures what a feature of routes costs beside a plain forwarded request: a rate limit, a browser's cookie, an API key or another issuer's
token (RS256) in place of a bearer token of the gateway, and a check for another proxy; and how long it takes to take up a config of many routes.

One worker, one backend, wrk with 64 connections in many short rounds in turns: each round is compared with the plain one next to it, and
the median of these pairs counts, so that what changes slowly on the machine changes both. CPU time a request is what authgate used, from
/proc, over the requests that were answered. A check must cost at most 0.6 of a forwarded request, one with another credential at most
1.05, and a rate limit at most 0.15 us more; behind each stands the range in which the median lies with 95 percent. A reload is timed from SIGHUP
until the metrics count it, which is when every worker serves by it; it must take at most a second.

    benches/gateway/features.py [--rounds N] [--seconds N] [--binary FILE]
"""

import argparse
import json
import math
import os
import pathlib
import re
import signal
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import issuer
import protocols
import run

PORT, BACKEND, ADMIN = protocols.PLAIN["authgate"], protocols.BACKEND, protocols.ADMIN
ASKED = [f"X-Forwarded-{name}: {value}" for name, value in
         {"Method": "GET", "Proto": "https", "Host": "shop.example.com", "Uri": "/api/orders/1"}.items()]
# The most that a rate limit may cost, in microseconds.
LIMITED = 0.15
# Of the config that is taken up, and the most seconds that it may take.
ROUTES, RELOAD = 10_000, 1.0
PLAIN = "forwarded"
ROWS = {
    PLAIN: ("/api/orders/1", []),
    "forwarded, with a cookie": ("/api/orders/1", []),
    "forwarded, with an API key": ("/api/orders/1", []),
    "forwarded, another issuer's": ("/api/orders/1", []),
    "forwarded, one rate limit": ("/limited/orders/1", []),
    "asked at /auth/verify": ("/auth/verify", ASKED),
}


class Stay(urllib.request.HTTPRedirectHandler):
    """Takes a response that leads on as it is."""

    def http_error_303(self, request, response, code, message, headers):
        return response


class Load(protocols.Load):
    def start(self):
        self.nginx("backend", f"""server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{
            default_type application/json; return 200 '{{"id":1,"state":"shipped"}}'; }} }}""", "multi_accept on;")
        other = issuer.Issuer(self.folder)
        self.config = self.folder / "authgate.yaml"
        self.config.write_text(f"""
listeners: [{{address: "127.0.0.1:{PORT}"}}]
admin: {{address: "127.0.0.1:{ADMIN}"}}
workers: 1
log: {{access: false, level: warn}}
trusted_proxies: [127.0.0.1/32]
store: {{url: "sqlite:authgate.db"}}
public_url: http://127.0.0.1:{PORT}
pages: {{name: Bench}}
auth: {{issuer: bench, audience: bench, access_token_ttl: 1d, signing: {{algorithm: HS256, secret: {run.SECRET}}}}}
{other.config("bench")}
upstreams: {{backend: {{servers: [{{url: "http://127.0.0.1:{BACKEND}"}}], idle_connections: 1024}}}}
routes:
  - {{path: /api/**, upstream: backend}}
  - {{path: /limited/**, upstream: backend, rate_limit: {{requests: 10000000, per: 1s, by: user}}}}
""")
        self.pids["authgate"] = self.spawn("authgate", [str(self.binary), "serve", "--config", str(self.config)]).pid
        run.wait_for(BACKEND, "backend")
        run.wait_for(PORT, "authgate")
        token = self.account(PORT, "bench-user")
        self.bearer = f"Authorization: Bearer {token}"
        self.key = f"Authorization: Bearer {self.make_key(token)}"
        self.cookie = f"Cookie: {self.sign_in('bench-person')}"
        self.foreign = f"Authorization: Bearer {other.token('bench-user', 'bench')}"

    @staticmethod
    def make_key(token):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        wanted = urllib.request.Request(f"http://127.0.0.1:{PORT}/auth/keys", b'{"name": "bench"}', headers)
        with urllib.request.urlopen(wanted, timeout=5) as made:
            return json.loads(made.read())["key"]

    @staticmethod
    def sign_in(name):
        """Makes an account by the page. Returns the cookie of its session."""
        page, pages = f"http://127.0.0.1:{PORT}/auth/ui/register", urllib.request.build_opener(Stay)
        with pages.open(page, timeout=5) as shown:
            visitor = shown.headers["Set-Cookie"].split(";")[0]
            token = re.search(r'name="form_token" value="([^"]+)"', shown.read().decode())[1]
        form = urllib.parse.urlencode({"form_token": token, "username": name, "password": "a long enough password"})
        sent = urllib.request.Request(page, form.encode(), {"Cookie": visitor})
        with pages.open(sent, timeout=30) as signed_in:
            cookies = [value.split(";")[0] for value in signed_in.headers.get_all("Set-Cookie")]
        return next(cookie for cookie in cookies if cookie.startswith("__Host-authgate="))

    def row(self, name, path, headers):
        bearer = self.bearer
        try:
            others = {"cookie": self.cookie, "API key": self.key, "another issuer": self.foreign}
            self.bearer = next((other for word, other in others.items() if word in name), bearer)
            return self.by_wrk("authgate", f"http://127.0.0.1:{PORT}{path}", 64, headers)
        finally:
            self.bearer = bearer

    def reloads(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=5) as metrics:
            text = metrics.read().decode()
        counts = {result: re.search(rf'^authgate_config_reloads_total{{result="{result}"}} (\d+)', text, re.MULTILINE)
                  for result in ("ok", "failed")}
        if int(counts["failed"][1]):
            raise SystemExit("a config was refused")
        return int(counts["ok"][1])

    def reload(self, number):
        """Seconds that it takes to take up another config of many routes."""
        before, text = self.reloads(), self.config.read_text().split("  - {path: /many/")[0]
        many = (f"  - {{path: /many/{number}/{route}/**, upstream: backend}}\n" for route in range(ROUTES))
        self.config.write_text(text + "".join(many))
        begun = time.monotonic()
        os.kill(self.pids["authgate"], signal.SIGHUP)
        while self.reloads() == before:
            if time.monotonic() > begun + 30:
                raise SystemExit("the config was not taken up")
            time.sleep(0.005)
        return time.monotonic() - begun


def of_the_median(values):
    """The range in which the median of what the values are drawn from lies with 95 percent, by their order."""
    ordered = sorted(values)
    reach = 0.98 * math.sqrt(len(ordered))
    middle = (len(ordered) - 1) / 2
    return ordered[max(0, math.floor(middle - reach))], ordered[min(len(ordered) - 1, math.ceil(middle + reach))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--only", default="", help="of the rows that have it in their names, and of the plain one")
    parser.add_argument("--binary", type=pathlib.Path, default=run.ROOT / "target/dist/authgate")
    options = parser.parse_args()
    run.install()
    run.raise_open_files(8_192)
    rows = {name: row for name, row in ROWS.items() if name == PLAIN or options.only in name}
    # Beside each, in turns before and after it.
    plain = {name: [] for name in rows}
    measured = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as folder:
        load = Load(pathlib.Path(folder), options.binary, options.seconds)
        try:
            load.start()
            load.row(PLAIN, *ROWS[PLAIN])
            for turn in range(options.rounds):
                for name, row in rows.items():
                    pair = [(plain[name], PLAIN, ROWS[PLAIN]), (measured[name], name, row)]
                    for kept, which, what in pair if turn % 2 else reversed(pair):
                        kept.append(load.row(which, *what)["cpu_us"])
            reloads = [load.reload(number) for number in range(7)]
        finally:
            load.stop()
    is_over = False
    for name, rounds in measured.items():
        print(f"{name:28} {statistics.median(rounds):6.2f} us ({min(rounds):.2f}-{max(rounds):.2f}), the plain one beside it "
              f"{statistics.median(plain[name]):6.2f} us")
    for name, rounds in measured.items():
        if "rate limit" in name:
            pairs, unit, bound = [one - other for one, other in zip(rounds, plain[name])], " us more", LIMITED
        else:
            bound = 0.6 if "asked" in name else 1.05
            pairs, unit = [one / other for one, other in zip(rounds, plain[name])], " of the plain one"
        found, (low, high) = statistics.median(pairs), of_the_median(pairs)
        if name == PLAIN:
            print(f"     {name}: beside itself {found:.3f} ({low:.3f}-{high:.3f})")
            continue
        is_over |= found > bound
        print(f"{'ok  ' if found <= bound else 'OVER'} {name}: {found:.3f}{unit} ({low:.3f}-{high:.3f}; at most {bound})")
    took = statistics.median(reloads)
    print(f"{'ok  ' if took <= RELOAD else 'OVER'} a config of {ROUTES} routes is taken up in {took:.2f} s "
          f"({min(reloads):.2f}-{max(reloads):.2f}; at most {RELOAD:.2f})")
    sys.exit(is_over or took > RELOAD)


if __name__ == "__main__":
    main()
