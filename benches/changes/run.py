#!/usr/bin/env python3
"""What a changing gateway costs its clients: reloads and upgrades under load.

  benches/changes/run.py [--reloads N] [--upgrades N] [--routes N] [--binary FILE]

Clients on kept-alive connections, slow uploads, WebSockets and gRPC streams go on while the config is taken up a hundred times and the
binary is upgraded in place ten times. Counted is what fails: any status but 200, a broken tunnel or stream, an upload that lacks a byte. Each
config writes its number into requests and responses: a response with another number than its request was judged by two configs. Then a
config of 10,000 routes is taken up, and the time of requests beside that is compared with calm ones.

A kept-alive connection may be closed between two requests (RFC 9112, section 9.3.1): a client that finds it closed before a byte of
the response connects again, and that is counted, not a failure. Needs Python's grpcio and websockets, and `cargo build --release`,
which ./run bench-changes sees to. Ends with 1 if anything failed.
"""

import argparse
import asyncio
import collections
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import grpc
import websockets

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = "a password for the bench"
UPLOAD, PIECES = 256 << 10, 8
# How long a WebSocket or a gRPC stream goes on until it ends and another one begins, in seconds.
STREAM = 5
UPSTREAM = """
import asyncio, sys

async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in head.split("\\r\\n")[1:] if ": " in line)
            length = int(fields.get("content-length", 0))
            if length:
                await reader.readexactly(length)
            body = f"{fields.get('x-config')} {length}".encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()

asyncio.run(main())
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, pathlib.Path(folder)
        self.port, self.admin, self.backend = free_port(), free_port(), free_port()
        self.counts, self.failures, self.times = collections.Counter(), collections.Counter(), []
        self.ends, self.number = False, 0

    def fail(self, what, error):
        self.failures[f"{what}: {type(error).__name__} {error}"[:160]] += 1

    # What runs.

    def write_config(self, routes=0):
        self.number += 1
        rules = f"headers: {{request: {{set: {{X-Config: \"{self.number}\"}}}}, response: {{set: {{X-Config: \"{self.number}\"}}}}}}"
        more = "".join(f"  - {{path: /more/{number}/**, roles: {{any: [nobody]}}, upstream: backend}}\n" for number in range(routes))
        text = f"""listeners: [{{address: "127.0.0.1:{self.port}", http2: true}}]
admin: {{address: "127.0.0.1:{self.admin}"}}
workers: 2
auth: {{issuer: bench, audience: bench, access_token_ttl: 1h, password: {{argon2: {{memory: 64KiB, iterations: 1}}}}}}
upstreams:
  backend: {{servers: [{{url: "http://127.0.0.1:{self.backend}"}}]}}
  sockets: {{servers: [{{url: "http://127.0.0.1:{self.sockets}"}}]}}
  calls: {{servers: [{{url: "h2c://127.0.0.1:{self.calls}"}}]}}
drain: {{limit: 10m}}
routes:
  - {{path: /api/**, upstream: backend, {rules}}}
  - {{path: /ws/**, upstream: sockets}}
  - {{path: /api.Calls/**, upstream: calls}}
{more}log: {{level: warn, access: false}}
"""
        path = self.folder / "gateway.new"
        path.write_text(text)
        os.replace(path, self.folder / "gateway.yaml")

    def peer(self, name):
        process = subprocess.Popen([sys.executable, ROOT / "tests/peers" / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(process.stdout.readline().split()[1])
        # What it prints is not read.
        subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        return process, port

    def start(self):
        backend = subprocess.Popen([sys.executable, "-c", UPSTREAM, str(self.backend)])
        (sockets, self.sockets), (calls, self.calls) = self.peer("websocket.py"), self.peer("grpc_server.py")
        self.peers = [backend, sockets, calls]
        self.write_config()
        log = open(self.folder / "log", "w")
        command = [self.options.binary, "serve", "--config", "gateway.yaml", "--pid", "pid"]
        self.gateway = subprocess.Popen(command, cwd=self.folder, stderr=log)
        for _ in range(200):
            if (self.folder / "pid").exists():
                break
            time.sleep(0.05)
        add = [self.options.binary, "user", "add", "root", "--role", "admin", "--password-stdin", "--config", "gateway.yaml"]
        subprocess.run(add, cwd=self.folder, check=True, input=PASSWORD, text=True, capture_output=True)
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        body = json.dumps({"username": "root", "password": PASSWORD})
        connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
        self.token = json.loads(connection.getresponse().read())["access_token"]

    def stop(self):
        # Its predecessors may still carry tunnels.
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "cwd") == str(self.folder.resolve()):
                    os.kill(int(entry.name), signal.SIGTERM)
            except OSError:
                pass
        for process in self.peers:
            process.kill()

    # What changes.

    def reload(self):
        begun = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        connection.request("POST", "/api/config/reload", headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        said = response.read()
        if response.status != 200:
            self.fail("reload", RuntimeError(said.decode()))
        return time.perf_counter() - begun

    def upgrade(self):
        done = subprocess.run([self.options.binary, "upgrade", "--pid", "pid"], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            self.fail("upgrade", RuntimeError(done.stderr))

    # Who is there meanwhile.

    async def client(self, upload):
        head = f"Host: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        reader = writer = None
        while not self.ends:
            is_fresh = writer is None
            try:
                if is_fresh:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                begun = time.perf_counter()
                if upload:
                    writer.write(f"POST /api/upload HTTP/1.1\r\n{head}Content-Length: {UPLOAD}\r\n\r\n".encode())
                    for _ in range(PIECES):
                        writer.write(bytes(UPLOAD // PIECES))
                        await writer.drain()
                        await asyncio.sleep(0.05)
                else:
                    writer.write(f"GET /api/x HTTP/1.1\r\n{head}\r\n".encode())
                try:
                    said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    if is_fresh or getattr(error, "partial", b"") or upload:
                        raise
                    self.counts["closed between two requests"] += 1
                    writer = None
                    continue
                fields = dict(line.split(": ", 1) for line in said.split("\r\n")[1:] if ": " in line)
                body = (await reader.readexactly(int(fields["content-length"]))).decode()
                if not said.startswith("http/1.1 200"):
                    raise RuntimeError(said.split("\r\n")[0] + body)
                config, length = body.split()
                if config != fields["x-config"]:
                    raise RuntimeError(f"judged by the configs {config} and {fields['x-config']}")
                if upload and int(length) != UPLOAD:
                    raise RuntimeError(f"{length} bytes of an upload")
                self.counts["uploads" if upload else "requests"] += 1
                if not upload:
                    self.times.append((begun, time.perf_counter() - begun))
                if fields.get("connection") == "close":
                    writer.close()
                    writer = None
                if not upload:
                    await asyncio.sleep(0.005)
            except Exception as error:  # Whatever it is, it is a failure.
                self.fail("upload" if upload else "request", error)
                writer = None
                await asyncio.sleep(0.05)

    async def socket(self):
        uri, headers = f"ws://127.0.0.1:{self.port}/ws/x", {"Authorization": f"Bearer {self.token}"}
        while not self.ends:
            try:
                async with websockets.connect(uri, additional_headers=headers, proxy=None) as connection:
                    await connection.recv()
                    end = time.monotonic() + STREAM
                    while time.monotonic() < end and not self.ends:
                        await connection.send("ping")
                        if await connection.recv() != "ping":
                            raise RuntimeError("another message")
                        self.counts["websocket messages"] += 1
                        await asyncio.sleep(0.05)
            except Exception as error:
                self.fail("websocket", error)
                await asyncio.sleep(0.05)

    async def calls_of(self):
        metadata = (("authorization", f"Bearer {self.token}"),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            echoes = channel.stream_stream("/api.Calls/Echoes")
            unary = channel.unary_unary("/api.Calls/Unary")
            while not self.ends:
                try:
                    stream, end = echoes(metadata=metadata), time.monotonic() + STREAM
                    while time.monotonic() < end and not self.ends:
                        await stream.write(b"ping")
                        if await stream.read() != b"PING":
                            raise RuntimeError("another message")
                        self.counts["gRPC messages"] += 1
                        await asyncio.sleep(0.05)
                    await stream.done_writing()
                    if await stream.read() is not grpc.aio.EOF or await stream.code() != grpc.StatusCode.OK:
                        raise RuntimeError("it did not end well")
                    if await unary(b"ab", metadata=metadata) != b"ba":
                        raise RuntimeError("another response")
                    self.counts["gRPC streams"] += 1
                except Exception as error:
                    self.fail("gRPC", error)
                    await asyncio.sleep(0.05)

    def p99(self, since, until):
        taken = sorted(took for begun, took in self.times if since <= begun < until)
        return taken[int(len(taken) * 0.99)] * 1_000

    async def run(self):
        load = [*(self.client(False) for _ in range(16)), *(self.client(True) for _ in range(4)),
                *(self.socket() for _ in range(4)), *(self.calls_of() for _ in range(4))]
        tasks = [asyncio.create_task(one) for one in load]
        await asyncio.sleep(2)
        begun = time.perf_counter()
        for _ in range(self.options.reloads):
            self.write_config()
            await asyncio.to_thread(self.reload)
            await asyncio.sleep(0.1)
        print(f"{self.options.reloads} reloads in {time.perf_counter() - begun:.1f} s", flush=True)
        begun = time.perf_counter()
        for _ in range(self.options.upgrades):
            await asyncio.to_thread(self.upgrade)
            await asyncio.sleep(1)
        print(f"{self.options.upgrades} upgrades in {time.perf_counter() - begun:.1f} s", flush=True)
        calm, loaded, took = [], [], []
        for _ in range(5):
            since = time.perf_counter()
            await asyncio.sleep(3)
            calm.append(self.p99(since, time.perf_counter()))
            self.write_config(self.options.routes)
            since = time.perf_counter()
            took.append(await asyncio.to_thread(self.reload))
            await asyncio.sleep(max(0.0, 1 - took[-1]))
            loaded.append(self.p99(since, time.perf_counter()))
            self.write_config()
            await asyncio.to_thread(self.reload)
        print(f"reload of {self.options.routes} routes, median of 5: {statistics.median(took):.2f} s (bound 1 s); p99 of requests in the second of it "
              f"{statistics.median(loaded):.1f} ms ({min(loaded):.1f}-{max(loaded):.1f}), calm {statistics.median(calm):.1f} ms ({min(calm):.1f}-{max(calm):.1f}); bound 2 x")
        self.ends = True
        await asyncio.wait(tasks, timeout=STREAM + 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--upgrades", type=int, default=10)
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/authgate")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        try:
            bench.start()
            asyncio.run(bench.run())
        finally:
            bench.stop()
        print(", ".join(f"{count} {what}" for what, count in sorted(bench.counts.items())))
        print(f"failed: {sum(bench.failures.values())}")
        for what, count in bench.failures.most_common(10):
            print(f"  {count} x {what}")
        if bench.failures:
            print((pathlib.Path(folder) / "log").read_text()[-3000:], file=sys.stderr)
        sys.exit(bool(bench.failures))


if __name__ == "__main__":
    main()
