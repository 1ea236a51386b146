"""A proxy between a client and a server, that does harm: it holds, swallows, or cuts what goes through, each way.

async with Middle(path) as middle:           # a Unix path or (host, port) to connect to
    ... middle.path, middle.port ...          # where it listens
    middle.up = HOLD                          # to the server; `down`: from it
"""

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

PASS, HOLD, DROP = "pass", "hold", "drop"


class Middle:
    """`up` and `down` are set at any time, and hold for all connections. What is held follows when it passes again."""

    def __init__(self, target, tls=None) -> None:
        self._tls = tls  # a server's context: who comes by the port has to speak TLS
        self.target = target
        self._folder = Path(tempfile.mkdtemp(prefix="middle-"))
        self.path = self._folder / "socket"
        self.port = 0
        self._ways = {"up": PASS, "down": PASS}
        self._passes = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._tasks: set[asyncio.Task] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self.refuse = False
        self.connections = 0

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def up(self):
        return self._ways["up"]

    @up.setter
    def up(self, way):
        self._set("up", way)

    @property
    def down(self):
        return self._ways["down"]

    @down.setter
    def down(self, way):
        self._set("down", way)

    def _set(self, direction, way):
        self._ways[direction] = way
        event = self._passes[direction]
        event.clear() if way == HOLD else event.set()

    def both(self, way):
        self.up = self.down = way

    def cut(self):
        """Ends all connections, and what is held in them is gone."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self):
        self.both(PASS)
        self._servers = [
            await asyncio.start_unix_server(self._accept, self.path),
            await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls),
        ]
        self.port = self._servers[1].sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *problem):
        for server in self._servers:
            server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self._writers.add(writer)
        try:
            if self.refuse:
                return
            self.connections += 1
            if isinstance(self.target, tuple):
                far_reader, far_writer = await asyncio.open_connection(*self.target)
            else:
                far_reader, far_writer = await asyncio.open_unix_connection(self.target)
            self._writers.add(far_writer)
            both = [
                asyncio.ensure_future(self._pump("up", reader, far_writer)),
                asyncio.ensure_future(self._pump("down", far_reader, writer)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # there is no server; or it is the end, and asyncio would log that
        finally:
            self._tasks.discard(asyncio.current_task())
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, direction, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._ways[direction] == DROP:
                    continue
                await self._passes[direction].wait()
                if self._ways[direction] == DROP:
                    continue
                writer.write(data)
                await writer.drain()
