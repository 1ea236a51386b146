"""Of which connections a worker has begun `open`: kept only as long as no table says it."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from mooring.worker.opened import MANY, Opened


class Outbox:
    """With one gateway, whose table says of these connections that their `open` is done."""

    def __init__(self, told: Iterable[int], *, gone: bool = False) -> None:
        self._told = set(told)
        self._gateway_end = None if gone else SimpleNamespace(table=SimpleNamespace(opened=self._told.__contains__))

    def find(self, _fd: int) -> Any:
        return self._gateway_end


def opened(told: Iterable[int], *, gone: bool = False, begun: int = MANY) -> Opened:
    made = Opened(cast("Any", Outbox(told, gone=gone)))
    for fd in range(begun):
        made.add(fd)
    return made


def test_what_the_table_says_is_forgotten() -> None:
    noted = opened(told=range(0, MANY, 2))
    assert [fd for fd in range(MANY) if fd in noted] == list(range(1, MANY, 2))


def test_it_looks_only_now_and_then() -> None:
    assert all(fd in opened(told=range(MANY), begun=MANY - 1) for fd in range(MANY - 1))


def test_what_no_table_says_is_kept_however_many_they_are() -> None:
    noted = opened(told=(), begun=3 * MANY)
    assert all(fd in noted for fd in range(3 * MANY))


def test_the_connections_of_a_gateway_that_is_gone_are_kept() -> None:
    noted = opened(told=range(MANY), gone=True)
    assert all(fd in noted for fd in range(MANY))


def test_whose_close_has_begun_is_forgotten() -> None:
    noted = opened(told=())
    noted.discard(0)
    noted.discard(0)
    assert 0 not in noted
    assert 1 in noted
