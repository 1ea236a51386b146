"""Does a server lose, double, swap or mix up messages while its processes are killed, stopped and reloaded?

    python tools/nothing_lost.py --nemesis kill --duration 60 --clients 100 --seed 7

Theory
------
Clients send numbered messages with a checksum and note what comes back. The application beside this file answers each
with the same text, and passes on what the server reports as uncertain. Between them a *nemesis* acts on the server's
processes, by a schedule that `--seed` repeats. In the end every message must have had exactly one fate:

    answered, once, in order, unchanged, at the client that sent it
    reported as uncertain (its handler was running when its worker was killed)
    indeterminate: in flight when its gateway was killed, which ends connections (only where that is the nemesis)
    quarantined: with --redeliver, when three workers were killed over it

Anything else is a fault: silently lost, duplicated, reordered, corrupted, cross-talk (somebody else's), phantom
(nobody's), disconnected, stuck (answered only after STUCK seconds). A second witness are notes that the handlers write
apart from the server: no handler ran twice, and each that began and did not end was reported. A third are the server's
own counts, which must add up at every look, and agree with those of the clients in the end. Nothing of this uses the
server's code, or a library.

Some nemeses also have the application misbehave inside of the workers, as real ones do: see nothing_lost_misdeeds.py.

"None of N" is not "never": the chance of one in a message is below 3/N (95 %); that bound is printed.

The exit code is 0 when there was no fault, 1 when there was one, 2 when the run itself failed.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nothing_lost_frames import frame, frames
from nothing_lost_judge import FAULTS, History, adds_up, ended_by_themselves, judge, judge_notes, tracebacks
from nothing_lost_misdeeds import SPAWNED
from nothing_lost_nemesis import NEMESES, Nemesis

APP = Path(__file__).with_name("nothing_lost_app.py")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GRACE = 30.0  # seconds without any answer until what is missing counts as lost
STUCK = 15.0  # seconds after which an answer comes too late: nobody noticed that there would be none
PATIENCE = 30.0  # seconds for the server to start, to stop, or to answer


# ---------------------------------------------------------------------------------------------- the clients


class Client(asyncio.Protocol):
    """Keeps `window` messages unanswered, over one connection after the other where they are expected to end."""

    def __init__(self, run: "Run", number: int) -> None:
        self.run = run
        self.history = History(number, run.faults, run.options.redeliver)
        self.rng = random.Random(f"{run.options.seed} client {number}")
        self.dribbles = run.options.nemesis == "bytes" or (run.options.nemesis == "mixed" and number % 10 == 9)
        self.times: dict[int, float] = {}
        self.done = False
        self._transport: asyncio.WriteTransport | None = None
        self._key = b""
        self._buffer = bytearray()
        self._open = False

    # -- the connection

    async def connect(self) -> None:
        """Until there is a connection, where they may be refused for a while."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.run.port)
                return
            except OSError:
                if not self.run.connections_end or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)

    @property
    def connected(self) -> bool:
        return self._transport is not None or self.run.connections_end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._buffer.clear()
        self._open = False
        self._key = base64.b64encode(self.rng.randbytes(16))
        transport.write(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + self._key + b"\r\n\r\n"
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.done:
            return
        self.times.clear()
        if self.run.connections_end:
            self.history.cut()
            self.run.reconnects += 1
            if not self.run.stopping:
                self.run.spawn(self.connect())
        else:
            self.run.faults["disconnected"] += 1
            self.run.say(f"client {self.history.client} was disconnected: {error}")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            head, end, _ = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return None
            accept = base64.b64encode(hashlib.sha1(self._key + GUID).digest())
            if not head.startswith(b"HTTP/1.1 101 ") or accept not in head:
                return self._wrong(f"handshake answered with {bytes(head[:80])!r}")
            del self._buffer[: len(head) + 4]
            self._open = True
        try:
            for opcode, payload in frames(self._buffer):
                if opcode == 1:
                    self._hear(payload.decode(errors="replace"))
                elif opcode == 9 and self._transport is not None:
                    self._transport.write(frame(10, payload, self.rng.randbytes(4)))
                elif opcode == 8:
                    if not self.done:
                        self.run.say(f"client {self.history.client} was told to close: {payload!r}")
                    return self._answer_close(payload)
        except ValueError as error:
            self.run.faults["corrupted"] += 1
            return self._wrong(str(error))
        self.pump()
        return None

    def _answer_close(self, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame(8, payload[:2], self.rng.randbytes(4)))
            self._transport.close()

    def _wrong(self, what: str) -> None:
        self.run.say(f"client {self.history.client}: {what}")
        if self._transport is not None:
            self._transport.abort()

    # -- messages

    def _hear(self, text: str) -> None:
        number = self.history.hear(text)
        began = self.times.pop(number, None)
        if began is not None:
            self.run.heard = time.monotonic()
            self.run.latencies.append(self.run.heard - began)
            self.run.faults["stuck"] += self.run.heard - began > STUCK

    def pump(self) -> None:
        """Sends as much as is allowed."""
        if not self._open or self._transport is None or self._transport.is_closing():
            return
        out = bytearray()
        while self.history.open < self.run.options.window and not self.run.stopping and self.run.allowed():
            payload = self.history.send(self._padding()).encode()
            self.times[len(self.history.fates) - 1] = time.monotonic()
            mask = self.rng.randbytes(4)
            if self.rng.random() < 0.02:
                cut = self.rng.randrange(len(payload))
                out += frame(1, payload[:cut], mask, final=False) + frame(0, payload[cut:], mask)
            else:
                out += frame(1, payload, mask)
        if self.dribbles:
            for at in range(len(out)):
                self._transport.write(bytes(out[at : at + 1]))
        elif out:
            self._transport.write(bytes(out))

    def _padding(self) -> str:
        if self.dribbles:
            return ""
        chance = self.rng.random()
        size = 70_000 if chance < 0.0005 else 5_000 if chance < 0.01 else int(chance * 200)
        return self.run.padding[:size]

    def close(self) -> None:
        self.done = True
        if self._transport is not None:
            self._transport.write(frame(8, b"\x03\xe8", b"\0\0\0\0"))
            self._transport.close()


# ---------------------------------------------------------------------------------------------- the server


class Subject:
    """The server under test: its processes and its log."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        settings = {
            "mode": options.mode,
            "worker_num": options.workers,
            "restart_free": 1_000,
            "degraded_after": 1_000,  # on a slow machine workers are killed before they are ready, again and again
            "max_connections_per_address": 1_000_000,
            "control_frame_limit": 65535,
            "redeliver": options.redeliver,
            **json.loads(options.settings),
        }
        if options.mode == "process":
            settings["gateway_num"] = options.gateways
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(options.app)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "NOTHING_LOST_SETTINGS": json.dumps(settings),
                    "NOTHING_LOST_PLANT": options.plant,
                    "NOTHING_LOST_HANDLERS": options.handlers,
                    "NOTHING_LOST_WORK": str(options.work),
                    "NOTHING_LOST_NOTES": str(folder),
                },
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    async def port(self) -> int:
        """The port, once the server is ready."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            text = self.text()
            if re.search(r"\bready\b", text) and (found := re.search(r"listening on \S+:(\d+)", text)):
                return int(found[1])
            await asyncio.sleep(0.05)
        raise RuntimeError("the server did not start:\n" + self.text()[-4000:])

    def pids(self, role: str) -> list[int]:
        """Its processes with the title "mooring: ROLE N", of this moment."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return []
        found = []
        for pid in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_text().startswith(f"mooring: {role} "):
                    found.append(int(pid))
        return sorted(found)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            return -1

    def end(self) -> None:
        """Whatever happened: nothing of it is left."""
        pids = [pid for role in ("worker", "gateway", "server") for pid in self.pids(role)]
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)  # the kernel ends them, or they themselves, once they run

    def counts(self) -> dict[str, int] | None:
        """Those of the last line of its log."""
        lines = [line for line in self.text().splitlines() if "drained: " in line]
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", lines[-1])} if lines else None


# ---------------------------------------------------------------------------------------------- one run


class Run:
    """Clients, server and nemesis, from start to verdict."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.faults = dict.fromkeys(FAULTS, 0)
        self.padding = "".join(random.Random(f"{options.seed} padding").choices("abcdefghijklmnop äöü", k=70_000))
        # where the nemesis ends connections by what it does
        self.connections_end = options.nemesis == "gateway" or (
            options.mode == "base" and options.nemesis in ("kill", "reload", "misdeeds", "mixed")
        )
        self.latencies = array("d")
        self.heard = 0.0
        self.reconnects = 0
        self.stopping = False
        self.port = 0
        self.looks = self.failed_looks = 0
        self.subject = Subject(options, folder)
        self._budget = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    def say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, file=sys.stderr)

    def spawn(self, running: Any) -> None:
        task = asyncio.get_running_loop().create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def allowed(self) -> bool:
        """Whether the rate lets another message go."""
        if not self.options.rate:
            return True
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    async def go(self) -> dict[str, Any]:
        self.port = await self.subject.port()
        clients = [Client(self, number) for number in range(self.options.clients)]
        await asyncio.gather(*[client.connect() for client in clients])
        nemesis = Nemesis(self)
        nemesis.start()
        self.spawn(self._look())
        began = time.monotonic()
        await self._talk(clients, began)
        took = time.monotonic() - began
        self.stopping = True
        await self._settle(clients)
        while self._tasks:  # acts and looks end by themselves
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self.faults["unreachable"] += not await self._reachable()
        for client in clients:
            client.close()
        return await self._verdict(clients, nemesis, took)

    async def _talk(self, clients: list[Client], began: float) -> None:
        last = began
        while (now := time.monotonic()) < began + self.options.duration:
            if self.options.messages and sum(len(one.history.fates) for one in clients) >= self.options.messages:
                break
            self._budget = min(self._budget + (now - last) * self.options.rate, max(10.0, self.options.rate / 10))
            last = now
            if self.options.rate:
                for client in random.sample(clients, len(clients)):
                    client.pump()
            else:
                for client in clients:
                    client.pump()
            await asyncio.sleep(0.02)

    async def _settle(self, clients: list[Client]) -> None:
        """Everything has a fate, or nothing was heard for too long."""
        self.heard = time.monotonic()
        while (
            any(one.history.open and one.connected for one in clients)
            and time.monotonic() < self.heard + self.options.grace
        ):
            await asyncio.sleep(0.05)

    async def _look(self) -> None:
        """The server's counts, each second: they add up in each gateway."""
        while not self.stopping:
            try:
                counts = json.loads(await asyncio.wait_for(self._fetch(), PATIENCE))
            except (OSError, ValueError, TimeoutError, EOFError):
                self.failed_looks += 1
            else:
                self.looks += 1
                for gateway in counts["gateways"]:
                    if "error" not in gateway and not adds_up(gateway):  # it stands still, or is gone
                        self.faults["counts_wrong"] += 1
                        self.say(f"the counts do not add up: {gateway}")
            await asyncio.sleep(min(1.0, self.options.duration / 5))

    async def _fetch(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"answered with {head[:60]!r}")
            return body.decode()
        finally:
            writer.close()

    async def _reachable(self) -> bool:
        """A client that comes now is served."""
        self.looks += 1
        try:
            await asyncio.wait_for(self._fetch(), PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            self.say(f"the server does not answer any more: {error}")
            return False
        return True

    async def _verdict(self, clients: list[Client], nemesis: Nemesis, took: float) -> dict[str, Any]:
        faults, histories = self.faults, [one.history for one in clients]
        code = await self.subject.stop()
        counts = self.subject.counts()
        text = self.subject.text()
        totals = judge(histories, faults)
        begun = judge_notes((file.read_bytes() for file in sorted(self.folder.glob("*.notes"))), histories, faults)
        kills = nemesis.acts.get("kill", 0)
        if code != 0:
            faults["server_errors"] += 1
            self.say(f"the server's exit code: {code}")
        faults["server_errors"] += len(tracebacks(text, but_of="nothing_lost_misdeeds"))
        faults["ended_by_themselves"] += ended_by_themselves(text)
        if counts is None or not adds_up(counts):
            faults["counts_wrong"] += 1
            self.say(f"the last counts: {counts}")
        elif not self.connections_end:
            # what was asked in vain may have been accepted or not
            surely = totals["sent"] + self.looks
            misdeeds = nemesis.acts.get("misdeed", 0)
            agreed = 0 <= counts["accepted"] - surely <= self.failed_looks + SPAWNED * misdeeds
            # a misdeed may be the last that its worker does, and what it has spawned is counted by itself
            others = self.failed_looks + (1 + SPAWNED) * misdeeds
            agreed &= 0 <= counts["uncertain"] - totals["uncertain"] <= others
            if not agreed:
                faults["counts_wrong"] += 1
                looks = f"{self.looks} looks, and {self.failed_looks} in vain"
                self.say(f"the clients' counts are others: {totals}, {looks}; the server's: {counts}")
            if self.options.redeliver:
                faults["uncertain_too_many"] += totals["uncertain"]
            elif self.options.handlers == "def":
                faults["uncertain_too_many"] += max(0, totals["uncertain"] - kills)
        latencies = sorted(self.latencies)
        sent = totals["sent"]
        return {
            "verdict": "FAIL" if any(faults.values()) or not sent else "PASS",
            "nemesis": self.options.nemesis,
            "mode": self.options.mode,
            "seed": self.options.seed,
            "clients": len(clients),
            "seconds": round(took, 1),
            **totals,
            "begun": begun,
            "acts": nemesis.acts,
            "uncertain_per_kill": round(totals["uncertain"] / kills, 3) if kills else 0.0,
            "reconnects": self.reconnects,
            "faults": faults,
            "bound": 3 / sent if sent else 1.0,
            "latency_ms": {
                name: round(latencies[min(len(latencies) - 1, int(len(latencies) * part))] * 1000, 2)
                for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            }
            if latencies
            else {},
            "server_counts": counts,
        }


def describe(result: dict[str, Any]) -> str:
    """The verdict for a person."""
    acts = ", ".join(f"{count} x {name}" for name, count in result["acts"].items()) or "nothing done to it"
    bad = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in result["faults"].items() if count)
    latency = result["latency_ms"]
    lines = [
        f"{result['verdict']}: nemesis {result['nemesis']} ({acts}), mode {result['mode']}, seed {result['seed']}",
        f"  {result['sent']:,} messages of {result['clients']} clients in {result['seconds']} s: "
        f"{result['answered']:,} answered, {result['uncertain']} uncertain "
        f"({result['uncertain_per_kill']} per kill), {result['indeterminate']} indeterminate, "
        f"{result['quarantined']} quarantined",
        f"  faults: {bad or 'none; so below ' + format(result['bound'], '.1e') + ' per message (95 %)'}",
    ]
    if latency:
        lines.append(
            f"  answered after {latency['p50']} ms (p50), {latency['p99']} ms (p99), {latency['max']} ms (max)"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look whether a server under attack loses messages.")
    parser.add_argument("--nemesis", choices=NEMESES, default="mixed")
    parser.add_argument("--mode", choices=("process", "base"), default="process")
    parser.add_argument("--seed", type=int, help="default: chosen, and printed")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of talk (60)")
    parser.add_argument("--messages", type=int, default=0, help="end earlier, after so many")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--window", type=int, default=8, help="unanswered messages of a client (8)")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second of all clients; 0: no limit")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--handlers", choices=("def", "async"), default="def")
    parser.add_argument("--redeliver", action="store_true", help="let messages be handled again; see that setting")
    parser.add_argument("--work", type=float, default=0.0, help="milliseconds that a handler takes")
    parser.add_argument("--settings", default="{}", help="more settings of the server, as JSON")
    parser.add_argument(
        "--grace", type=float, default=GRACE, help="seconds of silence after which what is missing is lost"
    )
    parser.add_argument("--app", type=Path, default=APP, help="the application; see nothing_lost_app.py")
    parser.add_argument("--plant", default="", help="let the application do something wrong: must give FAIL")
    parser.add_argument("--json", type=Path, help="append the result to this file, one line of JSON; - is stdout")
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    if options.mode == "base" and options.workers < 2:
        parser.error("--mode base needs two workers: nobody starts a single process again")
    if options.seed is None:
        options.seed = random.randrange(1 << 32)
    return options


def tell(result: dict[str, Any], describe: Callable[[dict[str, Any]], str], where: Path | None) -> int:
    """Prints the verdict, appends it to a file if one is named (-: JSON is what is printed); gives the exit code."""
    if str(where) == "-":
        print(json.dumps(result))
    else:
        print(describe(result))
        if where:
            with where.open("a") as file:
                file.write(json.dumps(result) + "\n")
    return 0 if result["verdict"] == "PASS" else 1


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="nothing-lost-") as folder:
        run = Run(options, Path(folder))
        try:
            result = asyncio.run(run.go())
        except Exception as error:
            print(
                f"the run itself failed, seed {options.seed}: {error!r}\n{run.subject.text()[-4000:]}", file=sys.stderr
            )
            return 2
        finally:
            run.subject.end()
            if options.log:
                shutil.copy(run.subject.log, options.log)
        if result["verdict"] == "FAIL" and not options.quiet:
            print("the end of the server's log:\n" + run.subject.text()[-4000:], file=sys.stderr)
    return tell(result, describe, options.json)


if __name__ == "__main__":
    sys.exit(main())
