"""Messages between workers, at the worker's end: what is refused at once, and what waits."""

import asyncio
from typing import Any

import pytest

from mooring.app.values import pack, unpack
from mooring.errors import PipeFull, StateError
from mooring.worker.pipe import SIZE_LIMIT, UNSENT_LIMIT, Pipe
from support.loops import in_loop


class Channel:
    """To the dispatcher; keeps what it takes."""

    def __init__(self, *, waiting: int = 0, is_open: bool = True) -> None:
        self.waiting, self.open = waiting, is_open
        self.sent: list[tuple[int, Any]] = []

    def send(self, notice: Any) -> None:
        self.sent.append((notice.arg, unpack(notice.payload)))


def pipe(channel: Any = None, *, handled: bool = True) -> Pipe:
    made = Pipe(1, 3, lambda *_: None, handled=handled)
    if channel is not None:
        made.connect(channel)
    return made


def test_a_message_goes_to_the_worker_that_is_named():
    channel = Channel()
    assert pipe(channel).send({"a": [1, b"2"]}, 2)
    assert channel.sent == [(2, {"a": [1, b"2"]})]


@pytest.mark.parametrize("number", [-1, 3, 1 << 40])
def test_there_is_no_such_worker(number: int):
    channel = Channel()
    with pytest.raises(ValueError, match=f"no worker {number}: their numbers go from 0 to 2"):
        pipe(channel).send("a", number)
    assert not channel.sent


@pytest.mark.parametrize("number", [True, "1", 1.0, None])
def test_what_is_no_number(number: Any):
    with pytest.raises(TypeError, match="is no number of a worker"):
        pipe(Channel()).send("a", number)


def test_what_is_too_long_or_can_not_travel():
    channel = Channel()
    with pytest.raises(ValueError, match=f"at most {SIZE_LIMIT} can be sent to another worker"):
        pipe(channel).send(bytes(SIZE_LIMIT), 0)
    with pytest.raises(TypeError, match="a message to another worker"):
        pipe(channel).send(object(), 0)
    assert not channel.sent


def test_without_a_handler_nobody_would_take_it():
    with pytest.raises(StateError, match="register one before start"):
        pipe(Channel(), handled=False).send("a", 0)


def test_before_and_behind_the_dispatcher_it_is_not_sent():
    made = pipe()
    assert not made.send("a", 0)
    ended = Channel(is_open=False)
    made.connect(ended)
    assert not made.send("a", 0)
    assert not ended.sent


def test_a_full_dispatcher_takes_no_more_until_there_is_another_one():
    channel, successor = Channel(), Channel()
    made = pipe(channel)
    made.full = True
    with pytest.raises(PipeFull, match="raise dispatcher_memory_limit"):
        made.send("a", 0)
    made.connect(successor)
    assert made.send("a", 0)
    assert (len(channel.sent), len(successor.sent)) == (0, 1)


def test_what_has_not_left_this_worker_has_a_limit():
    channel = Channel(waiting=UNSENT_LIMIT)
    assert pipe(channel).send("a", 0), "up to the limit"
    channel.waiting += 1
    with pytest.raises(PipeFull, match="so that its loop can turn"):
        pipe(channel).send("b", 0)
    assert channel.sent == [(0, "a")]


def test_a_handler_is_called_when_the_loop_turns():
    """Not inside of the handler that sends, nor before what that one still does; here there is one process alone."""
    got: list[tuple[int, Any]] = []

    async def test() -> None:
        made = Pipe(0, 1, lambda source, data: got.append((source, data)), handled=True)
        made.open_alone()
        data = [1]
        assert made.send(data, 0)
        data.append(2)  # it was sent as it was
        assert not got
        while not got:
            await asyncio.sleep(0)

    in_loop(test)
    assert got == [(0, [1])]


def test_one_that_comes_waits_for_the_loop_as_well():
    """What the dispatcher has sent is read in a turn of the reactor, which must not run handlers of the application."""
    got: list[tuple[int, Any]] = []

    async def test() -> None:
        made = Pipe(0, 3, lambda source, data: got.append((source, data)), handled=True)
        made.receive(2, pack("a", "a message"))
        assert not got
        while not got:
            await asyncio.sleep(0)

    in_loop(test)
    assert got == [(2, "a")]
