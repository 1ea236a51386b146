"""`serve()`: a server with its processes, as users run it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from mooring.admin.client import ControlClient
from mooring.errors import AdminError, StateError
from mooring.testing.application import App, Named, name_of
from mooring.testing.errors import Closed, NotInTime, ServerFailed
from mooring.testing.log import PipeLog
from mooring.testing.running import LIMIT, PLAIN, RunningServer, alive

OURS = {**PLAIN, "unix_socket": "", "inherited": "", "log_file": "", "log_format": "text", "pid_file": ""}
READY = r", {pid}\] ready(?:, listening on (?P<here>.*)| after .* processes? serves?)"
LAUNCHER = "mooring.testing.launcher"
SLOW = 30.0  # seconds; what takes whole processes is not late before, however short the limit is
LISTENING = r", {pid}\] .*\blistening on (.*)"
LOOK = 0.02  # seconds between looks at what is told to nobody


def serve(
    app: App,
    *,
    limit: float = LIMIT,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    **settings: object,
) -> "ServedServer":
    """Starts a server with this application, on a free port of 127.0.0.1: `with serve("chat:server") as running:`, or
    `async with`. It is stopped at the end, in order.

    `app` is "module:attribute" or "file.py", or "file.py:attribute"; a Server or a function that makes one, if it
    stands at the top level of a module. Workers are other processes, which import it: they share nothing with the test.

    `settings` override those of the application, for instance `mode="base"`, `worker_num=2`. `limit` in seconds is for
    each wait; the start, the stop, a reload and a worker's successor have 30 s in any case. `cwd` is the directory in
    which it runs, `env` what it finds in its environment beside what the test has.

    Raises ValueError for an application that no other process can import, and for a setting that can't be had here.
    Entering raises ServerFailed, with the log, when it does not start.
    """
    for name in OURS:
        if name in settings:
            raise ValueError(
                f"{name} can't be set here: serve() listens on a port of its own, without TLS, and reads the log"
            )
    return ServedServer(name_of(app), limit, cwd, env or {}, settings)


class ServedServer(RunningServer):
    """A server with processes of its own; made by serve()."""

    def __init__(
        self,
        named: Named,
        limit: float,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str],
        settings: Mapping[str, object],
    ) -> None:
        super().__init__(str(named), limit)
        self._log: PipeLog = PipeLog()
        self._named = named
        self._cwd = cwd
        self._env = env
        self._settings = dict(settings)
        self.host = str(settings.get("host", self.host))
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stopped = False
        self._slow = max(limit, SLOW)
        self._guard: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------ its life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.stop()
        else:
            if not isinstance(error, NotInTime | Closed):  # which have the log already
                error.add_note(f"{self.name}: {self.why().lstrip()}")
            with suppress(ServerFailed):  # the first error is the one to see
                self.stop()

    async def __aenter__(self) -> "AsyncServedServer":
        await asyncio.to_thread(self.start)
        return AsyncServedServer(self)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)

    def start(self) -> None:
        """Starts it and waits until it serves; what `with` does."""
        if self._process is not None:
            raise StateError("it was started already: serve() makes another one")
        if getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "") == LAUNCHER:
            # else it starts one that imports this again, and so on
            raise StateError(
                "serve() was called by an application that serve() has started, while it was imported: put the call "
                "into a test, or under `if __name__ == '__main__':`"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="mooring-")
        given = {"host": self.host, "port": 0, "log_level": "info", **self._settings, **OURS}
        given.setdefault("control_socket", str(Path(self._folder.name) / "control"))
        self._control = str(given["control_socket"])
        self._named.settings = given
        try:
            told = msgspec.json.encode(self._named).decode()
        except TypeError as error:
            raise ValueError(f"settings that can't be handed to another process: {error}") from None
        self._process = subprocess.Popen(
            [sys.executable, "-m", LAUNCHER, told],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **_import_path(), **self._env},
            start_new_session=True,  # a Ctrl-C is for the test, which stops the server in order
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        try:
            self._watch_over(self._process.pid)
            # what the application prints may look alike, but for the number of the process
            ready, listening = (pattern.format(pid=self._process.pid) for pattern in (READY, LISTENING))
            found = self._log.wait(ready, 0, self._slow, f"{self.name} did not start")
            where = found["here"] or self._log.wait(listening, 0, self._slow, "it does not say where it listens")[1]
        except BaseException:
            self._kill()
            raise
        places = where.split(", ")
        self.ports = [int(place.rpartition(":")[2]) for place in places if place.rpartition(":")[2].isdigit()]
        alive.add(self)

    def _watch_over(self, session: int) -> None:
        """A shell that ends the server when this process has gone without a word, as one that is killed does: then its
        end of the pipe is closed."""
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read _ || kill -TERM "-$1"', "sh", str(session)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self._log.follow(process.stdout.fileno())
        # a process of the application's own may hold the pipe open; then this comes when it ends
        code = process.wait()
        self._log.end(f"the server has ended with exit code {code}")

    def stop(self) -> int:
        """Stops it in order, and waits for its end: the exit code. Raises ServerFailed when it does not end within the
        limit, and is killed, or when its exit code is not 0. `with` does this at its end."""
        process = self._process
        if process is None:
            raise StateError("it was not started: write `with serve(...) as running:`")
        if self._stopped:
            return process.returncode
        self._end_clients()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(self._slow)
        except subprocess.TimeoutExpired:
            self._kill()
            text = f"{self.name} did not stop within {self._slow:g} s, and was killed"
            raise ServerFailed(text + self.why()) from None
        self._kill()
        if code:
            raise ServerFailed(f"{self.name} has ended with exit code {code}{self._log.tail()}")
        return code

    def _kill(self) -> None:
        """Whatever is left of it."""
        assert self._process is not None
        assert self._folder is not None
        alive.discard(self)
        self._stopped = True
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        with suppress(OSError):  # the session it was started in; its number is nobody else's while one is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._reader is not None:
            self._reader.join(self.limit)
        if self._process.stdout is not None and self._reader is not None and not self._reader.is_alive():
            self._process.stdout.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Of the process that was started: the supervisor, or the only one."""
        if self._process is None:
            raise StateError("it was not started: write `with serve(...) as running:`")
        return self._process.pid

    # ------------------------------------------------------------------ asking and disturbing it

    @property
    def control(self) -> ControlClient:
        """Its control socket: `running.control.push_user("ada", "hello")`, and whatever `mooring.connect` gives."""
        return ControlClient(self._control, self.limit)

    @property
    def control_socket(self) -> str:
        """The path of its control socket, for `mooring kick --socket PATH`."""
        return self._control

    def stats(self) -> dict[str, Any]:
        """What `Server.stats()` says in worker 0."""
        return self.control.stats()

    def wait_stats(self, limit: float | None = None, **wanted: object) -> dict[str, Any]:
        """The counters, once these have these values: `running.wait_stats(in_flight=0)`."""
        end = time.monotonic() + (limit := self.limit if limit is None else limit)
        while True:
            found = self.stats()
            now = {name: found.get(name, "no such counter") for name in wanted}
            if now == wanted:
                return found
            if time.monotonic() >= end:
                raise NotInTime(f"the counters are {now}, and not {wanted} within {limit:g} s{self.why()}")
            time.sleep(LOOK)

    def reload(self) -> None:
        """Has all workers replaced by new ones, which import the application again, and waits until that is done.

        Raises ServerFailed when it fails, as in a single process (mode="base", worker_num=1), which has no other.
        """
        mark = self.mark()
        try:
            self.control.reload()
        except AdminError as error:
            raise ServerFailed(f"the reload was not carried out: {error}{self._log.tail()}") from None
        pattern = r"\breload: done|\breload(?:: .*)? failed|reload refused"
        found = self._log.wait(pattern, mark, self._slow, "the reload is not done")
        if "done" not in found[0]:
            raise ServerFailed(f"the reload was not carried out{self._log.tail()}")

    def worker_pid(self, number: int = 0) -> int:
        """The process id of a worker, of one that serves. Raises LookupError when there is none of that number."""
        for one in self.control.processes():
            if one["role"] in ("worker", "server") and one["number"] == number:
                return int(one["pid"])
        raise LookupError(f"there is no worker {number}")

    def kill_worker(self, number: int = 0) -> None:
        """Kills a worker (SIGKILL), and waits until its successor serves. In process mode no client notices; in base
        mode its clients are gone, and in a single process there is no successor: StateError."""
        pid = self.worker_pid(number)
        if pid == self.pid:
            raise StateError("everything runs in one process, and nobody would start it again: use mode='process'")
        mark = self.mark()
        os.kill(pid, signal.SIGKILL)
        pattern = rf"\b(?:worker|server) {number}\b.* serves in place|takes the place of (?:worker|server) {number}\b"
        self._log.wait(pattern, mark, self._slow, f"worker {number} was killed, and has no successor")

    def fd_at(self, port: int) -> int:
        """The fd of the connection whose client has this port."""
        for one in self.control.connections(address="127.0.0.1" if self.host == "127.0.0.1" else self.host):
            if one["remote_port"] == port:
                return int(one["fd"])
        raise LookupError("the server does not know that connection any more")


class AsyncServedServer:
    """The same for coroutines; what `async with serve(...)` gives. What is not here, `running` has."""

    def __init__(self, running: ServedServer) -> None:
        self.running = running
        self.connect = running.connect
        self.mark = running.mark

    @property
    def url(self) -> str:
        """Of WebSockets, without a path."""
        return self.running.url

    @property
    def http_url(self) -> str:
        """Of HTTP, without a path."""
        return self.running.http_url

    @property
    def lines(self) -> list[str]:
        """Of its log, so far."""
        return self.running.lines

    async def request(self, method: str, path: str, **options: Any) -> Any:
        """One request: the Response of httpx."""
        return await asyncio.to_thread(self.running.request, method, path, **options)

    async def get(self, path: str = "/", **options: Any) -> Any:
        """A GET request."""
        return await self.request("GET", path, **options)

    async def post(self, path: str = "/", **options: Any) -> Any:
        """A POST request."""
        return await self.request("POST", path, **options)

    async def stats(self) -> dict[str, Any]:
        """See ServedServer.stats."""
        return await asyncio.to_thread(self.running.stats)

    async def reload(self) -> None:
        """See ServedServer.reload."""
        await asyncio.to_thread(self.running.reload)

    async def kill_worker(self, number: int = 0) -> None:
        """See ServedServer.kill_worker."""
        await asyncio.to_thread(self.running.kill_worker, number)

    async def wait_log(self, pattern: str, *, since: int = 0, limit: float | None = None) -> Any:
        """See RunningServer.wait_log."""
        return await asyncio.to_thread(self.running.wait_log, pattern, since=since, limit=limit)


def _import_path() -> dict[str, str]:
    """Where this very package is found, for the launcher."""
    home = str(Path(__file__).absolute().parents[2])  # not resolved: where it was built, the package is links
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{home}{os.pathsep}{before}" if before else home}
