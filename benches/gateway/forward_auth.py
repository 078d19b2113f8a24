#!/usr/bin/env python3
"""Measures what a check for another proxy costs: authgate asked by nginx and by Caddy with the configs of deploy/forward-auth, beside
a small Python service that verifies the same tokens, asked by nginx.

One worker, one backend, and h2load with 64 connections at one rate for all, in interleaved rounds: whoever has less to do wakes up more
often for a request, so that at their own speeds they could not be compared. CPU time is what the process that decides used, from /proc,
over the requests that were answered. A check by authgate must cost at most 0.6 of a request that the same proxy forwards to authgate and
authgate to the backend, measured in the same rounds. The Python service (uvicorn, one process) does what such services do for each request: it verifies the token's
signature, issuer, audience and time, and returns the user's name. It knows of no logout.

    target/peers/venv/bin/python benches/gateway/forward_auth.py [--rounds N] [--seconds N] [--binary FILE]
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import protocols
import run

PORT, BACKEND, ADMIN = protocols.PLAIN["authgate"], protocols.BACKEND, protocols.ADMIN
# authgate is told of a request in one of two ways, so one of it stands behind each proxy.
CADDY_PORT, CADDY_ADMIN = 27141, 27142
BY_NGINX, BY_NGINX_PYTHON, BY_CADDY, PYTHON = 27143, 27144, 27145, 27146
# There each of them forwards everything to authgate, which decides and forwards.
NGINX_BEFORE, CADDY_BEFORE = 27147, 27148
BOUND = 0.6
# Requests a second, below what any of them can take.
CONNECTIONS, RATE = 64, 5_120
PYTHON_RATE = 2_560

# What is measured: whose CPU time, and the port that is loaded.
ROWS = {
    "nginx forwards to authgate": ("authgate", NGINX_BEFORE),
    "Caddy forwards to authgate": ("authgate", CADDY_BEFORE),
    "nginx asks authgate": ("authgate", BY_NGINX),
    "Caddy asks authgate": ("authgate-caddy", BY_CADDY),
    "nginx asks a Python service": ("python", BY_NGINX_PYTHON),
}

SERVICE = f'''
import sys, time
from joserfc import jwt
from joserfc.jwk import OctKey
import uvicorn

KEY = OctKey.import_key("{run.SECRET}")

async def check(scope, receive, send):
    if scope["type"] != "http":
        return
    bearer = dict(scope["headers"]).get(b"authorization", b"")
    try:
        claims = jwt.decode(bearer.removeprefix(b"Bearer ").decode(), KEY, algorithms=["HS256"]).claims
        allowed = claims["iss"] == "bench" and claims["aud"] == "bench" and claims["exp"] > time.time()
    except Exception:
        allowed = False
    headers = [(b"content-length", b"0")] + ([(b"x-user-name", claims["name"].encode())] if allowed else [])
    await send({{"type": "http.response.start", "status": 200 if allowed else 401, "headers": headers}})
    await send({{"type": "http.response.body"}})

uvicorn.run(check, host="127.0.0.1", port={PYTHON}, access_log=False, log_level="warning")
'''


class Load(protocols.Load):
    def authgate(self, name, port, admin, headers):
        config = self.folder / f"{name}.yaml"
        config.write_text(f"""
listeners: [{{address: "127.0.0.1:{port}"}}]
admin: {{address: "127.0.0.1:{admin}"}}
workers: 1
log: {{access: false, level: warn}}
trusted_proxies: [127.0.0.1/32]
forward_auth: {{headers: {headers}}}
store: {{url: "sqlite:{name}.db"}}
auth: {{issuer: bench, audience: bench, access_token_ttl: 1d, signing: {{algorithm: HS256, secret: {run.SECRET}}}}}
upstreams: {{backend: {{servers: [{{url: "http://127.0.0.1:{BACKEND}"}}], idle_connections: 1024}}}}
routes: [{{path: /api/**, upstream: backend}}]
""")
        self.pids[name] = self.spawn(name, [str(self.binary), "serve", "--config", str(config)]).pid

    def start(self):
        self.nginx("backend", f"""server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{
            default_type application/json; return 200 '{{"id":1,"state":"shipped"}}'; }} }}""", "multi_accept on;")
        self.authgate("authgate", PORT, ADMIN, "x-original")
        self.authgate("authgate-caddy", CADDY_PORT, CADDY_ADMIN, "x-forwarded")
        self.pids["python"] = self.spawn("python", [sys.executable, "-c", SERVICE]).pid
        deployed = run.ROOT / "deploy/forward-auth"
        for name, port, decides in (("nginx", BY_NGINX, PORT), ("nginx-python", BY_NGINX_PYTHON, PYTHON)):
            text = (deployed / "nginx.conf").read_text()
            text = text.replace("127.0.0.1:8080", f"127.0.0.1:{decides}").replace("127.0.0.1:9000", f"127.0.0.1:{BACKEND}")
            self.nginx(name, text.replace("listen 8000", f"listen 127.0.0.1:{port} backlog=4096"))
        self.nginx("nginx-before", f"""upstream a {{ server 127.0.0.1:{PORT}; keepalive 64; }}
            server {{ listen 127.0.0.1:{NGINX_BEFORE} backlog=4096; location / {{
              proxy_pass http://a; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}""")
        caddy = self.folder / "Caddyfile"
        text = (deployed / "Caddyfile").read_text().replace("http://:8000", f"http://:{BY_CADDY}")
        text += f"""http://:{CADDY_BEFORE} {{
            reverse_proxy 127.0.0.1:{PORT} {{
 transport http {{
 keepalive_idle_conns_per_host 1024
}}
}}
}}
"""
        caddy.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{CADDY_PORT}").replace("127.0.0.1:9000", f"127.0.0.1:{BACKEND}"))
        self.spawn("caddy", ["caddy", "run", "--adapter", "caddyfile", "--config", str(caddy)], env={"HOME": str(self.folder)})
        for port in (BACKEND, PORT, CADDY_PORT, PYTHON, BY_NGINX, BY_NGINX_PYTHON, BY_CADDY, NGINX_BEFORE, CADDY_BEFORE):
            run.wait_for(port, "a server")
        self.bearers = {name: f"Authorization: Bearer {self.account(port, 'bench-user')}"
                        for name, port in (("authgate", PORT), ("authgate-caddy", CADDY_PORT))}

    def row(self, name, port):
        self.bearer = self.bearers.get(name, self.bearers["authgate"])
        rate = PYTHON_RATE if name == "python" else RATE
        return self.by_h2load(name, "--h1", "-D", str(self.seconds), "-c", str(CONNECTIONS), "--rps", str(rate // CONNECTIONS),
                              url=f"http://127.0.0.1:{port}/api/orders/1")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--binary", type=pathlib.Path, default=run.ROOT / "target/dist/authgate")
    options = parser.parse_args()
    run.install()
    if not shutil.which("caddy"):
        subprocess.run(["apt-get", "install", "-y", "caddy"], check=True, stdout=subprocess.DEVNULL)
    run.raise_open_files(8_192)
    print(f"nginx {run.version('nginx', '-v')} Caddy {run.version('caddy', 'version')}")
    measured = {row: [] for row in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        load = Load(pathlib.Path(folder), options.binary.resolve(), options.seconds)
        try:
            load.start()
            for turn in range(options.rounds + 1):
                order = list(ROWS)
                for row in order[turn % len(order):] + order[:turn % len(order)]:
                    rounded = load.row(*ROWS[row])["cpu_us"]
                    # The first round warms up.
                    if turn:
                        measured[row].append(rounded)
        finally:
            load.stop()
    over = False
    for row, rounds in measured.items():
        share = statistics.median(one / other for one, other in zip(rounds, measured["Caddy forwards to authgate" if "Caddy" in row else "nginx forwards to authgate"]))
        is_over = "asks authgate" in row and share > BOUND
        verdict = ("OVER" if is_over else "ok  ") if "asks authgate" in row else "    "
        print(f"{verdict} {row:28} {statistics.median(rounds):7.2f} us ({min(rounds):.2f}-{max(rounds):.2f}), "
              f"{share:.2f} of a forwarded request" + (f" (at most {BOUND})" if "asks authgate" in row else ""))
        over |= is_over
    sys.exit(over)


if __name__ == "__main__":
    main()
