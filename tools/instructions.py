"""How many instructions does a message, a request or a connection cost, in which process?

    python tools/instructions.py [--mode base,process] [--handler def,async,...] [WORK ...]

Instructions, not seconds: they are nearly the same on a busy machine. The processes that serve run under callgrind
(valgrind), which counts what they do in user space between two commands of callgrind_control: not their start. The
kernel's share is not seen. All connections of a work send at once, so a turn of a loop has many events, as under load;
how many it has depends on the moment, which moves figures by 1 to 3 %.

In process mode the supervisor, which touches no client's byte, runs as always, and starts its children by a command of
ours that puts valgrind before them. Valgrind 3.19 does not know two calls of the kernel: that of a supervisor, hence
this, and the one by which a child asks to be told of its parent's death, which is left out here.

Counts are those of the interpreter and of the build that run this: compare only those of the same interpreter. Another
build is counted with `--python "BUILD/bin/python"` (a command).
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HANDLERS = {
    "def": """
def message(server, frame):
    {send}
""",
    "async": """
async def message(server, frame):
    {send}
""",
    "async-task": """
async def message(server, frame):
    asyncio.current_task().cancelled()
    {send}
""",
    "async-sleep": """
async def message(server, frame):
    await asyncio.sleep(0)
    {send}
""",
}
APP = """
import asyncio, sys
from mooring import Server
server = Server("127.0.0.1", int(sys.argv[1]), mode="{mode}", worker_num=1, max_connections_per_address=100_000)
{handler}
server.on("message")(message)

@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")

@server.on("request")
def page(request, response):
    response.end("hello")

server.start()
"""
PUSH = "server.push(frame.fd, frame.data, frame.opcode)"
PUBLISH = 'server.publish("all", frame.data, frame.opcode)'
CHILD = """
import os, sys
sys.executable = os.environ["MOORING_COUNTED"]
if "_process" in sys.orig_argv:
    import mooring.runtime
    mooring.runtime.die_with_parent = lambda *_: None
"""
COMMAND = """#!/bin/sh
# the first that is started is the supervisor
case "$*" in *_process*) ! mkdir {folder}/supervisor 2>/dev/null && set -- {valgrind} {python} "$@" && exec "$@" ;; esac
exec {python} "$@"
"""
SLOW = 50  # times slower under valgrind, with some to spare: every wait has a limit
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def frame(size: int, masked: bool) -> bytes:
    """A binary message of so many zeros, whose mask is zeros too (RFC 6455 section 5.2)."""
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    length = b"" if size < 126 else size.to_bytes(2 if size < 1 << 16 else 8, "big")
    return bytes([0x82, 0x80 | short if masked else short]) + length + bytes(4 if masked else 0) + bytes(size)


@dataclass(frozen=True)
class Work:
    """What is counted: `turn` does it once with the connections and the port, and tells how many operations it was."""

    connections: int
    turn: Callable[[list[socket.socket], int], int]
    turns: int
    send: str = PUSH  # what the handler does
    opening: bytes = UPGRADE  # what a connection sends first; its answer is read as well


def echo(size: int, deep: int = 1) -> Callable[[list[socket.socket], int], int]:
    """Each connection sends `deep` messages at once, and all read the answers then."""
    sent, answer = frame(size, masked=True) * deep, len(frame(size, masked=False)) * deep

    def turn(clients: list[socket.socket], _port: int) -> int:
        for client in clients:
            client.sendall(sent)
        for client in clients:
            read(client, answer)
        return len(clients) * deep

    return turn


def publish(clients: list[socket.socket], _port: int) -> int:
    """One message of three bytes to all."""
    clients[0].sendall(frame(3, masked=True))
    for client in clients:
        read(client, len(frame(3, masked=False)))
    return 1


def request(clients: list[socket.socket], _port: int) -> int:
    for client in clients:
        client.sendall(REQUEST)
    for client in clients:
        read_until(client, b"hello")
    return len(clients)


def open_and_leave(_clients: list[socket.socket], port: int) -> int:
    """A handshake, the `open` handler, and the end of the connection without a close frame."""
    for _ in range(50):
        with connect(port, UPGRADE):
            pass
    return 50


WORKS = {
    "1x256": Work(1, echo(256), 500),
    "100x32": Work(100, echo(32), 20),
    "100x32-16-deep": Work(100, echo(32, 16), 4),
    "1000x256": Work(1000, echo(256), 3),
    "20x65536": Work(20, echo(65536), 5),
    "publish-100": Work(100, publish, 50, PUBLISH),
    "http-100": Work(100, request, 10, opening=REQUEST),
    "connect": Work(0, open_and_leave, 4),
}
WARM = 3  # turns that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", default=["100x32"], help=f"of {', '.join(WORKS)}, or all")
    parser.add_argument("--mode", type=_among("base", "process"), default=["base"], help="base,process")
    parser.add_argument("--handler", type=_among(*HANDLERS), default=["def"], help=f"of {','.join(HANDLERS)}")
    parser.add_argument("--python", default=shlex.quote(sys.executable), help="the command of the interpreter")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    works = list(WORKS) if options.works == ["all"] else options.works
    unknown = set(works) - set(WORKS)
    if unknown:
        raise SystemExit(f"no such work: {', '.join(sorted(unknown))}; choose of {', '.join(WORKS)}, or all")
    version = subprocess.run([*shlex.split(options.python), "-VV"], capture_output=True, text=True, check=True).stdout
    print(f"{' '.join(version.split())}: user instructions per operation, and of which process")
    for name in works:
        for mode in options.mode:
            for handler in options.handler if WORKS[name].opening == UPGRADE else ["def"]:
                found = count(WORKS[name], mode, handler, options.python)
                parts = ", ".join(f"{role} {number:,.0f}" for role, number in found.items()) if len(found) > 1 else ""
                print(f"  {name:15} {mode:8} {handler:12} {sum(found.values()):>10,.0f}  {parts}".rstrip(), flush=True)


def _among(*names: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        given = text.split(",")
        if unknown := set(given) - set(names):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose of {', '.join(names)}")
        return given

    return parse


def count(work: Work, mode: str, handler: str, python: str) -> dict[str, float]:
    """Instructions of one operation, by the role of the process."""
    app = APP.format(mode=mode, handler=HANDLERS[handler].format(send=work.send))
    with served(app, python, mode) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server.port, work.opening)) for _ in range(work.connections)]
        for _ in range(WARM):
            work.turn(clients, server.port)
        server.control("--instr=on")
        operations = sum(work.turn(clients, server.port) for _ in range(work.turns))
        server.control("--instr=off")
        server.control("--dump")
        return {role: server.counted(pid) / operations for role, pid in server.pids.items()}


@dataclass
class Counted:
    """A server whose processes run under valgrind."""

    port: int
    folder: Path
    pids: dict[str, int]  # by role

    def control(self, command: str) -> None:
        for pid in self.pids.values():
            done = subprocess.run(
                ["callgrind_control", command, str(pid)], capture_output=True, text=True, timeout=4 * SLOW
            )
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)

    def counted(self, pid: int) -> int:
        """All that was counted in a process, by the files of its dumps."""
        files = self.folder.glob(f"counts.{pid}*")
        found = [re.search(r"^totals: (\d+)", file.read_text(), re.M) for file in files]
        return sum(int(one[1]) for one in found if one)


@contextlib.contextmanager
def served(app: str, python: str, mode: str) -> Iterator[Counted]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mooring-instructions-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(app)
        valgrind = f"valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={folder}/counts.%p"
        command = folder / "python"
        command.write_text(COMMAND.format(folder=folder, valgrind=valgrind, python=python))
        command.chmod(0o755)
        (folder / "children").mkdir()
        (folder / "children" / "sitecustomize.py").write_text(CHILD)
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        if mode == "process":
            path = filter(None, (str(folder / "children"), os.environ.get("PYTHONPATH")))
            environment |= {"MOORING_COUNTED": str(command), "PYTHONPATH": os.pathsep.join(path)}
        start = f"{'' if mode == 'process' else valgrind + ' '}{python} {folder}/app.py {port}"
        log = folder / "log"
        with open(log, "w") as output:
            server = subprocess.Popen(shlex.split(start), stdout=output, stderr=output, env=environment)
        try:
            end = time.monotonic() + 4 * SLOW
            while not re.search(r"\] ready", text := log.read_text(errors="replace")):
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(text)
                time.sleep(0.1)
            yield Counted(port, folder, _roles(server.pid, mode))
        finally:
            server.terminate()
            try:
                server.wait(SLOW)
            except subprocess.TimeoutExpired:
                server.kill()  # its children follow, by the end of their channel to it
                server.wait()


def _roles(pid: int, mode: str) -> dict[str, int]:
    """The processes that run under valgrind."""
    if mode == "base":
        return {"server": pid}
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    titles = {int(child): Path(f"/proc/{child}/comm").read_text().strip() for child in children}
    counted = {child: title for child, title in titles.items() if "callgrind" in os.readlink(f"/proc/{child}/exe")}
    return {"gateway" if "gatewa" in title else "worker": child for child, title in counted.items()}


@contextlib.contextmanager
def connect(port: int, opening: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=SLOW) as client:
        client.sendall(opening)
        read_until(client, b"hello" if opening == REQUEST else b"\r\n\r\n")
        yield client


def read_until(client: socket.socket, end: bytes) -> None:
    found = b""
    while not found.endswith(end):
        part = client.recv(4096)
        if not part:
            raise SystemExit(f"the server has closed a connection: {found!r}")
        found += part


def read(client: socket.socket, size: int) -> None:
    while size:
        size -= len(client.recv(size)) or sys.exit("the server has closed a connection")


if __name__ == "__main__":
    main()
