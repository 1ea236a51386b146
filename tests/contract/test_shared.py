"""Atomics and tables: what one process writes, all read, in every mode; over deaths in tests/e2e/test_shared.py."""

from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import Asker, Raised

EMPTY = {"name": "", "age": 0, "score": 0.0, "photo": "b''", "here": False}


@pytest.fixture
def pair(workers: list[Asker]) -> Iterator[tuple[Asker, Asker]]:
    """Two workers, or one twice; with an empty table."""
    yield workers[0], workers[-1]
    workers[0]("people.clear()")
    workers[0]("hits.set(5)")


def raised(ask: Asker, code: str) -> Raised:
    with pytest.raises(Raised) as caught:
        ask(code)
    return caught.value


def test_an_atomic(pair: tuple[Asker, Asker]):
    one, other = pair
    assert other("hits.get()") == 5
    assert one("hits.add()") == 6
    assert other("hits.add(-10)") == -4
    assert one("hits.set(2**63 - 1)") == -4
    assert other("server.atomic('hits').get()") == 2**63 - 1
    assert one("hits.add(1)") == -(2**63)
    assert other("hits.set(1)") == -(2**63)
    assert one("hits.compare_and_set(2, 3)") is False
    assert one("hits.compare_and_set(1, 3)") is True
    assert other("hits.get()") == 3
    for code in ("hits.set(2**63)", "hits.add(2**63)", "hits.compare_and_set(2**64, 0)"):
        assert raised(one, code).kinds[0] == "OverflowError"


def test_a_table(pair: tuple[Asker, Asker]):
    one, other = pair
    assert other("people.get('ann')") is None
    assert one("people.set('ann', age=20)") is None
    assert other("people.get('ann')") == {**EMPTY, "age": 20}
    assert other("people.set('ann', name='Ännchen', score=1, here=True, photo=b'\\xff')") is None
    wanted = {"name": "Ännchen", "age": 20, "score": 1, "photo": "b'\\xff'", "here": True}
    assert one("server.table('people').get('ann')") == wanted
    assert one("people.add('ann', age=1)") is False
    assert one("people.add('bob', age=1)") is True
    assert other("[people.keys(), len(people), 'bob' in people, 'eve' in people]") == [["ann", "bob"], 2, True, False]
    assert other("dict(people.items())['bob']") == {**EMPTY, "age": 1}
    assert one("people.increment('bob', 'age')") == 2
    assert other("people.increment('eve', 'score', 0.5)") == 0.5
    assert one("people.compare_and_set('bob', 'age', 1, 7)") is False
    assert one("people.compare_and_set('nobody', 'age', 0, 7)") is False
    assert one("people.compare_and_set('bob', 'age', 2, 7)") is True
    assert other("people.get('bob')['age']") == 7
    assert other("[people.delete('bob'), people.delete('bob'), list(people)]") == [True, False, ["ann", "eve"]]


def test_in_threads(pair: tuple[Asker, Asker]):
    one, other = pair
    assert one("people.set('ann', age=3)", in_thread=True) is None
    assert other("people.get('ann')['age']", in_thread=True) == 3
    assert one("hits.add()", in_thread=True) == 6


def test_a_table_is_bounded(pair: tuple[Asker, Asker]):
    one, other = pair
    for n in range(4):
        one(f"people.set('{n}')")
    error = raised(other, "people.set('4')")
    assert error.kinds[:2] == ["TableFull", "MooringError"]
    assert error.message == "table 'people' has 4 rows: delete some, or declare it with more rows"
    assert other("people.keys()") == ["0", "1", "2", "3"]
    assert other("people.set('3', age=5)") is None, "a row that is there can be changed"
    assert other("people.delete('0')") is True
    assert one("people.add('4')") is True


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("people.set('a', name='x' * 100)", "ValueError", "takes 100 (row_bytes)"),
        ("people.set('a', size=1)", "ValueError", "has no column 'size'; it has name, age, score, photo, here"),
        ("people.set('a', age='1')", "TypeError", "column 'age' of table 'people' is int, and '1' is not"),
        ("people.set('a', age=True)", "TypeError", "is int, and True is not"),
        ("people.set('a', age=2**63)", "OverflowError", "64 bits"),
        ("people.set('', age=1)", "ValueError", "1 to 511 bytes"),
        ("people.set('x' * 512, age=1)", "ValueError", "1 to 511 bytes"),
        ("people.increment('a', 'name')", "ValueError", "no column of numbers 'name'"),
        ("people.increment('a', 'age', 0.5)", "TypeError", "is int, and 0.5 is not"),
        ("server.table('other', x=int)", "StateError", "before start()"),
        ("server.atomic('other')", "StateError", "before start()"),
    ],
)
def test_what_cannot_be_meant(pair: tuple[Asker, Asker], code: str, kind: str, text: str):
    error = raised(pair[0], code)
    assert error.kinds[0] == kind
    assert text in error.message
    assert pair[1]("len(people)") == 0


def test_from_a_task(tasked: Any, ask: Asker):
    ask("people.set('ann', age=1)")
    assert ask('server.task(\'[people.increment("ann", "age"), hits.add()]\')') == [2, 6]
    assert ask("[people.get('ann')['age'], hits.get()]") == [2, 6]
