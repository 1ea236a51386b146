"""How numbers, times and tables are shown to people, and how they write a time."""

from typing import Any

import click
import pytest

from mooring.cli.text import duration, number, plain, rate, seconds, size, table


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (duration(None), "-"),
        (duration(0.0123), "12ms"),
        (duration(5.21), "5.2s"),
        (duration(59.7), "59s"),
        (duration(192), "3m12s"),
        (duration(4 * 3600 + 300), "4h05m"),
        (duration(86400 * 12 + 3 * 3600), "12d03h"),
        (size(None), "-"),
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(1024), "1.0 KiB"),
        (size(1 << 20), "1.0 MiB"),
        (size(20.5 * (1 << 20)), "20 MiB"),
        (size(5000 << 30), "5000 GiB"),
        (number(12345), "12,345"),
        (rate(0), "0"),
        (rate(0.44), "0.4"),
        (rate(3456.7), "3,457"),
        (plain("a\x1b[31m\nb"), "a\\x1b[31m\\nb"),
        (plain("grüße", 4), "grü…"),
    ],
)
def test_what_people_read(shown: str, text: str):
    assert shown == text


def test_a_table_is_aligned():
    assert table(["name", "count"], [["a", "1"], ["long name", "1000"]], ["name"]) == [
        "name       count",
        "a              1",
        "long name   1000",
    ]


@pytest.mark.parametrize(
    ("written", "means"), [(None, 0), ("0", 0), ("90", 90), ("1.5s", 1.5), ("10m", 600), ("2 h", 7200), ("1d", 86400)]
)
def test_a_time_as_people_write_it(written: str | None, means: float):
    nothing: Any = None
    assert seconds(nothing, nothing, written) == means


@pytest.mark.parametrize("written", ["", "s", "-1", "1e3", "5 minutes", "\u0661", "inf"])
def test_what_is_no_time_is_refused_with_what_is_one(written: str):
    nothing: Any = None
    with pytest.raises(click.BadParameter, match="is no time: write 90, 30s, 10m, 2h or 1d"):
        seconds(nothing, nothing, written)
