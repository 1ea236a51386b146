"""What the targets share.

A target is a module in `targets/` with `one(data)`, which does something with bytes that anybody may have sent and
raises if it went wrong, and `seeds()`, inputs to begin with. It takes the same way for the same bytes, always: whatever
is left to chance is drawn from them. Interesting inputs, and all that once did harm, are in `corpus/`, one Python
literal per line.
"""

import ast
import pkgutil
import random
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


def names() -> list[str]:
    """Of all targets."""
    return sorted(module.name for module in pkgutil.iter_modules([str(HERE / "targets")]))


def load(name: str) -> ModuleType:
    return import_module(f"fuzz.targets.{name}")


def corpus(name: str) -> list[bytes]:
    """What is committed for a target."""
    file = HERE / "corpus" / f"{name}.txt"
    if not file.exists():
        return []
    lines = file.read_text().splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def inputs(name: str) -> list[bytes]:
    """Seeds and corpus."""
    return [*load(name).seeds(), *corpus(name)]


def pieces(data: bytes, most: int = 8) -> list[bytes]:
    """The same bytes as the network may cut them: in a few pieces, or byte by byte."""
    chance = random.Random(zlib.crc32(data))
    if len(data) < 200 and chance.random() < 0.2:
        return [data[i : i + 1] for i in range(len(data))]
    places = sorted(chance.choices(range(len(data) + 1), k=chance.randint(1, most)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def outcome(call: Callable[[], object], *documented: type[Exception]) -> object:
    """What it gives, or the documented exception that it raises, as something that can be compared."""
    try:
        return call()
    except documented as error:
        return type(error).__name__, str(error)


def lines(data: bytes, count: int) -> Iterator[bytes]:
    """The first lines, and the rest."""
    for _ in range(count):
        line, _, data = data.partition(b"\n")
        yield line
    yield data
