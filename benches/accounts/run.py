#!/usr/bin/env python3
"""What failed logins tell by their time, and how fast users are imported.

  benches/accounts/run.py [--quick]

Logins: unknown name, wrong password, disabled account, one with a second factor and users with hashes of other programs, all with a
wrong password, interleaved; the medians and their greatest distance. Requests for a reset: known and
unknown address, likewise. API keys that are refused, by what is wrong with them. Imports: 100,000 users from a SQLite table into SQLite and into PostgreSQL, with
the greatest memory beside that of 10,000. Needs `./run setup` and a release build.
"""

import argparse
import base64
import glob
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
AUTHGATE = ROOT / "target/release/authgate"
PYTHON = ROOT / "target/peers/venv/bin/python"
PASSWORD = "a password for the bench"

CONFIG = """
listeners: [{{address: "127.0.0.1:{port}"}}]
admin: {{address: "127.0.0.1:{admin}"}}
store: {{url: "{store}", timeout: 30s}}
auth:
  issuer: https://login.example.com
  audience: bench
  throttle: {{account: {{failures: 1000000, per: 1s}}, address: {{failures: 1000000, per: 1s}}, mails: {{requests: 1000000, per: 1s}}}}
  email: {{smtp: {{host: 127.0.0.1, port: 9, encryption: none}}, from: a@example.com, base_url: "https://a.example.com"}}
routes: [{{path: /x, respond: {{status: 200, json: {{}}}}}}]
log: {{level: error, access: false}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Gateway:
    def __init__(self, folder, store):
        self.folder, self.port = pathlib.Path(folder), free_port()
        self.config = self.folder / "gateway.yaml"
        self.config.write_text(CONFIG.format(port=self.port, admin=free_port(), store=store))

    def run(self, *args, stdin=""):
        command = [AUTHGATE, *args, "--config", self.config]
        return subprocess.run(command, input=stdin, text=True, check=True, capture_output=True).stdout

    def __enter__(self):
        self.process = subprocess.Popen([AUTHGATE, "serve", "--config", self.config])
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the gateway does not listen")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def get(self, connection, path, token):
        begun = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        response.read()
        return response.status, time.perf_counter() - begun

    def post(self, connection, path, body):
        begun = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status, time.perf_counter() - begun


def old_table(path, rows):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE users (user_id INTEGER PRIMARY KEY, username TEXT, password TEXT)")
    database.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()


def foreign_hashes():
    script = (
        "import bcrypt, json, sys\n"
        "from werkzeug.security import generate_password_hash as g\n"
        "p = sys.argv[1]\n"
        "print(json.dumps({'pbkdf2': g(p, 'pbkdf2:sha256'), 'scrypt': g(p), "
        "'bcrypt': bcrypt.hashpw(p.encode(), bcrypt.gensalt(12)).decode()}))"
    )
    return json.loads(subprocess.check_output([PYTHON, "-c", script, PASSWORD]))


def totp(secret):
    """The code of an authenticator app (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), "sha1")
    return f"{(struct.unpack_from('>I', digest, digest[19] & 15)[0] & 0x7fffffff) % 10**6:06}"


def add_app(connection, name):
    """Gives an account an authenticator app."""
    def call(path, body, token=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status < 300, response.status
        return json.loads(response.read())

    token = call("/auth/login", {"username": name, "password": PASSWORD})["access_token"]
    begun = call("/auth/factors", {"type": "totp"}, token)
    call(f"/auth/factors/{begun['id']}/confirm", {"code": totp(begun["secret"])}, token)


def spread(samples):
    medians = {name: statistics.median(values) * 1000 for name, values in samples.items()}
    return medians, (max(medians.values()) - min(medians.values())) / min(medians.values())


def logins(tries):
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(folder, "sqlite:authgate.db")
        hashes = foreign_hashes()
        old_table(f"{folder}/old.db", [(index, name, value) for index, (name, value) in enumerate(hashes.items())])
        for name in ("wrong", "disabled"):
            gateway.run("user", "add", name, "--password-stdin", stdin=PASSWORD)
        gateway.run("user", "disable", "disabled")
        gateway.run("user", "import", "--sqlite", f"{folder}/old.db", "--id", "user_id")
        gateway.run("user", "add", "factor", "--password-stdin", stdin=PASSWORD)
        names = ["unknown", "wrong", "disabled", "factor", *hashes]
        samples = {name: [] for name in names}
        with gateway:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
            add_app(connection, "factor")
            for _ in range(tries):
                for name in names:
                    # The disabled account's password is right: that, too, must not show.
                    password = PASSWORD if name == "disabled" else "not the password at all"
                    body = {"username": name, "password": password}
                    status, took = gateway.post(connection, "/auth/login", body)
                    assert status == 401, status
                    samples[name].append(took)
        return spread(samples)


def resets(tries):
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(folder, "sqlite:authgate.db")
        csv = f"id,username,password,email\n1,alice,{foreign_hashes()['bcrypt']},known@example.com\n"
        gateway.run("user", "import", "--csv", "-", "--id", "id", "--email", "email", "--email-verified", stdin=csv)
        samples = {"known": [], "unknown": []}
        with gateway:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
            for _ in range(tries):
                for name in samples:
                    body = {"email": f"{name}@example.com"}
                    status, took = gateway.post(connection, "/auth/password/forgot", body)
                    assert status == 200, status
                    samples[name].append(took)
        return spread(samples)


def checked(body):
    """A key of this body: the check is its CRC-32 in the digits of keys."""
    number, digits = zlib.crc32(body.encode()), []
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits.append("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[digit])
    return f"{body}_{''.join(reversed(digits))}"


def api_keys(tries):
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(folder, "sqlite:authgate.db")

        def key(owner, *more):
            said = gateway.run("api-key", "add", owner, "--name", "bench", *more)
            return next(word for word in said.split() if word.startswith("agk_") and word.count("_") == 3)

        for name in ("alice", "bob"):
            gateway.run("user", "add", name, "--password-stdin", stdin=PASSWORD)
        live, of_disabled, expired, ended = key("alice"), key("bob"), key("alice", "--expires", "1s"), key("alice")
        assert checked(live.rsplit("_", 1)[0]) == live
        gateway.run("user", "disable", "bob")
        gateway.run("api-key", "end", "alice", ended.split("_")[1])
        head, secret, _ = live.rsplit("_", 2)
        shown = {
            "unknown": ended,
            "another secret": checked(f"{head}_{secret[::-1]}"),
            "disabled owner": of_disabled,
            "expired": expired,
            "mistyped": live[:-1] + ("a" if live[-1] != "a" else "b"),
            "cut": live[:-5],
        }
        samples = {name: [] for name in shown}
        time.sleep(1.5)
        with gateway:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
            assert gateway.get(connection, "/x", live)[0] == 200
            for _ in range(tries):
                for name, text in shown.items():
                    status, took = gateway.get(connection, "/x", text)
                    assert status == 401, (name, status)
                    samples[name].append(took)
        return spread(samples)


class Cluster:
    """A throw-away PostgreSQL, run as the user postgres where we are root."""

    def __enter__(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        binaries = pathlib.Path(found[-1] if found else pathlib.Path(shutil.which("initdb")).parent)
        self.folder = tempfile.mkdtemp()
        self.port = free_port()
        options = {}
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            options = {"user": user.pw_uid, "group": user.pw_gid, "cwd": "/"}
        data = f"{self.folder}/data"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        init = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "authgate"]
        subprocess.run(init, check=True, **quiet, **options)
        server = [binaries / "postgres", "-D", data, "-p", str(self.port), "-k", self.folder]
        self.process = subprocess.Popen([*server, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=500"], **quiet, **options)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.1).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(0.5)
        return f"postgres://authgate@127.0.0.1:{self.port}/postgres"

    def __exit__(self, *_):
        # At once, whoever is connected.
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def imports(store, count):
    """Seconds, and the greatest memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(folder, store)
        hash_of = lambda index: f"pbkdf2:sha256:600000$salt{index}$" + hashlib.sha256(str(index).encode()).hexdigest()
        old_table(f"{folder}/old.db", ((index, f"user{index}", hash_of(index)) for index in range(count)))
        command = [AUTHGATE, "user", "import", "--sqlite", f"{folder}/old.db", "--id", "user_id"]
        begun = time.perf_counter()
        process = subprocess.Popen([*command, "--config", gateway.config], stdout=subprocess.PIPE, text=True)
        peak = 0
        while process.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                break
            line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
            peak = max(peak, int(line.split()[1]) if line else 0)
            time.sleep(0.02)
        took = time.perf_counter() - begun
        said = process.stdout.read()
        assert f"{count} imported" in said, said
        return took, peak / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tries")
    options = parser.parse_args()
    if not AUTHGATE.exists():
        sys.exit("cargo build --release")
    tries = 40 if options.quick else 200
    medians, distance = logins(tries)
    print(f"failed logins, medians of {tries} interleaved tries")
    for name, median in medians.items():
        print(f"  {name:10} {median:8.2f} ms")
    print(f"  greatest distance {distance:.2%} (bound 5 %)")
    medians, distance = resets(tries // 4)
    print(f"requests for a reset, medians of {tries // 4} interleaved tries")
    for name, median in medians.items():
        print(f"  {name:10} {median:8.2f} ms")
    print(f"  greatest distance {distance:.2%}")
    medians, distance = api_keys(tries)
    print(f"refused API keys, medians of {tries} interleaved tries")
    for name, median in medians.items():
        print(f"  {name:15} {median:8.3f} ms")
    print(f"  greatest distance {distance:.2%}")
    count = 100_000
    small, memory_small = imports("sqlite:authgate.db", count // 10)
    took, memory = imports("sqlite:authgate.db", count)
    print(f"import of {count} users into SQLite {took:.1f} s, {memory:.1f} MiB; of {count // 10} {small:.1f} s, {memory_small:.1f} MiB")
    with Cluster() as url:
        small, memory_small = imports(url, count // 10)
    with Cluster() as url:
        took, memory = imports(url, count)
    print(f"import of {count} users into PostgreSQL {took:.1f} s, {memory:.1f} MiB; of {count // 10} {small:.1f} s, {memory_small:.1f} MiB")


if __name__ == "__main__":
    main()
