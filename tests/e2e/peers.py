"""Clients for these tests, all on libraries that nobody here wrote, and looks at processes from outside."""

import asyncio
import functools
import json
import re
import socket
import textwrap
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import wsproto
from websockets.asyncio.client import ClientConnection, connect
from wsproto.events import BytesMessage, CloseConnection, Ping, Request, TextMessage

from support.serving import LIMIT, Serving, eventually

BOTH_MODES = [{"mode": "process", "worker_num": 2}, {"mode": "base", "worker_num": 1}]

# Answers a request with the server's own counters; asking counts too, as one accepted and one in flight.
STATS = """
@server.on("request")
def stats(request, response):
    response.end(json.dumps(server.stats()))
"""

# For load: a plain function, whose messages take a moment each.
BUSY = """
VERSION = "v1"

@server.on("message")
def said(server, frame):
    time.sleep(0.0005)
    server.push(frame.fd, f"{frame.data} {VERSION}")
"""

UNCERTAIN = """
@server.on("uncertain")
def uncertain(server, frame, reason):
    report("uncertain", frame.data, "|", reason)
    server.push(frame.fd, f"uncertain {frame.data}")
"""

# Every handler leaves two lines in a file, one when it begins and one when it ends: written at once, so that they
# survive the worker, and not through the server, so that they tell what really ran.
NOTED = """
import contextlib
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

@contextlib.contextmanager
def noted(what):
    os.write(notes, f"begin {what}\\n".encode())
    yield
    os.write(notes, f"end {what}\\n".encode())
"""

# While there is a file "held back" in the server's folder, no worker gets ready.
HELD_BACK = """
while os.path.exists("held back"):
    time.sleep(0.01)
"""


def app(*parts: str) -> str:
    """An application of several texts, each indented as it likes."""
    return "\n".join(textwrap.dedent(part) for part in parts)


def in_loop(seconds: float = 30.0) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Makes a test of a coroutine function, with a limit of its own."""

    def wrap(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: object, **kwargs: object) -> None:
            async def limited() -> None:
                async with asyncio.timeout(seconds):
                    await test(*args, **kwargs)

            asyncio.run(limited())

        return run

    return wrap


def client(server: Serving, path: str = "/", **options: object) -> connect:
    """A `websockets` client that pings by itself only when told to."""
    return connect(server.url + path, **{"ping_interval": None, "compression": None, "proxy": None, **options})


async def logged(server: Serving, pattern: str, **options: object) -> re.Match[str]:
    """Serving.wait_log beside a running loop."""
    return await asyncio.to_thread(server.wait_log, pattern, **options)


async def until(check: Callable[[], object], what: str = "", limit: float = LIMIT) -> object:
    """`eventually` beside a running loop."""
    return await asyncio.to_thread(eventually, check, limit, what)


async def taken(ws: ClientConnection, times: int = 2) -> None:
    """The gateway has read everything that was sent before, and handed it to the worker's channel.

    It answers a ping itself, behind what came before it. The second round proves that the turn is over in which it
    answered the first, and with it every write of that turn.
    """
    for _ in range(times):
        await asyncio.wait_for(await ws.ping(), LIMIT)


def fetch(server: Serving, path: str = "/") -> bytes:
    with urllib.request.urlopen(server.http + path, timeout=LIMIT) as answer:
        return answer.read()


def stats(server: Serving) -> dict:
    """What the application's server.stats() says (see STATS)."""
    return json.loads(fetch(server))


def edit(script: Path, old: str, new: str) -> None:
    """As an editor does it: the whole new file takes the place of the old one at once."""
    text = script.read_text()
    assert old in text
    fresh = script.with_name(script.name + "~")  # a name that the watcher ignores
    fresh.write_text(text.replace(old, new))
    fresh.replace(script)


def adds_up(counts: dict) -> bool:
    parts = ("finished", "uncertain", "dropped", "in_flight")
    return counts["accepted"] == sum(counts.get(part, 0) for part in parts)


def drained(server: Serving) -> dict[str, int]:
    """The counts of the last line of the log, of a server that was stopped."""
    last = [line for line in server.lines if line != "(end of output)"][-1]
    assert "drained: " in last, "\n".join(server.lines[-10:])
    assert "(adds up" in last, last
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", last)}
    assert adds_up(counts), last
    return counts


# ---------------------------------------------------------------------------------------------- clients under load


class Talker:
    """A client that sends numbered messages, `window` of them unanswered at a time, and notes what comes back.

    It sends "NAME NUMBER" and takes "NAME NUMBER BY" as the answer, BY being whatever the application adds, and
    "uncertain NAME NUMBER" as the report of an uncertain one.
    """

    def __init__(self, server: Serving, name: str, window: int = 4) -> None:
        self.name = name
        self.sent = 0
        self.answers: list[tuple[int, str]] = []
        self.uncertain: list[int] = []
        self.longest = 0.0  # seconds between a message and its answer
        self._server = server
        self._window = asyncio.Semaphore(window)
        self._room = window
        self._stop = asyncio.Event()
        self._progress = asyncio.Event()
        self._since: dict[int, float] = {}

    async def run(self) -> None:
        """Talks until stop(); ends when everything is answered. Any loss of the connection is an error."""
        async with client(self._server) as ws:
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(self._hear(ws))
                while not self._stop.is_set():
                    await self._window.acquire()
                    self._since[self.sent] = time.monotonic()
                    await ws.send(f"{self.name} {self.sent}")
                    self.sent += 1
                for _ in range(self._room):
                    await asyncio.wait_for(self._window.acquire(), LIMIT)
                hearing.cancel()

    async def _hear(self, ws: ClientConnection) -> None:
        async for message in ws:
            words = message.split()
            number = int(words[2 if words[0] == "uncertain" else 1])
            if words[0] == "uncertain":
                self.uncertain.append(number)
            else:
                self.answers.append((number, words[2]))
            if number in self._since:  # else it is a second answer: no reason to send more
                self.longest = max(self.longest, time.monotonic() - self._since.pop(number))
                self._window.release()
            self._progress.set()

    def stop(self) -> None:
        self._stop.set()

    async def answered_by(self, by: str) -> None:
        """The last answer is of that one."""
        while not self.answers or self.answers[-1][1] != by:
            self._progress.clear()
            await asyncio.wait_for(self._progress.wait(), LIMIT)

    async def goes_on(self, count: int = 1) -> None:
        """So many more answers."""
        wanted = len(self.answers) + count
        while len(self.answers) < wanted:
            self._progress.clear()
            await asyncio.wait_for(self._progress.wait(), LIMIT)

    def in_order(self) -> bool:
        """Each answered once, in the order sent."""
        return [number for number, _ in self.answers] == list(range(self.sent))


class Talkers:
    """Several of them in the background of an `async with`."""

    def __init__(self, server: Serving, count: int, window: int = 4) -> None:
        self.all = [Talker(server, f"c{n}", window) for n in range(count)]

    async def __aenter__(self) -> list[Talker]:
        self._tasks = [asyncio.create_task(one.run()) for one in self.all]
        try:
            async with asyncio.timeout(LIMIT):
                await asyncio.gather(*[self._with(n, one.goes_on()) for n, one in enumerate(self.all)])
        except BaseException:
            await self._cancel()
            raise
        return self.all

    async def _with(self, number: int, waiting: Awaitable[None]) -> None:
        """Waits for a talker as long as it talks: what ended it is the better message."""
        waiting = asyncio.ensure_future(waiting)
        await asyncio.wait({waiting, self._tasks[number]}, return_when=asyncio.FIRST_COMPLETED)
        if self._tasks[number].done():
            self._tasks[number].result()
        await waiting

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            ended = [task.exception() for task in self._tasks if task.done() and not task.cancelled()]
            await self._cancel()
            assert not any(ended), f"a client was disconnected: {ended}"
            return
        for one in self.all:
            one.stop()
        await asyncio.gather(*self._tasks)


PACE = 0.02  # seconds


class Newcomers:
    """A stream of new clients: each connects, asks once and leaves. All have to be answered, none refused or cut.

    `answers` are the bodies in the order in which they came. Each takes PACE before it asks, so that some have always
    been accepted and not asked yet.
    """

    def __init__(self, port: int, at_once: int = 6) -> None:
        self.answers: list[str] = []
        self._port = port
        self._at_once = at_once
        self._stop = asyncio.Event()
        self._progress = asyncio.Event()

    async def __aenter__(self) -> "Newcomers":
        self._tasks = [asyncio.create_task(self._come()) for _ in range(self._at_once)]
        await self.more()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _come(self) -> None:
        while not self._stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.sleep(PACE)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), LIMIT)
            assert answer.startswith(b"HTTP/1.1 200 "), f"a new client was answered {answer!r}"
            writer.close()
            self.answers.append(answer.partition(b"\r\n\r\n")[2].decode())
            self._progress.set()

    async def more(self, count: int = 10, by: str = "") -> None:
        """So many more are answered, with `by` if that is said."""
        start = len(self.answers)
        while len([one for one in self.answers[start:] if not by or one == by]) < count:
            self._progress.clear()
            waiting = asyncio.ensure_future(self._progress.wait())
            done, _ = await asyncio.wait({waiting, *self._tasks}, timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            for task in self._tasks:
                if task.done():
                    task.result()
            assert done, f"nobody was answered within {LIMIT} s"


# ---------------------------------------------------------------------------------------------- clients with bad habits


class Rude:
    """A client on a plain socket, with a small receive buffer, that reads only when told to."""

    def __init__(self, server: Serving, path: str = "/", receive_buffer: int = 4096) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(LIMIT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", server.port))
        self.protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.socket.sendall(self.protocol.send(Request(host=f"127.0.0.1:{server.port}", target=path)))
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.socket.recv(1)  # nothing that lies behind the head is taken out of the kernel
            assert part, f"no whole answer: {head!r}"
            head += part
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.protocol.receive_data(head)
        list(self.protocol.events())
        self._messages: list[str | bytes] = []  # whole, and not yet asked for
        self._parts: list[str | bytes] = []
        self._close: CloseConnection | None = None

    def __enter__(self) -> "Rude":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def frame(self, data: str | bytes) -> bytes:
        """A message as bytes for the wire."""
        return self.protocol.send(TextMessage(data) if isinstance(data, str) else BytesMessage(data))

    def ping(self) -> bytes:
        return self.protocol.send(Ping())

    def send(self, *messages: str | bytes) -> None:
        self.socket.sendall(b"".join(self.frame(message) for message in messages))

    def read(self, count: int, limit: float = LIMIT) -> list[str | bytes]:
        """So many messages."""
        end = time.monotonic() + limit
        while len(self._messages) < count:
            assert self._receive(end), f"the end came behind {len(self._messages)} messages: {self._close}"
        taken, self._messages = self._messages[:count], self._messages[count:]
        return taken

    def read_to_end(self, limit: float = LIMIT) -> tuple[list[str | bytes], CloseConnection | None]:
        """Everything that is there up to the end of the stream: whole messages, and the close frame if one came."""
        end = time.monotonic() + limit
        while self._receive(end):
            pass
        taken, self._messages = self._messages, []
        return taken, self._close

    def _receive(self, end: float) -> bool:
        """Takes what has come; False at a close frame or the end of the stream."""
        self.socket.settimeout(max(0.01, end - time.monotonic()))
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            return False
        self.protocol.receive_data(data)
        for event in self.protocol.events():
            if isinstance(event, CloseConnection):
                self._close = event
                return False
            if isinstance(event, TextMessage | BytesMessage):
                self._parts.append(event.data)
                if event.message_finished:
                    self._messages.append(self._parts[0][:0].join(self._parts))  # type: ignore[arg-type]
                    self._parts = []
        return True


# ---------------------------------------------------------------------------------------------- looks from outside


def memory(pid: int, what: str = "VmRSS") -> int:
    """Bytes in memory now, or at most since the start of the process ("VmHWM")."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{what}:\s+(\d+) kB$", status, re.M)[1]) * 1024


def waited_for_a_cpu(pid: int) -> float:
    """Seconds in which this process could have run, and other programs had all the CPUs.

    A limit for what a process does is one for the rest. (0 if the kernel does not count it.)
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def begun_and_ended(file: Path) -> tuple[list[str], list[str]]:
    """What handlers have noted in a file, line by line, as "begin X" and "end X"."""
    lines = file.read_text().splitlines() if file.exists() else []
    begun = [line.removeprefix("begin ") for line in lines if line.startswith("begin ")]
    return begun, [line.removeprefix("end ") for line in lines if line.startswith("end ")]
