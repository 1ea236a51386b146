#!/usr/bin/env python3
"""How long clients wait when their worker is killed: from SIGKILL to the first answer of its successor.

    build/release/bin/python bench/successor.py [--kills 50] [--load-times 0,1] [--json FILE]

One worker, a few connections that send a message each 10 ms or so and wait for the answer, which names the process that
gave it. When the worker is killed, all of them are connections of a dead worker; the first answer of another process,
on any of them, ends the measurement. It includes all there is: the kernel noticing, the supervisor, the
start of the successor, the gateway handing messages over, two ways through sockets. Without a spare and with one, for
applications that take 0 s and 1 s to load. No connection may end, and each message must be answered once.

This file is also the application: `--serve` is for the bench itself.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from compare import machine
from websockets.asyncio.client import ClientConnection, connect

CONNECTIONS = 8
PAUSE = 0.01  # seconds from an answer to the next message
PATIENCE = 60.0  # seconds for anything


def serve(spares: int, load_time: float) -> None:
    from mooring import Frame, Server

    time.sleep(load_time)  # as an application does that imports much
    server = Server("127.0.0.1", 0, worker_num=1, gateway_num=1, spare_worker_num=spares)
    # a message in whose middle the worker ended is handled again, so each is answered; each kill is a single accident
    server.set(redeliver=True, restart_free=1000)

    @server.on("message")
    def said(server: Server, frame: Frame) -> None:
        server.push(frame.fd, f"{frame.data} {os.getpid()}")

    server.start()


@dataclass
class Run:
    """A server with its clients; `spares` or none, and an application that takes `load_time` seconds to load."""

    spares: int
    load_time: float
    worker: int = 0  # who gave the last answer
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # an answer of somebody else
    warm: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))  # one for each spare that is ready
    port: "asyncio.Future[int]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    answers: int = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        command = [sys.executable, __file__, "--serve", str(self.spares), str(self.load_time)]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        reading = asyncio.create_task(self._read(process.stderr))
        try:
            async with asyncio.timeout(PATIENCE):
                await self.port
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
            await reading

    async def _read(self, log: asyncio.StreamReader) -> None:
        port = None
        async for raw in log:
            line = raw.decode(errors="replace")
            port = port or re.search(r"listening on \S+:(\d+)", line)
            if port and "ready after" in line:
                self.port.set_result(int(port[1]))
            elif "is ready to take the place" in line:
                self.warm.release()
        if not self.port.done():
            self.port.set_exception(RuntimeError("the server did not start"))

    async def talk(self, ws: ClientConnection) -> None:
        """Sends numbers and takes answers, for ever."""
        number = 0
        while True:
            await ws.send(str(number))
            got, by = (await ws.recv()).split()
            if got != str(number):
                raise RuntimeError(f"{number} was answered with {got}")
            self.answers += 1
            if int(by) != self.worker:
                self.worker = int(by)
                self.changed.set()
            number += 1
            await asyncio.sleep(random.uniform(PAUSE / 2, PAUSE * 3 / 2))

    async def measure(self, kills: int) -> list[float]:
        """Seconds of each kill."""
        took: list[float] = []
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            await stack.enter_async_context(self.serving())
            url = f"ws://127.0.0.1:{self.port.result()}/"
            clients = [
                await stack.enter_async_context(connect(url, ping_interval=None, compression=None, proxy=None))
                for _ in range(CONNECTIONS)
            ]
            talking = [group.create_task(self.talk(ws)) for ws in clients]
            await self._answered()
            for _ in range(kills):
                if self.spares:
                    async with asyncio.timeout(PATIENCE):
                        await self.warm.acquire()
                await asyncio.sleep(random.uniform(0.1, 0.2))  # at any moment of what clients do
                self.changed.clear()
                start = time.monotonic()
                os.kill(self.worker, signal.SIGKILL)
                await self._answered()
                took.append(time.monotonic() - start)
            for task in talking:
                task.cancel()
        return took

    async def _answered(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.changed.wait()


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="for each line of the table")
    parser.add_argument("--load-times", default="0,1", help="seconds an application takes to load")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, metavar=("SPARES", "LOAD_TIME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(int(options.serve[0]), float(options.serve[1]))
    load_times = [float(one) for one in options.load_times.split(",")]
    print("from SIGKILL of a worker to the first answer of its successor, in milliseconds\n")
    print(f"{'load time':>10} {'spares':>7} {'kills':>6} {'median':>8} {'p99':>8}")
    rows = []
    for load_time in load_times:
        for spares in (0, 1):

            async def run(spares: int = spares, load_time: float = load_time) -> list[float]:
                return await Run(spares, load_time).measure(options.kills)

            took = asyncio.run(run())
            row = {
                "load_time": load_time,
                "spares": spares,
                "kills": len(took),
                "median_ms": statistics.median(took) * 1000,
                "p99_ms": p99(took) * 1000,
            }
            rows.append(row)
            times = f"{row['median_ms']:8.1f} {row['p99_ms']:8.1f}"
            print(f"{load_time:>8g} s {spares:>7} {len(took):>6} {times}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
