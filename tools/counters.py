"""Writes what is made of the table of counters; tools/build.py and `make docs` do it, too.

    src/mooring/_core/counters.pxd   the memory of those that are counted per packet
    docs/counters.md                 their page in the manual

It needs the table alone, and not a build: src/mooring/counters.py is read as a file of its own.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
STRUCT = ROOT / "src" / "mooring" / "_core" / "counters.pxd"
PAGE = ROOT / "docs" / "counters.md"
HEAD = """\
# Counters

<!-- Written by tools/counters.py; change src/mooring/counters.py and run `make docs`. -->

Everything a server counts, by its name in [`Server.stats()`](api/server.md) and `mooring status --json`. A *counter*
only grows, from 0 when its process starts; a *gauge* goes up and down; a *histogram*, in `/metrics` only, counts how
many took how long. *Over processes* says what one number for all of them is: the sum, the largest, or none, because
each has its own. [Metrics](metrics.md#names) says how a name looks in `/metrics`."""
PARTS = (
    ("CONNECTIONS", "Clients", "Of each gateway, about its sockets."),
    ("RELAY", "What workers are given", "Of each gateway."),
    ("GATEWAY", "What gateways refuse and keep", "Of each gateway."),
    ("WORKER", "Workers", "Of each worker, task worker and process of your own; `stats()` has those of the one asked."),
    ("DISPATCHER", "Tasks, and messages between workers", "Of the dispatcher."),
    ("ENGINE", "Topics with a history", "Of the engine; in `/metrics` only."),
    ("PROCESS", "Each process", "In `/metrics` only, by the role and number of the process."),
    ("TREE", "The process tree", 'Of the supervisor; in `stats()` under `"tree"`.'),
)
OVER = {"sum": "sum", "max": "largest", "each": "each its own"}


def table() -> ModuleType:
    """The module mooring.counters."""
    spec = importlib.util.spec_from_file_location("counters_of_mooring", ROOT / "src" / "mooring" / "counters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def struct(counters: ModuleType) -> str:
    """The counters of a gateway's sockets, one field for each row."""
    lines = [
        '"""What a gateway counts of its sockets. Written by tools/counters.py: change mooring/counters.py."""',
        "",
        "from libc.stdint cimport uint64_t",
        "",
        "",
        "cdef struct Counters:",
    ]
    lines += [f"    uint64_t {row.name}" for row in counters.rows(counters.Part.CONNECTIONS, counters.Kind.COUNTER)]
    return "\n".join(lines) + "\n"


def page(counters: ModuleType) -> str:
    """The page of the manual."""
    return "\n".join(_page(counters)) + "\n"


def _page(counters: ModuleType) -> Iterator[str]:
    yield HEAD
    for part, title, where in PARTS:
        yield f"\n## {title}\n\n{where}\n"
        yield "| name | kind | over processes | what it is |\n|---|---|---|---|"
        for row in counters.rows(counters.Part[part]):
            kind = f"{row.kind.value}, by {row.label}" if row.label else row.kind.value
            unit = f"; {row.unit}" if row.unit else ""
            yield f"| `{row.name}` | {kind}{unit} | {OVER[row.adds.value]} | {row.text} |"


def main() -> None:
    """Writes both, where they differ: what is compiled from the first is not compiled again for nothing."""
    counters = table()
    for path, text in ((STRUCT, struct(counters)), (PAGE, page(counters))):
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
