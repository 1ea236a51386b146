"""Do the processes of a server stay as they are over many reloads, and over many connections that come and go?

    python tools/flatness.py --reloads 200 --connections 100000

Theory
------
What is not given back adds up. So the server is looked at from outside (/proc) at the same moment of each round, with
nothing under way: after each reload, when the old generation has gone; and after each batch of connections, when all
of them have. At every look there must be as many processes as at first, and each with as many descriptors and threads.
They are whole numbers, so they are compared as such; what is still on its way gets some seconds to arrive.

Memory is not so exact: allocators keep what was freed, tables get their size. So the first rounds do not count, and
through the others a line is laid, for each process that lived through them all. What that line has gained from its
first round to its last must be below BOUND. That is six bytes for each of 100,000 connections, less than one pointer
and a word of its block, and 3 KiB for each of 200 reloads, less than a page: one object forgotten each time is found.
Judged is what is resident (RSS); the share of it when what several processes use is divided among them (PSS) is shown
as well, but it changes when anybody else on the machine begins to use the same library.

The connections end in every way there is: by a close handshake, by FIN, by RST, before the handshake, in the middle of
a message. Meanwhile others stay, must not be disconnected, and are answered in each round.

Exit code 0: flat; 1: not; 2: the run itself failed. Standard library only; server and application are those of
nothing_lost.py.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nothing_lost
from nothing_lost_frames import frame, frames

BOUND = 600  # KiB
WARM_UP = 0.25  # of the rounds, in which the memory may still grow
PATIENCE = 60.0  # seconds for anything else
STAYING = 20  # connections that stay
ENDS = ("close", "close", "close", "fin", "reset", "half a head", "half a message")
COUNTS = ("descriptors", "threads")


# ---------------------------------------------------------------------------------------------- what is looked at


def look(supervisor: int) -> dict[str, dict[str, int]]:
    """Each process by its title: its number, descriptors, threads, and bytes of memory."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    found: dict[str, dict[str, int]] = {}
    for pid in [supervisor, *map(int, children)]:
        with contextlib.suppress(OSError):  # it has just ended
            title = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").removeprefix("mooring: ")
            memory = dict(re.findall(r"^(Rss|Pss): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M))
            found[title if title not in found else f"{title} (pid {pid})"] = {
                "pid": pid,
                "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
                "threads": len(os.listdir(f"/proc/{pid}/task")),
                "pss": int(memory["Pss"]) << 10,
                "rss": int(memory["Rss"]) << 10,
            }
    return found


def counted(seen: dict[str, dict[str, int]]) -> dict[str, tuple[int, ...]]:
    return {title: tuple(one[name] for name in COUNTS) for title, one in seen.items()}


def gain(values: list[int]) -> float:
    """What the straight line through them (least squares) rises from the first to the last."""
    count = len(values)
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((at - middle) ** 2 for at in range(count))
    slope = sum((at - middle) * (value - mean) for at, value in enumerate(values)) / spread if spread else 0.0
    return slope * (count - 1)


class Watched:
    """A number of rounds, and what was seen after each."""

    def __init__(self, name: str, supervisor: int, options: argparse.Namespace) -> None:
        self.name = name
        self.supervisor = supervisor
        self._settle: float = options.settle
        self._bound: int = options.bound << 10
        self.looks: list[dict[str, dict[str, int]]] = []
        self.faults: list[str] = []
        self._began = time.monotonic()

    async def round(self) -> None:
        """Looks, as soon as everything is as it was at first."""
        end = time.monotonic() + self._settle
        seen = look(self.supervisor)
        while self.looks and counted(seen) != counted(self.looks[0]) and time.monotonic() < end:
            await asyncio.sleep(0.05)
            seen = look(self.supervisor)
        self.looks.append(seen)
        first, now = counted(self.looks[0]), counted(seen)
        for title in sorted(first.keys() | now.keys()):
            if first.get(title) != now.get(title) and len(self.faults) < 10:
                self.faults.append(
                    f"{self.name}, round {len(self.looks)}: {title} has {now.get(title)} {COUNTS}, "
                    f"had {first.get(title)}"
                )

    def result(self, work: int) -> dict[str, Any]:
        """Judges the memory of those that lived through all of it; `work`: what was done in all rounds together."""
        kept = self.looks[int(len(self.looks) * WARM_UP) :]
        processes: dict[str, dict[str, float]] = {}
        for title, one in self.looks[-1].items():
            first = self.looks[0].get(title)
            lives = first is not None and first["pid"] == one["pid"]
            shown: dict[str, float] = {name: one[name] for name in (*COUNTS, "pss", "rss")}
            if lives and len(kept) > 2:
                gains = {name: gain([seen[title][name] for seen in kept if title in seen]) for name in ("pss", "rss")}
                done = work * (len(kept) - 1) / len(self.looks)
                shown |= {f"{name}_gain": round(value) for name, value in gains.items()}
                shown["bytes_each"] = round(gains["rss"] / done, 2)
                if gains["rss"] > self._bound:
                    self.faults.append(
                        f"{self.name}: {title} has gained {gains['rss'] / 1024:.0f} KiB over the last "
                        f"{len(kept)} of {len(self.looks)} rounds, {shown['bytes_each']} bytes for each"
                    )
            processes[title] = shown
        return {
            "done": work,
            "rounds": len(self.looks),
            "seconds": round(time.monotonic() - self._began, 1),
            "processes": processes,
            "faults": self.faults,
        }


# ---------------------------------------------------------------------------------------------- clients


class Client:
    """One connection, by the number of which everything about it is chosen."""

    def __init__(self, port: int, number: int) -> None:
        self.number = number
        self._port = port
        self._random = random.Random(number)
        self._buffer = bytearray()

    async def connect(self) -> None:
        # one address in a hundred connections: the server limits what one address may have
        source = f"127.1.{self.number // 250 % 250}.{self.number % 250 + 1}"
        opening = asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
        self._reader, self._writer = await asyncio.wait_for(opening, PATIENCE)

    async def shake_hands(self) -> None:
        self._writer.write(HEAD)
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise RuntimeError(f"connection {self.number}: the handshake was answered with {head[:60]!r}")

    async def ask(self) -> None:
        """One message, and its answer."""
        text = f"0:{self.number}:0:" + "x" * self._random.randrange(200)
        self._writer.write(frame(1, text.encode(), self._random.randbytes(4)))
        while True:
            for opcode, payload in frames(self._buffer):
                if opcode == 1:
                    if payload.decode() != f"E {text}":
                        raise RuntimeError(f"connection {self.number} was answered with {payload[:60]!r}")
                    return
                if opcode == 9:
                    self._writer.write(frame(10, payload, self._random.randbytes(4)))
                elif opcode == 8:
                    raise RuntimeError(f"connection {self.number} was told to close: {payload!r}")
            data = await asyncio.wait_for(self._reader.read(65536), PATIENCE)
            if not data:
                raise RuntimeError(f"connection {self.number} was disconnected")
            self._buffer += data

    async def come_and_go(self) -> None:
        how = ENDS[self.number % len(ENDS)]
        await self.connect()
        try:
            if how == "half a head":
                self._writer.write(HEAD[: self._random.randrange(len(HEAD))])
                return
            await self.shake_hands()
            await self.ask()
            if how == "close":
                self._writer.write(frame(8, b"\x03\xe8", b"\0\0\0\0"))
                await asyncio.wait_for(self._reader.read(), PATIENCE)  # its answer, and the end
            elif how == "reset":
                connection = self._writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "half a message":
                whole = frame(1, b"x" * 1000, b"\0\0\0\0")
                self._writer.write(whole[: self._random.randrange(1, len(whole))])
        finally:
            self.close()

    def close(self) -> None:
        self._writer.close()


HEAD = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


# ---------------------------------------------------------------------------------------------- the run


class Run:
    """A server, first reloaded again and again, then with connections that come and go."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        arguments = ["--nemesis", "none", "--workers", str(options.workers)]
        arguments += ["--gateways", str(options.gateways), "--app", str(options.app)]
        self.subject = nothing_lost.Subject(nothing_lost.parse(arguments), folder)
        self.port = 0

    async def go(self) -> dict[str, Any]:
        self.port = await self.subject.port()
        staying = [Client(self.port, number) for number in range(STAYING)]
        for client in staying:
            await client.connect()
            await client.shake_hands()
        results = {}
        if self.options.reloads:
            results["reloads"] = await self._reload(staying)
        if self.options.connections:
            results["connections"] = await self._come_and_go(staying)
        for client in staying:
            client.close()
        code = await self.subject.stop()
        faults = [fault for result in results.values() for fault in result["faults"]]
        if code != 0:
            faults.append(f"the server's exit code: {code}")
        if "Traceback (most recent call last)" in self.subject.text():
            faults.append("there is a traceback in the server's log")
        return {"verdict": "FAIL" if faults else "PASS", **results, "faults": faults}

    async def _reload(self, staying: list[Client]) -> dict[str, Any]:
        watched = Watched("reloads", self.subject.process.pid, self.options)
        for count in range(1, self.options.reloads + 1):
            self.subject.process.send_signal(signal.SIGHUP)
            await self._logged("reload: done", count)
            for client in staying:
                await client.ask()
            await watched.round()
        return watched.result(self.options.reloads)

    async def _logged(self, text: str, count: int) -> None:
        """The log has that line so often."""
        end = time.monotonic() + PATIENCE
        while self.subject.text().count(text) < count:
            if time.monotonic() > end or self.subject.process.poll() is not None:
                raise RuntimeError(f"no {text!r} for the {count}th time")
            await asyncio.sleep(0.02)

    async def _come_and_go(self, staying: list[Client]) -> dict[str, Any]:
        watched = Watched("connections", self.subject.process.pid, self.options)
        rounds = min(self.options.rounds, self.options.connections)
        begin = STAYING
        for number in range(rounds):
            share = self.options.connections // rounds + (number < self.options.connections % rounds)
            numbers = iter(range(begin, begin + share))
            begin += share

            async def one_after_the_other(numbers: Any = numbers) -> None:
                for number in numbers:
                    await Client(self.port, number).come_and_go()

            await asyncio.gather(*[one_after_the_other() for _ in range(self.options.clients)])
            for client in staying:
                await client.ask()
            await watched.round()
        return watched.result(self.options.connections)


def describe(result: dict[str, Any]) -> str:
    """For a person."""
    lines = [result["verdict"]]
    for name in ("reloads", "connections"):
        if name in result:
            part = result[name]
            lines.append(f"  {part['done']:,} {name} in {part['seconds']} s, looked at {part['rounds']} times")
            for title, one in part["processes"].items():
                text = f"    {title:12} {one['descriptors']:4} descriptors {one['threads']:3} threads"
                text += f" {one['pss'] / 1024:8.0f} KiB PSS {one['rss'] / 1024:8.0f} KiB RSS"
                if "rss_gain" in one:
                    text += f"   gained {one['rss_gain'] / 1024:+.0f} KiB RSS, {one['bytes_each']:+} bytes for each"
                lines.append(text)
    return "\n".join([*lines, *[f"  {fault}" for fault in result["faults"]]])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look whether anything of a server grows.")
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=50, help="looks during the connections (50)")
    parser.add_argument("--clients", type=int, default=50, help="connections at one time (50)")
    parser.add_argument("--bound", type=int, default=BOUND, help=f"KiB that a process may gain ({BOUND})")
    parser.add_argument("--settle", type=float, default=20.0, help="seconds for what has ended to be gone (20)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--app", type=Path, default=nothing_lost.APP, help="the application; see nothing_lost_app.py")
    parser.add_argument("--json", type=Path, help="append the result to this file, one line of JSON; - is stdout")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="flatness-") as folder:
        run = Run(options, Path(folder))
        try:
            result = asyncio.run(run.go())
        except Exception as error:
            print(f"the run itself failed: {error!r}\n{run.subject.text()[-4000:]}", file=sys.stderr)
            return 2
        finally:
            run.subject.end()
    return nothing_lost.tell(result, describe, options.json)


if __name__ == "__main__":
    sys.exit(main())
