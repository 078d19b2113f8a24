#!/usr/bin/env python3
"""Measures TLS and HTTP/2 on both sides: authgate beside nginx and HAProxy, one worker each, before one backend.

Installs what is missing by apt, starts everything on loopback, and loads it in interleaved rounds with wrk (HTTP/1.1) and
h2load (HTTP/2). CPU time a request is what the proxy's process used, from /proc, over the requests that were answered.
authgate checks a bearer token at each request, the others check nothing. Prints a table of medians with their spread, and whether
authgate keeps within its bounds: 1.15 of the better of the others, handshakes in 1/1.3 of nginx's time, and with an upstream by h2c 0.95 of
nginx's plain proxy_pass at 64 clients and 0.75 at 512. Ends with 1 if it does not.

What a proxy pays for a response by h2c depends on how the server writes it. HAProxy writes all responses that are ready at once, as Node and
nghttpd do; nginx writes the head and the body of each apart, and what is in two segments is received twice. Both are measured; at 64
clients the bound is for HAProxy.

    benches/gateway/protocols.py [--rounds N] [--seconds N] [--binary FILE] [--only TEXT]   TEXT: of the rows that have it in their names

newest.py fetches a newer nginx and HAProxy than the machine's.
"""

import argparse
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import run

PORTS = {"nginx": 27101, "haproxy": 27102, "authgate": 27103}
PLAIN = {"nginx": 27111, "authgate": 27113}
GRPC = {"nginx": 27131, "haproxy": 27132, "authgate": 27103}
BACKEND, BACKEND_H2C, BACKEND_GRPC, ADMIN = 27120, 27121, 27123, 27122
HAPROXY, HAPROXY_H2C = 27124, 27125
PATH = "/api/orders/1"
# New connections a second, below what any of them can take.
HANDSHAKES = 1_500

# What is measured: its name, who takes part, and how it is loaded.
ROWS = [
    ("https, kept alive, 64 connections", PORTS, lambda load, name: load.wrk(name, 64)),
    ("https, a full handshake a request", PORTS, lambda load, name: load.handshakes(name)),
    ("https, a resumed handshake a request", PORTS, lambda load, name: load.wrk(name, 32, "Connection: close")),
    ("HTTP/2 by TLS, 10 connections of 10 streams", PORTS, lambda load, name: load.h2load(name, 10, 10)),
    ("HTTP/2 by TLS, 4 connections of 100 streams", PORTS, lambda load, name: load.h2load(name, 4, 100)),
]
ROWS.append(("gRPC unary, 10 connections of 10 streams", GRPC, lambda load, name: load.grpc(name, 10, 10)))
# What is before the server, and the path by which it asks it.
BY_HTTP1, BY_H2C = "authgate", "authgate, h2c"
UPSTREAMS = {"HAProxy": {"nginx": "/haproxy", BY_HTTP1: "/haproxy", BY_H2C: "/h2/haproxy"},
             "nginx": {"nginx": "/api", BY_HTTP1: "/api", BY_H2C: "/h2/api"}}
for clients in (1, 16, 64, 512):
    for server, paths in UPSTREAMS.items():
        ROWS.append((f"upstream {server}, {clients} clients", paths,
                     lambda load, name, c=clients, paths=paths: load.plain(name.split(",")[0], c, paths[name])))
# At most so much of nginx's with an upstream by h2c.
H2C_BOUNDS = {"upstream HAProxy, 64 clients": 0.95, "upstream HAProxy, 512 clients": 0.75, "upstream nginx, 512 clients": 0.75}


def new_certificate(folder):
    """Makes a certificate for this machine, and returns where it and its key lie."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


class Load(run.Bench):
    def __init__(self, folder, binary, seconds):
        self.folder, self.binary, self.seconds = folder, binary, seconds
        self.processes, self.pids = [], {}

    def start(self):
        folder = self.folder
        certificate, key = new_certificate(folder)
        both = folder / "both.pem"
        both.write_text(certificate.read_text() + key.read_text())
        answer = """location / { default_type application/json; return 200 '{"id":1,"state":"shipped"}'; }"""
        self.haproxy_backend()
        self.nginx("backend", f"""http2_max_concurrent_streams 1000;
            server {{ listen 127.0.0.1:{BACKEND} backlog=4096; {answer} }}
            server {{ listen 127.0.0.1:{BACKEND_H2C} http2 backlog=4096; {answer} }}
            server {{ listen 127.0.0.1:{BACKEND_GRPC} http2 backlog=4096; location / {{
              default_type application/grpc; add_trailer grpc-status 0 always; return 200 "message of a server"; }} }}""", "multi_accept on;")
        proxy = """location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; }"""
        self.nginx("nginx", f"""
            upstream b {{ server 127.0.0.1:{BACKEND}; keepalive 1024; keepalive_requests 100000000; }}
            upstream g {{ server 127.0.0.1:{BACKEND_GRPC}; keepalive 1024; keepalive_requests 100000000; }}
            server {{ listen 127.0.0.1:{GRPC['nginx']} ssl http2 backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {key};
              ssl_protocols TLSv1.2 TLSv1.3; location / {{ grpc_pass grpc://g; }} }}
            server {{ listen 127.0.0.1:{PORTS['nginx']} ssl http2 backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {key};
              ssl_protocols TLSv1.2 TLSv1.3; {proxy} }}
            upstream h {{ server 127.0.0.1:{HAPROXY}; keepalive 1024; keepalive_requests 100000000; }}
            server {{ listen 127.0.0.1:{PLAIN['nginx']} backlog=4096; {proxy} {proxy.replace("/ {", "/haproxy/ {").replace("//b", "//h")} }}""")
        self.haproxy("haproxy", f"127.0.0.1:{PORTS['haproxy']} ssl crt {both} alpn h2,http/1.1", BACKEND)
        self.haproxy("haproxy-grpc", f"127.0.0.1:{GRPC['haproxy']} ssl crt {both} alpn h2", f"{BACKEND_GRPC} proto h2")
        config = folder / "authgate.yaml"
        config.write_text(f"""
listeners:
  - {{address: "127.0.0.1:{PORTS['authgate']}", tls: {{certificate: cert.pem, key: key.pem}}}}
  - {{address: "127.0.0.1:{PLAIN['authgate']}"}}
admin: {{address: "127.0.0.1:{ADMIN}"}}
workers: 1
store: {{url: "sqlite:authgate.db"}}
auth: {{issuer: bench, audience: bench, access_token_ttl: 1d, signing: {{algorithm: HS256, secret: {run.SECRET}}}}}
limits: {{http2: {{streams: 200}}}}
upstreams:
  backend: {{servers: [{{url: "http://127.0.0.1:{BACKEND}"}}], idle_connections: 1024}}
  h2c: {{servers: [{{url: "h2c://127.0.0.1:{BACKEND_H2C}"}}]}}
  haproxy: {{servers: [{{url: "http://127.0.0.1:{HAPROXY}"}}], idle_connections: 1024}}
  haproxy-h2c: {{servers: [{{url: "h2c://127.0.0.1:{HAPROXY_H2C}"}}]}}
  grpc: {{servers: [{{url: "h2c://127.0.0.1:{BACKEND_GRPC}"}}]}}
routes:
  - {{path: /api/**, upstream: backend}}
  - {{path: /bench.Service/**, upstream: grpc}}
  - {{path: /h2/api/**, upstream: h2c}}
  - {{path: /haproxy/**, upstream: haproxy}}
  - {{path: /h2/haproxy/**, upstream: haproxy-h2c}}
log: {{access: false, level: warn}}
""")
        self.pids["authgate"] = self.spawn("authgate", [str(self.binary), "serve", "--config", str(config)]).pid
        for name, port in [("backend", BACKEND), ("haproxy-backend", HAPROXY), *PORTS.items(), *PLAIN.items(), *GRPC.items()]:
            run.wait_for(port, name)
        self.bearer = f"Authorization: Bearer {self.account(PLAIN['authgate'], 'bench-user')}"

    def haproxy_backend(self):
        """Starts HAProxy as a server that responds by itself."""
        config = self.folder / "haproxy-backend.cfg"
        config.write_text(f"""
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout client 75s
frontend f
    bind 127.0.0.1:{HAPROXY} backlog 4096
    bind 127.0.0.1:{HAPROXY_H2C} backlog 4096 proto h2
    http-request return status 200 content-type application/json string '{{"id":1,"state":"shipped"}}'
""")
        self.spawn("haproxy-backend", ["haproxy", "-f", str(config)])

    def measured(self, name, command, requests):
        before = self.cpu(name)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        user, kernel = (now - then for now, then in zip(self.cpu(name), before))
        count = requests(done.stdout)
        return {"cpu_us": (user + kernel) * 1e6 / count, "user_us": user * 1e6 / count, "kernel_us": kernel * 1e6 / count}

    def wrk(self, name, connections, *headers):
        return self.by_wrk(name, f"https://127.0.0.1:{PORTS[name]}{PATH}", connections, headers)

    def plain(self, name, connections, prefix):
        return self.by_wrk(name, f"http://127.0.0.1:{PLAIN[name]}{prefix}/orders/1", connections, ())

    def by_wrk(self, name, url, connections, headers):
        def requests(text):
            assert "Non-2xx" not in text, f"{name}: {text}"
            return int(re.search(r"(\d+) requests in", text).group(1))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{self.seconds}s"]
        for header in (self.bearer, *headers):
            command += ["-H", header]
        return self.measured(name, [*command, url], requests)

    def grpc(self, name, connections, streams):
        message = self.folder / "message"
        message.write_bytes(b"\0\0\0\0\x20" + b"m" * 32)
        process = "haproxy-grpc" if name == "haproxy" else name
        return self.by_h2load(process, "-D", str(self.seconds), "-c", str(connections), "-m", str(streams), "-d", str(message),
                              "-H", "content-type: application/grpc", "-H", "te: trailers",
                              url=f"https://127.0.0.1:{GRPC[name]}/bench.Service/Unary")

    def h2load(self, name, connections, streams):
        return self.by_h2load(name, "-D", str(self.seconds), "-c", str(connections), "-m", str(streams))

    # wrk keeps tickets; h2load does not.
    def handshakes(self, name):
        count = str(self.seconds * HANDSHAKES)
        return self.by_h2load(name, "--h1", "-n", count, "-c", count, "-r", str(HANDSHAKES // 20), "--rate-period", "50ms")

    def by_h2load(self, name, *options, url=None):
        def requests(text):
            good, failed = re.search(r"(\d+) succeeded, (\d+) failed", text).groups()
            # nginx fails a gRPC call or two of each connection.
            allowed = 0 if name == "authgate" else int(good) // 1_000
            assert int(failed) <= allowed, f"{name}: {text}"
            return int(good)
        return self.measured(name, ["h2load", *options, "-H", self.bearer, url or f"https://127.0.0.1:{PORTS[name]}{PATH}"], requests)


def verdicts(medians):
    """What was promised, as far as it was measured: a text, the value, the most that it may be."""
    for row, names, _ in ROWS:
        found = {name: medians[row, name] for name in names if (row, name) in medians}
        if BY_HTTP1 not in found:
            continue
        ours = found.pop(BY_HTTP1)
        if "full handshake" in row and "nginx" in found:
            yield f"{row}, of nginx's", ours / found["nginx"], 1 / 1.3
        elif row.startswith("upstream"):
            if row in H2C_BOUNDS and BY_H2C in found and "nginx" in found:
                yield f"{row}, by h2c of nginx's by HTTP/1.1", found[BY_H2C] / found["nginx"], H2C_BOUNDS[row]
        elif found:
            yield f"{row}, of the better one's", ours / min(found.values()), 1.15



def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--binary", type=pathlib.Path, default=run.ROOT / "target/dist/authgate")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row[0]]
    run.install()
    if not shutil.which("h2load"):
        subprocess.run(["apt-get", "install", "-y", "nghttp2-client"], check=True, stdout=subprocess.DEVNULL)
    run.raise_open_files(9000)
    built = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
    openssl = re.search(r"running with OpenSSL ([\d.]+)", built) or re.search(r"built with OpenSSL ([\d.]+)", built)
    print(f"nginx {run.version('nginx', '-v')} HAProxy {run.version('haproxy', '-v')} OpenSSL {openssl.group(1) if openssl else 'unknown'}")
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        load = Load(pathlib.Path(folder), options.binary.resolve(), options.seconds)
        try:
            load.start()
            kept = {(row, name): [] for row, names, _ in rows for name in names}
            for row, names, act in rows:
                for name in names:
                    act(load, name)
                for turn in range(options.rounds):
                    order = list(names)
                    for name in order[turn % len(order):] + order[:turn % len(order)]:
                        kept[row, name].append(act(load, name))
                for name in names:
                    rounds = kept[row, name]
                    total = [one["cpu_us"] for one in rounds]
                    medians[row, name] = statistics.median(total)
                    middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
                    print(f"{row:44} {name:13} {middle['cpu_us']:8.2f} us ({min(total):.2f}-{max(total):.2f}), "
                          f"user {middle['user_us']:.2f}, kernel {middle['kernel_us']:.2f}", flush=True)
        finally:
            load.stop()
    over = False
    for text, value, bound in verdicts(medians):
        over |= value > bound
        print(f"{'ok  ' if value <= bound else 'OVER'} {text}: {value:.2f} (at most {bound:.2f})")
    return over


if __name__ == "__main__":
    sys.exit(main())
