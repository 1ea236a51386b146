#!/usr/bin/env python3
"""What TLS and permessage-deflate cost: CPU per echoed message and memory per connection, beside other servers.

    build/release/bin/python bench/edge.py [--rounds 3] [--seconds 3] [--json FILE] [--only tls-256,...]

wsload.c speaks neither TLS nor deflate, so this has a client of its own: one thread, a closed loop on every connection.
Only the CPU time of the server's processes is measured; the client's speed decides how many messages there are, not
what each costs. Every answer is compared with what was sent. The peers take turns, a fresh server for each run.

Who offers deflate "without takeover" asks both sides to keep nothing; the client's payload is compressed once and has
no reference to what was before, so it is right in any context.
"""

import argparse
import contextlib
import json
import os
import selectors
import shlex
import socket
import ssl
import statistics
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from compare import Failure, Peer, Server, cpu_seconds, family, machine
from deflate import messages

PYTHON = shlex.quote(sys.executable)
HERE = Path(__file__).resolve().parent
PEERS = {
    "mooring-base": f"{PYTHON} {HERE}/server.py {{port}} --mode base",
    "mooring-process": f"{PYTHON} {HERE}/server.py {{port}} --mode process",
    "picows": f"{PYTHON} {HERE}/peers/picows_echo.py {{port}}",
    "websockets": f"{PYTHON} {HERE}/peers/websockets_echo.py {{port}}",
    "uvicorn": f"{PYTHON} {HERE}/peers/uvicorn_echo.py {{port}}",
}
NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAKEOVER = "permessage-deflate"
PATIENCE = 20.0  # seconds for any one answer


@dataclass(frozen=True)
class Scenario:
    what: str
    size: int
    connections: int = 50
    offer: str = ""
    tls: bool = False
    flags: str = ""
    without: tuple[str, ...] = ()
    baseline: str = "websockets"


SCENARIOS = {
    "tls-256": Scenario("TLS echo, 256 B", 256, tls=True, baseline="picows"),
    "tls-16k": Scenario("TLS echo, 16 KiB", 16384, tls=True, baseline="picows"),
    "deflate-1k": Scenario("deflate, no takeover, 1 KiB", 1024, 500, NO_TAKEOVER, False, "--compression", ("picows",)),
    "deflate-kept-1k": Scenario(
        "deflate, takeover, 1 KiB", 1024, 500, TAKEOVER, False, "--compression --takeover", ("picows",)
    ),
    "deflate-16k": Scenario(
        "deflate, no takeover, 16 KiB", 16384, 50, NO_TAKEOVER, False, "--compression", ("picows",)
    ),
}


@dataclass
class Client:
    sock: socket.socket
    frame: bytes
    message: bytes
    inflater: "zlib._Decompress | None"  # None: a new one for each message
    kept: bytearray = field(default_factory=bytearray)
    done: int = 0

    def send(self) -> None:
        self.sock.sendall(self.frame)

    def take(self) -> bool:
        """Reads what is there; True when an answer is complete. Raises Failure for one that is wrong."""
        with contextlib.suppress(ssl.SSLWantReadError, BlockingIOError):
            while chunk := self.sock.recv(65536):
                self.kept += chunk
                if not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
                    break
            else:
                raise Failure("the server closed a connection")
        if len(self.kept) < 4:
            return False
        length, at = self.kept[1] & 127, 2
        if length == 126:
            length, at = int.from_bytes(self.kept[2:4], "big"), 4
        if len(self.kept) < at + length:
            return False
        payload = bytes(self.kept[at : at + length])
        if self.kept[0] & 0x40:
            inflater = self.inflater or zlib.decompressobj(-15)
            payload = inflater.decompress(payload + b"\0\0\xff\xff")
        del self.kept[: at + length]
        if payload != self.message:
            raise Failure("an answer is not what was sent")
        self.done += 1
        return True


def frame_of(message: bytes, offer: str) -> bytes:
    """A masked text frame; compressed when deflate was agreed on. The mask is zero: it costs the server the same."""
    first = 0x81
    if offer:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        message = (compressor.compress(message) + compressor.flush(zlib.Z_FULL_FLUSH))[:-4]
        first |= 0x40
    size = len(message)
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE]) + size.to_bytes(2, "big")
    return head + bytes(4) + message


def connect(port: int, scenario: Scenario, message: bytes, context: ssl.SSLContext | None) -> Client:
    sock: socket.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    extension = f"Sec-WebSocket-Extensions: {scenario.offer}\r\n" if scenario.offer else ""
    sock.sendall(
        f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extension}\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise Failure("no 101")
        answer += byte
    if b" 101 " not in answer or bool(scenario.offer) != (b"permessage-deflate" in answer):
        raise Failure(f"not what was asked for: {answer!r}")
    sock.setblocking(True)
    sock.settimeout(PATIENCE)
    keeps = scenario.offer and b"server_no_context_takeover" not in answer
    return Client(sock, frame_of(message, scenario.offer), message, zlib.decompressobj(-15) if keeps else None)


def pss_bytes(root: int) -> int:
    total = 0
    for pid in family(root):
        with contextlib.suppress(OSError):
            for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def run(peer: Peer, scenario: Scenario, seconds: float, context: ssl.SSLContext | None) -> dict[str, float]:
    message = messages(scenario.size)[0]
    with tempfile.TemporaryFile() as log, Server(peer, ["taskset", "-c", "0"], 1, log) as server:
        root = server.process.pid
        empty = pss_bytes(root)
        clients = [connect(server.port, scenario, message, context) for _ in range(scenario.connections)]
        selector = selectors.DefaultSelector()
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.send()
        warm, end = time.monotonic() + 0.3, 0.0
        begun, count = 0.0, 0
        while not end or time.monotonic() < end:
            ready = selector.select(PATIENCE)
            if not ready:
                raise Failure("no answer came in time")
            for key, _ in ready:
                if key.data.take():
                    count += 1
                    key.data.send()
            if not end and time.monotonic() > warm:
                begun, count = cpu_seconds(root), 0
                end = time.monotonic() + seconds
        spent = cpu_seconds(root) - begun
        memory = (pss_bytes(root) - empty) / len(clients)
        for client in clients:
            client.sock.close()
    return {"us_per_op": spent / count * 1e6, "bytes_per_conn": memory, "messages": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", default=",".join(SCENARIOS), metavar="SCENARIO,...")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows: dict[str, dict[str, dict[str, float | None]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = trustme.CA(), Path(folder, "cert.pem")
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(certificate)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        for name in options.only.split(","):
            scenario = SCENARIOS[name]
            flags = f" --tls {certificate} {certificate}" if scenario.tls else f" {scenario.flags}"
            runs: dict[str, list[dict[str, float]]] = {}
            for _ in range(options.rounds):
                for peer, command in PEERS.items():
                    if peer not in scenario.without:
                        trust = context if scenario.tls else None
                        result = run(Peer(peer, command + flags), scenario, options.seconds, trust)
                        runs.setdefault(peer, []).append(result)
            base = runs[scenario.baseline]
            print(f"\n{scenario.what}, {scenario.connections} connections\n")
            print("| | CPU us/message | ratio | bytes/connection |\n|---|---|---|---|")
            rows[name] = {}
            for peer, got in runs.items():
                ratio = statistics.median(
                    one["us_per_op"] / other["us_per_op"] for one, other in zip(got, base, strict=True)
                )
                us = statistics.median(one["us_per_op"] for one in got)
                memory = statistics.median(one["bytes_per_conn"] for one in got)
                rows[name][peer] = {"us_per_op": us, "us_ratio": ratio, "pss_bytes_per_conn": memory}
                print(f"| {peer} | {us:.1f} | {ratio:.2f} | {memory:,.0f} |", flush=True)
    if options.json:
        told = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "rounds": options.rounds, "rows": rows}
        Path(options.json).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
