"""Compiles the package's Python sources once, so that the processes of a server don't do it at every start.

A server is half a dozen fresh interpreters, and the tests start some two thousand servers. Where
PYTHONDONTWRITEBYTECODE is set, as in many containers, none of them keeps what it has compiled: two fifths of all that
a start costs. An installed package has its bytecode from pip; this gives the checkout the same.

It is valid by the hash of its source and not by the time (PEP 552): an edit within the same second counts, too.
"""

import importlib.util
import os
import py_compile
from collections.abc import Iterator
from pathlib import Path

HASHED_AND_CHECKED = (0b11).to_bytes(4, "little")  # the flags of PEP 552


def compile_package(package: Path | None = None) -> int:
    """How many sources had no bytecode that is valid for what they say now; they have it then. Without an argument of
    the package that `import mooring` finds."""
    count = 0
    for source in _sources(package or _mooring()):
        cached = Path(importlib.util.cache_from_source(str(source)))
        header = importlib.util.MAGIC_NUMBER + HASHED_AND_CHECKED + importlib.util.source_hash(source.read_bytes())
        if _start(cached, len(header)) != header:
            py_compile.compile(
                str(source),
                str(cached),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )
            count += 1
    return count


def _mooring() -> Path:
    spec = importlib.util.find_spec("mooring")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _sources(package: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(package, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                yield Path(folder, name)


def _start(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""
