"""websockets (its asyncio server) on uvloop, without compression; /fanout with its own `broadcast`."""

import asyncio
import http
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

LARGEST = 16 << 20
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
    async with serve(
        handle,
        "127.0.0.1",
        int(sys.argv[1]),
        process_request=answer,
        compression=None,
        max_size=LARGEST,
        ping_interval=None,
        backlog=2048,
    ) as server:
        await server.serve_forever()


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
