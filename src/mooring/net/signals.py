"""Signals: as bytes in a process whose loop is the reactor alone, and what forked children shall not have of them.

A child that is forked has the handlers of its parent, and the descriptor that the interpreter writes signals to: who
ends the child would tell the parent to stop. So what is installed here is noted, and taken back there, unless the
application has installed something else meanwhile. Programs that are started by exec have no handlers of others; they
inherit what is *ignored*, and that is nothing.
"""

from __future__ import annotations

import faulthandler
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

Handler = Callable[[int, FrameType | None], Any]

_ours: dict[int, Any] = {}


def handle(number: int, handler: Handler) -> None:
    """Calls `handler` in this process, and not in its children."""
    signal.signal(number, handler)
    _ours[number] = handler


def handle_in_loop(loop: asyncio.AbstractEventLoop, number: int, callback: Callable[..., object], *args: Any) -> None:
    """The same in the turn of a loop."""
    loop.add_signal_handler(number, callback, *args)
    _ours[number] = signal.getsignal(number)


def ignore(number: int) -> None:
    """Nothing happens, and it is not ignored: that would be inherited by every program that is started."""
    handle(number, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """See `ignore`."""


def hold() -> set[int]:
    """Those that we handle wait from now on; what to give to `release`. A child that is just being forked still has our
    handlers, and who ends it right then would end the parent."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, _ours)


def release(before: set[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def give_back() -> None:
    """In a forked child: signals do what they do in any program."""
    signal.set_wakeup_fd(-1)
    for number, handler in _ours.items():
        if signal.getsignal(number) == handler:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _ours.clear()
    faulthandler.unregister(signal.SIGUSR2)  # see log_stacks
    if signal.getsignal(signal.SIGRTMAX) == signal.SIG_DFL:  # as far as Python knows, see die_with_parent
        signal.signal(signal.SIGRTMAX, signal.SIG_DFL)


class SignalSocket:
    """Signals as bytes that a reactor can wait for."""

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            ignore(number)

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> bytes:
        return self._reader.recv(4096)
