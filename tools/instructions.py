"""How many instructions does a message cost, by kind of handler?

    python tools/instructions.py [--messages 2000] [--connections 100] [--size 32] [def async ...]

Instructions, not seconds: they are the same on a busy machine. A server in base mode with one worker echoes under
callgrind (valgrind), which counts what the process does in user space between two commands of callgrind_control: not
its start, no handshakes. The kernel's share is not seen. Every connection has one message under way, and all send at
once, so a turn of the server's loop has many, as under load.

Counts are those of the interpreter and of the build that are installed: compare only what one run has shown.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HANDLERS = {
    "def": """
def message(server, frame):
    server.push(frame.fd, frame.data, frame.opcode)
""",
    "async": """
async def message(server, frame):
    server.push(frame.fd, frame.data, frame.opcode)
""",
    "async-task": """
async def message(server, frame):
    asyncio.current_task().cancelled()
    server.push(frame.fd, frame.data, frame.opcode)
""",
    "async-sleep": """
async def message(server, frame):
    await asyncio.sleep(0)
    server.push(frame.fd, frame.data, frame.opcode)
""",
}
APP = """
import asyncio, sys
from mooring import Server
server = Server("127.0.0.1", int(sys.argv[1]), mode="base", worker_num=1, max_connections_per_address=100_000)
{handler}
server.on("message")(message)
server.start()
"""
SLOW = 50  # times slower under valgrind, with some to spare: every wait has a limit
KEY = bytes(4)  # the mask of the client's frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("handlers", nargs="*", default=list(HANDLERS), help=f"of {', '.join(HANDLERS)}")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--size", type=int, default=32, help="bytes of a message")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    unknown = set(options.handlers) - set(HANDLERS)
    if unknown:
        raise SystemExit(f"no such handler: {', '.join(sorted(unknown))}; choose of {', '.join(HANDLERS)}")
    print(f"{sys.implementation.name} {sys.version.split()[0]}, user instructions per message:")
    for kind in options.handlers:
        rounds = max(1, options.messages // options.connections)
        with served(HANDLERS[kind]) as (port, pid, folder), contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(port)) for _ in range(options.connections)]
            echo(clients, options.size, 3)
            control(pid, "--instr=on")
            echo(clients, options.size, rounds)
            control(pid, "--instr=off")
            control(pid, "--dump")
            total = counted(folder)
        print(f"  {kind:12} {total / (rounds * options.connections):>10,.0f}", flush=True)


@contextlib.contextmanager
def served(handler: str) -> Iterator[tuple[int, int, Path]]:
    """A server under valgrind: its port, its pid, and the folder of the counts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mooring-instructions-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP.format(handler=handler))
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(
                [*command, sys.executable, str(folder / "app.py"), str(port)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
        try:
            end = time.monotonic() + 4 * SLOW
            while "ready, listening" not in (folder / "log").read_text(errors="replace"):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit((folder / "log").read_text(errors="replace"))
                time.sleep(0.1)
            yield port, process.pid, folder
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=SLOW) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = client.recv(1)
            if not part:
                raise SystemExit(f"the server has refused a client: {head!r}")
            head += part
        yield client


def echo(clients: list[socket.socket], size: int, rounds: int) -> None:
    """Each client sends a binary message and reads the answer, all at once, so often."""
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    sent = b"\x82" + length + KEY + bytes(size)
    answer = len(sent) - len(KEY)
    for _ in range(rounds):
        for client in clients:
            client.sendall(sent)
        for client in clients:
            left = answer
            while left:
                left -= len(client.recv(left)) or sys.exit("the server has closed a connection")


def control(pid: int, command: str) -> None:
    done = subprocess.run(["callgrind_control", command, str(pid)], capture_output=True, text=True, timeout=4 * SLOW)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def counted(folder: Path) -> int:
    """All that was counted, by the files of the dumps."""
    found = [re.search(r"^totals: (\d+)", file.read_text(), re.M) for file in folder.glob("counts*")]
    return sum(int(one[1]) for one in found if one)


if __name__ == "__main__":
    main()
