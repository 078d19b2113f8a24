#!/usr/bin/env python3
"""Two gateways on one PostgreSQL under mixed load, while everything around them changes.

  benches/soak/run.py [--seconds N] [--clients N] [--binary FILE]

Clients with accounts of their own send requests, uploads and downloads to both gateways, hold WebSockets and gRPC streams, log out and
in again, and have their roles changed. Meanwhile configs are taken up, one gateway is upgraded in place, its certificate is renewed, one of two upstreams is killed
and comes back, and the database is frozen for a while. Each client knows what must become of each of its requests:

- with a live token: 200, and the upstream was told this account and its roles, whatever happens around;
- with one that has ended: 401 at once by the gateway that ended it, and by the other one within the bound;
- a WebSocket or stream: every message comes back while its token lives, through upgrades of the binary, too; once the token has ended
  it is cut, at once or within the bound as above;
- on a route for a role: 200 or 403, as the role is at that moment.

What may fail is said by what was done to whom: changes of accounts while the database is frozen, and what an upstream that is
killed has in its hands and cannot be sent again. Anything else that fails is a fault, and so is memory of the gateway that is never
upgraded that grows by more than 5 percent from the second quarter to the last, or a certificate that is not shown in time.

Needs PostgreSQL, openssl, Python's grpcio and websockets, and `cargo build --release`, which ./run soak sees to. Ends with 1 if anything was wrong.
"""

import argparse
import asyncio
import collections
import glob
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

import grpc
import websockets

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PASSWORD = "the password of a soak"
# How long a logout may take to be known by the other gateway, and a little; in seconds.
BOUND = 2.0 + 1.0
# How long the database is frozen: less than the bound, so that no request may be refused for it.
FROZEN = 1.2
# How long after its death an upstream may still be missed by what cannot be sent again.
MISSED = 3.0
# How long an account may be told to come back before it can log in.
LONGEST_LOGIN = 20
UPLOAD = bytes(256 << 10)
PARTS, PART = 20, b"x" * 4096
# The messages of a WebSocket or a stream, and the seconds between two.
MESSAGES, PAUSE = 30, 0.1
# A cut "at once" is seen by a client of a busy machine within this, in seconds.
AT_ONCE = 1.0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name):
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    return found or sys.exit(f"{name} is missing; ./run setup installs it")


class Database:
    """A PostgreSQL server of its own."""

    def __init__(self, folder):
        self.folder, self.port = folder / "pg", free_port()
        # The server refuses to run for root.
        self.user = [] if os.getuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        self.folder.mkdir()
        if self.user:
            os.chown(self.folder, 65534, 65534)
            os.chmod(folder, 0o755)
        self.run(program("initdb"), "-D", self.folder, "-U", "soak", "-A", "trust", "-N")
        self.process = subprocess.Popen([*self.user, program("postgres"), "-D", self.folder, "-p", str(self.port), "-c",
                                         f"unix_socket_directories={self.folder}", "-c", "listen_addresses=127.0.0.1",
                                         "-c", "max_connections=200"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(200):
            made = self.run(program("psql"), "-h", self.folder, "-p", self.port, "-U", "soak", "-c", "CREATE DATABASE soak",
                            "postgres", check=False)
            if made.returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("PostgreSQL does not start")

    def run(self, *command, check=True):
        return subprocess.run([*self.user, *map(str, command)], check=check, capture_output=True, cwd="/")

    def url(self):
        return f"postgres://soak@127.0.0.1:{self.port}/soak?sslmode=disable"

    def pids(self):
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [self.process.pid, *map(int, children.stdout.split())]

    def send(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


class Authority:
    """Makes certificates for localhost."""

    def __init__(self, folder):
        self.folder = folder
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                 "-subj", "/CN=soak", "-days", "2", "-addext", "keyUsage=critical,keyCertSign", "-addext",
                 "basicConstraints=critical,CA:TRUE")
        (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.serial = 0

    def run(self, *args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=self.folder)

    def issue(self):
        self.serial += 1
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "next.key", "-out", "next.csr", "-subj",
                 "/CN=localhost")
        self.run("x509", "-req", "-in", "next.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", str(self.serial), "-out",
                 "next.pem", "-days", "1", "-extfile", "ext")
        for kind in ("key", "pem"):
            os.replace(self.folder / f"next.{kind}", self.folder / f"cert.{kind}")


UPSTREAM = '''
import asyncio, json, sys
PARTS, PART = %d, %r
async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode("latin-1").split("\\r\\n")
            target = head[0].split(" ")[1]
            fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if ": " in line)}
            length = int(fields.get("content-length", 0))
            body = await reader.readexactly(length) if length else b""
            if target.startswith("/api/slow"):
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %%d\\r\\n\\r\\n" %% (PARTS * len(PART)))
                for _ in range(PARTS):
                    writer.write(PART)
                    await writer.drain()
                    await asyncio.sleep(0.1)
                continue
            told = json.dumps({"user": fields.get("x-user-name"), "roles": fields.get("x-user-roles"), "length": len(body),
                               "target": target, "token": "authorization" in fields}).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %%d\\r\\n\\r\\n" %% len(told) + told)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()
asyncio.run(main())
''' % (PARTS, PART)


class Soak:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.faults, self.counts = [], {}
        self.frozen, self.upstream_died, self.ends = (0.0, 0.0), 0.0, time.monotonic() + options.seconds
        self.ports = {name: free_port() for name in ("a", "b", "a_tls", "a_admin", "b_admin", "one", "two")}
        self.processes, self.peers, self.memory = {}, {}, []

    # What runs.

    def write_config(self, name, reloads=0):
        other = f'\n  - {{address: "127.0.0.1:{self.ports["a_tls"]}", tls: {{certificate: cert.pem, key: cert.key}}}}' if name == "a" else ""
        extra = "".join(f"  - {{path: /extra/{number}/**, roles: {{any: [nobody]}}, upstream: backend}}\n" for number in range(reloads % 50))
        text = f"""listeners:
  - {{address: "127.0.0.1:{self.ports[name]}", http2: true}}{other}
admin: {{address: "127.0.0.1:{self.ports[name + '_admin']}"}}
workers: 2
store: {{url: "{self.database.url()}", timeout: 10s}}
auth:
  issuer: soak
  audience: soak
  # Few live as long as this, so what is kept of them soon comes to a level.
  access_token_ttl: 2m
  master_key: of-the-soak-alone-Hq7vK2xR9mB4wZ8nD5cF
  # All of them come from one address, and log in often.
  throttle: {{account: {{failures: 10000, per: 1s}}, address: {{failures: 10000, per: 1s}}}}
  password: {{argon2: {{memory: 19MiB, iterations: 2}}}}
revocation: {{max_staleness: 2s}}
# What an upgraded process carries is carried to its end.
drain: {{limit: 1m}}
upstreams:
  sockets: {{servers: [{{url: "http://127.0.0.1:{self.peers['websocket.py'][1]}"}}]}}
  calls: {{servers: [{{url: "h2c://127.0.0.1:{self.peers['grpc_server.py'][1]}"}}]}}
  backend:
    servers: [{{url: "http://127.0.0.1:{self.ports['one']}"}}, {{url: "http://127.0.0.1:{self.ports['two']}"}}]
    ejection: {{failures: 2, for: 1s}}
routes:
  - {{path: /api/**, upstream: backend, timeout: 30s}}
  - {{path: /staff/**, roles: {{any: [staff]}}, upstream: backend}}
  - {{path: /ws/**, upstream: sockets}}
  - {{path: /api.Calls/**, upstream: calls}}
{extra}log: {{access: false, level: warn}}
"""
        path = self.folder / f"{name}.new"
        path.write_text(text)
        os.replace(path, self.folder / f"{name}.yaml")

    def start_gateway(self, name):
        command = [str(self.options.binary), "serve", "--config", f"{name}.yaml", "--pid", f"{name}.pid"]
        log = open(self.folder / f"{name}.log", "a")
        self.processes[name] = subprocess.Popen(command, cwd=self.folder, stderr=log)
        for _ in range(300):
            if self.is_ready(name):
                return
            if self.processes[name].poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"gateway {name} does not start: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def is_ready(self, name):
        try:
            admin = http.client.HTTPConnection("127.0.0.1", self.ports[name + "_admin"], timeout=2)
            admin.request("GET", "/readyz")
            return admin.getresponse().status == 200
        except OSError:
            return False

    def start_upstream(self, name):
        self.processes[name] = subprocess.Popen([sys.executable, "-c", UPSTREAM, str(self.ports[name])], stderr=subprocess.DEVNULL)

    def start_peer(self, name):
        process = subprocess.Popen([sys.executable, ROOT / "tests/peers" / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(process.stdout.readline().split()[1])
        # What it prints is not read.
        subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        self.peers[name] = process, port

    def start(self):
        self.database = Database(self.folder)
        self.authority = Authority(self.folder)
        self.authority.issue()
        for name in ("one", "two"):
            self.start_upstream(name)
        for name in ("websocket.py", "grpc_server.py"):
            self.start_peer(name)
        for name in ("a", "b"):
            self.write_config(name)
            self.start_gateway(name)
        for number in range(self.options.clients):
            self.command("user", "add", f"client{number}", "--password-stdin", "--role", "user")
        self.command("user", "add", "root", "--password-stdin", "--role", "admin")

    def command(self, *args):
        subprocess.run([str(self.options.binary), *args, "--config", "b.yaml"], check=True, cwd=self.folder, capture_output=True,
                       input=PASSWORD, text=True)

    def stop(self):
        for name in ("a", "b"):
            pid = self.pid(name)
            if pid:
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass
        for process in self.processes.values():
            try:
                process.wait(10) if process.poll() is None and process.args[0] == str(self.options.binary) else process.kill()
            except subprocess.TimeoutExpired:
                process.kill()
        for process, _ in self.peers.values():
            process.kill()
        self.database.send(signal.SIGCONT)
        self.database.process.send_signal(signal.SIGQUIT)
        self.database.process.wait()

    def pid(self, name):
        try:
            return int((self.folder / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None

    # What is found.

    def fault(self, what):
        self.faults.append(f"{self.options.seconds - (self.ends - time.monotonic()):.1f} s: {what}")
        if len(self.faults) <= 20:
            print("FAULT", self.faults[-1], flush=True)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def database_was_frozen(self, since):
        return self.frozen[1] >= since and self.frozen[0] <= time.monotonic()

    def upstream_was_missing(self, since):
        return self.upstream_died + MISSED >= since

    # What is done to it.

    async def disturb(self):
        reloads = 0
        disturbances = [self.reload, self.reload, self.reload, self.kill_upstream, self.upgrade, self.renew, self.freeze]
        while time.monotonic() < self.ends - 10:
            for disturbance in random.sample(disturbances, len(disturbances)):
                if time.monotonic() > self.ends - 10:
                    return
                await asyncio.sleep(random.uniform(0.5, 2.0))
                reloads += 1
                await disturbance(reloads)
                self.count(f"disturbed: {disturbance.__name__}")

    async def reload(self, number):
        name = random.choice("ab")
        self.write_config(name, number)
        pid = self.pid(name)
        if pid:
            os.kill(pid, signal.SIGHUP)

    async def upgrade(self, _):
        upgraded = await asyncio.create_subprocess_exec(str(self.options.binary), "upgrade", "--pid", "a.pid", cwd=self.folder,
                                                        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        _, told = await upgraded.communicate()
        if upgraded.returncode:
            self.fault(f"an upgrade failed: {told.decode()[-300:]}")

    async def kill_upstream(self, _):
        name = random.choice(("one", "two"))
        self.upstream_died = time.monotonic()
        self.processes[name].kill()
        self.processes[name].wait()
        await asyncio.sleep(1)
        self.start_upstream(name)
        await asyncio.sleep(MISSED)
        self.upstream_died = max(self.upstream_died, time.monotonic() - MISSED)

    async def freeze(self, _):
        begun = time.monotonic()
        self.frozen = (begun, begun + FROZEN + 2.0)
        self.database.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(FROZEN)
        finally:
            self.database.send(signal.SIGCONT)
        # What waited for it comes to its end.
        await asyncio.sleep(2.0)
        self.frozen = (begun, time.monotonic())

    async def renew(self, _):
        await asyncio.to_thread(self.authority.issue)
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        for _ in range(40):
            try:
                reader, writer = await asyncio.open_connection("localhost", self.ports["a_tls"], ssl=context)
            except OSError as error:
                return self.fault(f"a handshake failed: {error}")
            serial = int(writer.get_extra_info("peercert")["serialNumber"], 16)
            writer.close()
            if serial == self.authority.serial:
                return
            await asyncio.sleep(0.25)
        self.fault("a renewed certificate was not shown within 10 s")

    async def watch_memory(self):
        while time.monotonic() < self.ends:
            await asyncio.sleep(1)
            status = pathlib.Path(f"/proc/{self.processes['b'].pid}/status").read_text()
            self.memory.append(int(status.split("VmRSS:")[1].split()[0]))

    # What clients do.

    async def administrate(self, queue):
        client = Client(self, "root")
        await client.login()
        while True:
            user, roles, done = await queue.get()
            done.set_result(await client.set_roles(user, roles))


class Client:
    """One account, and the connections of its holder."""

    def __init__(self, soak, name):
        self.soak, self.name, self.roles = soak, name, {"user"}
        self.connections, self.token, self.renew_at, self.ended, self.id = {}, None, 0.0, [], None

    async def send(self, gateway, method, target, token=None, body=b"", port=None, media="application/json"):
        """Returns status and body; none if there was no response, on a fresh connection too."""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {media}\r\n" if body else ""
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        port = port or self.soak.ports[gateway]
        for _ in range(2):
            known = self.connections.pop(port, None)
            try:
                reader, writer = known or await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return None
            try:
                writer.write(head.encode() + b"\r\n" + body)
                status, fields, content = await asyncio.wait_for(self.read(reader), 40)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError):
                writer.close()
                if known is None:
                    return None
                # A connection that rested may have been closed meanwhile (RFC 9112, section 9.3.1).
                continue
            if fields.get("connection") == "close":
                writer.close()
            else:
                self.connections[port] = (reader, writer)
            return status, content
        return None

    @staticmethod
    async def read(reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if ": " in line)}
        return int(head[0].split(" ")[1]), fields, await reader.readexactly(int(fields.get("content-length", 0)))

    async def login(self):
        """Logs in, however long it takes while the database is frozen."""
        body = json.dumps({"username": self.name, "password": PASSWORD}).encode()
        first = time.monotonic()
        while time.monotonic() < self.soak.ends:
            begun = time.monotonic()
            told = await self.send(random.choice("ab"), "POST", "/auth/login", body=body)
            if told and told[0] == 200:
                answer = json.loads(told[1])
                self.token, self.renew_at = answer["access_token"], time.monotonic() + 60
                while not self.id:
                    me = await self.send("b", "GET", "/auth/me", self.token)
                    self.id = json.loads(me[1])["user_id"] if me and me[0] == 200 else await asyncio.sleep(0.5)
                return
            # Too many at once are told to come back.
            if not (told and told[0] in (429, 503)) and not self.soak.database_was_frozen(begun):
                self.soak.fault(f"{self.name} could not log in: {told}")
            if begun > first + LONGEST_LOGIN:
                self.soak.fault(f"{self.name} could not log in for {LONGEST_LOGIN} s: {told}")
                first = begun
            await asyncio.sleep(0.5)

    async def log_out(self):
        gateway, begun = random.choice("ab"), time.monotonic()
        told = await self.send(gateway, "POST", "/auth/logout", self.token)
        if told and told[0] == 200:
            self.ended.append((self.token, gateway, time.monotonic()))
            self.soak.count("logouts")
        elif not self.soak.database_was_frozen(begun):
            self.soak.fault(f"a logout failed: {told}")
        await self.login()

    async def set_roles(self, user, roles):
        """Sets the roles of another account, as an administrator. Returns whether it is certain."""
        port = self.soak.ports["b_admin"]
        for _ in range(20):
            told = await self.send("b", "PATCH", f"/api/users/{user}", self.token, json.dumps({"roles": sorted(roles)}).encode(), port)
            if told and told[0] == 200:
                return True
            if told and told[0] == 401:
                await self.login()
            await asyncio.sleep(0.5)
        self.soak.fault(f"roles could not be set: {told}")
        return False

    async def change_roles(self, queue):
        wanted = {"user", "staff"} if "staff" not in self.roles else {"user"}
        done = asyncio.get_running_loop().create_future()
        await queue.put((self.id, wanted, done))
        if await done:
            # The change ends all sessions, by the gateway of the administrator.
            self.ended.append((self.token, "b", time.monotonic()))
            self.roles = wanted
            self.soak.count("role changes")
        await self.login()

    def is_own(self, content):
        told = json.loads(content)
        return told["user"] == self.name and set(told["roles"].split(",")) == self.roles and not told["token"]

    async def ask(self):
        gateway = random.choice("ab")
        told = await self.send(gateway, "GET", f"/api/{random.randrange(1000)}", self.token)
        if not told or told[0] != 200:
            self.soak.fault(f"a live token of {self.name} at {gateway}: {told}")
        elif not self.is_own(told[1]):
            self.soak.fault(f"{self.name} was told to be another: {told[1]}")

    async def ask_dead(self):
        if not self.ended:
            return
        token, ended_by, ended = random.choice(self.ended[-5:])
        gateway, begun = random.choice("ab"), time.monotonic()
        told = await self.send(gateway, "GET", "/api/dead", token)
        must = gateway == ended_by or begun > ended + BOUND
        if told and told[0] == 401:
            self.soak.count("dead tokens refused")
        elif must or not told or told[0] != 200:
            self.soak.fault(f"a dead token of {self.name} at {gateway}, ended by {ended_by} {begun - ended:.2f} s before: {told and told[0]}")

    async def ask_staff(self):
        gateway = random.choice("ab")
        wanted = 200 if "staff" in self.roles else 403
        told = await self.send(gateway, "GET", "/staff/x", self.token)
        if not told or told[0] != wanted:
            self.soak.fault(f"{self.name} with {self.roles} at {gateway}: {told and told[0]}, not {wanted}")

    async def upload(self):
        begun = time.monotonic()
        told = await self.send(random.choice("ab"), "POST", "/api/upload", self.token, UPLOAD, media="application/octet-stream")
        if told and told[0] == 200 and self.is_own(told[1]) and json.loads(told[1])["length"] == len(UPLOAD):
            return self.soak.count("uploads")
        if not self.soak.upstream_was_missing(begun):
            self.soak.fault(f"an upload: {told}")

    async def download(self):
        begun = time.monotonic()
        told = await self.send(random.choice("ab"), "GET", "/api/slow", self.token)
        if told and told[0] == 200 and len(told[1]) == PARTS * len(PART):
            return self.soak.count("downloads")
        if not self.soak.upstream_was_missing(begun):
            self.soak.fault(f"a download: {told and (told[0], len(told[1]))}")

    async def open_socket(self, gateway):
        """Opens a WebSocket. Returns what sends a message and gives its echo, and what closes it."""
        uri, headers = f"ws://127.0.0.1:{self.soak.ports[gateway]}/ws/x", {"Authorization": f"Bearer {self.token}"}
        connection = await websockets.connect(uri, additional_headers=headers, proxy=None)
        hello = await connection.recv()
        if hello != f"hello {self.name} None":
            raise ValueError(f"the upstream was told {hello}")

        async def echo(message):
            await connection.send(message)
            return await connection.recv()
        return echo, connection.close

    async def open_stream(self, gateway):
        """The same with a gRPC stream."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.soak.ports[gateway]}")
        stream = channel.stream_stream("/api.Calls/Echoes")(metadata=(("authorization", f"Bearer {self.token}"),))

        async def echo(message):
            await stream.write(message.encode())
            told = await stream.read()
            return told if told is grpc.aio.EOF else told.decode().lower()

        async def close():
            stream.cancel()
            await channel.close()
        return echo, close

    async def hold(self, open_one, kind):
        """Holds a WebSocket or a stream for a while; half of them until their token ends."""
        gateway = random.choice("ab")
        try:
            echo, close = await asyncio.wait_for(open_one(gateway), 10)
        except Exception as error:  # Whatever it is, it is a fault.
            return self.soak.fault(f"a {kind} of {self.name} at {gateway}: {error!r}")
        try:
            for number in range(MESSAGES):
                told = await asyncio.wait_for(echo(f"message {number}"), 10)
                if told != f"message {number}":
                    raise ValueError(f"another message: {told}")
                self.soak.count(f"{kind} messages")
                await asyncio.sleep(PAUSE)
        except Exception as error:
            self.soak.fault(f"a {kind} of {self.name} at {gateway} broke: {error!r}")
        else:
            if random.random() < 0.5:
                await self.see_cut(echo, kind, gateway)
        finally:
            await close()

    async def see_cut(self, echo, kind, gateway):
        before = len(self.ended)
        await self.log_out()
        if len(self.ended) == before:
            return
        _, ended_by, ended = self.ended[-1]
        until = ended + (AT_ONCE if ended_by == gateway else BOUND)
        while True:
            begun = time.monotonic()
            try:
                told = await asyncio.wait_for(echo("after the end"), 10)
            except asyncio.TimeoutError:
                return self.soak.fault(f"a {kind} of {self.name} neither goes on nor ends")
            except Exception:
                return self.soak.count(f"{kind}s cut")
            if told is grpc.aio.EOF:
                return self.soak.count(f"{kind}s cut")
            if begun > until:
                return self.soak.fault(f"a {kind} of {self.name} at {gateway} went on after its token was ended by {ended_by}")
            await asyncio.sleep(PAUSE)

    async def live(self, queue):
        await self.login()
        actions = [(self.ask, 900), (self.ask_dead, 40), (self.ask_staff, 40), (self.upload, 10), (self.download, 4), (self.log_out, 4),
                   (lambda: self.change_roles(queue), 2), (lambda: self.hold(self.open_socket, "websocket"), 2),
                   (lambda: self.hold(self.open_stream, "gRPC stream"), 2)]
        kinds, weights = zip(*actions)
        while time.monotonic() < self.soak.ends:
            is_old = time.monotonic() > self.renew_at
            await (self.log_out if is_old else random.choices(kinds, weights)[0])()
            self.soak.count("actions")


async def run(soak):
    queue = asyncio.Queue()
    administrator = asyncio.create_task(soak.administrate(queue))
    clients = [Client(soak, f"client{number}").live(queue) for number in range(soak.options.clients)]
    await asyncio.gather(*clients, soak.disturb(), soak.watch_memory())
    administrator.cancel()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=1_200)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/authgate")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(options, pathlib.Path(folder))
        try:
            soak.start()
            soak.ends = time.monotonic() + options.seconds
            asyncio.run(run(soak))
        finally:
            soak.stop()
        for name in ("a", "b"):
            for line in (soak.folder / f"{name}.log").read_text().splitlines():
                if '"ERROR"' in line or "panicked" in line:
                    soak.fault(f"the log of {name}: {line[:300]}")
    for what, count in sorted(soak.counts.items()):
        print(f"{count:9,} {what}")
    quarter = len(soak.memory) // 4
    if quarter:
        early, late = statistics.median(soak.memory[quarter:2 * quarter]), statistics.median(soak.memory[-quarter:])
        print(f"memory of the gateway that is never upgraded: {early / 1024:.1f} MiB, at the end {late / 1024:.1f} MiB")
        if late > early * 1.05:
            soak.faults.append(f"memory grew by {late / early - 1:.1%}")
    print(f"{len(soak.faults)} faults" + "".join(f"\n  {fault}" for fault in soak.faults[:50]))
    # Of many, when there were how many of each kind.
    kinds = collections.Counter((fault.split(" s: ")[0], re.sub(r"client\d+|[0-9a-f]{32}", "*", fault.split(" s: ", 1)[-1])[:100])
                                for fault in soak.faults)
    for (when, kind), count in kinds.most_common(20):
        print(f"{count:9,} x {when} s: {kind}")
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()
