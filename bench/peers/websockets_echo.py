"""websockets (its asyncio server) on uvloop, without compression unless asked for; /fanout with its own `broadcast`."""

import argparse
import asyncio
import http
import ssl

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

LARGEST = 16 << 20
parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
parser.add_argument("--compression", action="store_true", help="permessage-deflate with whoever offers it")
parser.add_argument("--takeover", action="store_true", help="for bench/server.py: here the client's offer decides")
options = parser.parse_args()
everybody: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    if connection.request.path != "/fanout":
        async for message in connection:
            await connection.send(message)
        return
    everybody.add(connection)
    try:
        async for message in connection:
            broadcast(everybody, message)
    finally:
        everybody.discard(connection)


def answer(connection: ServerConnection, request: Request) -> Response | None:
    if request.path == "/hello":  # websockets closes the connection after it
        return connection.respond(http.HTTPStatus.OK, "hello")
    return None


async def main() -> None:
    context = None
    if options.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*options.tls)
    async with serve(
        handle,
        "127.0.0.1",
        options.port,
        ssl=context,
        process_request=answer,
        compression="deflate" if options.compression else None,
        max_size=LARGEST,
        ping_interval=None,
        backlog=2048,
    ) as server:
        await server.serve_forever()


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
