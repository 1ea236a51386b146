"""Numbers, times and tables as people read them."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import click

_STEPS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def duration(time: float | None) -> str:
    """5.2s, 3m12s, 4h05m, 12d03h; "-" for None."""
    if time is None:
        return "-"
    if time < 1:
        return f"{time * 1000:.0f}ms"
    if time < 9.95:
        return f"{time:.1f}s"
    for (step, unit), (below, lesser) in pairwise(_STEPS):
        if time >= step:
            return f"{time // step:.0f}{unit}{time % step // below:02.0f}{lesser}"
    return f"{int(time)}s"


def size(count: float | None) -> str:
    """Bytes: 512 B, 3.1 KiB, 20 MiB; "-" for None."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000 or unit == "GiB":
            return f"{count:.1f} {unit}" if unit != "B" and count < 9.95 else f"{count:.0f} {unit}"
        count /= 1024
    raise AssertionError


def number(count: float | None) -> str:
    """12,345; "-" for None."""
    return "-" if count is None else f"{count:,.0f}"


def rate(count: float | None) -> str:
    """Per second: 0, 0.4, 12, 3,456; "-" for None."""
    return "-" if count is None else f"{count:.1f}" if 0.05 <= count < 9.95 else f"{count:,.0f}"


def plain(text: str, limit: int = 0) -> str:
    """Text that a client has chosen: what would move the cursor, or worse, is shown as its escape. It is cut to `limit`
    characters, 0: not at all."""
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text[: limit - 1] + "…" if limit and len(text) > limit else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = ()) -> list[str]:
    """Lines with aligned columns: those in `left` begin at the same place, numbers end there."""
    everything = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    lefts = [name in set(left) for name in head]
    return [
        "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, lefts, strict=True)
        ).rstrip()
        for row in everything
    ]


def seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float:
    """For an option: a time such as 90, 30s, 10m, 2h or 1d; 0 when it is not given."""
    if value is None:
        return 0.0
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time: write 90, 30s, 10m, 2h or 1d")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
