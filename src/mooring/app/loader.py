"""Brings the application into a process: the Server that `MODULE:ATTR` names, or the program that was started.

A program is repeated as the interpreter runs it: with the same arguments, the same first entry of the import path, in
the same directory, and with a `__main__` that looks the same. What can't be repeated is said at once (`identify`).

What the application itself raises while it is imported passes through untouched: its traceback is the best
message there is. Only what the command line can explain better becomes a BootError.
"""

import io
import os
import pkgutil
import runpy
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from mooring.app.launched import Launched
from mooring.errors import BootError, ConfigError

#: Who runs other people's code and has no end of its own in sight: a test run, a session in which somebody types.
GUESTS = {
    "_pytest": "a test run",
    "unittest": "a test run",
    "doctest": "a test run",
    "nose2": "a test run",
    "behave": "a test run",
    "robot": "a test run",
    "IPython": "an interactive session",
    "ipykernel": "a notebook",
    "bpython": "an interactive session",
    "ptpython": "an interactive session",
    "idlelib": "an interactive session",
}

TOOL_FOLDERS = {"site-packages", "dist-packages", "debugpy"}


@runtime_checkable
class Startable(Protocol):
    """A mooring.Server, as far as it matters here: this module stands below it."""

    def start(self, *, target: str | None = None) -> Any: ...
    def set(self, **options: object) -> None: ...


class Application(msgspec.Struct, frozen=True):
    """How each worker comes to the same application as the process that was started by hand."""

    kind: Literal["target", "module", "script", "archive"]
    name: str
    """MODULE:ATTR, a module's name, or the path of a script, of a folder or of a zip file."""
    argv: list[str]
    path: list[str]
    """What stood first in sys.path: one entry or none; for a target also the directory, where it is looked for."""
    folder: str
    """The directory that the process was started in."""

    def run(self) -> None:
        """Run it up to its `start()`, which does not return. Raises BootError when there is no start()."""
        with suppress(OSError):  # it was removed; then this is where it was already, or can't be
            os.chdir(self.folder)
        self.find()
        sys.argv = list(self.argv)
        if self.kind == "target":
            load(self.name).start(target=self.name)
        elif self.kind == "module":
            runpy.run_module(self.name, run_name="__main__", alter_sys=True)
        elif self.kind == "archive":
            _run_archive(self.name)
        else:
            _run_script(self.name)
        raise BootError(f"{self.name} ended without calling start()")

    def find(self) -> None:
        """Has the import path begin as it did there."""
        sys.path[:0] = self.path


def _run_script(path: str) -> None:
    with io.open_code(path) as file:
        code: CodeType | None = pkgutil.read_code(file)  # compiled already
    loader: object = SourcelessFileLoader("__main__", path)
    if code is None:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec")
        loader = SourceFileLoader("__main__", path)
    _run_main(code, path, loader, None)


def _run_archive(path: str) -> None:
    main = sys.modules.pop("__main__")  # else it is what is found
    try:
        spec = PathFinder.find_spec("__main__", [path])
    finally:
        sys.modules["__main__"] = main
    loader: Any = spec.loader if spec is not None else None
    code = loader.get_code("__main__") if loader is not None else None
    if spec is None or code is None:
        raise BootError(f"{path}: there is no __main__ in it any more")
    _run_main(code, str(spec.origin), loader, spec)


def _run_main(code: CodeType, file: str, loader: object, spec: ModuleSpec | None) -> None:
    module = ModuleType("__main__")
    cached = spec.cached if spec is not None else None
    package = "" if spec is not None else None
    vars(module).update(
        __file__=file,
        __loader__=loader,
        __spec__=spec,
        __package__=package,
        __cached__=cached,
        __builtins__=__builtins__,
    )
    sys.modules["__main__"] = module
    exec(code, vars(module))


# ---------------------------------------------------------------------------------------------- what was started


def identify(target: str | None, begun: Launched) -> tuple[Application, str]:
    """The application of this process, and what is not repeated of how it was run, such as a profiler, or nothing.

    `target` is what the command line was given, if it was. Raises ConfigError for what no other process could repeat.
    """
    mains = list(_mains())
    command = begun.command
    if target is not None:
        argv = sys.argv if command.kind in ("", "text") else [sys.argv[0], *command.arguments]
        return Application("target", target, argv, [begun.folder, *begun.path], begun.folder), ""
    if not mains:
        raise ConfigError(_nothing("start() was called outside of a file"))
    main = mains[-1] if _is_tool(mains[0]) else mains[0]
    spec, file = main.get("__spec__"), main.get("__file__")
    loader = getattr(spec, "loader", None)
    path = [] if sys.flags.safe_path else [begun.folder]
    if spec is not None and loader is not None and spec.name != "__main__":
        name = spec.name.removesuffix(".__main__")
        told = command.kind == "module" and command.name.removesuffix(".__main__") == name
        return _made("module", name, path, begun, sys.argv[0] if told else None, mains)
    if not isinstance(file, str):
        raise ConfigError(_nothing("start() was called outside of a file"))
    file = os.path.join(begun.folder, str(file))  # pdb has a subclass of str there
    if loader is not None and spec is not None:
        archive = getattr(loader, "archive", os.path.dirname(file))
        told = command.kind == "archive" and _same(archive, os.path.join(begun.folder, command.name))
        return _made("archive", os.path.join(begun.folder, archive), [archive], begun, told and command.name, mains)
    if not os.path.isfile(file) or _is_descriptor(file):
        raise ConfigError(_nothing(f"start() was called outside of a file ({file!r} is none)"))
    told = command.kind == "script" and _same(file, os.path.join(begun.folder, command.name))
    path = [] if sys.flags.safe_path else [os.path.dirname(os.path.realpath(file))]
    return _made("script", file, path, begun, told and command.name, mains)


def _made(
    kind: Literal["module", "script", "archive"],
    name: str,
    path: list[str],
    begun: Launched,
    first: str | Literal[False] | None,
    mains: list[dict[str, Any]],
) -> tuple[Application, str]:
    """`first`: sys.argv[0] if that is what the interpreter was told to run; else somebody else has run it here."""
    command = begun.command
    if isinstance(first, str):
        return Application(kind, name, [first, *command.arguments], path, begun.folder), ""
    between = command.name or os.path.basename(str(mains[0].get("__file__", "")))
    argv = [str(word) for word in sys.argv]
    return Application(kind, name, argv, path, begun.folder), between


def _mains() -> Iterator[dict[str, Any]]:
    """The namespaces of the programs that have called start(), the outermost first: a profiler, and what it profiles.

    Raises ConfigError when somebody is among the callers who has other things to do.
    """
    frame = sys._getframe()
    found: list[dict[str, Any]] = []
    while frame is not None:
        names = frame.f_globals
        guest = GUESTS.get(str(names.get("__name__", "")).partition(".")[0])
        if guest is not None:
            raise ConfigError(_nothing(f"start() was called in {guest}"))
        if names.get("__name__") == "__main__" and (not found or names is not found[-1]):
            found.append(names)
        frame = frame.f_back  # type: ignore[assignment]
    return iter(found[::-1])


def _is_tool(main: dict[str, Any]) -> bool:
    """Whether a `__main__` is something installed that runs programs; a script of the application's own is not."""
    file = main.get("__file__")
    if not isinstance(file, str):
        return False
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "scripts")}
    path = Path(os.path.abspath(file))
    return bool(TOOL_FOLDERS & set(path.parts) or folders & set(map(str, path.parents)))


def _is_descriptor(path: str) -> bool:
    """Whether it leads to an open file of this process, such as /dev/stdin: no other process has it there."""
    for _ in range(40):  # as many links as the kernel follows
        folder = os.path.realpath(os.path.dirname(path))
        if folder == f"/proc/{os.getpid()}/fd":
            return True
        path = os.path.join(folder, os.path.basename(path))
        if not os.path.islink(path):
            return False
        path = os.path.join(folder, os.readlink(path))
    return False


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _nothing(why: str) -> str:
    return (
        f"{why}, and each worker has to run what has called it: put it into a script, or start the server as a program "
        "of its own, such as `mooring run app:server`; mode='base' with worker_num=1 serves in this very process"
    )


def load(target: str) -> Startable:
    """The server named by `target`. Raises BootError when there is none of that name."""
    module_name, colon, path = target.partition(":")
    if not module_name or (colon and not path):
        raise BootError(f"{target!r} is no MODULE:ATTR: write, for instance, chat:server for `server` in chat.py")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        path = path or _or(_servers(_module(dotted)), "server")
        raise BootError(f"{target!r} names a file: write {dotted}:{path}")
    if not colon:
        names = [f"{module_name}:{name}" for name in _servers(_module(module_name))]
        what = f"write {_or(names)}" if names else "write MODULE:ATTR, for instance chat:server for `server` in chat.py"
        raise BootError(f"{target!r} is no MODULE:ATTR: {what}")
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
        if not is_missing(error, name):
            raise
        raise BootError(
            f"{target!r}: there is no module {error.name!r} in {here} or on the Python path; "
            "run the command from the directory that holds it"
        ) from error


def is_missing(error: ModuleNotFoundError, name: str) -> bool:
    """Whether it is the module `name` that is not there. One that the application in turn misses is its own error."""
    return error.name is not None and (name == error.name or name.startswith(error.name + "."))


def _module(name: str) -> ModuleType | None:
    try:
        return imported(name, name)
    except BootError:
        return None


def _servers(holder: object) -> list[str]:
    """The names that lead to servers."""
    names = vars(holder) if hasattr(holder, "__dict__") else {}
    return [key for key, value in names.items() if isinstance(value, Startable) and not isinstance(value, type)]


def _or(words: list[str], default: str = "") -> str:
    return " or ".join(words) or default


def missing(holder: object, name: str, module: str) -> str:
    near = _servers(holder) or get_close_matches(name, dir(holder), n=1)
    hint = f"; did you mean {_or([f'{module}:{one}' for one in near])}?" if near else ""
    return f"module {module!r} has no {name!r}{hint}"


def an(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
