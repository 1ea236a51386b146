"""Signals as bytes in a loop.

A handler may run between any two bytecodes, so it does nothing: the interpreter itself writes the number
into a pipe (set_wakeup_fd), and the loop reads it when it is ready to act. A pipe, because it has room for
65,536 numbers; a socket pair has room for 278, and a SIGTERM behind so many ends of children would be lost.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

HANDLED = (
    signal.SIGTERM,  # stop
    signal.SIGINT,  # stop; in a stop: at once
    signal.SIGQUIT,  # stop at once
    signal.SIGHUP,  # reload
    signal.SIGUSR1,  # reload
    signal.SIGRTMIN,  # open the log files again, as with Swoole
    signal.SIGUSR2,  # every process writes its stacks to the log
    signal.SIGCHLD,  # a process ended, perhaps one we did not start
)


def _noted(number: int, frame: FrameType | None) -> None:
    """The number is in the pipe already."""


def hold_signals() -> None:
    """Those that come from now on wait, across an exec, until Signals are entered.

    Else one that comes while the interpreter starts again would end the process, or be ignored if that is process 1.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


class Signals:
    """While entered, the signals of HANDLED are bytes at `fileno()`. Main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Signals:
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noted) for number in HANDLED}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # see hold_signals
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: set by C code, which Python can't put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        """The numbers that arrived, in order."""
        try:
            return list(os.read(self._reader, 65536))
        except BlockingIOError:
            return []
