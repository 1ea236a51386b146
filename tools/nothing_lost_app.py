"""The application that nothing_lost.py talks to: it answers each message with the same text.

    python tools/nothing_lost_app.py      settings as JSON in NOTHING_LOST_SETTINGS

"E text" is the answer, "U text" the report that the message is uncertain, "Q text" that it is quarantined. What really
ran is noted apart from the server, in a file per process: 16 bytes when a handler begins, 16 when it ends, written at
once, so that they survive SIGKILL.

NOTHING_LOST_PLANT makes it do one thing wrong on purpose, with about one message in a hundred: see PLANTS.
"""

import asyncio
import json
import os
import struct
import time
import zlib
from collections.abc import Coroutine
from typing import Any

from nothing_lost_misdeeds import MISDEEDS, servers

from mooring import Frame, Request, Response, Server, StateError

PLANTS = ("lose", "double", "swap", "corrupt", "misdirect", "invent", "cut", "repeat")
NOTE = struct.Struct("<IIII")  # pid, client, number of the message, BEGUN or ENDED
BEGUN, ENDED = 1, 2
EVERY = 100

server = Server("127.0.0.1", 0, **json.loads(os.environ.get("NOTHING_LOST_SETTINGS", "{}")))
servers.append(server)
plant = os.environ.get("NOTHING_LOST_PLANT", "")
work = float(os.environ.get("NOTHING_LOST_WORK", "0")) / 1000
suspends = os.environ.get("NOTHING_LOST_HANDLERS") == "async"
folder = os.environ.get("NOTHING_LOST_NOTES", "")
notes = -1
kept: dict[int, str] = {}  # fd -> an answer that comes too late, for the plant "swap"


@server.on("worker_start")
def began(_server: Server, _worker_id: int) -> None:
    global notes
    if folder:
        notes = os.open(os.path.join(folder, f"{os.getpid()}.notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(what: int, client: int, number: int) -> None:
    if notes >= 0:
        os.write(notes, NOTE.pack(os.getpid(), client, number, what))


@server.on("message")
def said(_server: Server, frame: Frame) -> Coroutine[Any, Any, None] | None:
    _, client, number, _ = str(frame.data).split(":", 3)
    if suspends:
        return handle_later(frame, int(client), int(number))
    handle(frame, int(client), int(number))
    return None


async def handle_later(frame: Frame, client: int, number: int) -> None:
    note(BEGUN, client, number)
    await asyncio.sleep(work or 0.001)
    answer(frame, client, number)
    note(ENDED, client, number)


def handle(frame: Frame, client: int, number: int) -> None:
    note(BEGUN, client, number)
    if work:
        time.sleep(work)
    answer(frame, client, number)
    note(ENDED, client, number)


def answer(frame: Frame, client: int, number: int) -> None:
    text = f"E {frame.data!s}"
    if not plant or number % EVERY != EVERY - 1:
        server.push(frame.fd, text)
        if frame.fd in kept:
            server.push(frame.fd, kept.pop(frame.fd))
    elif plant == "double":
        server.push(frame.fd, text)
        server.push(frame.fd, text)
    elif plant == "swap":
        kept[frame.fd] = text
    elif plant == "corrupt":
        server.push(frame.fd, text[:-1] + chr(ord(text[-1]) ^ 1))
    elif plant == "misdirect":
        others = [fd for fd in server.connections if fd != frame.fd and server.is_established(fd)]
        server.push(others[number % len(others)] if others else frame.fd, text)
    elif plant == "invent":
        server.push(frame.fd, text)
        server.push(frame.fd, f"E {sealed(client, number + 100_000)}")
    elif plant == "cut":
        server.close(frame.fd)
    elif plant == "repeat":
        note(BEGUN, client, number)  # as if it had been handled twice, and only one answer was sent
        server.push(frame.fd, text)


def sealed(client: int, number: int) -> str:
    """A message that is well formed, and that nobody has sent."""
    body = f"{client}:{number}:"
    return f"{zlib.crc32(body.encode()):08x}:{body}"


@server.on("uncertain")
def uncertain(server: Server, frame: Frame, _reason: str) -> None:
    server.push(frame.fd, f"U {frame.data!s}")


@server.on("quarantined")
def quarantined(server: Server, frame: Frame, _reason: str) -> None:
    server.push(frame.fd, f"Q {frame.data!s}")


@server.on("request")
def asked(request: Request, response: Response) -> Any:
    if request.path.startswith("/misdeeds/"):
        return MISDEEDS[request.path.rpartition("/")[2]](response)
    return stats(response)


def stats(response: Response) -> None:
    try:
        response.end(json.dumps(server.stats()))
    except StateError as error:  # a gateway ended meanwhile
        response.status(503)
        response.end(str(error))


if __name__ == "__main__":
    server.start()
