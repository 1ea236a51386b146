"""Fails when a module imports from its own rank or above it.

    python tools/layers.py [SOURCE_ROOT]

A module may import only what stands in a row above its own in LAYERS (docs/architecture.md draws the same
table); inside _core the rows of CORE apply as well. Python is read with ast, imports inside functions and
under TYPE_CHECKING included; .pyx, .pxd and .pxi are read with an expression, because no parser but Cython's
knows `cimport`. A unit that stands in no row is an error too: whoever adds one decides where it belongs.
The codecs in PURE must know no socket, loop, clock or logger, neither Python's nor C's.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "mooring"
LAYERS: list[set[str]] = [
    {"counters", "errors", "journal", "near", "types"},
    {"_core"},
    {"centrifuge", "config", "app"},
    {"net", "roles"},
    {"engine"},
    {"link", "monitor"},
    {"gateway", "worker", "dispatcher", "supervisor", "admin"},
    {"boot"},
    {"parts"},
    {"process_host"},
    {"single", "supervise", "supervised"},
    {"runtime"},
    {"entry", "server", "asgi"},
    {"cli", "__init__", "testing"},
    {"__main__"},
]
CORE: list[set[str]] = [
    {"__init__", "http_grammar"},
    {"atomic", "buffer", "orphan", "counters", "http_request", "http_response", "pulse", "room", "steps", "timer"},
    {"admission", "deflate", "http", "page", "table", "wire", "ws"},
    {"latency", "ledger", "profile", "reactor"},
    {"order", "registry"},
    {"pace"},
    {"channel", "gateway_end", "transport", "worker_end"},
    {"contract", "secure"},
    {"files"},
    {"http_exchange"},
    {"websocket"},
    {"acceptor", "answering", "asking", "hub", "inlet", "owned", "parking", "records", "shares", "turns"},
    {"closed"},
    {"channel_link", "finder", "relay"},
    {"commands", "local"},
]
PURE = {"deflate", "http", "http_grammar", "http_request", "http_response", "wire", "ws"}
IMPURE = {"asyncio", "logging", "select", "selectors", "socket", "threading", "time"}
IMPURE_HEADERS = {
    "netinet/in.h",
    "netinet/tcp.h",
    "poll.h",
    "sys/epoll.h",
    "sys/socket.h",
    "time.h",
    "unistd.h",
}
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".pxi"}
CYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<base>[\w.]+)[ \t]+c?import[ \t]*(?P<names>\([^)]*\)|[^\n#]*)"
    r"|c?import[ \t]+(?P<plain>[\w., \t]+))",
    re.MULTILINE,
)
EXTERN = re.compile(r"""^[ \t]*cdef[ \t]+extern[ \t]+from[ \t]+["']<?([^"'>]+)""", re.MULTILINE)


def imports(path: Path, here: list[str]) -> set[str]:
    """Dotted names that the file imports; `here` is its own, as a list of parts."""
    text = path.read_text()
    if path.suffix in {".py", ".pyi"}:
        return set(python_imports(text, here))
    return set(cython_imports(text, here))


def python_imports(text: str, here: list[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), here)
            yield from (f"{base}.{name.name}" for name in node.names)


def cython_imports(text: str, here: list[str]) -> Iterator[str]:
    for found in CYTHON.finditer(text):
        if found["plain"]:
            yield from (part.split()[0] for part in found["plain"].split(",") if part.split())
            continue
        base = absolute(found["base"], here)
        for part in found["names"].strip("() \t").replace("\n", " ").split(","):
            if part.split():
                yield f"{base}.{part.split()[0]}"


def absolute(name: str, here: list[str]) -> str:
    level = len(name) - len(name.lstrip("."))
    start = here[: len(here) - level] if level else []
    return ".".join([*start, *filter(None, name.lstrip(".").split("."))])


def ranks(rows: list[set[str]]) -> dict[str, int]:
    return {name: rank for rank, row in enumerate(rows) for name in row}


def unit(path: Path) -> str:
    """`_core/wire_kinds.pxi` is a part of wire; elsewhere a file is its own unit."""
    return path.stem.split("_")[0] if path.suffix == ".pxi" else path.stem


def impurities(path: Path, names: set[str]) -> set[str]:
    """What a codec must not know."""
    headers = set() if path.suffix in {".py", ".pyi"} else set(EXTERN.findall(path.read_text()))
    return {name.split(".")[0] for name in names} & IMPURE | headers & IMPURE_HEADERS


def violations(root: Path) -> list[str]:
    """Every import that the rows forbid, one line each. `root` is the directory that holds the package."""
    top, core = ranks(LAYERS), ranks(CORE)
    package = root / PACKAGE
    modules = {path.relative_to(package).parts[0].split(".")[0] for path in package.iterdir()}
    found: set[str] = set()
    for path in sorted(package.rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        place = path.relative_to(package)
        me = place.parts[0].split(".")[0]
        part = unit(path) if me == "_core" else ""
        if me not in top or (part and part not in core):
            found.add(f"{path}: {part or me} stands in no row of tools/layers.py")
            continue
        # The last part is what a relative import is relative to: the module's own name, or `__init__`.
        names = imports(path, [PACKAGE, *place.with_suffix("").parts])
        if part in PURE:
            found.update(f"{path}: the codec {part} must not know {name}" for name in impurities(path, names))
        for name in names:
            parts = name.split(".")
            if parts[0] != PACKAGE:
                continue
            other = parts[1] if len(parts) > 1 and parts[1] in modules else "__init__"
            if other != me and top.get(other, -1) >= top[me]:
                found.add(f"{path}: {me} must not import {name}")
            inner = parts[2] if other == me == "_core" and len(parts) > 2 else part
            if inner != part and core.get(inner, -1) >= core[part]:
                found.add(f"{path}: _core.{part} must not import {name}")
    return sorted(found)


def main() -> int:
    found = violations(Path(sys.argv[1] if len(sys.argv) > 1 else "src"))
    print("\n".join(found) or "ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
