#!/usr/bin/env python3
"""What one hostile client costs the others.

  benches/hostile/run.py [--only NAME ...] [--seconds N] [--rounds N] [--binary FILE] [--out FILE]
  benches/hostile/run.py --sessions N [--binary FILE]
  benches/hostile/run.py --logins [--rounds N] [--seconds N] [--binary FILE]

One gateway on SQLite, with a worker a processor. A well-behaved client sends 200 requests a second, first alone and then beside
one attack after the other, each at full speed from one other address. Asked of each: none of the well-behaved requests fails
or gets a response that is not its own; their p99, counted from when each was due, is at most three times that of the
calm before, and twice where the attackers speak HTTP/2 or are slow or show tokens of unknown keys; the lag of the revocation mirror stays under a second; and the gateway's memory grows by less than 64 MiB.
The gateway has half of the processors to itself, as on a machine of its own. Everybody else shares the others: there the
attackers run at the lowest priority and, for root, the backends and the well-behaved client at the highest. What the machine
alone costs is shown in two ways, which are not judged: by two controls in the attackers' place, and by a second client, which
sends the same to the backend itself, past the gateway, at the same time.
Rounds are interleaved; figures are the medians of them, with the least and the greatest p99.

--sessions N fills the store with so many sessions of one account, on SQLite and on PostgreSQL, and ends them all.

--logins counts logins a second, calm and beside wrk on all cores, in interleaved rounds: at least a quarter go on.

Needs wrk, nginx and `cargo build --release`, which ./run bench-hostile sees to.
"""

import argparse
import asyncio
import base64
import http.client
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RATE = 200
PASSWORD = "the password of a bench"
COSTLY = "4@8({[<3691!|70$5+%24@8({[<3691!|70$5+%2"
# The well-behaved client, and this program itself, which speaks for others as a proxy does. Attackers are at 127.0.0.1.
GOOD, PROXY = ("127.0.0.9", 0), ("127.0.0.8", 0)

CONFIG = """
listeners: [{{address: "127.0.0.1:{port}", http2: true}}]
admin: {{address: "127.0.0.1:{admin}"}}
workers: {workers}
trusted_proxies: [127.0.0.8]
store: {{url: "{store}"}}
auth: {{issuer: https://login.example.com, audience: bench, access_token_ttl: 1h, master_key: bench-Hq7vK2xR9mB4wZ8nD5cF-hostile{auth}}}
revocation: {{max_staleness: 2s}}
limits: {{connections_per_address: 1000}}
upstreams:
  backend: {{servers: [{{url: "http://127.0.0.1:{nginx}"}}], idle_timeout: 30s}}
  strange: {{servers: [{{url: "http://127.0.0.1:{upstream}"}}]}}
  slow: {{servers: [{{url: "http://127.0.0.1:{upstream}"}}], max_connections: 64}}
  nameless: {{servers: [{{url: "http://nowhere.invalid:80"}}]}}
routes:
  - {{path: /api/**, upstream: backend}}
  - {{path: /shared/**, upstream: strange}}
  - {{path: /pub/**, auth: none, upstream: strange, body: 1GiB, timeout: 60s}}
  - {{path: /slow/**, auth: none, upstream: slow}}
  - {{path: /nameless/**, auth: none, upstream: nameless}}
issuers:
  - {{name: corp, issuer: https://corp.example.com, jwks: "http://127.0.0.1:{upstream}/keys.json", audiences: [bench]}}
log: {{level: error}}
"""


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 $request_uri; }} }}
}}
"""


# Half of the processors are the gateway's.
CPUS = sorted(os.sched_getaffinity(0))
GATEWAY_CPUS, OTHER_CPUS = set(CPUS[:max(1, len(CPUS) // 2)]), set(CPUS[len(CPUS) // 2:])


def foremost():
    """Puts this process before the attackers, which elsewhere would have processors of their own."""
    try:
        os.nice(-20)
    except PermissionError:
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# The keys of an issuer: one (RFC 8037, appendix A.2), by which no token of the attackers is signed.
KEYS = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "known",
                             "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}).encode()


# The upstream: answers with the target; with a body behind HEAD, late; slowly; or with a large body.

async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            method, target, _ = head.split(b" ", 2)
            lower = head.lower()
            if b"transfer-encoding: chunked" in lower:
                while (size := int((await reader.readline()).strip() or b"0", 16)) > 0:
                    await reader.readexactly(size + 2)
                await reader.readline()
            elif found := re.search(rb"content-length: (\d+)", lower):
                await reader.readexactly(int(found.group(1)))
            if method == b"HEAD":
                poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(poison))
                await writer.drain()
                await asyncio.sleep(0.002 if b"late" in target else 0)
                writer.write(poison)
            elif b"/keys.json" in target:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(KEYS), KEYS))
            elif b"/large" in target:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 28))
                for _ in range(1 << 12):
                    writer.write(b"x" * (1 << 16))
                    await writer.drain()
            else:
                if b"/slow" in target:
                    await asyncio.sleep(5)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        pass
    finally:
        writer.close()


def run_upstream(port):
    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20, backlog=2048)
        async with server:
            await server.serve_forever()
    asyncio.run(main())


# The well-behaved client, in a process of its own: prints its figures as JSON.

def run_paced(port, token, seconds, prefix):
    lock, took, failed = threading.Lock(), [], []
    foremost()

    def client(number, rate):
        connection = socket.create_connection(("127.0.0.1", port), source_address=GOOD)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.monotonic() + number / RATE
        for index in range(int(seconds * rate)):
            due = begun + index / rate
            time.sleep(max(0, due - time.monotonic()))
            path = f"{prefix}/own-{number}-{index}"
            request = f"GET {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\n\r\n"
            try:
                connection.sendall(request.encode())
                response = b""
                while b"\r\n\r\n" not in response or not response.endswith(path.encode()):
                    part = connection.recv(65536)
                    response += part
                    if not part or len(response) > 65536:
                        break
                ok = response.startswith(b"HTTP/1.1 200") and response.endswith(b"\r\n\r\n" + path.encode())
            except OSError as error:
                ok, response = False, str(error).encode()
            span = time.monotonic() - due
            with lock:
                took.append(span)
                if not ok:
                    failed.append(response[:80].decode("latin-1"))
            if not ok:
                connection = socket.create_connection(("127.0.0.1", port), source_address=GOOD)

    clients = [threading.Thread(target=client, args=(number, RATE / 4)) for number in range(4)]
    [each.start() for each in clients]
    [each.join() for each in clients]
    took.sort()
    print(json.dumps({"count": len(took), "p50": took[len(took) // 2] * 1e3, "p99": took[int(len(took) * 0.99)] * 1e3,
                      "failed": len(failed), "first": failed[:1]}))


# Attacks: each a function that attacks until the time is over, in a process of its own.

def heads(gate, seconds, path):
    """HEAD at full speed, as many at once as there are connections."""
    done, end = [0] * 16, time.monotonic() + seconds
    request = f"HEAD {path} HTTP/1.1\r\nHost: b\r\n\r\n".encode()

    def one(index):
        client = socket.create_connection(("127.0.0.1", gate.port))
        while time.monotonic() < end:
            try:
                client.sendall(request)
                if not client.recv(4096):
                    raise OSError
                done[index] += 1
            except OSError:
                client = socket.create_connection(("127.0.0.1", gate.port))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(16)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    return f"{sum(done) / seconds:.0f} requests/s"


def wrk(gate, seconds, connections, method, path, body="", token=""):
    script = gate.folder / f"{abs(hash((method, path, body)))}.lua"
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    lines = [f"wrk.method = '{method}'", f"wrk.body = [[{body}]]"]
    lines += [f"wrk.headers['{name}'] = '{value}'" for name, value in headers.items()]
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script),
                           f"http://127.0.0.1:{gate.port}{path}"], capture_output=True, text=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return f"{float(found.group(1)):.0f} requests/s" if found else "?"


def sockets(gate, count):
    opened = []
    for _ in range(count):
        try:
            opened.append(socket.create_connection(("127.0.0.1", gate.port), 2))
        except OSError:
            pass
    return opened


def pump(gate, seconds, count, head, data):
    """Sends as many bytes as are taken on several connections."""
    sent, end = [0] * count, time.monotonic() + seconds

    def one(index):
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", gate.port), 2) as client:
                    client.settimeout(2)
                    client.sendall(head)
                    while time.monotonic() < end:
                        client.sendall(data)
                        sent[index] += len(data)
            except OSError:
                time.sleep(0.01)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    return f"{sum(sent) / seconds / 1e6:.1f} MB/s"


def tiny_chunks(gate, seconds):
    head = b"POST /pub/x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    return pump(gate, seconds, 4, head, b"1\r\nx\r\n" * 10_000)


def trickled_heads(gate, seconds):
    clients, end, sent = sockets(gate, 100), time.monotonic() + seconds, 0
    for client in clients:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        client.send(b"GET /pub/x HTTP/1.1\r\nHost: b\r\nX: ")
    while time.monotonic() < end:
        for index, client in enumerate(clients):
            try:
                client.send(b"y")
                sent += 1
            except BlockingIOError:
                pass
            except OSError:
                client.close()
                clients[index] = socket.create_connection(("127.0.0.1", gate.port))
                clients[index].setblocking(False)
    [client.close() for client in clients]
    return f"{sent / seconds:.0f} bytes/s, one by one"


def many_connections(gate, seconds):
    end, opened, tried = time.monotonic() + seconds, [], 0
    while time.monotonic() < end:
        opened += sockets(gate, 100)
        tried += 100
        opened = opened[-4000:]
    [client.close() for client in opened]
    return f"{tried / seconds:.0f} connections/s"


def slow_readers(gate, seconds):
    clients = sockets(gate, 200)
    for client in clients:
        client.sendall(b"GET /pub/large HTTP/1.1\r\nHost: b\r\n\r\n")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for client in clients:
            client.recv(100)
        time.sleep(0.2)
    [client.close() for client in clients]
    return f"{len(clients)} readers of 256 MiB each"


# HTTP/2 (RFC 9113), frame by frame.

DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def line(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def get(path):
    # GET, http, and the path and the authority by their numbers in the static table (RFC 7541, appendix A).
    return b"\x82\x86" + bytes([4, len(path)]) + path + b"\x01\x01b"


def http2(gate, settings=b""):
    client = socket.create_connection(("127.0.0.1", gate.port), 2)
    client.settimeout(2)
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
    return client


def http2_flood(gate, seconds, batch, pace=None):
    """Sends what `batch` makes of a number, until the connection ends, and then on the next one; at most `pace` of them a second."""
    sent, connections, begun = 0, 0, time.monotonic()
    end = begun + seconds
    while time.monotonic() < end:
        try:
            with http2(gate) as client:
                connections += 1
                for number in range(10_000):
                    client.sendall(batch(number))
                    sent += 1
                    if pace:
                        time.sleep(max(0, begun + sent / pace - time.monotonic()))
                    if time.monotonic() >= end:
                        break
        except OSError:
            pass
    return f"{sent / seconds:.0f} batches/s on {connections / seconds:.0f} connections/s"


def rapid_resets(gate, seconds):
    # 10,000 a second, whatever the machine could send.
    def batch(number):
        streams = range(1 + 200 * number, 201 + 200 * number, 2)
        return b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, get(b"/pub/x"))
                        + frame(RST_STREAM, 0, stream, bytes([0, 0, 0, 8])) for stream in streams)
    return http2_flood(gate, seconds, batch, pace=100)


def continuations(gate, seconds):
    part = frame(CONTINUATION, 0, 1, line(b"x-h", b"1")) * 100
    return http2_flood(gate, seconds, lambda number: part if number else frame(HEADERS, END_STREAM, 1, get(b"/pub/x")))


def bombs(gate, seconds):
    # A line of 4,000 bytes in the dynamic table, and thousands of references to it.
    bomb = get(b"/pub/x") + b"\x40\x01b\x7f\x81\x1e" + b"x" * 4_000
    bomb += b"\xbe" * (16_000 - len(bomb))
    return http2_flood(gate, seconds, lambda number: frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, bomb))


def closed_windows(gate, seconds):
    """Streams with a large response and no room for it."""
    clients = [http2(gate, bytes([0, 4, 0, 0, 0, 0])) for _ in range(500)]
    for client in clients:
        for stream in range(1, 21, 2):
            client.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, get(b"/pub/large")))
    time.sleep(seconds)
    [client.close() for client in clients]
    return "500 connections of 10 streams"


def unknown_keys(gate, seconds):
    """Tokens of an issuer by keys that it does not have, 10,000 a second on ten connections."""
    def encoded(part):
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    claims = encoded(json.dumps({"iss": "https://corp.example.com", "aud": "bench", "sub": "x", "iat": int(time.time()),
                                 "exp": int(time.time()) + 600}).encode())
    clients, sent, begun = sockets(gate, 10), 0, time.monotonic()
    while time.monotonic() < begun + seconds:
        for index, client in enumerate(clients):
            heads = (encoded(json.dumps({"alg": "EdDSA", "typ": "JWT", "kid": os.urandom(8).hex()}).encode()) for _ in range(20))
            batch = b"".join(b"GET /api/x HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer %s.%s.%s\r\n\r\n" % (head, claims, b"x" * 86)
                             for head in heads)
            try:
                client.setblocking(False)
                while client.recv(1 << 16):
                    pass
                raise OSError
            except BlockingIOError:
                pass
            except OSError:
                clients[index] = client = socket.create_connection(("127.0.0.1", gate.port))
            client.setblocking(True)
            client.sendall(batch)
            sent += 20
        time.sleep(max(0, begun + sent / 10_000 - time.monotonic()))
    return f"{sent / seconds:.0f} tokens/s"


def burn(gate, seconds):
    """No attack: attackers' processors are busy, and none of them speaks to the gateway."""
    children = []
    for _ in OTHER_CPUS:
        if (child := os.fork()) == 0:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
            os._exit(0)
        children.append(child)
    [os.waitpid(child, 0) for child in children]
    return f"{len(children)} cores"


def ordinary(gate, seconds):
    """No attack: many ordinary requests of the well-behaved account, from another address."""
    return wrk(gate, seconds, 64, "GET", "/api/x", token=gate.good)


def every_call(gate, seconds):
    calls = [("POST", "/auth/login", {"username": "nobody", "password": "wrong wrong wrong"}),
             ("POST", "/auth/refresh", {"refresh_token": gate.refresh}), ("GET", "/auth/me", None),
             ("POST", "/auth/password/reset", {"token": "x" * 60, "new_password": COSTLY})]
    rates = []
    threads = [threading.Thread(target=lambda call=call: rates.append(
        wrk(gate, seconds, 64, call[0], call[1], json.dumps(call[2]) if call[2] else "", gate.token))) for call in calls]
    [each.start() for each in threads]
    [each.join() for each in threads]
    return f"{sum(float(rate.split()[0]) for rate in rates):.0f} requests/s"


# What a machine of so few cores costs the well-behaved client without any attack. Not judged.
CONTROLS = {"none: busy cores alone": burn, "none: many ordinary requests": ordinary}

ATTACKS = {
    "A0 bodies behind HEAD, at once": lambda g, s: heads(g, s, "/pub/x"),
    "A0 bodies behind HEAD, 2 ms late": lambda g, s: heads(g, s, "/pub/late"),
    "A1 registrations with costly passwords": lambda g, s: wrk(
        g, s, 16, "POST", "/auth/register", json.dumps({"username": "x", "password": COSTLY})),
    "A2 every call at once": every_call,
    "A3 passwords without end": lambda g, s: wrk(
        g, s, 200, "POST", "/auth/change", json.dumps({"new_username": "taken", "new_password": PASSWORD}), g.token),
    "A4 logins and lists of sessions": lambda g, s: wrk(g, s, 32, "GET", "/auth/sessions?limit=200", "", g.token),
    "A5 renames": lambda g, s: wrk(
        g, s, 32, "POST", "/auth/change", json.dumps({"new_username": "taken"}), g.token),
    "A6 bodies in one-byte chunks": tiny_chunks,
    "A7 heads byte by byte": trickled_heads,
    "A8 connections without end": many_connections,
    "A8 slow readers": slow_readers,
    "A8 downloads at full speed": lambda g, s: wrk(g, s, 32, "GET", "/pub/large"),
    "A8 a slow upstream": lambda g, s: wrk(g, s, 400, "GET", "/slow/x"),
    "A9 a name that nobody knows": lambda g, s: wrk(g, s, 200, "GET", "/nameless/x"),
    "A10 rapid resets of HTTP/2 streams": rapid_resets,
    "A10 CONTINUATION without end": continuations,
    "A10 header bombs": bombs,
    "A10 windows that never open": closed_windows,
    "A11 tokens of unknown keys": unknown_keys,
}


class Gate:
    def __init__(self, folder, binary, store="sqlite:bench.db", auth=""):
        self.folder, self.port, self.admin = folder, free_port(), free_port()
        upstream, nginx = free_port(), free_port()
        self.backend, self.strange = nginx, upstream
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=nginx))
        self.children = [subprocess.Popen([sys.executable, __file__, "--upstream", str(upstream)], preexec_fn=foremost),
                         subprocess.Popen(["nginx", "-c", folder / "nginx.conf"], preexec_fn=foremost,
                                          stderr=subprocess.DEVNULL)]
        config = folder / "gateway.yaml"
        config.write_text(CONFIG.format(port=self.port, admin=self.admin, upstream=upstream, nginx=nginx,
                                        store=store, auth=auth, workers=len(GATEWAY_CPUS)))
        self.gateway = subprocess.Popen([binary, "serve", "--config", config],
                                        preexec_fn=lambda: os.sched_setaffinity(0, GATEWAY_CPUS),
                                        stderr=open(folder / "log", "wb"), stdout=subprocess.DEVNULL)
        self.children.append(self.gateway)
        for port in (upstream, nginx, self.port):
            self.wait(port)

    @staticmethod
    def wait(port):
        for _ in range(200):
            try:
                return socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
        sys.exit(f"nothing listens on {port}")

    def call(self, method, path, body=None, token=None, address=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=PROXY)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        headers |= {"X-Forwarded-For": address} if address else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text or b"null")

    def register(self, name):
        status, account = self.call("POST", "/auth/register", {"username": name, "password": PASSWORD})
        assert status == 201, account
        return account

    def metrics(self):
        with socket.create_connection(("127.0.0.1", self.admin), 5) as probe:
            probe.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b""
            while part := probe.recv(65536):
                text += part
        return text

    def lag(self):
        return float(re.search(rb"authgate_revocation_lag_seconds ([\d.einf]+)", self.metrics()).group(1))

    def fetches(self):
        counts = re.findall(rb'^authgate_issuer_fetches_total\{[^}]*\} ([\d.]+)', self.metrics(), re.MULTILINE)
        return sum(float(count) for count in counts)

    def memory(self):
        text = pathlib.Path(f"/proc/{self.gateway.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024

    def stop(self):
        for child in self.children:
            child.send_signal(signal.SIGKILL)
            child.wait()


def paced(port, gate, seconds, prefix):
    return subprocess.Popen([sys.executable, __file__, "--paced", str(port), gate.good, str(seconds), prefix],
                            stdout=subprocess.PIPE, text=True)


def both(gate, seconds, prefix):
    """The well-behaved client, and the one past the gateway."""
    past = gate.strange if prefix == "/shared" else gate.backend
    return paced(gate.port, gate, seconds, prefix), paced(past, gate, seconds, prefix)


def attack_from_below(gate, attack, seconds):
    """Attacks in a child at the lowest priority; how fast it was."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.nice(19)
        try:
            os.write(writer, attack(gate, seconds).encode())
        finally:
            os._exit(0)
    os.close(writer)
    return child, os.fdopen(reader)


def measure(gate, name, attack, seconds):
    # Bodies behind HEAD are for those who share the upstream's connections.
    prefix = "/shared" if name.startswith("A0") else "/api"
    calm, past_calm = (json.loads(client.communicate()[0]) for client in both(gate, seconds, prefix))
    before, lags, memory, fetches = gate.memory(), [], [], gate.fetches()
    child, told = attack_from_below(gate, attack, seconds + 2)
    time.sleep(1)
    client, past = both(gate, seconds, prefix)
    while client.poll() is None:
        try:
            lags.append(gate.lag())
        except OSError:
            lags.append(float("inf"))
        memory.append(gate.memory())
        time.sleep(0.25)
    beside, past_beside = (json.loads(each.communicate()[0]) for each in (client, past))
    rate = told.read()
    os.waitpid(child, 0)
    time.sleep(1)
    # One at once, and one each ten seconds.
    too_many = gate.fetches() - fetches > 1 + (seconds + 4) // 10
    return {"attack": name, "too_many_fetches": too_many, "rate": rate or "?", "failed": beside["failed"], "requests": beside["count"],
            "first": beside["first"], "calm_p99_ms": calm["p99"], "p99_ms": beside["p99"],
            "past_calm_p99_ms": past_calm["p99"], "past_p99_ms": past_beside["p99"],
            "ratio": beside["p99"] / calm["p99"], "lag_s": max(lags), "grown_mib": max(memory) - before}


def merged(rows):
    """One row of several: medians, the worst of what may not happen at all, and how far the p99 spread."""
    row = {key: statistics.median(each[key] for each in rows)
           for key in ("calm_p99_ms", "p99_ms", "past_calm_p99_ms", "past_p99_ms", "grown_mib")}
    worst = max(rows, key=lambda each: each["failed"])
    spread = [pick(each["p99_ms"] for each in rows) for pick in (min, max)]
    return row | {"attack": rows[0]["attack"], "too_many_fetches": any(each["too_many_fetches"] for each in rows), "rate": rows[0]["rate"], "failed": sum(each["failed"] for each in rows),
                  "requests": sum(each["requests"] for each in rows), "first": worst["first"], "p99_spread_ms": spread,
                  "ratio": row["p99_ms"] / row["calm_p99_ms"], "lag_s": max(each["lag_s"] for each in rows)}


def judge(row):
    most = 2 if row["attack"].startswith(("A7", "A8 slow", "A10", "A11")) else 3
    is_calm = row["ratio"] <= most and row["lag_s"] < 1 and row["grown_mib"] < 64
    return row["failed"] == 0 and is_calm and not row["too_many_fetches"]


def end_all(binary, count):
    """How long ending all sessions of an account takes, on both stores."""
    spec = importlib.util.spec_from_file_location("accounts", HERE.parent / "accounts/run.py")
    accounts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(accounts)
    with tempfile.TemporaryDirectory(prefix="authgate-bench-") as folder:
        folder = pathlib.Path(folder)
        with accounts.Cluster() as url:
            for store in ("sqlite:bench.db", url):
                gate = Gate(folder, binary, store)
                try:
                    account = gate.register("many")
                    fill = ("INSERT INTO sessions (id, user_id, generation, created_at, authenticated_at, last_used_at, "
                            "ends_at, refresh_expires_at, rotated_at, refresh_number, current_hash, nonce, access_exp_max) ")
                    now = int(time.time() * 1000)
                    if store.startswith("sqlite"):
                        database = sqlite3.connect(folder / "bench.db", timeout=60)
                        user = bytes.fromhex(account["user_id"].replace("-", ""))
                        rows = ((os.urandom(6) + b"\x40" + os.urandom(1) + b"\x80" + os.urandom(7), user, 1, now, now, now,
                                 now + 10**9, now + 10**9, now, 0, os.urandom(32), os.urandom(16), now + 10**6)
                                for _ in range(count))
                        database.executemany(fill + f"VALUES ({', '.join('?' * 13)})", rows)
                        database.commit()
                        database.close()
                    else:
                        subprocess.run(["psql", "-q", url, "-c", fill + f"SELECT gen_random_uuid(), '{account['user_id']}', 1, {now}, {now}, {now}, "
                                    f"{now + 10**9}, {now + 10**9}, {now}, 0, sha256(i::text::bytea), '\\x00'::bytea, "
                                    f"{now + 10**6} FROM generate_series(1, {count}) i"], check=True)
                    begun = time.monotonic()
                    status, _ = gate.call("POST", "/auth/logout-all", token=account["access_token"])
                    span = time.monotonic() - begun
                    print(f"{'ok  ' if status == 200 and span < 1 else 'OVER'} {count} sessions on "
                          f"{store.split(':')[0]}: {status} after {span * 1e3:.0f} ms (within 1,000)", flush=True)
                finally:
                    gate.stop()


def logins_beside_load(gate, rounds, seconds):
    """Logins a second by four clients of many accounts and addresses, calm and beside protected requests on all cores."""
    names, done, stop = [f"user{number}" for number in range(40)], [0] * 4, threading.Event()
    for number, name in enumerate(names):
        gate.call("POST", "/auth/register", {"username": name, "password": PASSWORD}, address=f"192.0.2.{number}")

    def client(index):
        for turn in range(10**6):
            if stop.is_set():
                return
            body = {"username": names[(index + 4 * turn) % len(names)], "password": PASSWORD}
            status, _ = gate.call("POST", "/auth/login", body, address=f"10.{index}.{turn // 250}.{turn % 250}")
            done[index] += status == 200

    def rate():
        before, begun = sum(done), time.monotonic()
        time.sleep(seconds)
        return (sum(done) - before) / (time.monotonic() - begun)

    clients = [threading.Thread(target=client, args=(index,)) for index in range(4)]
    [each.start() for each in clients]
    rows = []
    for _ in range(rounds):
        calm = rate()
        load = subprocess.Popen(["wrk", "-t2", "-c64", f"-d{seconds + 2}", "-H", f"Authorization: Bearer {gate.good}",
                                 f"http://127.0.0.1:{gate.port}/api/x"], stdout=subprocess.DEVNULL)
        time.sleep(1)
        beside = rate()
        load.wait()
        rows.append((beside / calm, calm, beside))
        print(f"logins a second: calm {calm:6.1f}, beside wrk {beside:6.1f}, {beside / calm:.2f} of it", flush=True)
    stop.set()
    [each.join() for each in clients]
    share = statistics.median(row[0] for row in rows)
    print(f"{'ok  ' if share >= 0.25 else 'OVER'} median {share:.2f} of the calm rate (at least 0.25)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--paced", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", help="attacks whose names begin so")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--logins", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/authgate")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    if options.upstream:
        return run_upstream(options.upstream)
    if options.paced:
        return run_paced(int(options.paced[0]), options.paced[1], float(options.paced[2]), options.paced[3])
    if options.sessions:
        return end_all(options.binary.resolve(), options.sessions)
    if not shutil.which("wrk"):
        sys.exit("wrk is missing; ./run bench-hostile installs it")
    rows = []
    os.sched_setaffinity(0, OTHER_CPUS)
    with tempfile.TemporaryDirectory(prefix="authgate-bench-") as folder:
        # So many logins from so few accounts are throttled otherwise.
        rate = "{failures: 1000000, per: 1s}"
        auth = f", throttle: {{account: {rate}, address: {rate}, registrations: {{requests: 1000000, per: 1s}}}}"
        gate = Gate(pathlib.Path(folder), options.binary.resolve(), auth=auth if options.logins else "")
        try:
            hostile = gate.register("hostile")
            gate.token, gate.refresh = hostile["access_token"], hostile["refresh_token"]
            gate.good = gate.register("good")["access_token"]
            gate.register("taken")
            if options.logins:
                return logins_beside_load(gate, options.rounds, options.seconds)
            wanted = {name: attack for name, attack in (CONTROLS | ATTACKS).items()
                      if not options.only or any(name.startswith(only) for only in options.only)}
            rounds = {name: [] for name in wanted}
            for number in range(options.rounds):
                for name, attack in wanted.items():
                    print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                    rounds[name].append(measure(gate, name, attack, options.seconds))
            print(f"{'':5}{'attack':40} {'speed':>26} {'failed':>9} {'p99 calm':>9} {'beside':>8} {'of all rounds':>15} {'ratio':>6} "
                  f"{'past it: calm':>14} {'beside':>8} {'lag':>6} {'memory':>9}")
            for name in wanted:
                row = merged(rounds[name])
                rows.append(row)
                verdict = "-" if name in CONTROLS else "ok" if judge(row) else "OVER"
                print(f"{verdict:5}{name:40} {row['rate']:>26} {row['failed']:4}/{row['requests']} "
                      f"{row['calm_p99_ms']:7.2f}ms {row['p99_ms']:6.2f}ms {row['p99_spread_ms'][0]:6.2f}–{row['p99_spread_ms'][1]:<6.2f}ms "
                      f"{row['ratio']:6.2f} {row['past_calm_p99_ms']:12.2f}ms {row['past_p99_ms']:6.2f}ms {row['lag_s']:5.2f}s "
                      f"{row['grown_mib']:6.1f}MiB {row['first'] or ''}", flush=True)
        finally:
            gate.stop()
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
