"""Which worker gets a connection: the least loaded one, or always the same for a key."""

import logging
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mooring.errors import BootError
from mooring.link.policy import GONE, SLOW, STILL, Client, by_key, least_loaded, new_policy


def end(worker: int, **said: Any) -> Any:
    """A worker, as its gateway sees it."""
    return SimpleNamespace(
        **{"worker": worker, "generation": 1, "silent": 0, "still": 0, "in_flight": 0, "bound": 0, **said}
    )


def client(fd: int, ip: str = "", user: str = "") -> Client:
    return Client(fd, ip, 80, user)


def test_few_in_flight_count_more_than_few_connections_and_a_few_more_do_not():
    assert least_loaded([end(0, in_flight=40, bound=1), end(1, in_flight=5, bound=9)]).worker == 1
    assert least_loaded([end(0, in_flight=10, bound=9), end(1, in_flight=15, bound=1)]).worker == 1
    assert least_loaded([end(0), end(1)]).worker == 0


@pytest.mark.parametrize("stands", [{"silent": SLOW + 1}, {"still": STILL + 1}])
def test_one_that_stands_still_is_the_last_choice_and_still_one(stands: dict[str, int]):
    assert least_loaded([end(0, **stands), end(1, in_flight=900, bound=900)]).worker == 1
    assert least_loaded([end(0, **stands)]).worker == 0


def test_keys_spread_evenly_and_only_those_move_whose_worker_has_gone():
    workers = [end(number) for number in range(4)]
    keys = [f"user {number}" for number in range(2000)]
    before = {key: by_key(workers, key).worker for key in keys}
    assert all(400 < count < 600 for count in Counter(before.values()).values())
    after = {key: by_key(workers[:3], key).worker for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != 3)
    assert {after[key] for key in keys if before[key] == 3} == {0, 1, 2}


def test_a_number_its_text_and_its_bytes_are_one_key():
    workers = [end(number) for number in range(50)]
    assert by_key(workers, 7) is by_key(workers, "7") is by_key(workers, b"7")


def test_at_a_reload_the_newer_generation_is_meant():
    old, new = end(0), end(0, generation=2)
    assert by_key([old, new], "a") is new


def test_the_keys_of_one_that_stands_still_are_others_until_it_turns_again():
    workers = [end(number) for number in range(3)]
    mine = by_key(workers, "ada")
    mine.still = GONE + 1
    assert by_key(workers, "ada") is not mine
    mine.still = 0
    assert by_key(workers, "ada") is mine
    for one in workers:
        one.still = GONE + 1
    assert by_key(workers, "ada") is mine, "where all stand still it is as ever"


@pytest.mark.parametrize("key", [None, 1.5, ("a",)])
def test_what_is_no_key(key: Any):
    with pytest.raises(TypeError, match="a key is a str, bytes or int"):
        by_key([end(0)], key)


@pytest.mark.parametrize(("dispatch", "known"), [("address", {"ip": "192.0.2.7"}), ("user", {"user": "ada"})])
def test_an_address_or_a_user_is_a_key_and_who_has_none_goes_to_the_least_loaded(dispatch: str, known: dict[str, str]):
    workers = [end(number, bound=number) for number in range(30)]
    choose = new_policy(dispatch, lambda fd: client(fd, **(known if fd else {})))
    assert choose(workers, 1) is choose(workers, 2) is by_key(workers, next(iter(known.values())))
    assert choose(workers, 0) is workers[0]


def test_connections_are_not_even_looked_at():
    def about(_fd: int) -> Client:
        raise AssertionError

    assert new_policy("connection", about)([end(0, bound=3), end(1)], 9).worker == 1


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("dispatching")
    monkeypatch.setitem(sys.modules, "dispatching", module)
    return module


def test_a_function_of_the_application_says_the_key_or_none(application: Any):
    application.key = lambda one: one.user[:1] or None
    workers = [end(number, bound=number) for number in range(30)]
    choose = new_policy("dispatching:key", lambda fd: client(fd, user=("", "ada", "anna")[fd]))
    assert choose(workers, 1) is choose(workers, 2) is by_key(workers, "a")
    assert choose(workers, 0) is workers[0]


@pytest.mark.parametrize("key", [lambda _one: 1 / 0, lambda _one: 1.5])
def test_one_that_fails_costs_no_client_and_few_lines(application: Any, caplog: pytest.LogCaptureFixture, key: Any):
    application.key = key
    choose = new_policy("dispatching:key", client)
    with caplog.at_level(logging.ERROR):
        for fd in range(100):
            assert choose([end(0, bound=1), end(1)], fd).worker == 1
    assert [line.getMessage().split(", the ")[1].split(".")[0] for line in caplog.records] == [
        *("1", "2", "4", "8", "16", "32", "64")
    ]


def test_one_that_is_not_there_is_an_error_at_the_start(application: ModuleType):
    with pytest.raises(BootError, match="has no function 'key'"):
        new_policy("dispatching:key", client)
