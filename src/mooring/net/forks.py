"""Processes that the application forks off this one: multiprocessing, ProcessPoolExecutor, os.fork, pty.fork.

Such a child is a copy of the server's process, with its channels, its clients' sockets, its signal handlers and its
place in the middle of a handler. It has no part in the server:

* It gives back what connects it with the rest: descriptors are closed (never shut down, for they are the parent's,
  too), so that others see the parent's end, and signals do what they do in any program. Nothing is taken out of the
  epoll instance, which parent and child share: the child's descriptor of it is closed first.
* It never goes on as the server. When what the application does in it comes to an end, in a handler that returns or
  raises, the process ends; so it does when it comes back to the loop, which it has no more.

Children that C code forks do not come here. For those the supervisor knows which process is dead, see Supervisor.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from mooring.app.foreign import is_a, text_of, traceback_of
from mooring.journal import own_logger
from mooring.net import signals

log = own_logger("mooring.runtime")

_actions: list[Callable[[], None]] = []
_child = False
_held: dict[int, set[int]] = {}  # the signals that were blocked before, of threads that fork


def in_child(action: Callable[[], None]) -> None:
    """Has every forked child give back what `action` gives back, before it does anything else."""
    _actions.append(action)


def is_child() -> bool:
    """Whether this process was forked off one of the server's."""
    return _child


def end_child(error: BaseException | None = None) -> None:
    """Ends this process if it is such a child: what it was there for has returned, or has raised `error`."""
    if not _child:
        return
    code, said = 0, ""
    if is_a(error, SystemExit):
        if isinstance(error.code, int):
            code = error.code
        elif error.code is not None:
            code, said = 1, text_of(error.code)  # as at the end of any program
    elif error is not None:
        code, said = 1, traceback_of(error).rstrip("\n")
    if said:
        with suppress(Exception):
            print(said, file=sys.stderr)
    _end(code)


def came_back() -> None:
    """It would run the loop of its parent, since it has awaited something."""
    log.error(
        "a forked child of this process has come back to the server's loop, and ends: let it do its work in one go and "
        "call os._exit(), or have multiprocessing start it"
    )
    _end(1)


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)  # neither atexit nor `finally` of what the parent does


def _before() -> None:
    if _actions:
        _held[threading.get_ident()] = signals.hold()


def _in_parent() -> None:
    before = _held.pop(threading.get_ident(), None)
    if before is not None:
        signals.release(before)


def _in_child() -> None:
    global _child
    if not _actions:
        return  # the server does not run here
    _child = True
    signals.give_back()
    for action in _actions:
        with suppress(Exception):  # as much as can be; there is nobody to tell
            action()
    _actions.clear()
    _in_parent()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
