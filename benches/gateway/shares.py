#!/usr/bin/env python3
"""How connections are shared between workers, and what one costs while all workers are idle.

    benches/gateway/shares.py [BINARY]

Opens 512 connections at once and 512 one after the other, keeps them, and reads from /proc how many files each worker's
epoll watches. Then 3,000 connections with one request each, one after the other: CPU time a connection. For 1, 2, 4 and 8
workers; BINARY is target/dist/authgate if none is given.
"""

import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

from run import ROOT, TICKS, wait_for

BINARY = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target" / "dist" / "authgate").resolve()
PORT, ADMIN = 27020, 27021
CONNECTIONS, SHORT = 512, 3_000
REQUEST = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CONFIG = f"""
listeners: [{{address: "127.0.0.1:{PORT}"}}]
admin: {{address: "127.0.0.1:{ADMIN}"}}
workers: WORKERS
store: {{url: "sqlite:authgate.db"}}
auth: {{issuer: bench, audience: bench}}
upstreams: {{none: {{servers: [{{url: "http://127.0.0.1:9"}}]}}}}
routes: [{{path: /hello, auth: none, respond: {{json: {{hello: world}}}}}}]
log: {{access: false, level: error}}
"""


def watched(pid):
    """Files by epoll instance, the fullest first. The runtime has two descriptors for each."""
    counts = []
    for file in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            counts.append(len(re.findall(r"^tfd:", file.read_text(), re.MULTILINE)))
        except OSError:
            pass
    return sorted(counts, reverse=True)[::2]


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def kept(pid, workers, at_once):
    clients = []
    for _ in range(CONNECTIONS):
        client = socket.create_connection(("127.0.0.1", PORT))
        client.sendall(REQUEST)
        clients.append(client)
        if not at_once:
            client.recv(4096)
    for client in clients if at_once else ():
        client.recv(4096)
    shares = watched(pid)[:workers]
    for client in clients:
        client.close()
    time.sleep(0.5)
    return shares


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    for workers in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory(prefix="authgate-shares-") as folder:
            config = pathlib.Path(folder) / "gateway.yaml"
            config.write_text(CONFIG.replace("WORKERS", str(workers)))
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            gateway = subprocess.Popen([BINARY, "serve", "--config", config], **quiet)
            try:
                wait_for(PORT, "authgate")
                at_once, in_turn = kept(gateway.pid, workers, True), kept(gateway.pid, workers, False)
                before = cpu(gateway.pid)
                for _ in range(SHORT):
                    with socket.create_connection(("127.0.0.1", PORT)) as client:
                        client.sendall(LAST)
                        client.recv(4096)
                cost = (cpu(gateway.pid) - before) / SHORT * 1e6
                print(f"{workers} workers watch, after {CONNECTIONS} connections at once {at_once}, one after the other {in_turn}; "
                      f"a short connection {cost:.0f} µs", flush=True)
            finally:
                gateway.terminate()
                gateway.wait()


if __name__ == "__main__":
    main()
