"""Brings the application into a process: the Server that `MODULE:ATTR` names, a script, or a module run with -m.

What the application itself raises while it is imported passes through untouched: its traceback is the best
message there is. Only what the command line can explain better becomes a BootError.
"""

import runpy
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from mooring.errors import BootError, ConfigError


@runtime_checkable
class Startable(Protocol):
    """A mooring.Server, as far as it matters here: this module stands below it."""

    def start(self, *, target: str | None = None) -> Any: ...
    def set(self, **options: object) -> None: ...


class Application(msgspec.Struct, frozen=True):
    """How each worker comes to the same application as the process that was started by hand."""

    kind: Literal["target", "module", "script"]
    name: str
    """MODULE:ATTR, a module's name, or a script's absolute path."""
    argv: list[str]
    folder: str
    """What Python put first into sys.path."""

    def run(self) -> None:
        """Run it up to its `start()`, which does not return. Raises BootError when there is no start()."""
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        sys.argv = list(self.argv)
        if self.kind == "target":
            load(self.name).start(target=self.name)
        elif self.kind == "module":
            runpy.run_module(self.name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(self.name, run_name="__main__")
        raise BootError(f"{self.name} ended without calling start()")


def identify(target: str | None) -> Application:
    """The application of this process; `target` is what the command line was given, if it was.

    Raises ConfigError for an interactive session, which no other process could repeat.
    """
    if target is not None:
        return Application("target", target, sys.argv, str(Path.cwd()))
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return Application("module", spec.name.removesuffix(".__main__"), sys.argv, sys.path[0])
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        raise ConfigError("start() was called outside of a file, and each worker has to run it: put it into a script")
    return Application("script", str(Path(file).resolve()), sys.argv, str(Path(file).resolve().parent))


def load(target: str) -> Startable:
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
    if not isinstance(found, Startable):
        raise BootError(f"{target!r} is {an(type(found).__name__)}, not a mooring.Server")
    return found


def load_function(target: str) -> Callable[..., Any]:
    """The function named by MODULE:FUNCTION. Raises BootError when there is none of that name."""
    module_name, _, path = target.partition(":")
    found = getattr(imported(module_name, target), path, None)
    if not callable(found):
        raise BootError(f"{target!r}: module {module_name!r} has no function {path!r}")
    function: Callable[..., Any] = found
    return function


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
        [key for key, value in vars(holder).items() if isinstance(value, Startable) and not isinstance(value, type)]
        if hasattr(holder, "__dict__")
        else []
    )
    near = servers or get_close_matches(name, dir(holder), n=1)
    hint = f"; did you mean {module}:{near[0]}?" if near else ""
    return f"module {module!r} has no {name!r}{hint}"


def an(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
