#!/usr/bin/env python3
"""How long a logout takes to hold on other gateways, and what the revocations cost.

  benches/revocation/run.py [all]
  benches/revocation/run.py latency [--rounds N] [--rate R]
  benches/revocation/run.py races [--rounds N]
  benches/revocation/run.py mirror
  benches/revocation/run.py keys
  benches/revocation/run.py million [--entries N] [--rounds N]
  benches/revocation/run.py fleet [--gateways N] [--logouts R] [--seconds S]

latency  Three gateways on one throw-away PostgreSQL, each under a load of protected requests. A user logs out on
         the first; the others are asked with the token until they refuse. Counted from the logout's answer to
         the first refusal; then for API keys that are ended in place of sessions; then again with the notifications
         lost on their way. Writes latency.svg.
races    Logouts beside requests with the same token on the same gateway, on SQLite and on PostgreSQL: how many that
         began after the logout's answer succeeded.
mirror   Memory an entry and CPU time a look-up in the gateway's copy of the log, with nothing around it.
keys     Memory and CPU time of a million live API keys, with nothing around them.
fleet    Many gateways listening on one PostgreSQL, and logouts at a steady rate: the lag on gateways picked by
         chance, and the CPU time of the database and of the gateways.
million  How long a gateway takes to start with a full log, the memory an entry takes in it, and the CPU time of
         a request beside a gateway with an empty one, in interleaved rounds (needs wrk and nginx).

Needs PostgreSQL and `cargo build --release --bins --examples`, which ./run bench-revocation sees to. What is asked of
a figure is printed behind it.
"""

import argparse
import asyncio
import http.client
import importlib.util
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("accounts", HERE.parent / "accounts/run.py")
accounts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(accounts)

TICK = 1 / os.sysconf("SC_CLK_TCK")
POLL_MILLIS = 1_000

CONFIG = """
listeners: [{{address: "127.0.0.1:{port}"}}]
admin: {{address: "127.0.0.1:{admin}"}}
workers: 1
store: {{url: "{store}", pool_size: 4}}
auth:
  issuer: https://login.example.com
  audience: bench
  access_token_ttl: 1h
  master_key: bench-gateways-share-Hq7vK2xR9mB4wZ8nD5cF
  password: {{argon2: {{memory: 64KiB, iterations: 1}}}}
  throttle: {{registrations: {{requests: 1000000, per: 1s}}, account: {{failures: 1000000, per: 1s}}, address: {{failures: 1000000, per: 1s}}}}
upstreams: {{backend: {{servers: [{{url: "http://127.0.0.1:{upstream}"}}]}}}}
routes:
  - path: /api/**
    respond: {{json: {{ok: true}}}}
  - {{path: /forwarded/**, upstream: backend}}
log: {{level: error, access: false}}
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; keepalive_requests 1000000000; server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }} }}
"""


class Gateway(accounts.Gateway):
    def __init__(self, root, index, store, upstream=9):
        self.folder = pathlib.Path(root) / str(index)
        self.folder.mkdir()
        self.port, self.admin = accounts.free_port(), accounts.free_port()
        self.config = self.folder / "gateway.yaml"
        self.config.write_text(CONFIG.format(port=self.port, admin=self.admin, store=store, upstream=upstream))

    def cpu(self):
        return cpu_of(self.process.pid)

    def resident(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"Rss:\s+(\d+)", text).group(1)) * 1024

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port)


def cpu_of(pid):
    """Seconds of CPU time that a process and its finished children have used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) * TICK


def database_cpu(cluster):
    """Seconds of CPU time of a throw-away server and of its children, ended ones included."""
    own, total = str(cluster.process.pid), cpu_of(cluster.process.pid)
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[1] == own:
            total += (int(fields[11]) + int(fields[12])) * TICK
    return total


def judged(value, bound):
    return "within" if value <= bound else "OVER"


def call(connection, method, path, token=None, body=None):
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    return response.status, response.read()


def register(connection, name):
    body = {"username": name, "password": accounts.PASSWORD}
    status, answer = call(connection, "POST", "/auth/register", body=body)
    assert status == 201, answer
    return json.loads(answer)["access_token"]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def summary(values):
    return (f"p50 {statistics.median(values):.2f} ms, p99 {percentile(values, 0.99):.2f} ms, "
            f"max {max(values):.2f} ms")


class Load(threading.Thread):
    """About `rate` protected requests a second on one connection."""

    def __init__(self, gateway, token, rate):
        super().__init__(daemon=True)
        self.connection, self.token, self.rate = gateway.connection(), token, rate
        self.sent, self.ending = 0, False

    def run(self):
        begun = time.perf_counter()
        while not self.ending:
            call(self.connection, "GET", "/api/x", self.token)
            self.sent += 1
            wait = begun + self.sent / self.rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)


class Deaf:
    """A road to the database on which notifications get lost."""

    def __init__(self, url):
        self.host, self.port = re.search(r"@([^:/]+):(\d+)", url).groups()
        self.own, self.lost = accounts.free_port(), 0
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()

        def run():
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(asyncio.start_server(self.carry, "127.0.0.1", self.own))
            ready.set()
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        ready.wait()
        self.url = url.replace(f"{self.host}:{self.port}", f"127.0.0.1:{self.own}")
        self.listening = False

    async def carry(self, reader, writer):
        server_reader, server_writer = await asyncio.open_connection(self.host, int(self.port))
        await asyncio.gather(self.up(reader, server_writer), self.down(server_reader, writer), return_exceptions=True)

    async def up(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def down(self, reader, writer):
        while True:
            head = await reader.readexactly(5)
            rest = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            # The gateway makes sure at its start that it hears its own.
            if head[:1] == b"A" and self.listening:
                self.lost += 1
                continue
            writer.write(head + rest)
            await writer.drain()


def session(connection, name):
    """A bearer of a session, and what ends it."""
    token = register(connection, name)
    return token, lambda: call(connection, "POST", "/auth/logout", token)


def api_key(connection, name):
    """An API key, and what ends it."""
    token = register(connection, name)
    status, answer = call(connection, "POST", "/auth/keys", token, {"name": "bench"})
    assert status == 201, answer
    made = json.loads(answer)
    return made["key"], lambda: call(connection, "DELETE", f"/auth/keys/{made['id']}", token)


def measure(gateways, rounds, rate, prefix, credential=session):
    connections = [gateway.connection() for gateway in gateways]
    loads = []
    if rate:
        token = register(connections[0], f"{prefix}load")
        loads = [Load(gateway, token, rate) for gateway in gateways]
        [load.start() for load in loads]
    delays, begun, chance = [], time.perf_counter(), random.Random(1)
    for index in range(rounds):
        token, end = credential(connections[0], f"{prefix}{index}")
        assert call(connections[0], "GET", "/api/x", token)[0] == 200
        for connection in connections[1:]:
            # Another gateway learns of a key as it learns of a logout; tokens it has to know already.
            while (status := call(connection, "GET", "/api/x", token)[0]) != 200:
                assert credential is api_key and status in (401, 503), status
        # At any moment between two polls.
        time.sleep(chance.random() * 0.02)
        assert end()[0] == 200
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
    return delays, [round(load.sent / took) for load in loads]


def plot(runs, path):
    """The share of logouts that hold elsewhere after a time, on a logarithmic scale from 1 ms to 2 s."""
    import math

    width, height, left, top = 720, 320, 60, 40
    x = lambda millis: left + (width - left - 30) * math.log10(max(millis, 1)) / math.log10(2_000)
    y = lambda share: top + (height - top - 50) * (1 - share)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           '<text x="20" y="24" font-size="15" fill="#222">From a logout\'s answer to the first refusal on another gateway</text>']
    for millis in (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000):
        out.append(f'<line x1="{x(millis):.1f}" x2="{x(millis):.1f}" y1="{top}" y2="{height - 50}" stroke="#ddd"/>'
                   f'<text x="{x(millis):.1f}" y="{height - 32}" text-anchor="middle" fill="#222">{millis}</text>')
    out.append(f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle" fill="#222">milliseconds</text>')
    for share in (0, 0.5, 0.99):
        out.append(f'<line x1="{left}" x2="{width - 30}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 8}" y="{y(share) + 4:.1f}" text-anchor="end" fill="#222">{share:.0%}</text>')
    for (name, delays), colour in zip(runs.items(), ("#0b7285", "#7048e8", "#c2410c")):
        ordered = sorted(delays)
        points = " ".join(f"{x(delay):.1f},{y((rank + 1) / len(ordered)):.1f}" for rank, delay in enumerate(ordered))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        middle = ordered[len(ordered) // 2]
        out.append(f'<text x="{x(middle) + 8:.1f}" y="{y(0.25):.1f}" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*out, "</svg>\n"]))


def latency(options):
    accounts.CONFIG = CONFIG
    runs, rates = {}, {}
    with accounts.Cluster() as url, tempfile.TemporaryDirectory() as root:
        gateways = [Gateway(root, index, url).__enter__() for index in range(3)]
        runs["with notifications"], rates["with notifications"] = measure(gateways, options.rounds, options.rate, "a")
        runs["API keys"], rates["API keys"] = measure(gateways, options.rounds, options.rate, "k", api_key)
        [gateway.__exit__() for gateway in gateways]
        deaf = Deaf(url)
        gateways = [Gateway(root, index + 3, url if index == 0 else deaf.url).__enter__() for index in range(3)]
        deaf.listening = True
        rounds = max(options.rounds // 3, 1)
        runs["notifications lost"], rates["notifications lost"] = measure(gateways, rounds, options.rate, "b")
        [gateway.__exit__() for gateway in gateways]
        assert deaf.lost >= rounds, deaf.lost
    for name, delays in runs.items():
        print(f"{name}: {summary(delays)} ({len(delays)} refusals; protected requests a second on each: {rates[name]})")
    for name in ("with notifications", "API keys"):
        told = runs[name]
        print(f"{name}: p50 {judged(statistics.median(told), 5)} 5 ms, p99 {judged(percentile(told, 0.99), 25)} 25 ms, "
              f"max {judged(max(told), POLL_MILLIS)} {POLL_MILLIS} ms")
    lost = max(runs["notifications lost"])
    print(f"notifications lost: max {judged(lost, POLL_MILLIS + 100)} {POLL_MILLIS + 100} ms")
    plot(runs, HERE / "latency.svg")


def example(name, *args):
    program = HERE.parent.parent / "target/release/examples" / name
    subprocess.run([program, *map(str, args)], check=True)


def races(options):
    print("SQLite:", flush=True)
    example("races", options.rounds)
    with accounts.Cluster() as url:
        print("PostgreSQL:", flush=True)
        example("races", options.rounds, url)


def mirror(_):
    example("mirror")


def keys(_):
    for owned in (100, 10, 2, 1):
        example("api_keys", owned)


def fleet(options):
    cluster = accounts.Cluster()
    with cluster as url, tempfile.TemporaryDirectory() as root:
        gateways = []
        for index in range(options.gateways):
            gateways.append(Gateway(root, index, url).__enter__())
        count = options.logouts * options.seconds
        print(f"{options.gateways} gateways listen; opening {count} sessions", flush=True)
        tokens = [register(gateways[0].connection(), "first")]
        connection = gateways[0].connection()
        tokens = [register(connection, f"user{index}") for index in range(count)]
        time.sleep(3)
        before = database_cpu(cluster), sum(gateway.cpu() for gateway in gateways)
        begun = time.perf_counter()
        idle = 5
        time.sleep(idle)
        rest = (database_cpu(cluster) - before[0]) / idle, (sum(gateway.cpu() for gateway in gateways) - before[1]) / idle
        delays, lock, took = [], threading.Lock(), []
        before = database_cpu(cluster), sum(gateway.cpu() for gateway in gateways)
        begun = time.perf_counter()

        def work(worker, workers):
            chance = random.Random(worker)
            connections = {}
            of = lambda index: connections.setdefault(index, gateways[index].connection())
            for index in range(worker, count, workers):
                wait = begun + index / options.logouts - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                here, there = chance.sample(range(len(gateways)), 2)
                sent = time.perf_counter()
                assert call(of(here), "POST", "/auth/logout", tokens[index])[0] == 200
                answered = time.perf_counter()
                # Every twentieth is watched; to watch them all would be most of the load.
                watched = index % 20 == 0
                while watched and call(of(there), "GET", "/api/x", tokens[index])[0] == 200:
                    time.sleep(0.001)
                with lock:
                    took.append((answered - sent) * 1000)
                    if watched:
                        delays.append((time.perf_counter() - answered) * 1000)

        workers = [threading.Thread(target=work, args=(worker, 16)) for worker in range(16)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        span = time.perf_counter() - begun
        database = (database_cpu(cluster) - before[0]) / span
        own = (sum(gateway.cpu() for gateway in gateways) - before[1]) / span
        for gateway in gateways:
            gateway.__exit__()
    print(f"{count / span:.0f} logouts a second on {options.gateways} gateways for {span:.0f} s")
    print(f"lag on another gateway: {summary(delays)} ({len(delays)} watched); the logout's own answer: {summary(took)}")
    print(f"CPU cores used: database {database:.2f} (at rest {rest[0]:.2f}), all gateways {own:.2f} (at rest {rest[1]:.2f})")


def fill(url, entries):
    sql = (f"INSERT INTO revocations (kind, id, generation, expires_at) SELECT 1, "
           f"overlay(overlay(gen_random_uuid()::text placing '4' from 15 for 1) placing '8' from 20 for 1)::uuid, "
           f"9223372036854775807, (extract(epoch from now()) * 1000)::bigint + 86400000 FROM generate_series(1, {entries}); "
           f"ANALYZE revocations")
    for statement in sql.split("; "):
        subprocess.run(["psql", "-q", url, "-c", statement], check=True)


def million(options):
    with accounts.Cluster() as empty_url, accounts.Cluster() as full_url, tempfile.TemporaryDirectory() as root:
        port = accounts.free_port()
        (pathlib.Path(root) / "nginx.conf").write_text(NGINX.format(folder=root, port=port))
        upstream = subprocess.Popen(["nginx", "-c", f"{root}/nginx.conf"])
        try:
            with Gateway(root, "migrate", full_url):
                pass
            fill(full_url, options.entries)
            started = {}
            gateways = {}
            for name, url in (("empty", empty_url), ("full", full_url)):
                times = []
                for attempt in range(3):
                    gateway = Gateway(root, f"{name}{attempt}", url, port)
                    begun = time.perf_counter()
                    gateway.__enter__()
                    times.append(time.perf_counter() - begun)
                    if attempt < 2:
                        gateway.__exit__()
                started[name], gateways[name] = statistics.median(times), gateway
            tokens = {name: register(gateway.connection(), "alice") for name, gateway in gateways.items()}
            resident = {name: gateway.resident() for name, gateway in gateways.items()}
            each = (resident["full"] - resident["empty"]) / options.entries
            bound = f" ({judged(started['full'], 2)} 2 s)" if options.entries == 1_000_000 else ""
            print(f"{options.entries} entries: start {started['full']:.2f} s{bound}, empty {started['empty']:.2f} s; "
                  f"{each:.1f} bytes of the process an entry", flush=True)
            costs = {name: [] for name in gateways}
            order = list(gateways)
            for index in range(options.rounds):
                for name in order if index % 2 == 0 else reversed(order):
                    gateway = gateways[name]
                    before = gateway.cpu()
                    done = subprocess.run(
                        ["wrk", "-t1", "-c64", f"-d{options.seconds}s", "-H", f"Authorization: Bearer {tokens[name]}",
                         f"http://127.0.0.1:{gateway.port}/forwarded/x"], capture_output=True, text=True, check=True)
                    requests = int(re.search(r"(\d+) requests in", done.stdout).group(1))
                    assert "Non-2xx" not in done.stdout, done.stdout
                    costs[name].append((gateway.cpu() - before) / requests * 1e6)
            medians = {name: statistics.median(values) for name, values in costs.items()}
            ratios = [full / empty for full, empty in zip(costs["full"], costs["empty"])]
            middle, chance = statistics.median(ratios), random.Random(1)
            again = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2_000))
            print(f"CPU a request: empty {medians['empty']:.2f} µs, full {medians['full']:.2f} µs; median of {len(ratios)} "
                  f"interleaved ratios {middle:.4f} ({judged(abs(middle - 1), 0.02)} 2 %), 95 % of medians drawn from them "
                  f"between {again[49]:.4f} and {again[1949]:.4f}")
            for gateway in gateways.values():
                gateway.__exit__()
        finally:
            upstream.terminate()
            upstream.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("latency")
    one.add_argument("--rounds", type=int, default=300)
    one.add_argument("--rate", type=int, default=1_000, help="protected requests a second on each gateway")
    one.set_defaults(run=latency)
    one = commands.add_parser("races")
    one.add_argument("--rounds", type=int, default=10_000)
    one.set_defaults(run=races)
    one = commands.add_parser("mirror")
    one.set_defaults(run=mirror)
    one = commands.add_parser("keys")
    one.set_defaults(run=keys)
    one = commands.add_parser("fleet")
    one.add_argument("--gateways", type=int, default=50)
    one.add_argument("--logouts", type=int, default=200, help="a second")
    one.add_argument("--seconds", type=int, default=20)
    one.set_defaults(run=fleet)
    one = commands.add_parser("million")
    one.add_argument("--entries", type=int, default=1_000_000)
    one.add_argument("--rounds", type=int, default=60)
    one.add_argument("--seconds", type=int, default=2, help="of each round")
    one.set_defaults(run=million)
    every = ["latency", "races", "mirror", "keys", "million", "fleet"]
    commands.add_parser("all").set_defaults(run=None)
    options = parser.parse_args()
    if getattr(options, "run", None):
        return options.run(options)
    for name in every:
        print(f"\n# {name}", flush=True)
        one = parser.parse_args([name])
        one.run(one)


if __name__ == "__main__":
    main()
