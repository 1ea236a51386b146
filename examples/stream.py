"""The tokens of a language model as they come, over WebSocket and as server-sent events; a message stops them.

    python examples/model.py & python examples/stream.py
    curl -N "http://127.0.0.1:9505/?prompt=hello"
    python -m websockets ws://127.0.0.1:9505/         then {"prompt": "hello"}, and {"stop": true}

An answer is work that its connection owns: it goes on beside further messages, over a reload and into a stop, and is
cancelled when the client leaves. See docs/streaming.md.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import Struct

from mooring import Failure, Frame, Request, Response, Server, WorkLost

server = Server("127.0.0.1", 9505, worker_num=2)
HOST, PORT = os.environ.get("MODEL", "127.0.0.1:9506").split(":")


class Wanted(Struct):
    prompt: str = ""  # nothing, as in {"stop": true}: no answer


async def tokens(prompt: str) -> AsyncGenerator[str, None]:
    """What the model says to that. It notices a cancel, since the connection to it is closed then."""
    reader, writer = await asyncio.open_connection(HOST, PORT)
    try:
        writer.write(json.dumps({"prompt": prompt}).encode() + b"\n")
        async for line in reader:
            yield json.loads(line)["token"]
    finally:
        writer.close()


async def answer(fd: int, prompt: str) -> None:
    end = "stopped"
    try:
        async with aclosing(tokens(prompt)) as found:
            async for token in found:
                server.push(fd, json.dumps({"token": token}))
                await server.drain(fd)  # no faster than the client reads
        end = "done"
    except OSError:
        end = "the model can't be reached"
    finally:
        server.push(fd, json.dumps({"end": end}))


@server.on("message", type=Wanted)
def said(server: Server, frame: Frame, wanted: Wanted) -> None:
    server.cancel(frame.fd, "answer")  # one answer at a time
    if wanted.prompt:
        server.spawn(frame.fd, answer(frame.fd, wanted.prompt))


@server.on("error")
def failed(server: Server, fd: int, failure: Failure) -> None:
    if isinstance(failure.exception, WorkLost):  # its worker has ended, or had to go
        server.push(fd, json.dumps({"end": "lost, ask again"}))


@server.on("request")
async def page(request: Request, response: Response) -> None:
    stream = response.event_stream(endless=False)
    async with aclosing(tokens(request.query.get("prompt", ""))) as found:
        async for token in found:
            await stream.send(json.dumps({"token": token}))
    await stream.send("done", event="end")


server.start()
