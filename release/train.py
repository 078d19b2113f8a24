#!/usr/bin/env python3
"""Puts an instrumented authgate under load that stands for real use, and writes down what it ran.

    release/train.py BINARY [--profiles DIR] [--share PART]

BINARY was built with -Cprofile-generate. It serves one worker on an embedded store with its access log on, before an
upstream of this script. It ends by SIGTERM and leaves its counters in DIR, which llvm-profdata merges. Without --profiles
any binary will do; --share makes the load smaller, for a test that it is served.
Needs nothing but Python's standard library, so that it can run wherever a release is built.

What the load is made of decides what the compiler makes fast. Nearly all of it is signed-in requests at several
concurrencies, on TCP and TLS, by HTTP/1.1 and HTTP/2 on both sides; the rest is there so that nothing which a gateway does
each second is taken for cold: cookies and API keys, rate limits, checks for other proxies.
"""

import argparse
import collections
import http.client
import itertools
import json
import os
import pathlib
import re
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

CONFIG = """
listeners:
  - {{address: "127.0.0.1:{port}"}}
  - {{address: "127.0.0.1:{http2}", http2: true}}
{secure}admin: {{address: "127.0.0.1:{admin}"}}
workers: 1
store: {{url: "sqlite:authgate.db"}}
public_url: http://127.0.0.1:{port}
pages: {{name: Training}}
trusted_proxies: [{proxy}/32]
auth:
  issuer: https://login.example.com
  audience: training
  access_token_ttl: 1d
  throttle:
    account: {{failures: 1000000, per: 1s}}
    address: {{failures: 1000000, per: 1s}}
    registrations: {{requests: 1000000, per: 1s}}
upstreams:
  backend: {{servers: [{{url: "http://127.0.0.1:{upstream}"}}], idle_connections: 1024}}
  multiplexed: {{servers: [{{url: "h2c://127.0.0.1:{upstream2}"}}]}}
routes:
  - {{path: /h2/**, upstream: multiplexed, rewrite: {{strip_prefix: /h2}}}}
  - {{path: /public/**, auth: none, upstream: backend}}
  - {{path: /api/**, upstream: backend}}
  - {{path: "/users/{{id}}/orders/{{order}}", upstream: backend}}
  - {{path: /admin/**, roles: {{any: [admin]}}, upstream: backend}}
  - {{path: /limited/**, upstream: backend, rate_limit: {{requests: 10000000, per: 1s, by: user}}}}
  - {{path: /hello, respond: {{json: {{message: "Welcome {{user.name}}"}}}}}}
log: {{access: true, level: info}}
"""

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: application/json,text/html;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/orders\r\n"
    "Origin: https://shop.example.com\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n"
    "Cookie: theme=dark; seen=1; visitor=4c2f0a9be1\r\nConnection: keep-alive\r\n"
)
SCRIPT = "User-Agent: curl/8.5.0\r\nAccept: */*\r\n"
# Where another proxy connects from that asks about the requests of its clients.
PROXY = "127.0.0.2"


def body_of(size):
    return (b'{"id":1,"state":"shipped"}' * (size // 26 + 1))[:size]


def response_to(head):
    """The response of the upstream by the last segment of the path: how large, and how it is framed."""
    path = head.split(b" ", 2)[1]
    kind, _, size = path.rsplit(b"/", 1)[-1].decode().partition("-")
    size = int(size) if size.isdigit() else 26
    body = body_of(size)
    date = b"Date: Thu, 26 Nov 2026 12:00:00 GMT\r\n"
    if kind == "chunked":
        pieces = [body[at:at + 8192] for at in range(0, size, 8192)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        return b"HTTP/1.1 200 OK\r\nServer: training\r\n" + date + (
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    if kind == "unchanged":
        return b"HTTP/1.1 304 Not Modified\r\n" + date + b'ETag: "1"\r\n\r\n'
    if kind == "missing":
        return b"HTTP/1.1 404 Not Found\r\n" + date + b"Content-Length: 0\r\n\r\n"
    if kind == "failed":
        return b"HTTP/1.1 500 Internal Server Error\r\n" + date + b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    return (b"HTTP/1.1 200 OK\r\nServer: training\r\n" + date + b"Content-Type: application/json\r\nContent-Length: %d\r\n"
            b"Cache-Control: private, max-age=0\r\nVary: Accept-Encoding\r\nConnection: keep-alive\r\n\r\n" % size + body)


class Upstream:
    """Serves every connection from one loop, in a process of its own."""

    def __init__(self, listener):
        self.loop, self.connections = select.epoll(), {}
        self.listener = listener
        listener.setblocking(False)
        self.loop.register(listener, select.EPOLLIN)

    def run(self):
        while True:
            for number, _ in self.loop.poll():
                if number == self.listener.fileno():
                    self.accept()
                else:
                    self.serve(number)

    def accept(self):
        try:
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[client.fileno()] = (client, bytearray())
                self.loop.register(client, select.EPOLLIN)
        except BlockingIOError:
            pass

    def received(self, number):
        """The client of a connection and what it has sent; nothing if it has gone."""
        client, held = self.connections[number]
        try:
            data = client.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            del self.connections[number]
            client.close()
            return None
        held += data
        return client, held

    def serve(self, number):
        if not (received := self.received(number)):
            return
        client, held = received
        while (length := request_length(held)) is not None:
            response = response_to(bytes(held[:length]))
            del held[:length]
            client.setblocking(True)
            client.sendall(response)
            if b"Connection: close" in response[:200]:
                del self.connections[number]
                client.close()
                return


# HTTP/2 (RFC 9113), as far as both sides of a training need it.

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# In Huffman's code (RFC 7541, appendix B): a path, and what a browser says.
PATH = bytes.fromhex("60759983d9216c4301")
AGENT = bytes.fromhex("d07f66a281b0dae053fafc087ed4ce6aadf2a7979c89c6bed4b3bdc0b405c1fda988a4ea76040080010054c26b0b29fcb01680b83f")
ACCEPT = bytes.fromhex("1d75d0620d263d4c7441eafa497ca589d34d1f7da002effd7cb1f3f7da002ef7")


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def frames(held):
    """Takes the frames that are there whole."""
    while len(held) >= 9 and len(held) >= (whole := 9 + int.from_bytes(held[:3], "big")):
        yield held[3], held[4], int.from_bytes(held[5:9], "big"), bytes(held[9:whole])
        del held[:whole]


def number(value, prefix, flags):
    """A number of RFC 7541, section 5.1."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([flags | value])
    rest, out = value - most, bytearray([flags | most])
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes(out) + bytes([rest])


def text(value, coded=False):
    return number(len(value), 7, 128 if coded else 0) + value


class Http2Upstream(Upstream):
    """Answers each request when its last frame is there."""

    ANSWER = b"\x88\x5f" + text(b"application/json") + b"\x00" + text(b"x-kept") + text(b"1")

    def serve(self, number):
        if not (received := self.received(number)):
            return
        client, held = received
        out = bytearray()
        if held.startswith(PREFACE):
            del held[:len(PREFACE)]
            out += frame(SETTINGS, 0, 0, bytes([0, 3, 0, 0, 4, 0]))
        for kind, flags, stream, payload in frames(held):
            if kind in (SETTINGS, PING) and not flags & ACK:
                out += frame(kind, ACK, 0, b"" if kind == SETTINGS else payload)
            if kind == DATA and payload:
                length = len(payload).to_bytes(4, "big")
                out += frame(WINDOW_UPDATE, 0, 0, length) + frame(WINDOW_UPDATE, 0, stream, length)
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                out += frame(HEADERS, END_HEADERS, stream, self.ANSWER) + frame(DATA, END_STREAM, stream, body_of(26))
        client.setblocking(True)
        client.sendall(out)


def streams(connect, connections, at_once, total, token):
    """`total` requests of HTTP/2, so many at once on each connection."""
    clients = []
    for _ in range(connections):
        client = connect()
        client.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, (1 << 29).to_bytes(4, "big")))
        clients.append((client, bytearray(), itertools.count(1, 2)))
    # What stands in the table of lines afterwards, the last one first.
    first = b"\x41" + text(b"shop.example.com") + b"\x7a" + text(AGENT, True) + b"\x53" + text(ACCEPT, True)
    first += b"\x57" + text(b"Bearer " + token.encode())
    later = b"\xc1\xc0\xbf\xbe"
    line, begun = b"\x82\x87\x04" + text(PATH, True), set()
    for _ in range(max(1, total // (connections * at_once))):
        for client, _, identifiers in clients:
            out = bytearray()
            for _ in range(at_once):
                block = line + (later if client in begun else first)
                begun.add(client)
                out += frame(HEADERS, END_HEADERS | END_STREAM, next(identifiers), block)
            client.sendall(out)
        for client, held, _ in clients:
            left, out = at_once, bytearray()
            while left:
                held += client.recv(1 << 18)
                for kind, flags, stream, payload in frames(held):
                    assert kind not in (3, 7), f"a stream or the connection ended: {kind}, {payload}"
                    assert kind != HEADERS or payload[0] == 0x88, payload
                    left -= kind in (DATA, HEADERS) and flags & END_STREAM
                    if kind == SETTINGS and not flags & ACK:
                        out += frame(SETTINGS, ACK, 0)
            client.sendall(out)
    for client, _, _ in clients:
        client.close()


def rounds(connect, connections, total, request):
    """`total` requests of HTTP/1.1 in rounds over connections that may be secured."""
    clients = [connect() for _ in range(connections)]
    for _ in range(max(1, total // connections)):
        for client in clients:
            client.sendall(request)
        for client in clients:
            held = bytearray()
            while response_length(held) is None:
                held += client.recv(1 << 18)
            assert held.startswith(b"HTTP/1.1 200"), held[:200]
    for client in clients:
        client.close()


def connector(port, context=None, *protocols):
    def connect():
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(client, server_hostname="shop.example.com") if context else client
    if context:
        context.set_alpn_protocols(list(protocols))
    return connect


def train_protocols(ports, token, share):
    plain = request("GET", "/api/orders/1", token)
    for connections, total in ((16, 20_000), (64, 40_000), (512, 40_000)):
        statuses = load(ports["port"], connections, int(total * share), [request("GET", "/h2/api/orders/1", token)])
        assert set(statuses) == {"200"}, statuses
    assert set(load(ports["port"], 16, int(2_000 * share), [request("POST", "/h2/api/orders", token, body=body_of(300))])) == {"200"}
    ways = [connector(ports["http2"])]
    if ports["secure"]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for connections, total in ((1, 2_000), (64, 30_000)):
            rounds(connector(ports["tls"], context, "http/1.1"), connections, int(total * share), plain)
        for _ in range(int(1_000 * share) + 1):
            rounds(connector(ports["tls"], context, "http/1.1"), 1, 1, plain)
        ways.append(connector(ports["tls"], context, "h2"))
    for connect in ways:
        for connections, at_once, total in ((1, 1, 2_000), (10, 10, 20_000), (4, 50, 20_000)):
            streams(connect, connections, at_once, int(total * share), token)


def request_length(held):
    """Bytes of the first request in `held`, if it is there whole."""
    end = held.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(held[:end]).lower()
    if b"transfer-encoding: chunked" in head:
        last = held.find(b"0\r\n\r\n", end + 2)
        return last + 5 if last >= 0 else None
    length = re.search(rb"content-length: (\d+)", head)
    whole = end + 4 + (int(length.group(1)) if length else 0)
    return whole if len(held) >= whole else None


def response_length(held):
    """Bytes of the first response in `held`, if it is there whole."""
    end = held.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(held[:end]).lower()
    if b"transfer-encoding: chunked" in head:
        return len(held) if held.endswith(b"0\r\n\r\n") else None
    length = re.search(rb"content-length: (\d+)", head)
    whole = end + 4 + (int(length.group(1)) if length else 0)
    return whole if len(held) >= whole else None


def load(port, connections, total, requests, source="127.0.0.1"):
    """`total` requests over so many connections from `source`, each sending its next one when it has the response. How often each status
    came."""
    loop, kept, left, statuses = select.epoll(), {}, total, collections.Counter()
    requests = itertools.cycle(requests)

    def send(client):
        nonlocal left
        left -= 1
        client.setblocking(True)
        client.sendall(next(requests))

    def opened():
        client = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kept[client.fileno()] = (client, bytearray())
        loop.register(client, select.EPOLLIN)
        send(client)

    for _ in range(connections):
        opened()
    while kept:
        for number, _ in loop.poll():
            client, held = kept[number]
            data = client.recv(1 << 18)
            held += data
            if data and response_length(held) is None:
                continue
            statuses[bytes(held[9:12]).decode()] += 1
            closes = not data or b"connection: close" in bytes(held[:512]).lower()
            held.clear()
            if not closes and left > 0:
                send(client)
                continue
            del kept[number]
            client.close()
            if left > 0:
                opened()
    return statuses


def call(port, method, path, token=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return json.loads(text) if text.startswith(b"{") else {}


def request(method, path, token=None, headers=SCRIPT, body=b"", chunked=False):
    head = f"{method} {path} HTTP/1.1\r\nHost: shop.example.com\r\n{headers}"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if chunked:
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[at:at + 4096] for at in range(0, len(body), 4096)))
        return (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + pieces + b"0\r\n\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "\r\n").encode() + body


class Stay(urllib.request.HTTPRedirectHandler):
    """Takes a response that leads on as it is."""

    def http_error_303(self, request, response, code, message, headers):
        return response


def sign_in(port, name):
    """Makes an account by the page. Returns the cookie of its session."""
    page, pages = f"http://127.0.0.1:{port}/auth/ui/register", urllib.request.build_opener(Stay)
    with pages.open(page, timeout=60) as shown:
        visitor = shown.headers["Set-Cookie"].split(";")[0]
        token = re.search(r'name="form_token" value="([^"]+)"', shown.read().decode())[1]
    form = urllib.parse.urlencode({"form_token": token, "username": name, "password": f"the password of {name}"})
    with pages.open(urllib.request.Request(page, form.encode(), {"Cookie": visitor}), timeout=60) as signed_in:
        cookies = [value.split(";")[0] for value in signed_in.headers.get_all("Set-Cookie")]
    return next(cookie for cookie in cookies if cookie.startswith("__Host-authgate="))


def train_features(port, tokens, share):
    """What another credential, a rate limit, and a check for another proxy take."""
    told = {"Method": "GET", "Proto": "https", "Host": "shop.example.com", "Uri": "/api/orders/1"}
    told = "".join(f"X-Forwarded-{name}: {value}\r\n" for name, value in told.items()) + "X-Forwarded-For: 198.51.100.7\r\n"
    key = call(port, "POST", "/auth/keys", tokens[0], {"name": "training"})["key"]
    cookie = f"Cookie: theme=dark; {sign_in(port, 'training-person')}\r\n"
    ways = [
        [request("GET", "/auth/verify", one, SCRIPT + told) for one in tokens],
        [request("GET", "/limited/orders/1", one) for one in tokens],
        [request("GET", "/api/orders/1", key)],
        [request("GET", "/api/orders/1", headers=SCRIPT + cookie)],
    ]
    for connections, total in ((1, 1_000), (16, 5_000), (64, 10_000), (512, 5_000)):
        for number, requests in enumerate(ways):
            statuses = load(port, connections, int(total * share), requests, "127.0.0.1" if number else PROXY)
            assert set(statuses) == {"200"}, statuses


def train(ports, share):
    port = ports["port"]
    accounts = [{"username": f"training-{number}", "password": f"the password of training {number}"} for number in range(4)]
    tokens = [call(port, "POST", "/auth/register", body=account)["access_token"] for account in accounts]
    token = itertools.cycle(tokens)
    plain = [request("GET", "/api/orders/1", one) for one in tokens]
    signed_in = plain * 4 + [request("GET", f"/users/{number}/orders/list-900?page={number}", next(token), BROWSER) for number in range(4)]
    signed_in += [request("GET", "/api/some/list-4000", next(token), BROWSER), request("GET", "/api/chunked-3000", next(token))]
    uploads = [
        request("POST", "/api/orders", next(token), BROWSER, body_of(300)),
        request("PUT", "/api/orders/1", next(token), body=body_of(30_000)),
        request("POST", "/api/orders", next(token), body=body_of(20_000), chunked=True),
        request("PATCH", "/api/orders/1", next(token), body=body_of(80), chunked=True),
    ]
    downloads = [
        request("GET", "/api/file-100000", next(token)),
        request("GET", "/api/chunked-200000", next(token)),
        request("HEAD", "/api/unchanged", next(token)),
        request("GET", "/public/unchanged", headers=BROWSER),
    ]
    others = [
        request("GET", "/public/page-2000", headers=BROWSER),
        request("GET", "/hello", next(token)),
        request("GET", "/api/orders"),
        request("GET", "/api/orders", "not.a.token"),
        request("GET", "/api/orders", tokens[0][:-4] + "AAAA"),
        request("GET", "/admin/users", next(token)),
        request("GET", "/elsewhere"),
        request("GET", "/api/missing", next(token)),
        request("GET", "/api/failed", next(token)),
        request("GET", "/auth/me", next(token)),
        request("GET", "/public/last", headers=SCRIPT + "Connection: close\r\n"),
    ]
    for connections, total in ((1, 10_000), (16, 40_000), (64, 80_000), (512, 80_000)):
        statuses = load(port, connections, int(total * share), signed_in)
        # A load of refusals would train for refusals.
        assert set(statuses) == {"200"}, statuses
    for connections in (1, 32):
        assert set(load(port, connections, int(2_000 * share), uploads)) == {"200"}
        assert set(load(port, connections, int(600 * share), downloads)) == {"200", "304"}
        assert {"200", "401", "403", "404"} <= set(load(port, connections, int(4_000 * share), others))
    # Few: a hash runs its loop some millions of times, and what runs a thousand times less would be taken for cold.
    for account in accounts:
        signed = call(port, "POST", "/auth/login", body=account)
        signed = call(port, "POST", "/auth/refresh", body={"refresh_token": signed["refresh_token"]})
        call(port, "POST", "/auth/logout", signed["access_token"])
        call(port, "POST", "/auth/login", body=account | {"password": "not the password at all"})
    train_features(port, tokens, share)
    train_protocols(ports, tokens[0], share)
    # Connections that have rested.
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for _ in range(2):
        for client in idle:
            client.sendall(plain[0])
            client.recv(1 << 16)
        time.sleep(4)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} has ended with {process.returncode}")
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


def certificate(folder):
    """Makes a certificate, where there is openssl for that. Without it TLS is not trained."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
               "-subj", "/CN=shop.example.com", "-addext", "subjectAltName=DNS:shop.example.com", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def serve_and_train(options, upstream, upstream2):
    names = ("port", "http2", "tls", "admin")
    ports = {name: free_port() for name in names} | {"upstream": upstream, "upstream2": upstream2, "proxy": PROXY}
    environment = dict(os.environ)
    if options.profiles:
        environment["LLVM_PROFILE_FILE"] = str(options.profiles.resolve() / "authgate-%p.profraw")
    with tempfile.TemporaryDirectory(prefix="authgate-train-") as folder:
        secure = f'  - {{address: "127.0.0.1:{ports["tls"]}", tls: {{certificate: cert.pem, key: key.pem}}}}\n'
        ports["secure"] = secure if certificate(folder) else ""
        config, log = pathlib.Path(folder) / "gateway.yaml", pathlib.Path(folder) / "log"
        config.write_text(CONFIG.format(**ports))
        with open(log, "wb") as output:
            gateway = subprocess.Popen([options.binary.resolve(), "serve", "--config", config], stdout=output, stderr=output, env=environment)
        try:
            wait_for(ports["port"], gateway)
            began = time.monotonic()
            train(ports, options.share)
            print(f"trained for {time.monotonic() - began:.0f} s", file=sys.stderr)
        except BaseException:
            # The folder goes, and with it what the gateway had to say.
            print(*log.read_text(errors="replace").splitlines()[-20:], sep="\n", file=sys.stderr)
            raise
        finally:
            gateway.send_signal(signal.SIGTERM)
            try:
                gateway.wait(60)
            except subprocess.TimeoutExpired:
                gateway.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--profiles", type=pathlib.Path)
    parser.add_argument("--share", type=float, default=1)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    listeners, children = [], []
    for kind in (Upstream, Http2Upstream):
        listeners.append(socket.create_server(("127.0.0.1", 0), backlog=1024))
        children.append(os.fork())
        if children[-1] == 0:
            kind(listeners[-1]).run()
    try:
        serve_and_train(options, *(listener.getsockname()[1] for listener in listeners))
    finally:
        [os.kill(child, signal.SIGTERM) for child in children]
    if options.profiles and not list(options.profiles.glob("*.profraw")):
        sys.exit("the binary has left no profile; was it built with -Cprofile-generate?")


if __name__ == "__main__":
    main()
