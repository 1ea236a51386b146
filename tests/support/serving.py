"""Starts a mooring server as a user would, and watches it: its log, its processes, its end.

with Serving(APP, mode="process", worker_num=2) as server:
    async with connect(f"ws://127.0.0.1:{server.port}/") as ws: ...
    os.kill(server.pid_of("worker 0"), signal.SIGKILL)
    server.wait_log("serves in place")
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import mooring

ROOT = Path(__file__).resolve().parents[2]
HOME = str(Path(mooring.__file__).parents[1])  # where the build is that these tests run on
LIMIT = 20.0  # seconds; the longest wait for anything,
START = 60.0  # and for a server to be ready: several interpreters import everything, while others use the processors
PIPE = 1 << 20  # bytes; a pipe has no more in it

PREAMBLE = """
import json, os, sys, time
from mooring import *
server = Server("127.0.0.1", 0, **json.loads(os.environ["MOORING_TEST_SETTINGS"]))

def report(*words):
    # one write, so that the lines of several processes do not mix
    os.write(2, ("report " + " ".join(map(str, words)) + "\\n").encode())
"""


def eventually(check: Callable[[], object], limit: float = LIMIT, what: str = "") -> object:
    """For what nobody reports (the kernel's view of a process): look again until it is so."""
    end = time.monotonic() + limit
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, f"not so within {limit} s: {what or check}"
        time.sleep(0.01)


class Serving:
    """A running server. `app` is the text of the application after PREAMBLE, or the path of a script.

    Settings are keyword arguments. With `start=False` the application text calls `server.start()` itself.
    """

    def __init__(
        self,
        app: str | Path,
        *,
        start: bool = True,
        ready: bool = True,
        argv: tuple[str, ...] | None = None,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        port: int | None = None,
        pass_fds: tuple[int, ...] = (),
        **settings: object,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="mooring-test-")
        if isinstance(app, Path):
            self.script = app
        else:
            self.script = Path(self._folder.name) / "app.py"
            self.script.write_text(PREAMBLE + textwrap.dedent(app) + ("\nserver.start()\n" if start else ""))
        self._lines: list[str] = []
        self._begun = b""  # a line that has no end yet
        self._over = False
        self._more = threading.Condition()
        import json

        environment = {
            **os.environ,
            "PYTHONPATH": HOME,
            "PYTHONUNBUFFERED": "1",
            "MOORING_TEST_SETTINGS": json.dumps(settings),
            **(env or {}),
        }
        self.process = subprocess.Popen(
            argv or [sys.executable, str(self.script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=pass_fds,
            cwd=cwd or self._folder.name,
        )
        self.pid = self.process.pid
        self._seen: set[int] = {self.pid}
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._port = port
        if ready:
            try:
                self.wait_log(r"\bready\b", limit=START)
            except BaseException:
                self._end()
                raise

    def _read(self) -> None:
        output = select.poll()
        output.register(self._output, select.POLLIN)
        while not self._over:
            output.poll()
            self._take()

    def _take(self) -> None:
        """Takes what was written so far: whoever has got an answer finds what was reported before it, also when the
        reading thread had no turn yet."""
        output = select.poll()
        with self._more:
            if self._over:
                return
            output.register(self._output, select.POLLIN)
            if not output.poll(0):
                return
            part = os.read(self._output, PIPE)
            *whole, self._begun = (self._begun + part).split(b"\n")
            if not part:
                whole = [self._begun] if self._begun else []
                self._over = True
            self._lines += [line.decode(errors="replace").rstrip("\r") for line in whole]
            if self._over:
                self._lines.append("(end of output)")
            self._more.notify_all()

    @property
    def lines(self) -> list[str]:
        """What the server's processes have written so far."""
        self._take()
        return self._lines

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *failure: object) -> None:
        self._end()

    def _end(self) -> None:
        self._seen.update(self.pids())
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self._seen - {self.pid}:
            # only if it is still one of ours: a pid may have been given to another program
            with contextlib.suppress(OSError):
                if "mooring:" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
        self._reader.join(LIMIT)
        with self._more:  # if another program still has the other end
            self._over = True
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._folder.cleanup()

    # -- awaiting

    def wait_log(self, pattern: str, *, since: int = 0, count: int = 1, limit: float = LIMIT) -> re.Match[str]:
        """The `count`-th line from line `since` on in which `pattern` is found, awaited."""
        found: list[re.Match[str]] = []

        def there() -> bool:
            found[:] = [m for line in self.lines[since:] if (m := re.search(pattern, line))]
            return len(found) >= count or self._over

        with self._more:
            self._more.wait_for(there, limit)
            assert len(found) >= count, f"no {pattern!r} within {limit} s; the log:\n" + "\n".join(self.lines[-60:])
        return found[count - 1]

    def wait_refusal(self, pattern: str, *, since: int = 0) -> None:
        """The log line of a refusal; or, if there were many within that second, the one that counts the rest."""
        self.wait_log(rf"{pattern}|more suppressed within a second: .*refused", since=since)

    def mark(self) -> int:
        """The number of the next line; for `since`."""
        return len(self.lines)

    def reports(self, word: str = "", since: int = 0) -> list[str]:
        """What the application has said with report(), without the word itself."""
        start = f"report {word}".rstrip()
        return [line[len(start) :].strip() for line in self.lines[since:] if line.startswith(start)]

    def ended(self, limit: float = LIMIT) -> int:
        """The exit code, once it ended by itself."""
        code = self.process.wait(limit)
        self._reader.join(limit)
        return code

    def stop(self, number: int = signal.SIGTERM, limit: float = LIMIT) -> int:
        """Sends a signal and returns the exit code."""
        self._seen.update(self.pids())
        self.signal(number)
        return self.ended(limit)

    # -- acting and looking

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @property
    def port(self) -> int:
        if self._port is None:
            self._port = int(self.wait_log(r"listening on \S+:(\d+)")[1])
        return self._port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self) -> list[int]:
        """The children of the process that was started."""
        try:
            pids = [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            pids = []
        self._seen.update(pids)
        return pids

    def titles(self) -> dict[int, str]:
        """pid -> what `ps` shows, for the process that was started and its children."""
        found = {}
        for pid in [self.pid, *self.pids()]:
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        return found

    def pid_of(self, role: str) -> int:
        """The newest process with the title `mooring: ROLE`, such as "worker 0"."""
        found = [pid for pid, title in self.titles().items() if title == f"mooring: {role}"]
        assert found, f"no {role} in {self.titles()}"
        return max(found)
