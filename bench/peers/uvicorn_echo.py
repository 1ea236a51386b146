"""uvicorn on uvloop and httptools, with a bare ASGI application: no framework, compression only when asked for."""

import argparse

import uvicorn

LARGEST = 16 << 20
parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
parser.add_argument("--compression", action="store_true", help="permessage-deflate with whoever offers it")
parser.add_argument("--takeover", action="store_true", help="for bench/server.py: here the client's offer decides")
options = parser.parse_args()
everybody = set()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await (fanout if scope["path"] == "/fanout" else echo)(receive, send)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})


def reply(event):
    """The same message the other way round, in its own opcode."""
    text = event.get("text")
    return (
        {"type": "websocket.send", "bytes": event["bytes"]}
        if text is None
        else {"type": "websocket.send", "text": text}
    )


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send(reply(event))


async def fanout(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    everybody.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            message = reply(event)
            for other in list(everybody):
                try:
                    await other(message)
                except Exception:  # that client is gone; its own handler takes it out
                    everybody.discard(other)
    finally:
        everybody.discard(send)


uvicorn.run(
    application,
    host="127.0.0.1",
    port=options.port,
    ssl_certfile=options.tls[0] if options.tls else None,
    ssl_keyfile=options.tls[1] if options.tls else None,
    loop="uvloop",
    http="httptools",
    ws="auto",
    ws_max_size=LARGEST,
    ws_ping_interval=None,
    ws_per_message_deflate=options.compression,
    lifespan="off",
    access_log=False,
    log_level="warning",
)
