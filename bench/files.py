#!/usr/bin/env python3
"""What it costs to serve files: CPU of the server per GiB and per answer, by the way that a file takes.

    build/release/bin/python bench/files.py [--rounds 3] [--seconds 2] [--json FILE] [--sizes 16384,65536,...]

    left     `response.send_file`: the gateway sends it (sendfile)
    read     `response.send_file` up to `static_file_limit`: the worker reads it, and it crosses the channel
    pieces   the handler reads 64 KiB at a time and awaits `response.write`
    aiohttp  `web.FileResponse`, in one process (sendfile)

One client asks for the same file again and again on 4 kept-alive connections, and throws away what it gets. Only the
CPU time of the server's processes is measured. The file is in the page cache. The ways take turns, a fresh server each.
"""

import argparse
import json
import os
import shlex
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from compare import Failure, Peer, Server, cpu_seconds, machine

PYTHON = shlex.quote(sys.executable)
HERE = Path(__file__).resolve().parent
WAYS = {
    f"{way}-{mode}": f"{PYTHON} {HERE}/files.py --serve {way} --mode {mode} {{port}}"
    for mode in ("process", "base")
    for way in ("left", "read", "pieces")
} | {"aiohttp": f"{PYTHON} {HERE}/files.py --serve aiohttp {{port}}"}
SIZES = (16 << 10, 64 << 10, 256 << 10, 1 << 20, 64 << 20)
CONNECTIONS = 4
READ_LIMIT = 1 << 20  # nobody wants a larger file to be read at once
PATIENCE = 20.0  # seconds for any one answer


def serve(way: str, mode: str, port: int) -> None:
    """One server; what to send stands in the query."""
    if way == "aiohttp":
        from aiohttp import web

        async def send(request: web.Request) -> web.FileResponse:
            return web.FileResponse(request.query["path"])

        application = web.Application()
        application.router.add_get("/", send)
        web.run_app(application, host="127.0.0.1", port=port, print=None)
        return
    from mooring import Frame, Request, Response
    from mooring import Server as Mooring

    limit = 1 << 30 if way == "read" else 1
    server = Mooring("127.0.0.1", port, mode=mode, worker_num=1, static_file_limit=limit, keepalive_requests=1_000_000)

    @server.on("message")
    def message(server: Mooring, frame: Frame) -> None:
        server.push(frame.fd, frame)

    @server.on("request")
    async def page(request: Request, response: Response) -> None:
        if way != "pieces":
            response.send_file(request.query["path"])
            return
        with open(request.query["path"], "rb", buffering=0) as file:
            while data := file.read(1 << 16):
                await response.write(data)
        response.end()

    server.start()


def ask(port: int, path: str, size: int, over: threading.Event, count: list[int]) -> None:
    """Asks for the file until it is over; the answers must be as long as they ought to be."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not over.is_set():
            sock.sendall(f"GET /?path={path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            kept = b""
            while b"\r\n\r\n" not in kept:
                kept += sock.recv(4096) or end()
            head, _, got = kept.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise Failure(f"an answer begins with {head[:60]!r}")
            if b"chunked" in head.lower():
                while not kept.endswith(b"\r\n0\r\n\r\n"):
                    more = sock.recv(1 << 18) or end()
                    count[0] += len(more)
                    kept = kept[-16:] + more
            else:
                left = size - len(got)
                while left:
                    more = sock.recv(min(left, 1 << 18)) or end()
                    count[0] += len(more)
                    left -= len(more)
            count[0] += len(got)


def end() -> bytes:
    raise Failure("the server closed a connection")


def run(peer: Peer, size: int, seconds: float) -> float:
    """CPU seconds for as many bytes as one answer has."""
    with (
        tempfile.NamedTemporaryFile() as content,
        tempfile.TemporaryFile() as log,
        Server(peer, ["taskset", "-c", "0"], 1, log) as server,
    ):
        content.write(os.urandom(1 << 16) * (size >> 16) or os.urandom(size))
        content.flush()
        counts = [[0] for _ in range(CONNECTIONS)]
        over = threading.Event()
        threads = [
            threading.Thread(target=ask, args=(server.port, content.name, size, over, count), daemon=True)
            for count in counts
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE
        while not all(
            count[0] >= size for count in counts
        ):  # its first answer may be that of a server that still starts
            if time.monotonic() > deadline:
                raise Failure(f"{peer.name}: an answer of {size} bytes did not come")
            time.sleep(0.02)
        begun, before = cpu_seconds(server.process.pid), sum(count[0] for count in counts)
        time.sleep(seconds)
        spent, done = cpu_seconds(server.process.pid) - begun, sum(count[0] for count in counts) - before
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
        if not done:
            raise Failure(f"{peer.name}: nothing came of {size} bytes")
        return spent / done * size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="process", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--only", help="names of ways, separated by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.mode, options.port)
        return
    ways = {name: way for name, way in WAYS.items() if options.only is None or name in options.only.split(",")}
    results: dict[str, dict[int, list[float]]] = {name: {size: [] for size in options.sizes} for name in ways}
    for _ in range(options.rounds):
        for size in options.sizes:
            for name, command in ways.items():
                if size > READ_LIMIT and name.startswith("read"):
                    continue
                results[name][size].append(run(Peer(name, command), size, options.seconds))
    print("CPU of the server per answer in microseconds, and per GiB in seconds (median of the rounds)\n")
    print(f"{'':16}" + "".join(f"{size >> 10:>18,} KiB" for size in options.sizes))
    for name, by_size in results.items():
        cells = []
        for size in options.sizes:
            if by_size[size]:
                cost = statistics.median(by_size[size])
                cells.append(f"{cost * 1e6:>13,.0f} {cost * (1 << 30) / size:>8.2f}")
            else:
                cells.append(f"{'-':>13} {'-':>8}")
        print(f"{name:16}" + "".join(cells))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        told = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "rounds": options.rounds, "results": results}
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
