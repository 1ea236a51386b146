"""What is looked for among connections, and how numbers are shown to people."""

import random

import pytest

from mooring._core import finder
from mooring.app.search import PATH_LIMIT, SORTS, Found, FoundConnection, Search, merged
from mooring.cli.text import duration, number, plain, rate, size, table


def row(key: float, fd: int) -> FoundConnection:
    return FoundConnection(key, fd, 0.0, 0.0, b"", b"", 0, 0, None, None)


def test_the_two_ends_agree():
    assert finder.SORTS == SORTS
    assert finder.PATH_LIMIT == PATH_LIMIT


def test_answers_are_merged_in_one_order():
    rows = [row(random.Random(fd).choice([1.0, 2.0, float("-inf")]), fd) for fd in range(50)]
    best = sorted(rows, key=lambda one: (-one.key, one.fd))
    answers = [Found(10, [one for one in best if one.fd % 3 == part]) for part in range(3)]
    assert merged(answers, 7) == Found(30, best[:7])
    assert merged([], 7) == Found(0, [])
    backwards = sorted(rows, key=lambda one: (-one.key, -one.fd))
    assert merged(answers, 50, reverse=True) == Found(30, backwards)


@pytest.mark.parametrize(
    ("address", "family", "bits"),
    [("10.1.2.3", 4, 32), ("10.1.2.3/8", 4, 8), ("::1", 6, 128), ("2001:db8::/33", 6, 33)],
)
def test_addresses(address, family, bits):
    terms = Search(address=address).terms()
    assert (terms["family"], terms["bits"]) == (family, bits)


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
def test_what_people_read(shown, text):
    assert shown == text


def test_a_table_is_aligned():
    assert table(["name", "count"], [["a", "1"], ["long name", "1000"]], ["name"]) == [
        "name       count",
        "a              1",
        "long name   1000",
    ]
