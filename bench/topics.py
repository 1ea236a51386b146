#!/usr/bin/env python3
"""What a topic with a history costs: CPU of the server per publication, by who keeps it and how many hear it.

    build/release/bin/python bench/topics.py [--rounds 3] [--count 20000] [--json FILE] [--only plain,memory]

    plain     no history: what publish() costs by itself
    memory    the engine keeps it
    told      the same with positions=True: JSON that says where the client is
    redis     Redis keeps it (a server of its own, in memory alone, pinned like the rest and not counted)

One worker and one gateway publish 100 B in batches of 200, each of which is awaited. The clients throw away what they
get. CPU is that of all processes of the server; the kinds take turns, a fresh server each.
"""

import argparse
import contextlib
import json
import selectors
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from compare import Failure, Peer, Server, cpu_seconds, machine
from websockets.sync.client import connect

PYTHON = shlex.quote(sys.executable)
HERE = Path(__file__).resolve().parent
KINDS = ("plain", "memory", "told", "redis")
HEARERS = (0, 1, 100)
BATCH = 200
SIZE = 100  # bytes of a publication
PATIENCE = 60.0  # seconds for any one answer


def serve(kind: str, engine: str, port: int) -> None:
    """One server; a client says what it wants."""
    from mooring import Frame
    from mooring import Server as Mooring

    server = Mooring("127.0.0.1", port, worker_num=1, engine=engine, max_connections_per_address=0)
    if kind != "plain":
        server.topic("bench", history_size=1000, positions=kind == "told")

    @server.on("message")
    async def message(server: Mooring, frame: Frame) -> None:
        if frame.data == "hear":
            server.subscribe(frame.fd, "bench")
            server.push(frame.fd, "")
            return
        for _ in range(int(frame.data) // BATCH):
            sent = [server.publish("bench", "x" * SIZE) for _ in range(BATCH)]
            for one in sent:
                await one
            await server.drain(frame.fd)
        server.push(frame.fd, "done")

    server.start()


def hear(port: int) -> socket.socket:
    """A client that hears the topic."""
    one = socket.create_connection(("127.0.0.1", port), PATIENCE)
    one.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    got = b""
    while b"\r\n\r\n" not in got:
        got += one.recv(4096)
    if not got.startswith(b"HTTP/1.1 101 "):
        raise Failure(f"an answer begins with {got[:60]!r}")
    one.sendall(b"\x81\x84\0\0\0\0hear")
    if one.recv(2) != b"\x81\x00":
        raise Failure("it does not hear the topic")
    return one


def throw_away(sockets: list[socket.socket], over: threading.Event, count: list[int]) -> None:
    """Reads what comes, and counts its bytes."""
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ)
        while not over.is_set():
            for key, _ in selector.select(0.05):
                count[0] += len(key.fileobj.recv(1 << 18))


def run(kind: str, engine: str, hearers: int, count: int) -> tuple[float, float]:
    """CPU seconds per publication, and publications per second."""
    command = f"{PYTHON} {HERE}/topics.py --serve {kind} --engine {shlex.quote(engine)} {{port}}"
    over, got = threading.Event(), [0]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        server = stack.enter_context(Server(Peer(kind, command), ["taskset", "-c", "0"], 1, log))
        url = f"ws://127.0.0.1:{server.port}/"
        publisher = stack.enter_context(connect(url, compression=None, ping_interval=None, proxy=None))
        clients = [stack.enter_context(hear(server.port)) for _ in range(hearers)]
        thread = threading.Thread(target=throw_away, args=(clients, over, got), daemon=True)
        thread.start()
        stack.callback(thread.join, PATIENCE)
        stack.callback(over.set)
        publisher.send(str(BATCH))  # a first batch: everything is loaded
        publisher.recv(PATIENCE)
        begun, spent = time.monotonic(), cpu_seconds(server.process.pid)
        publisher.send(str(count))
        publisher.recv(PATIENCE)
        elapsed = time.monotonic() - begun
        before = -1
        while got[0] != before:  # until the last ones have it
            before = got[0]
            time.sleep(0.1)
        spent = cpu_seconds(server.process.pid) - spent
        if got[0] < hearers * count * SIZE:
            raise Failure(f"{kind}: {hearers} clients heard {got[0]} bytes of {count} publications")
    return spent / count, count / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--engine", default="memory", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=50000, help="publications of a run")
    parser.add_argument("--only", help="kinds, separated by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.engine, options.port)
        return
    kinds = [kind for kind in KINDS if options.only is None or kind in options.only.split(",")]
    redis = shutil.which("redis-server")
    if redis is None and "redis" in kinds:
        print("redis-server is not here", file=sys.stderr)
        kinds.remove("redis")
    results: dict[str, dict[int, list[tuple[float, float]]]] = {kind: {n: [] for n in HEARERS} for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        command = [redis or "", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        broker = subprocess.Popen(command, stdout=subprocess.DEVNULL) if "redis" in kinds else None
        try:
            for _ in range(options.rounds):
                for hearers in HEARERS:
                    for kind in kinds:
                        engine = f"unix://{path}" if kind == "redis" else "memory"
                        results[kind][hearers].append(run(kind, engine, hearers, options.count))
        finally:
            if broker is not None:
                broker.kill()
                broker.wait()
    print("CPU of the server per publication in microseconds, and publications per second (medians)\n")
    print(f"{'':10}" + "".join(f"{hearers:>10} hear it" for hearers in HEARERS))
    for kind, by_hearers in results.items():
        cells = []
        for found in by_hearers.values():
            cost, rate = (statistics.median(values) for values in zip(*found, strict=True))
            cells.append(f"{cost * 1e6:>8.1f} {rate:>9,.0f}")
        print(f"{kind:10}" + "".join(cells))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        told = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "rounds": options.rounds, "results": results}
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
