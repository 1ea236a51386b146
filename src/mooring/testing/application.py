"""Which application is to be served, in a form that other processes can find it by.

Theory
    Workers are fresh interpreters: they import the application, and share no object with the test. So an application
    is a name (of a module or of a file), and an object stands for the name under which it can be imported. What has no
    such name, a server made inside a test function, can't be served by other processes; `in_process` takes it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from mooring.server import Server

ADVICE = (
    "give its name as 'module:attribute', the path of its file, an object at the top level of a module, or use "
    "in_process(), which runs the application in this very process"
)

App = str | os.PathLike[str] | Server | Callable[[], Server]


class Named(msgspec.Struct):
    """What the launcher is told, as JSON on its command line."""

    module: str
    file: str = ""
    """Where the module stands, if that is known; empty: wherever the import path has it."""
    attribute: str = ""
    """The server or a function that makes it, with dots; empty: the only one there is, or the one that is started."""
    path: list[str] = []
    """The import path of the test."""
    settings: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.file or self.module}:{self.attribute}".rstrip(":")


def name_of(app: App) -> Named:
    """How to find it. Raises ValueError for what can't be found by another process."""
    if isinstance(app, os.PathLike):
        app = os.fspath(app)
    if isinstance(app, str):
        named = _of_text(app)
    elif isinstance(app, Server):
        named = _of_server(app)
    elif isinstance(app, FunctionType):
        named = _of_function(app)
    else:
        raise ValueError(f"{app!r} is no application: {ADVICE}")
    named.path = [os.path.abspath(entry) for entry in sys.path]
    return named


def _of_text(text: str) -> Named:
    place, _, attribute = text.partition(":")
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            raise ValueError(f"{text!r}: there is no file {file}")
        return Named(file.stem, str(file), attribute)
    if not attribute:
        raise ValueError(f"{text!r}: write 'module:attribute', such as 'chat:server', or a path that ends in .py")
    if "/" in place:
        raise ValueError(f"{text!r}: a path ends in .py, a module has dots: {place.strip('./').replace('/', '.')}")
    return Named(place, "", attribute)


def _of_server(server: Server) -> Named:
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is server:
                return _of_module(module, name)
    raise ValueError(
        "this Server stands in no module, so no worker, which is another process, can import it: make it at the top "
        f"level of a module; {ADVICE}"
    )


def _of_function(function: FunctionType) -> Named:
    module = sys.modules.get(function.__module__)
    if module is None or "<" in function.__qualname__:
        raise ValueError(
            f"{function.__qualname__} stands inside another function, so no worker, which is another process, can "
            f"import it: {ADVICE}"
        )
    return _of_module(module, function.__qualname__)


def _of_module(module: ModuleType, attribute: str) -> Named:
    file = getattr(module, "__file__", None)
    if not file:
        raise ValueError(f"the module {module.__name__!r} has no file, so no other process can import it: {ADVICE}")
    name = Path(file).stem if module.__name__ == "__main__" else module.__name__
    return Named(name, os.path.abspath(file), attribute)
