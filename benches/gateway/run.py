#!/usr/bin/env python3
"""Measures authgate beside nginx and HAProxy, one worker each, before one backend.

Installs what is missing by apt, starts everything on loopback, and loads it with wrk in
interleaved rounds. CPU time a request is what the proxy's process used, from /proc, over the
requests that wrk counted. Prints a table, and writes results.json and results.svg.

    benches/gateway/run.py [--quick] [--binary FILE] [--plain FILE] [--out DIR]
    benches/gateway/run.py --before FILE [--quick] [--binary FILE]   now beside an earlier build, CPU time only
    benches/gateway/run.py --log [--quick] [--binary FILE]           what the access log costs, CPU time only
    benches/gateway/run.py --unix [--quick] [--binary FILE]          an upstream on a socket of the machine beside one on TCP
    benches/gateway/run.py --idle N [--binary FILE]                  memory of so many idle connections to authgate

authgate is the profiled build of `./run release` (target/dist/authgate), which must be there; beside it a plain
`cargo build --release` is measured as authgate+plain.
"""

import argparse
import base64
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "a-secret-for-benchmarks-only-0123456789abcdef"
PORTS = {"backend": 27000, "nginx": 27001, "haproxy": 27002, "haproxy+jwt": 27003, "authgate": 27004,
         "nginx+log": 27006, "authgate+log": 27007, "authgate+plain": 27011}
ADMIN = {"authgate": 27005, "authgate+log": 27008, "authgate+plain": 27012}
PATH = "/api/orders/1"
# Idle connections whose memory is measured.
IDLE = 4000


def install():
    wanted = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk"}
    missing = [package for command, package in wanted.items() if not shutil.which(command)]
    if missing:
        print(f"installing {' '.join(missing)}", file=sys.stderr)
        subprocess.run(["apt-get", "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", *missing], check=True, stdout=subprocess.DEVNULL)


def version(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return found.group(0) if found else "unknown"


def raise_open_files(wanted):
    """Each client may need an upstream connection too, so authgate keeps as many as half of its files."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except ValueError:
        sys.exit(f"a process may have {hard} open files here; {wanted} are needed")


class Bench:
    def __init__(self, folder, binary, others, unix=False):
        """`others` are binaries by the names that they are measured under. With `unix` an nginx and an authgate are there
        whose upstream is a socket of the machine."""
        self.folder = folder
        self.binary = binary
        self.others = others
        if "before" in others:
            PORTS["before"], ADMIN["before"] = 27009, 27010
        if "authgate+plain" not in others:
            del PORTS["authgate+plain"], ADMIN["authgate+plain"]
        if unix:
            PORTS.update({"nginx+unix": 27013, "authgate+unix": 27014})
            ADMIN["authgate+unix"] = 27015
        self.gateways = [name for name in PORTS if name in ADMIN]
        self.processes = []
        self.pids = {}
        self.tokens = {}

    def spawn(self, name, command, **options):
        log = open(self.folder / f"{name.replace('+', '-')}.log", "wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        self.processes.append(process)
        return process

    def nginx(self, name, server, events=""):
        text = f"""
            daemon off; master_process off; worker_processes 1; pid {self.folder}/{name}.pid;
            error_log {self.folder}/{name}.error.log; worker_rlimit_nofile 65536;
            events {{ worker_connections 8192; {events} }}
            http {{
              access_log off; keepalive_requests 100000000; keepalive_timeout 75s;
              client_body_temp_path {self.folder}; proxy_temp_path {self.folder};
              fastcgi_temp_path {self.folder}; uwsgi_temp_path {self.folder}; scgi_temp_path {self.folder};
              {server}
            }}"""
        config = self.folder / f"{name}.conf"
        config.write_text(text)
        self.pids[name] = self.spawn(name, ["nginx", "-c", str(config)]).pid

    def haproxy(self, name, bind, backend, rules=""):
        text = f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    option http-keep-alive
    http-reuse always
frontend f
    bind {bind}
{rules}
    default_backend b
backend b
    server s 127.0.0.1:{backend} pool-max-conn 512
"""
        config = self.folder / f"{name.replace('+', '-')}.cfg"
        config.write_text(text)
        self.pids[name] = self.spawn(name, ["haproxy", "-f", str(config)]).pid

    def authgate(self, name):
        config = self.folder / f"{name.replace('+', '-')}.yaml"
        log = "true" if name == "authgate+log" else "false"
        config.write_text(f"""
listeners: [{{address: "127.0.0.1:{PORTS[name]}"}}]
admin: {{address: "127.0.0.1:{ADMIN[name]}"}}
workers: 1
store: {{url: "sqlite:{name.replace('+', '-')}.db"}}
auth:
  issuer: bench
  audience: bench
  access_token_ttl: 1d
  signing: {{algorithm: HS256, secret: {SECRET}}}
  throttle:
    account: {{failures: 1000000, per: 1s}}
    address: {{failures: 1000000, per: 1s}}
    registrations: {{requests: 1000000, per: 1s}}
upstreams:
  backend: {{servers: [{{url: "{self.server(name, 'http://')}"}}], idle_connections: 1024}}
routes:
  - {{path: /api/**, upstream: backend}}
log: {{access: {log}, level: warn}}
""")
        self.pids[name] = self.spawn(name, [str(self.others.get(name, self.binary)), "serve", "--config", str(config)]).pid

    def server(self, name, scheme):
        """The backend's address for a gateway."""
        return f"unix:{self.folder}/backend.sock" if name.endswith("+unix") else f"{scheme}127.0.0.1:{PORTS['backend']}"

    def start(self):
        self.nginx("backend", f"""server {{
            listen 127.0.0.1:{PORTS['backend']} backlog=4096; listen unix:{self.folder}/backend.sock backlog=4096;
            location / {{ default_type application/json; return 200 '{{"id":1,"state":"shipped"}}'; }} }}""",
            # By default nginx accepts one connection a turn, and new ones wait for 80 ms while the others are busy.
            "multi_accept on;")
        logs = {"nginx": "off", "nginx+log": f"{self.folder}/nginx.access.log", "nginx+unix": "off"}
        for name, log in logs.items():
            if name not in PORTS:
                continue
            self.nginx(name, f"""
            upstream b {{ server {self.server(name, '')}; keepalive 1024; keepalive_requests 100000000; }}
            server {{ access_log {log}; listen 127.0.0.1:{PORTS[name]} backlog=4096;
              location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}""")
        backend = PORTS["backend"]
        self.haproxy("haproxy", f"127.0.0.1:{PORTS['haproxy']}", backend)
        # What authgate does for a request, said in HAProxy's words: signature, issuer, audience, expiry,
        # the three identity headers, and the forwarding headers.
        self.haproxy("haproxy+jwt", f"127.0.0.1:{PORTS['haproxy+jwt']}", backend, f"""
    option forwardfor
    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str HS256 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{SECRET}") -m int 1 }}
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str bench }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str bench }}
    http-request set-header X-User-Id %[var(txn.bearer),jwt_payload_query('$.sub')]
    http-request set-header X-User-Name %[var(txn.bearer),jwt_payload_query('$.name')]
    http-request set-header X-User-Roles %[var(txn.bearer),jwt_payload_query('$.roles')]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Request-Id %[uuid]""")
        for name in self.gateways:
            self.authgate(name)
        for name, port in PORTS.items():
            wait_for(port, name)
        self.tokens = {name: self.account(PORTS[name], "bench-user") for name in self.gateways}
        for name in PORTS:
            status = self.get(name, PATH)
            assert status == 200, f"{name} answered {status}"

    def token(self, name):
        return self.tokens.get(name, self.tokens["authgate"])

    def get(self, name, path):
        connection = http.client.HTTPConnection("127.0.0.1", PORTS[name], timeout=10)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token(name)}"})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status

    def account(self, port, name):
        body = json.dumps({"username": name, "password": f"the password of {name}"})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/auth/register", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["access_token"]

    def cpu(self, name):
        """User and kernel time of a process, in seconds."""
        fields = pathlib.Path(f"/proc/{self.pids[name]}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) / TICKS, int(fields[12]) / TICKS

    def load(self, name, connections, seconds):
        script = self.folder / "auth.lua"
        script.write_text(f'wrk.headers["Authorization"] = "Bearer {self.token(name)}"\n')
        before = self.cpu(name)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script),
             f"http://127.0.0.1:{PORTS[name]}{PATH}"], capture_output=True, text=True, check=True)
        user, kernel = (now - then for now, then in zip(self.cpu(name), before))
        text = done.stdout
        requests = int(re.search(r"(\d+) requests in", text).group(1))
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        assert not refused, f"{name}: {refused.group(0)}"
        return {
            "cpu_us": (user + kernel) * 1e6 / requests,
            "user_us": user * 1e6 / requests,
            "kernel_us": kernel * 1e6 / requests,
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
            "p50_ms": latency(text, "50%"),
            "p99_ms": latency(text, "99%"),
        }

    def rss(self, name):
        text = pathlib.Path(f"/proc/{self.pids[name]}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) * 1024

    def idle_memory(self, name, count):
        """Bytes of an idle connection that has served one request; authgate's rests after three seconds."""
        request = f"GET {PATH} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {self.token(name)}\r\n\r\n".encode()
        sockets = []

        def opened(count):
            for _ in range(count):
                # An address has some 28,000 ports.
                source = f"127.0.1.{1 + len(sockets) // 20_000}"
                client = socket.create_connection(("127.0.0.1", PORTS[name]), source_address=(source, 0))
                client.sendall(request)
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
                sockets.append(client)
            return self.steady_rss(name)

        # What the first ones allocate once for all, and what the start has left, are not theirs.
        before = opened(100)
        after = opened(count)
        for client in sockets:
            client.close()
        return (after - before) / count

    def steady_rss(self, name):
        """Resident memory once it has not changed for as long as a connection takes to rest and an allocator to give back."""
        kept, since = self.rss(name), time.monotonic()
        while time.monotonic() - since < 10:
            time.sleep(0.5)
            if abs((now := self.rss(name)) - kept) > 64 << 10:
                kept, since = now, time.monotonic()
        return kept

    def logins(self, seconds, clients):
        """Successful logins a second by so many clients at once. By wrk, which takes next to no CPU time
        from the hashing threads that are measured."""
        script = self.folder / "login.lua"
        body = json.dumps({"username": "bench-user", "password": "the password of bench-user"})
        script.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\nwrk.headers['Content-Type'] = 'application/json'\n")
        done = subprocess.run(
            ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script),
             f"http://127.0.0.1:{PORTS['authgate']}/auth/login"], capture_output=True, text=True, check=True)
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
        refused = int(refused.group(1)) if refused else 0
        requests = int(re.search(r"(\d+) requests in", done.stdout).group(1))
        return (requests - refused) / seconds, refused

    def paced(self, seconds, rate):
        """p99 in ms of protected requests that arrive at a fixed rate, measured from when each was due."""
        request = f"GET {PATH} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {self.token('authgate')}\r\n\r\n".encode()
        client = socket.create_connection(("127.0.0.1", PORTS["authgate"]))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        took, begun = [], time.monotonic()
        for index in range(int(seconds * rate)):
            due = begun + index / rate
            while (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            sent = time.monotonic()
            client.sendall(request)
            client.recv(4096)
            took.append(time.monotonic() - sent)
        client.close()
        took.sort()
        return took[int(len(took) * 0.99)] * 1e3

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def latency(text, mark):
    value, unit = re.search(rf"{mark}\s+([\d.]+)(us|ms|s)", text).groups()
    return float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def wait_for(port, name):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{name} does not listen on {port}; see its log")


def flood_clients(count, stop):
    """Login clients in a process of their own, so that they do not slow the one that measures."""
    code = f"""
import http.client, json, threading
body = json.dumps({{"username": "bench-user", "password": "the password of bench-user"}})
def client():
    connection = http.client.HTTPConnection("127.0.0.1", {PORTS['authgate']}, timeout=60)
    while True:
        connection.request("POST", "/auth/login", body, {{"Content-Type": "application/json"}})
        connection.getresponse().read()
for _ in range({count}):
    threading.Thread(target=client, daemon=True).start()
import time; time.sleep({stop})
"""
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def compare(bench, names, rounds, seconds, verdict):
    """CPU time a request of each, in turns; `verdict` judges the medians."""
    for connections in (64, 512):
        kept = {name: [] for name in names}
        for name in names:
            bench.load(name, connections, 2)
        for _ in range(rounds):
            for name, rows in kept.items():
                rows.append(bench.load(name, connections, seconds))
        for name, rows in kept.items():
            total = [row["cpu_us"] for row in rows]
            print(f"{connections} connections  {name:12} {statistics.median(total):6.2f} µs a request "
                  f"({min(total):.2f}–{max(total):.2f}), user {median(rows, 'user_us'):.2f}, "
                  f"kernel {median(rows, 'kernel_us'):.2f}", flush=True)
        text, value, bound = verdict(*(median(kept[name], "cpu_us") for name in names[-2:]))
        print(f"{'ok  ' if value <= bound else 'OVER'} {text} {value:.3f} (at most {bound})", flush=True)


def median(rounds, key):
    return statistics.median(round[key] for round in rounds)


def measure(bench, options):
    names = [name for name in PORTS if name != "backend"]
    rounds, seconds = (3, 3) if options.quick else (10, 4)
    # First, while no process holds memory that a load has left.
    idle = ["nginx", "haproxy", "authgate"]
    results = {"idle_connection_bytes": {name: bench.idle_memory(name, IDLE) for name in idle}, "load": {}}
    for connections in (64, 512, 1):
        # With one connection it is how long a request takes that is of interest.
        measured = names if connections > 1 else ["nginx", "authgate"]
        kept = {name: [] for name in measured}
        for name in measured:
            bench.load(name, connections, 2)
        for index in range(rounds):
            # Each round begins with another one, so that none is always first.
            first = index % len(measured)
            for name in measured[first:] + measured[:first]:
                kept[name].append(bench.load(name, connections, seconds))
        results["load"][connections] = {
            name: {key: median(kept[name], key) for key in kept[name][0]}
            | {"cpu_us_spread": [pick(row["cpu_us"] for row in kept[name]) for pick in (min, max)],
               "p99_ms_spread": [pick(row["p99_ms"] for row in kept[name]) for pick in (min, max)]} for name in measured}
    hashes, login_rounds = [], []
    for _ in range(3):
        hashes.append(raw_hash_rate(options))
        login_rounds.append(bench.logins(6 if options.quick else 12, 8))
    results["raw_hashes_per_second"] = statistics.median(hashes)
    results["logins_per_second"] = statistics.median(rate for rate, _ in login_rounds)
    span, rate = (6, 300) if options.quick else (12, 300)
    calm, flooded = [], []
    for _ in range(3):
        calm.append(bench.paced(span, rate))
        flood = flood_clients(32, span + 3)
        time.sleep(1.5)
        flooded.append(bench.paced(span, rate))
        flood.terminate()
        flood.wait()
        time.sleep(3)
    results["protected_p99_ms"] = {"calm": statistics.median(calm), "login_flood": statistics.median(flooded)}
    return results


def raw_hash_rate(options):
    """Hashes a second by as many bare threads as there are password workers, by the bench binary."""
    done = subprocess.run([str(options.hash_rate)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def judge(results):
    """What is promised: a text, the value, and its bound."""
    loads = results["load"]

    def ratio(connections, one, other, key="cpu_us"):
        return loads[connections][one][key] / loads[connections][other][key]

    for connections in (64, 512):
        yield f"CPU a request ÷ nginx without authentication, {connections} connections", ratio(connections, "authgate", "nginx"), 0.95
        if "authgate+plain" in loads[connections]:
            yield f"the same of a plain build, {connections} connections", ratio(connections, "authgate+plain", "nginx"), 1.02
        yield f"the same with access logs on both, {connections} connections", ratio(connections, "authgate+log", "nginx+log"), 0.95
        yield f"CPU a request ÷ HAProxy with jwt_verify, {connections} connections", ratio(connections, "authgate", "haproxy+jwt"), 0.60
        yield f"p99 ÷ nginx, {connections} connections", ratio(connections, "authgate", "nginx", "p99_ms"), 1
        yield (f"µs of CPU a request for the access log, {connections} connections",
               loads[connections]["authgate+log"]["cpu_us"] - loads[connections]["authgate"]["cpu_us"], 1.5)
    for key in ("p50_ms", "p99_ms"):
        yield f"{key[:3]} ÷ nginx, 1 connection", ratio(1, "authgate", "nginx", key), 1
    yield "idle connection, KiB", results["idle_connection_bytes"]["authgate"] / 1024, 24
    yield "raw hash rate ÷ logins a second", results["raw_hashes_per_second"] / results["logins_per_second"], 1 / 0.97
    p99 = results["protected_p99_ms"]
    yield "p99 of protected requests, login flood ÷ calm", p99["login_flood"] / p99["calm"], 3


def table(results):
    lines = [f"authgate {results['versions']['authgate']}, nginx {results['versions']['nginx']}, HAProxy {results['versions']['haproxy']}"]
    for connections, by_name in results["load"].items():
        lines.append(f"\n{connections:3} connections  CPU µs/req  of all rounds   user  kernel      req/s   p50 ms   p99 ms")
        for name, row in by_name.items():
            least, most = row["cpu_us_spread"]
            lines.append(f"{name:16} {row['cpu_us']:10.2f} {least:7.2f}–{most:<5.2f} {row['user_us']:6.2f} {row['kernel_us']:7.2f} {row['rps']:10.0f} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f}")
    lines.append("\nidle connection  " + ", ".join(
        f"{name} {value / 1024:.1f} KiB" for name, value in results["idle_connection_bytes"].items()))
    lines.append(f"logins           {results['logins_per_second']:.1f}/s, bare hash threads {results['raw_hashes_per_second']:.1f}/s")
    p99 = results["protected_p99_ms"]
    lines.append(f"protected p99    calm {p99['calm']:.2f} ms, under a login flood {p99['login_flood']:.2f} ms\n")
    for text, value, bound in judge(results):
        lines.append(f"{'ok  ' if value <= bound else 'OVER'} {value:6.2f} (at most {bound:.2f})  {text}")
    return "\n".join(lines)


def picture(results):
    rows = [("nginx, no authentication", "nginx", "#7a8794"), ("HAProxy, no authentication", "haproxy", "#7a8794"),
            ("HAProxy, jwt_verify", "haproxy+jwt", "#b0643c"), ("authgate, signed in", "authgate", "#2a6f4e"), ("authgate, plain build", "authgate+plain", "#2a6f4e"),
            ("nginx with its access log", "nginx+log", "#7a8794"), ("authgate with its access log", "authgate+log", "#2a6f4e")]
    at64 = results["load"][64]
    rows = [row for row in rows if row[1] in at64]
    height = 66 + 36 * len(rows)
    scale = 420 / max(row["cpu_us"] for row in at64.values())
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="sans-serif" font-size="13">',
             f'<rect width="720" height="{height}" fill="#fff"/>',
             '<text x="20" y="28" font-size="15" fill="#222">CPU time a request, µs (64 connections, one worker; less is better)</text>']
    for index, (label, name, colour) in enumerate(rows):
        top, value = 50 + 36 * index, at64[name]["cpu_us"]
        parts.append(f'<text x="195" y="{top + 17}" text-anchor="end" fill="#222">{label}</text>'
                     f'<rect x="205" y="{top}" width="{value * scale:.1f}" height="24" fill="{colour}"/>'
                     f'<text x="{212 + value * scale:.1f}" y="{top + 17}" fill="#222">{value:.1f}</text>')
    parts.append(f'<text x="20" y="{height - 10}" font-size="11" fill="#666">medians of interleaved rounds; '
                 'benches/gateway/run.py</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where results.json and results.svg go")
    parser.add_argument("--binary", type=pathlib.Path, help="this authgate, in place of target/dist/authgate")
    parser.add_argument("--plain", type=pathlib.Path, help="this plain build beside it, in place of one that is built")
    parser.add_argument("--idle", type=int, help="only measure what so many idle connections to authgate take")
    parser.add_argument("--before", type=pathlib.Path, help="only compare the loads of this authgate with the present one's")
    parser.add_argument("--unix", action="store_true", help="only compare an upstream on a socket of the machine with one on TCP")
    parser.add_argument("--log", action="store_true", help="only measure what the access log costs")
    options = parser.parse_args()
    install()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    build = ["cargo", "build", "--release", "--locked", "--bin", "authgate", "--example", "hash_rate"]
    options.hash_rate = target / "release" / "examples" / "hash_rate"
    others = {}
    if options.before:
        others["before"] = options.before.resolve()
    elif not (options.log or options.unix or options.idle):
        if not (options.plain and options.hash_rate.exists()):
            subprocess.run(build, cwd=ROOT, check=True)
        others["authgate+plain"] = (options.plain or target / "release" / "authgate").resolve()
    options.binary = options.binary or target / "dist" / "authgate"
    if not options.binary.exists():
        sys.exit(f"{options.binary} is missing: ./run release builds it")
    with tempfile.TemporaryDirectory(prefix="authgate-bench-") as folder:
        bench = Bench(pathlib.Path(folder), options.binary.resolve(), others, options.unix)
        try:
            raise_open_files(2 * (options.idle or IDLE) + 1000)
            bench.start()
            if options.idle:
                for _ in range(3):
                    print(f"{options.idle} idle connections: {bench.idle_memory('authgate', options.idle):.0f} bytes each, "
                          f"{bench.rss('authgate') / (1 << 20):.1f} MiB in all", flush=True)
                return None
            rounds = 3 if options.quick else 7
            if options.before:
                return compare(bench, ("nginx", "before", "authgate"), rounds, 4,
                               lambda before, now: ("now ÷ before", now / before, 1.02))
            if options.unix:
                return compare(bench, ("nginx", "nginx+unix", "authgate", "authgate+unix"), rounds, 4,
                               lambda tcp, unix: ("by a socket ÷ by TCP", unix / tcp, 1))
            if options.log:
                return compare(bench, ("nginx+log", "authgate", "authgate+log"), rounds, 4,
                               lambda off, on: ("µs for the access log", on - off, 1.5))
            results = measure(bench, options)
        finally:
            bench.stop()
    said = subprocess.run([options.binary, "--version"], capture_output=True, text=True, check=True).stdout
    results["versions"] = {"nginx": version("nginx", "-v"), "haproxy": version("haproxy", "-v"),
                           "authgate": said.split(maxsplit=1)[1].strip()}
    print(table(results))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "results.svg").write_text(picture(results))


if __name__ == "__main__":
    main()
