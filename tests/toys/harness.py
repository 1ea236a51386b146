"""The test's side of a toy tree: start it, await what its processes report, command them, look at it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 15.0  # seconds; the longest wait for anything


def process_mode(gateways=1, workers=2):
    specs = [{"role": "gateway", "number": n, "gateway": n} for n in range(gateways)]
    return specs + [{"role": "worker", "number": n, "worker": n} for n in range(workers)]


def base_mode(servers):
    return [{"role": "server", "number": n, "gateway": n, "worker": n} for n in range(servers)]


class Running:
    """A toy tree under a real supervisor; a context manager that leaves nothing behind."""

    def __init__(
        self,
        folder,
        specs,
        rules=(),
        *,
        watch=(),
        argv=None,
        subreaper=False,
        prefix=(),
        env=None,
        **settings,
    ):
        self.folder = Path(folder)
        self.events = []
        self._size = len(specs)
        self._more = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        report = str(self.folder / "report")
        self._socket.bind(report)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        plan = {
            "specs": specs,
            "rules": list(rules),
            "settings": settings,
            "report": report,
            "folder": str(self.folder),
            "watch": [str(path) for path in watch],
            "argv": argv,
            "subreaper": subreaper,
        }
        (self.folder / "plan.json").write_text(json.dumps(plan))
        self.stderr_path = self.folder / "stderr"
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(HERE / "supervise.py"), str(self.folder / "plan.json")],
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )
        self.pid = self.process.pid

    def _read(self):
        while True:
            data = self._socket.recv(65536)
            if data == b"end":
                return
            event = json.loads(data)
            with self._more:
                event["index"] = len(self.events)
                self.events.append(event)
                self._more.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.pids():
            # Its number may be another process's by now, or count in another namespace.
            if _is_toy(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._socket_end()

    def _socket_end(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.connect(str(self.folder / "report"))
            end.send(b"end")
        self._reader.join()
        self._socket.close()

    # -- awaiting

    def find(self, since=0, **wanted):
        """All events from index `since` on whose keys (`fields__x`: of the message) have these values."""
        return [event for event in self.events[since:] if _matches(event, wanted)]

    def wait(self, since=0, count=1, limit=LIMIT, **wanted):
        """The `count`-th such event, awaited."""
        found = []

        def there():
            found[:] = self.find(since, **wanted)
            return len(found) >= count

        with self._more:
            if not self._more.wait_for(there, limit):
                raise AssertionError(
                    f"{len(found)} of {count} within {limit} s: {wanted}\n"
                    + "\n".join(_short(event) for event in self.events[-60:])
                    + "\n"
                    + self.stderr_path.read_text()[-2000:]
                )
        return found[count - 1]

    def wait_log(self, text, since=0, limit=LIMIT, count=1):
        return self.wait(since, count, limit, event="log", line=lambda line: text in line)

    def wait_ready(self):
        """Every child was told to serve (and each has reported it)."""
        self.wait(event="got", op="serve", count=self._size)
        return self.wait_log("ready after")

    def ended(self, limit=LIMIT):
        """The supervisor's exit code, once it ended by itself."""
        code = self.process.wait(limit)
        # The reader may be behind: everything that was sent before has come when this has.
        self.mark()
        return code

    def mark(self):
        """The index of what is reported from now on."""
        self._marks = getattr(self, "_marks", 0) + 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.connect(str(self.folder / "report"))
            own.send(json.dumps({"event": "mark", "who": "test", "pid": 0, "n": self._marks}).encode())
        return self.wait(event="mark", n=self._marks)["index"] + 1

    def lines(self, text=""):
        return [event["line"] for event in self.find(event="log") if text in event["line"]]

    # -- acting

    def signal(self, number):
        os.kill(self.pid, number)

    def command(self, pid, do, **fields):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.connect(str(self.folder / str(pid)))
            own.send(json.dumps({"do": do, **fields}).encode())

    def child(self, who, since=0, **more):
        """The newest child of that name that has said ready (awaited when there is none)."""
        self.wait(since, who=who, event="sent", op="ready", **more)
        return self.find(since, who=who, event="sent", op="ready", **more)[-1]["pid"]

    # -- looking

    def pids(self):
        """Every child that was ever born."""
        return [event["pid"] for event in self.find(event="born")]

    def alive(self):
        return [pid for pid in self.pids() if _state(pid) not in (None, "Z")]

    def zombies(self):
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in children if _state(pid) == "Z"]

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def eventually(check, limit=5.0):
    """For what nobody reports (the kernel's view of a process): look again until it is so."""
    end = time.monotonic() + limit
    while not check():
        assert time.monotonic() < end, "not so within the limit"
        time.sleep(0.01)


def _is_toy(pid):
    try:
        return b"child.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _matches(event, wanted):
    for key, value in wanted.items():
        if key.startswith("fields__"):
            found = event.get("fields", {}).get(key[8:])
        elif key not in event:
            return False
        else:
            found = event[key]
        if not (value(found) if callable(value) else found == value):
            return False
    return True


def _short(event):
    skip = ("inherited", "named", "payload", "blocking", "index")
    return str({key: value for key, value in event.items() if key not in skip})
