"""What is looked for among connections."""

import random

import pytest

from mooring._core import finder
from mooring.app.search import PATH_LIMIT, SORTS, Found, FoundConnection, Search, merged


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
