#!/usr/bin/env python3
"""Measures long bodies and connections that are held: authgate beside nginx, one worker each, before one backend.

Bodies of 1 GiB go down and up by HTTP/1.1, TLS and HTTP/2 (curl), in interleaved rounds: CPU time of the proxy's process, and how
much larger than before it was at its largest. Then what is held of 5,000 idle connections of TLS, 500 WebSockets and 500 streams
of HTTP/2 whose responses do not come: memory of authgate, of each.

    benches/gateway/held.py [--rounds N] [--binary FILE] [--only bodies|held]
"""

import argparse
import multiprocessing
import pathlib
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import protocols
import run

BACKEND, SINK, ADMIN = 27220, 27221, 27222
PORTS = {"nginx": {"http": 27201, "https": 27202}, "authgate": {"http": 27203, "https": 27204}}
LENGTH = 1 << 30
IDLE, TUNNELS, STREAMS = 5_000, 500, 500
# A connection at rest gives up its state after three seconds.
REST = 6


def sink(connection):
    """Takes bodies; switches to a tunnel, or never answers, where it is asked to."""
    received = b""
    while part := connection.recv(1 << 20):
        received += part
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            continue
        if b"/never" in head.split(b" ", 2)[1]:
            while connection.recv(1 << 16):
                pass
            return
        if b"upgrade: websocket" in head.lower():
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
            while connection.recv(1 << 16):
                pass
            return
        left = int(re.search(rb"content-length: (\d+)", head.lower()).group(1)) - len(rest)
        while left > 0:
            left -= len(connection.recv(min(left, 1 << 20)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        received = b""


def run_sink():
    import threading
    listener = socket.create_server(("127.0.0.1", SINK), backlog=4096)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=sink, args=(connection,), daemon=True).start()


class Held(run.Bench):
    def __init__(self, folder, binary):
        self.folder, self.binary = folder, binary
        self.processes, self.pids = [], {}

    def start(self):
        folder = self.folder
        certificate, key = protocols.new_certificate(folder)
        with open(folder / "big", "wb") as big:
            big.truncate(LENGTH)
        self.nginx("backend", f"sendfile on; server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{ root {folder}; }} }}")
        proxy = f"""location /api/ {{ proxy_pass http://127.0.0.1:{BACKEND}/; }}
            location /sink/ {{ proxy_pass http://127.0.0.1:{SINK}; proxy_request_buffering off; client_max_body_size 0; }}"""
        self.nginx("nginx", f"""proxy_http_version 1.1; proxy_max_temp_file_size 0; ssl_protocols TLSv1.2 TLSv1.3;
            ssl_certificate {certificate}; ssl_certificate_key {key};
            server {{ listen 127.0.0.1:{PORTS['nginx']['http']}; {proxy} }}
            server {{ listen 127.0.0.1:{PORTS['nginx']['https']} ssl http2; {proxy} }}""")
        config = folder / "authgate.yaml"
        config.write_text(f"""
listeners:
  - {{address: "127.0.0.1:{PORTS['authgate']['http']}"}}
  - {{address: "127.0.0.1:{PORTS['authgate']['https']}", tls: {{certificate: cert.pem, key: key.pem}}}}
admin: {{address: "127.0.0.1:{ADMIN}"}}
workers: 1
store: {{url: "sqlite:authgate.db"}}
auth: {{issuer: bench, audience: bench, access_token_ttl: 1d, signing: {{algorithm: HS256, secret: {run.SECRET}}}}}
limits: {{connections_per_address: 10000}}
upstreams:
  backend: {{servers: [{{url: "http://127.0.0.1:{BACKEND}"}}]}}
  sink: {{servers: [{{url: "http://127.0.0.1:{SINK}"}}], max_connections: 2000}}
routes:
  - {{path: /api/**, upstream: backend, rewrite: {{strip_prefix: /api}}}}
  - {{path: /sink/**, upstream: sink, body: 2GiB, timeout: 10m}}
log: {{access: false, level: warn}}
""")
        self.sink = multiprocessing.Process(target=run_sink, daemon=True)
        self.sink.start()
        self.pids["authgate"] = self.spawn("authgate", [str(self.binary), "serve", "--config", str(config)]).pid
        for port in (BACKEND, SINK, *PORTS["nginx"].values(), *PORTS["authgate"].values()):
            run.wait_for(port, port)
        self.token = self.account(PORTS["authgate"]["http"], "bench-user")

    def stop(self):
        self.sink.kill()
        super().stop()

    def memory(self, name, what="VmRSS"):
        status = pathlib.Path(f"/proc/{self.pids[name]}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status).group(1)) << 10

    def body(self, name, kind, way):
        port = PORTS[name]["http" if kind == "http/1.1" else "https"]
        scheme = "http" if kind == "http/1.1" else "https"
        options = ["--http2"] if kind == "http/2, tls" else ["--http1.1"]
        path = "/api/big" if way == "down" else "/sink/up"
        if way == "up":
            options += ["-T", str(self.folder / "big"), "-H", "Expect:"]
        pathlib.Path(f"/proc/{self.pids[name]}/clear_refs").write_text("5")
        before, memory = self.cpu(name), self.memory(name)
        done = subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{size_upload}", *options,
                               "-H", f"Authorization: Bearer {self.token}", f"{scheme}://127.0.0.1:{port}{path}"],
                              capture_output=True, text=True)
        status, down, up = done.stdout.split()
        assert status == "200" and LENGTH in (int(down), int(up)), f"{name}, {kind}, {way}: {done}"
        return {"cpu": sum(now - then for now, then in zip(self.cpu(name), before)), "grown": self.memory(name, "VmHWM") - memory}

    def bodies(self, rounds):
        for kind in ("http/1.1", "https/1.1", "http/2, tls"):
            for way in ("down", "up"):
                kept = {"nginx": [], "authgate": []}
                for turn in range(rounds):
                    for name in list(kept)[::1 if turn % 2 else -1]:
                        kept[name].append(self.body(name, kind, way))
                middle = {name: statistics.median(one["cpu"] for one in found) for name, found in kept.items()}
                for name, found in kept.items():
                    spread = [one["cpu"] for one in found]
                    print(f"1 GiB {way:4} by {kind:11} {name:9} {middle[name]:.2f} s of CPU ({min(spread):.2f}-{max(spread):.2f}), "
                          f"grown by {max(one['grown'] for one in found) >> 10} KiB", flush=True)
                print(f"  throughput by CPU time, of nginx's: {middle['nginx'] / middle['authgate']:.2f}", flush=True)

    def held(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = f"GET /api/none HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        address = ("127.0.0.1", PORTS["authgate"]["https"])

        def idle():
            client = context.wrap_socket(socket.create_connection(address))
            client.sendall((request + "\r\n").encode())
            said = client.recv(4096)
            assert said.startswith(b"HTTP/1.1 404"), said
            return client

        def tunnel():
            client = socket.create_connection(("127.0.0.1", PORTS["authgate"]["http"]))
            client.sendall((request.replace("/api/none", "/sink/ws") + "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 101")
            return client

        def settled():
            # Resting connections give up their state, and a registration what it has hashed with.
            time.sleep(REST)
            return self.steady_rss("authgate")

        # A registration's memory goes back in a while, and what it leaves is not theirs.
        time.sleep(30)
        # What is measured later must not get the memory of what went before.
        before = settled()
        load = subprocess.Popen(["h2load", "-n", str(STREAMS), "-c", "5", "-m", "100", "-N", "60", "-H", f"Authorization: Bearer {self.token}",
                                 f"https://localhost:{address[1]}/sink/never"], stdout=subprocess.DEVNULL)
        after = settled()
        active = r'^authgate_upstream_connections\{state="active",upstream="sink"\} (\d+)'
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics").read().decode()
        assert int(re.search(active, metrics, re.MULTILINE).group(1)) == STREAMS
        self.tell("streams of HTTP/2 on 5 connections", STREAMS, after - before)
        kept = []
        for what, opened, count in (("WebSockets", tunnel, TUNNELS), ("idle connections of TLS", idle, IDLE)):
            kept += [opened() for _ in range(100)]
            before = settled()
            kept += [opened() for _ in range(count)]
            self.tell(what, count, settled() - before)
        load.kill()

    def tell(self, what, count, memory):
        print(f"{count} {what}: {memory / count / 1024:.1f} KiB each, {memory >> 20} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary", type=pathlib.Path, default=run.ROOT / "target/dist/authgate")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    run.install()
    run.raise_open_files(20_000)
    with tempfile.TemporaryDirectory() as folder:
        held = Held(pathlib.Path(folder), options.binary.resolve())
        try:
            held.start()
            if options.only != "held":
                held.bodies(options.rounds)
            if options.only != "bodies":
                held.held()
        finally:
            held.stop()


if __name__ == "__main__":
    sys.exit(main())
