"""A script that makes a server, never starts it, and ends: nothing else would say why nobody can connect.

A line on stderr says what to do, at the end of the process. Only of a script whose server is made in it and whose code
has no `start` at all: one that has may have ended before it on purpose, as after `--help`. Not at a prompt, nor in a
forked copy of the process, nor behind the traceback of what has ended the script.
"""

import atexit
import os
import sys
from pathlib import Path
from types import CodeType

_pid = 0  # of the process whose end is waited for
_file = ""


def made() -> None:
    """A server was made by the caller of the caller."""
    global _pid, _file
    frame = sys._getframe(2)
    names = frame.f_globals
    file = names.get("__file__")
    if _pid or names.get("__name__") != "__main__" or not isinstance(file, str):
        return
    if sys.flags.interactive or hasattr(sys, "ps1"):
        return
    code = frame.f_code
    while frame.f_back is not None:  # to the script itself, from one of its functions
        frame = frame.f_back
        if frame.f_globals is names:
            code = frame.f_code
    if not _mentions(code, "start"):
        _pid, _file = os.getpid(), file
        atexit.register(_say)


def started() -> None:
    """It was not forgotten."""
    atexit.unregister(_say)


def _mentions(code: CodeType, name: str) -> bool:
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return name in code.co_names or any(_mentions(one, name) for one in inner)


def _say() -> None:
    if os.getpid() != _pid or sys.stderr is None or hasattr(sys, "last_value"):
        return
    path = Path(_file)
    print(
        f"mooring: {path.name} has made a Server and ended without start(), so nothing is served: call server.start() "
        f"at its end, or run it with `mooring run {path.stem}:server`",
        file=sys.stderr,
    )
