"""One process of the tree.

A child is a fresh interpreter. It gets a msgpack map in a memfd whose number is its last argument, and the
descriptors named in that map; nothing else is inherited. Its standard input is /dev/null. It runs in a
process group of its own: a terminal's Ctrl-C goes to the foreground group only, so it reaches the
supervisor alone, and no child dies of it before its clients are told, not even one whose interpreter is
still starting and can't ignore the signal yet.

Signals go through a pidfd, which names this process for ever; a pid may name another one by the time the
signal is sent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from mooring._core.pulse import Pulse
from mooring._core.wire import Event
from mooring.net.child_socket import ChildSocket
from mooring.net.messages import Broken, Retired, ToSupervisor
from mooring.roles import SPARE, ProcessSpec
from mooring.supervisor.deadlines import Deadline

END_LIMIT = 1.0  # seconds that one may take to end that was killed


class ChildState(Enum):
    """The life of a child, top to bottom; GONE may follow anything. Only spares are WARMING and WARM."""

    WARMING = "warming"  # a spare: loads the application
    WARM = "warm"  # a spare: waits for a slot
    STARTING = "starting"  # spawned (or about to be), has not said ready
    READY = "ready"  # said ready; not yet known to its peers
    SERVING = "serving"  # peers are attached to it, it was told to serve
    RETIRING = "retiring"  # a worker: gateways move its connections away
    DRAINING = "draining"  # with a gateway: it closes its clients
    DRAINED = "drained"  # it has no clients any more
    STOPPING = "stopping"  # told to end, by message or by signal
    GONE = "gone"  # ended and reaped


_NEXT = {
    ChildState.WARMING: {ChildState.WARM, ChildState.STARTING, ChildState.STOPPING},
    ChildState.WARM: {ChildState.STARTING, ChildState.STOPPING},
    ChildState.STARTING: {ChildState.READY, ChildState.STOPPING},
    ChildState.READY: {ChildState.SERVING, ChildState.DRAINING, ChildState.STOPPING},
    ChildState.SERVING: {ChildState.RETIRING, ChildState.DRAINING, ChildState.STOPPING},
    ChildState.RETIRING: {ChildState.STOPPING},
    ChildState.DRAINING: {ChildState.DRAINED, ChildState.STOPPING},
    ChildState.DRAINED: {ChildState.STOPPING},
    ChildState.STOPPING: set(),
    ChildState.GONE: set(),
}

#: States of a child which is, or will be, a peer of others.
PEERS = frozenset({ChildState.STARTING, ChildState.READY, ChildState.SERVING})


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with an exit code, or by a signal."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            return signal.Signals(self.signal).name
        except ValueError:  # a real-time signal has no name
            return f"signal {self.signal}"


class Child:
    """One incarnation of a spec: at most one process, from the wish to the reaping."""

    def __init__(self, spec: ProcessSpec, generation: int, incarnation: int) -> None:
        self.spec = spec
        self.generation = generation
        self.incarnation = incarnation
        self.state = ChildState.WARMING if spec.row is SPARE else ChildState.STARTING
        self.was_ready = False
        self.serving_since: float | None = None  # monotonic; a spare serves by waiting
        self.killed = False  # by a signal of ours: how it ends says nothing about it
        self.hangs = False  # its loop stands still
        self.cause = ""  # why we ended it
        self.worn = False  # it shall be replaced
        self.terminated = False  # a gateway that somebody has sent SIGTERM
        self.told: dict[str, Any] | None = None  # the state of the tree, by the bulletin
        self.pulse = Pulse()
        self.place = -1  # of its reports, see mooring.monitor.scoreboard
        # Descriptors of ours, closed by forget(); -1 or None when not there.
        self.pid = 0
        self.pidfd = -1
        self.control: ChildSocket[ToSupervisor] | None = None
        self.table = -1  # of its gateway, for the workers that come later
        self.deadlines: list[Deadline] = []  # cancelled when it is gone
        self._popen: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return f"{self.spec} (pid {self.pid})" if self.pid else str(self.spec)

    def become(self, state: ChildState) -> None:
        """The one place where the state changes."""
        if state is not ChildState.GONE and state not in _NEXT[self.state]:
            raise AssertionError(f"{self} can't go from {self.state.value} to {state.value}")
        self.state = state
        self.was_ready |= state in (ChildState.READY, ChildState.WARM)
        if state in (ChildState.SERVING, ChildState.WARM):
            self.serving_since = time.monotonic()

    def is_named(self, message: Retired | Broken) -> bool:
        """Whether a peer speaks of it. One that was restarted in the same generation has its predecessor's numbers; the
        pid is 0 when it never greeted that peer."""
        named = (message.worker, message.generation) == (self.spec.worker, self.generation)
        return named and message.pid in (0, self.pid)

    def take(self, spec: ProcessSpec, generation: int, incarnation: int) -> None:
        """A spare becomes an incarnation of that spec, and has to get ready and serve as such."""
        self.become(ChildState.STARTING)
        self.spec, self.generation, self.incarnation = spec, generation, incarnation
        self.was_ready = False
        self.serving_since = None

    @property
    def served(self) -> float:
        """Seconds since it began to serve, 0 when it never did."""
        return 0.0 if self.serving_since is None else time.monotonic() - self.serving_since

    def last_event(self) -> str:
        """The last event whose handler it has called, for the log; empty when there was none."""
        pulse = self.pulse
        if not pulse.begun:
            return ""
        kinds = [kind.name.lower() for kind in Event if kind == pulse.kind]
        return f"; its last event, the {_ordinal(pulse.begun)}: {''.join(kinds)} of connection {pulse.fd}"

    def launch(self, argv: Sequence[str], payload: Mapping[str, Any], fds: Sequence[int]) -> None:
        """Start the process. Raises OSError: no descriptors, no memory, no such program."""
        boot = os.memfd_create("mooring-boot", os.MFD_CLOEXEC)
        try:
            with open(boot, "wb", closefd=False) as file:
                file.write(msgspec.msgpack.encode(payload))
            os.lseek(boot, 0, os.SEEK_SET)
            popen = subprocess.Popen(
                [*argv, str(boot)], stdin=subprocess.DEVNULL, pass_fds=(boot, *fds), process_group=0
            )
        finally:
            os.close(boot)
        try:
            self.pidfd = os.pidfd_open(popen.pid)
        except OSError:
            popen.kill()
            popen.wait()
            raise
        self._popen = popen
        self.pid = popen.pid

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    def reap(self) -> Exit | None:
        """How it ended, None when it has not."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        assert self._popen is not None
        if result.si_code == os.CLD_EXITED:
            how = Exit(result.si_status, None)
            self._popen.returncode = result.si_status  # so that Popen does not wait for it too
        else:
            how = Exit(None, result.si_status)
            self._popen.returncode = -result.si_status
        return how

    def end(self) -> None:
        """Kill and reap it, for whom the tree can't wait."""
        assert self._popen is not None
        self._popen.kill()
        with suppress(subprocess.TimeoutExpired):  # then it is reaped like a stranger, once it has ended
            self._popen.wait(END_LIMIT)

    def forget(self) -> None:
        """Give back every descriptor; links are the tree's to close."""
        for deadline in self.deadlines:
            deadline.cancel()
        self.pulse.freeze()
        if self.control is not None:
            self.control.close()
            self.control = None
        for fd in (self.pidfd, self.table):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.table = -1


def _ordinal(number: int) -> str:
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
