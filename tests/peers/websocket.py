"""A WebSocket server that says who it was told is there, and echoes. Prints `port N`; ends with its input."""

import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def echo(connection):
    headers = connection.request.headers
    connection.send(f"hello {headers.get('X-User-Name')} {headers.get('Authorization')}")
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        # Cut: its token is dead.
        pass


with serve(echo, "127.0.0.1", 0, max_size=1 << 24) as server:
    print("port", server.socket.getsockname()[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
