"""What nothing_lost.py does to a server while it talks to it: kills, reloads, stops, want of descriptors, misdeeds.

When, follows from the seed. What is done are acts on the server's processes from outside, and misdeeds: the application
is asked to do, inside a worker, what real applications do to the process they are in (nothing_lost_misdeeds.py).
"""

import asyncio
import contextlib
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from nothing_lost_misdeeds import MISDEEDS

if TYPE_CHECKING:
    from nothing_lost import Run

#: Those that are several at once; misdeeds without deaths would show little.
TOGETHER = {
    "mixed": ("kill", "reload", "stop", "descriptors", "misdeeds"),
    "misdeeds": ("kill", "reload", "misdeeds"),
}
NEMESES = ("none", "kill", "reload", "stop", "gateway", "descriptors", "bytes", "misdeeds", "mixed")
MISDEED_PATIENCE = 30.0  # seconds until a misdeed must have been answered


class Nemesis:
    """Acts on the server's processes until the run stops; `acts` counts what was done."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.subject = run.subject
        self.acts: dict[str, int] = {}

    def start(self) -> None:
        base = self.run.options.mode == "base"
        workers, gateways = ("server", "server") if base else ("worker", "gateway")
        every: dict[str, tuple[float, Callable[[random.Random], Awaitable[None]]]] = {
            "kill": (1.0, lambda rng: self.kill(rng, workers)),
            "reload": (2.0, self.reload),
            "stop": (2.0, lambda rng: self.pause(rng, workers)),
            "gateway": (2.0, lambda rng: self.kill(rng, gateways)),
            "descriptors": (2.0, lambda rng: self.starve(rng, gateways)),
            "misdeeds": (0.2, self.misdeed),
        }
        slower = {"reload": 5.0, "stop": 4.0, "descriptors": 6.0, "misdeeds": 0.4}
        name = self.run.options.nemesis
        together = TOGETHER.get(name, ())
        for kind in together or (name,):
            if kind in every:
                interval, act = every[kind]
                self.run.spawn(self.go_on(kind, slower.get(kind, interval) if together else interval, act))

    async def go_on(self, kind: str, interval: float, act: Callable[[random.Random], Awaitable[None]]) -> None:
        rng = random.Random(f"{self.run.options.seed} nemesis {kind}")
        while not self.run.stopping:
            await asyncio.sleep(min(interval, self.run.options.duration / 3) * rng.uniform(0.5, 1.5))
            if not self.run.stopping:
                await act(rng)

    def act(self, name: str) -> None:
        self.acts[name] = self.acts.get(name, 0) + 1

    async def kill(self, rng: random.Random, role: str) -> None:
        pids = self.subject.pids(role)
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(pids), signal.SIGKILL)
                self.act("kill")

    async def reload(self, _rng: random.Random) -> None:
        self.subject.process.send_signal(signal.SIGHUP)
        self.act("reload")

    async def pause(self, rng: random.Random, role: str) -> None:
        pids = self.subject.pids(role)
        if not pids:
            return
        pid = rng.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.act("stop")
            try:
                await asyncio.sleep(rng.uniform(0.2, min(3.0, self.run.options.duration / 3)))
            finally:
                os.kill(pid, signal.SIGCONT)

    async def starve(self, rng: random.Random, role: str) -> None:
        """No descriptors left, while strangers knock."""
        pids = self.subject.pids(role)
        if not pids:
            return
        pid = rng.choice(pids)
        strangers: list[asyncio.StreamWriter] = []
        with contextlib.suppress(OSError):
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + rng.randrange(4), limits[1]))
            self.act("descriptors")
            try:
                for _ in range(20):
                    with contextlib.suppress(OSError, TimeoutError):
                        opened = asyncio.open_connection("127.0.0.1", self.run.port)
                        strangers.append((await asyncio.wait_for(opened, 0.2))[1])
                await asyncio.sleep(rng.uniform(0.2, 1.0))
            finally:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
                for one in strangers:
                    one.close()

    async def misdeed(self, rng: random.Random) -> None:
        """Asks for one, and leaves after the first bytes of the answer: a stream is abandoned."""
        name = rng.choice(sorted(MISDEEDS))
        try:
            async with asyncio.timeout(MISDEED_PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.run.port)
                try:
                    writer.write(f"GET /misdeeds/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                    answered = await reader.read(4096)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            answered = b""
        # Without an answer nobody knows whether it was accepted; nor with a 503, which a gateway that can't accept
        # anybody says by itself.
        if answered and not answered.startswith(b"HTTP/1.1 503 "):
            self.run.looks += 1
        else:
            self.run.failed_looks += 1
        self.act("misdeed")
