"""The service manager above us, told by systemd's protocol what state we are in (sd_notify(3)).

    READY=1       the listeners serve                   STOPPING=1    the stop has begun
    RELOADING=1   a reload has begun, with the time;    WATCHDOG=1    the tree is healthy, see Keepalive
                  READY=1 once more: it is over         STATUS=...    for people

A datagram each, to the Unix socket that the environment names; without one, nothing is done. The environment is
cleared, so that no process of ours, and nothing that the application starts, speaks in our name.

Written here, because what a package such as sdnotify would bring is one sendto(): neither the time that
`Type=notify-reload` asks for, nor the watchdog, nor a limit to the wait for a manager that does not read.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable

from mooring.journal import own_logger
from mooring.supervisor.child import ChildState
from mooring.supervisor.slot import Slot

log = own_logger("mooring.supervisor")

SEND_LIMIT = 0.5  # seconds; a manager reads at once, or it is in trouble of its own
SHORTEST_STANDSTILL = 2.5  # seconds; two beats of a process that has to tell that it lives each second, and some
ALIVE = (ChildState.SERVING, ChildState.DRAINING)  # one that somebody has told to leave has its time for that
RETRIES = 8  # looks in the time between two signs of life, after one that could not be given


class Service:
    """Where to tell it; `watchdog` is how often we are expected to give a sign of life, in seconds, 0: never."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self.watchdog = watchdog if address else 0.0
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self._unheard = False  # it did not take the last one; one line says so, and it is not waited for again
        self._socket: socket.socket | None = None
        if address and address[0] not in "/@":
            log.warning(
                "NOTIFY_SOCKET=%s is neither a path nor an abstract name: the service manager is told nothing", address
            )
        elif address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @classmethod
    def from_environment(cls) -> Service:
        """What the manager has asked for; nothing of it stays in the environment."""
        address, period, pid = (os.environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
        ours = period.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(period) / 1e6 if ours else 0.0)

    def ready(self, status: str) -> None:
        """The listeners serve; or the reload is over."""
        self._status = status
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """Followed by ready(), whatever comes of it."""
        self._status = status
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._status = status
        self._tell("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """If it is a new one."""
        if status != self._status:
            self._status = status
            self._tell(f"STATUS={status}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.settimeout(0.0 if self._unheard else SEND_LIMIT)
            self._socket.sendto("\n".join(lines).encode(), self._address)
            self._unheard = False
        except OSError as problem:
            if not self._unheard:
                log.warning("the service manager was not told %s: %s", lines[0], problem)
            self._unheard = True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Keepalive:
    """Gives signs of life in half of the time, as long as there is life.

    It runs in the supervisor's loop, so that one turns. A gateway lives if it serves and its pulse moves; one that is
    being started again is looked for more often, so that the next sign is given as soon as it serves.
    """

    def __init__(
        self, service: Service, slots: Iterable[Slot], after: Callable[[float, Callable[[], None]], object]
    ) -> None:
        """`after(seconds, action)` calls it then, in the loop of this process."""
        self._service = service
        self._gateways = [slot for slot in slots if slot.spec.gateway is not None]
        self._after = after
        self._period = service.watchdog / 2
        self._standstill = max(self._period, SHORTEST_STANDSTILL)
        self._stopping = False

    def start(self) -> None:
        """From now on, if they are wanted."""
        if self._period:
            self._look()

    def stopping(self) -> None:
        """Gateways end now, each in its time: there are limits for that."""
        self._stopping = True

    def _look(self) -> None:
        if self._stopping or all(map(self._lives, self._gateways)):
            self._service.alive()
            self._after(self._period, self._look)
        else:
            self._after(self._period / RETRIES, self._look)

    def _lives(self, slot: Slot) -> bool:
        child = slot.current
        if child is None or child.state not in ALIVE or child.serving_since is None:
            return False
        return time.monotonic() - max(child.pulse.last_beat, child.serving_since) <= self._standstill
