"""A WebSocket over a stream of HTTP/2 (RFC 8441): h2 speaks HTTP/2, wsproto speaks WebSocket.

    websocket_http2.py ADDRESS PATH [TOKEN]     prints the status, then what comes, then whether a long message came back
"""

import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage

address, path, *token = sys.argv[1:]
host, port = address.rsplit(":", 1)
client = socket.create_connection((host, int(port)), timeout=20)
http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
http2.initiate_connection()
client.sendall(http2.data_to_send())
websocket = Connection(ConnectionType.CLIENT)
STREAM = 1
arrived = []


def receive():
    """The next events of HTTP/2."""
    events = http2.receive_data(client.recv(65536))
    for event in events:
        if isinstance(event, h2.events.DataReceived):
            http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            websocket.receive_data(event.data)
    client.sendall(http2.data_to_send())
    return events


def send(event):
    left = websocket.send(event)
    while left:
        room = min(http2.local_flow_control_window(STREAM), http2.max_outbound_frame_size, len(left))
        if not room:
            receive()
            continue
        http2.send_data(STREAM, left[:room])
        client.sendall(http2.data_to_send())
        left = left[room:]


def message():
    """The next message, whole."""
    parts = []
    while True:
        for event in websocket.events():
            if isinstance(event, Message):
                parts.append(event.data)
                if event.message_finished:
                    return ("" if isinstance(event, TextMessage) else b"").join(parts)
            if isinstance(event, CloseConnection):
                return None
        receive()


while http2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL) != 1:
    receive()
head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", path),
        ("sec-websocket-version", "13")]
head += [("authorization", f"Bearer {token[0]}")] if token else []
http2.send_headers(STREAM, head)
client.sendall(http2.data_to_send())
status = None
while status is None:
    for event in receive():
        if isinstance(event, h2.events.ResponseReceived):
            status = dict(event.headers)[":status"]
print(status)
if status == "200":
    print(message())
    long = bytes(range(256)) * 4_000
    send(BytesMessage(data=long))
    print(message() == long)
    send(TextMessage(data="short"))
    print(message())
    send(CloseConnection(code=1000))
