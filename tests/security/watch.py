"""What must hold while a server is attacked: others are served in time, and memory stays where it was."""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from contract.clients import TEXT, Raw
from e2e.peers import memory, waited_for_a_cpu
from frames import frame
from support.serving import LIMIT, Serving, eventually

MIB = 1 << 20
PAUSE = 0.02  # seconds between two messages of a canary
LONGEST = 2.0  # seconds one answer may take, without those in which other programs have the CPUs; and half of them:
MEDIAN = 0.25
KEY = b"\x37\xfa\x21\x3d"


class Canary:
    """A client that has nothing to do with the attack: it sends a message, and the same must come back in time."""

    def __init__(self, server: Serving, *, greeted: bool = False) -> None:
        self.taken: list[float] = []  # seconds each answer took
        self._raw = Raw(server)
        assert self._raw.upgrade("/canary").status == 101
        if greeted:  # the application sends something first
            self._raw.text()
        self._more = threading.Condition()
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._pids = list(server.titles())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            number = 0
            while not self._stop.wait(PAUSE):
                number += 1
                text = f"canary {number}"
                start, waited = time.monotonic(), self._waited()
                self._raw.send(frame(TEXT, text.encode(), key=KEY))
                assert self._raw.text() == text
                taken = time.monotonic() - start
                taken -= min(taken, max(0.0, self._waited() - waited))
                with self._more:
                    self.taken.append(taken)
                    self._more.notify_all()
        except BaseException as failure:
            with self._more:
                self._failure = failure
                self._more.notify_all()

    def _waited(self) -> float:
        """How long this client and the processes of the server could have run, and could not; those that are gone count
        no more."""
        total = waited_for_a_cpu(threading.get_native_id())
        for pid in self._pids:
            with contextlib.suppress(OSError):
                total += waited_for_a_cpu(pid)
        return total

    def beat(self, count: int = 1) -> None:
        """So many more answers have come; `judge` says whether in time."""
        with self._more:
            wanted = len(self.taken) + count
            there = self._more.wait_for(lambda: self._failure or len(self.taken) >= wanted, LIMIT)
        assert self._failure is None, f"the canary is dead: {self._failure!r}"
        assert there, f"no {count} answers to the canary within {LIMIT} s"

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(LIMIT)
        self._raw.socket.close()
        assert self._failure is None, f"the canary is dead: {self._failure!r}"

    def judge(self) -> None:
        assert max(self.taken) < LONGEST, f"an answer took {max(self.taken):.3f} s"
        median = statistics.median(self.taken)
        assert median < MEDIAN, f"half of the answers took more than {median:.3f} s"


def gateway_of(server: Serving) -> int:
    """The process that has the connections."""
    titles = server.titles()
    found = [pid for pid, title in titles.items() if title == "mooring: gateway 0"]
    return found[0] if found else server.pid


@contextlib.contextmanager
def watched(server: Serving, grows: int = 16 * MIB) -> Iterator[Canary]:
    """An attack in a `with` block. A canary is answered in time during it and after it; at no moment does the process
    with the connections have more than `grows` bytes more in memory than before; the processes stay the same."""
    before_pids = server.titles()
    pid = gateway_of(server)
    canary = Canary(server)
    try:
        canary.beat(3)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here on
        before = memory(pid)
        yield canary
        canary.beat(3)
    finally:
        canary.stop()
    canary.judge()
    grown = memory(pid, "VmHWM") - before
    assert grown <= grows, f"{grown / MIB:.1f} MiB more than before"
    assert server.titles() == before_pids


def cpu(pid: int) -> float:
    """Seconds of CPU the process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def becomes_idle(*pids: int) -> None:
    """Soon each process uses less than 5 % of a CPU: nothing in it goes on in a circle."""
    busy = list(pids)

    def calm() -> bool:
        start, used = time.monotonic(), {pid: cpu(pid) for pid in busy}
        threading.Event().wait(0.3)
        busy[:] = [pid for pid in busy if cpu(pid) - used[pid] >= 0.05 * (time.monotonic() - start)]
        return not busy

    eventually(calm, 10, f"one of the processes {pids} comes to rest")


def in_threads(count: int, attack: Callable[[int], None]) -> None:
    """`attack(0)` to `attack(count - 1)` at the same time; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            attack(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    assert not any(thread.is_alive() for thread in threads)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
