"""An application as people write them (ASGI), on the server that it is told: uvicorn or hypercorn. Prints `port N`; ends with its input."""

import asyncio
import hashlib
import json
import socket
import sys
import threading


async def answer(send, status, body, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json"), *headers]})
    await send({"type": "http.response.body", "body": body})


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"hello {headers.get('x-user-name')}"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})
        return
    body = hashlib.sha256()
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        part = message.get("body", b"")
        length, more = length + len(part), message.get("more_body", False)
        body.update(part)
    if scope["path"].endswith("/parts"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"%04d" % number * 250, "more_body": True})
            if number % 20 == 0:
                await asyncio.sleep(0.005)
        await send({"type": "http.response.body", "body": b""})
        return
    said = {"method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode(), "version": scope["http_version"],
            "user": headers.get("x-user-name"), "token": headers.get("authorization"), "host": headers.get("host"),
            "length": length, "sha256": body.hexdigest()}
    await answer(send, 200, json.dumps(said).encode())


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    # Whoever started it has gone.
    threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
    if sys.argv[1] == "uvicorn":
        import uvicorn
        uvicorn.Server(uvicorn.Config(application, log_level="error")).run(sockets=[listener])
    else:
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
        config = Config()
        config.bind, config.loglevel = [f"fd://{listener.fileno()}"], "error"
        asyncio.run(serve(application, config))


main()
