"""Finds the Server that `MODULE:ATTR` names.

What the application itself raises while it is imported passes through untouched: its traceback is the best
message there is. Only what the command line can explain better becomes a BootError.
"""

import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mooring.errors import BootError
from mooring.server import Server


def load(target: str) -> Server:
    """The server named by `target`. Raises BootError when there is none of that name."""
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise BootError(f"{target!r}: write MODULE:ATTR, for instance chat:server for `server` in chat.py")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise BootError(f"{target!r} names a file: write {dotted}:{path}")
    found: object = imported(module_name, target)
    for name in path.split("."):
        if not hasattr(found, name):
            raise BootError(f"{target!r}: {missing(found, name, module_name)}")
        found = getattr(found, name)
    if not isinstance(found, Server):
        raise BootError(f"{target!r} is {an(type(found).__name__)}, not a mooring.Server")
    return found


def imported(name: str, target: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # A module that the application in turn misses is the application's error, not ours.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise BootError(
            f"{target!r}: there is no module {error.name!r} in {here} or on the Python path; "
            "run the command from the directory that holds it"
        ) from error


def missing(holder: object, name: str, module: str) -> str:
    servers = (
        [key for key, value in vars(holder).items() if isinstance(value, Server)]
        if hasattr(holder, "__dict__")
        else []
    )
    near = servers or get_close_matches(name, dir(holder), n=1)
    hint = f"; did you mean {module}:{near[0]}?" if near else ""
    return f"module {module!r} has no {name!r}{hint}"


def an(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
