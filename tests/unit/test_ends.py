"""What a worker makes of close records: who looks at them, and what it misses."""

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from mooring import CloseRecord
from mooring.worker.ends import HEARD, KEPT, Ends, Tail
from support.loops import JumpingLoop, in_jumping_loop
from unit.test_closed import RECORD

NOTHING = msgspec.msgpack.encode((0, []))


class Outbox:
    """Counts how often the gateways are asked: two."""

    def __init__(self) -> None:
        self.asked = 0

    def tail(self) -> None:
        self.asked += 1

    def all(self) -> list[Any]:
        return [SimpleNamespace(gateway=0), SimpleNamespace(gateway=1)]


class Site:
    """What is served at a listener, as far as it matters here."""

    def __init__(self, **handlers: Any) -> None:
        self.handlers = handlers
        self.close_records = "on"
        self.as_json = False


def ends(site: Any, outbox: Any = None, failed: Any = None) -> Ends:
    return Ends("the server", [site], outbox or Outbox(), failed or (lambda *_: None))


def test_what_comes_faster_than_it_is_taken_is_counted():
    async def run() -> None:
        tail = Tail(lambda record: record.fd % 2 == 0)
        assert await tail.take(10, 0.001) == (0, [])
        tail.add(0, [msgspec.convert({**msgspec.to_builtins(RECORD), "fd": fd}, CloseRecord) for fd in range(5)])
        assert [record.fd for record in (await tail.take(2, 1))[1]] == [0, 2]
        assert [record.fd for record in (await tail.take(2, 1))[1]] == [4]
        tail.add(3, [])
        assert await tail.take(2, 1) == (3, [])
        even = msgspec.convert({**msgspec.to_builtins(RECORD), "fd": 8}, CloseRecord)
        tail.add(0, [even] * (KEPT + 5))
        missed, records = await tail.take(KEPT, 1)
        assert (missed, len(records)) == (5, KEPT)
        assert await tail.take(1, 0.001) == (0, [])
        tail.end()
        assert await tail.take(1, 1) == (0, [])

    asyncio.run(run())


def test_gateways_are_asked_as_long_as_somebody_looks():
    async def run() -> None:
        outbox = Outbox()
        one = ends(Site(), outbox)
        assert outbox.asked == 0
        tail = one.open_tail(lambda _record: True)
        other = one.open_tail(lambda _record: False)
        assert outbox.asked == 1
        one.on_records(1, msgspec.msgpack.encode((2, [RECORD])))
        assert await tail.take(5, 1) == (2, [RECORD])
        assert await other.take(5, 1) == (2, [])
        one.close_tail(tail)
        one.end_tails()
        assert other.over
        assert not tail.over

    asyncio.run(run())


def test_who_looks_waits_until_all_gateways_have_heard_of_it():
    async def looks(loop: JumpingLoop) -> None:
        one = ends(Site(), Outbox())
        began = loop.time()
        one.open_tail(lambda _record: True)
        waiting = asyncio.ensure_future(one.heard())
        one.on_records(1, NOTHING)
        one.on_records(1, NOTHING)
        await asyncio.sleep(0)
        assert not waiting.done()
        one.on_records(0, NOTHING)
        await waiting
        one.open_tail(lambda _record: True)
        await one.heard()  # they tell already
        assert loop.time() == began

    in_jumping_loop(looks)


def test_a_gateway_that_stands_still_keeps_neither_who_looks_nor_the_loop():
    async def looks(loop: JumpingLoop) -> None:
        one = ends(Site(), Outbox())
        began = loop.time()
        one.open_tail(lambda _record: True)
        assert loop.time() == began
        one.on_records(1, NOTHING)
        await one.heard()
        assert loop.time() - began == pytest.approx(HEARD)

    in_jumping_loop(looks)


def test_ended_is_called_behind_the_close_whatever_became_of_that():
    async def run() -> None:
        seen: list[Any] = []
        problems: list[BaseException] = []

        async def close() -> None:
            await asyncio.sleep(0)
            seen.append("close")
            raise ZeroDivisionError

        def handler(server: object, record: CloseRecord) -> None:
            seen.append(record)
            raise KeyError("ended")

        def failed(_site: object, fd: int, error: BaseException) -> Awaitable[None]:
            problems.append(error)

            async def told() -> None:
                seen.append(fd)

            return told()

        one = ends(Site(ended=handler), failed=failed)
        told = await asyncio.gather(
            one.tell(one._sites[0], 7, close, msgspec.msgpack.encode(RECORD)), return_exceptions=True
        )
        assert [type(error) for error in told] == [ZeroDivisionError]
        assert [type(error) for error in problems] == [KeyError]
        assert seen == ["close", RECORD, 7]

    asyncio.run(run())
