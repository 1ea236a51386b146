"""What a worker asks of a topic's history, and what it makes of the answers."""

import asyncio
from typing import Any

import pytest

from mooring import Opcode
from mooring._core.wire import Mail
from mooring.engine.letters import MOST, Ask, Found
from mooring.types import Past, Position, Publication, Verdict
from mooring.worker.topics import ANSWER_LIMIT
from support.desks import World, encode, failure, run, turn


@pytest.fixture
def world() -> World:
    return World()


# ------------------------------------------------------------------ asking


def kept(first: int, last: int) -> tuple[tuple[int, int, bytes], ...]:
    return tuple((offset, Opcode.TEXT, f"{offset}".encode()) for offset in range(first, last + 1))


async def asked(world: World, answer: Found) -> Ask:
    """What the engine is asked next; it is answered."""
    await turn()
    [(mail, number, ask)] = world.link.take()
    assert mail == Mail.PAST
    world.desk.on_past(number + 1, encode(Found(0, "x", 0, 0)))
    world.desk.on_past(number, encode(answer))
    world.desk.on_past(number, b"")  # nobody waits any more
    assert isinstance(ask, Ask)
    return ask


def test_what_comes_behind_a_position(world: World):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.past("kept:1", ("e", 3), 5, newest_first=False))
        some = ((4, Opcode.TEXT, "ä".encode()), (5, Opcode.BINARY, b"\xff"))
        assert await asked(world, Found(0, "e", 3, 5, some)) == Ask("kept:1", "e", 3, 5)
        expected = (Publication(4, "ä"), Publication(5, b"\xff"))
        assert await waiting == Past(Verdict.RECOVERED, expected, Position("e", 5))
        assert world.desk._asked == {}

    run(awaited)


@pytest.mark.parametrize(("top", "limit", "begins"), [(9, 3, 6), (2, 3, 0), (0, 3, 0), (9, 0, 9)])
@pytest.mark.parametrize("newest_first", [False, True])
def test_without_a_position_it_is_the_last_ones(world: World, top: int, limit: int, begins: int, newest_first: bool):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.past("kept:1", None, limit, newest_first=newest_first))
        assert await asked(world, Found(0, "e", top, top)) == Ask("kept:1", None, 0, MOST)
        assert await asked(world, Found(0, "e", begins, top, kept(begins + 1, top))) == Ask(
            "kept:1", "e", begins, limit
        )
        past = await waiting
        offsets = list(range(begins + 1, top + 1))
        assert [one.offset for one in past.publications] == (offsets[::-1] if newest_first else offsets)
        assert (past.verdict, past.position) == (Verdict.RECOVERED, Position("e", top))

    run(awaited)


@pytest.mark.parametrize(("since", "verdict"), [(None, Verdict.RECOVERED), (("e", 1), Verdict.TRIMMED)])
def test_that_fewer_are_kept_is_a_verdict_for_a_position_alone(
    world: World, since: tuple[str, int] | None, verdict: Verdict
):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.past("kept:1", since, 8, newest_first=False))
        if since is None:
            await asked(world, Found(0, "e", 9, 9))
        assert await asked(world, Found(Verdict.TRIMMED, "e", 7, 9, kept(8, 9))) == Ask("kept:1", "e", 1, 8)
        past = await waiting
        assert [one.offset for one in past.publications] == [8, 9]
        assert (past.verdict, past.position) == (verdict, Position("e", 9))

    run(awaited)


def test_a_limit_that_is_larger_than_all_there_can_be_is_none(world: World):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.past("kept:1", ("e", 1), 1 << 70, newest_first=False))
        assert await asked(world, Found(0, "e", 1, 3, kept(2, 3))) == Ask("kept:1", "e", 1, MOST)
        assert len((await waiting).publications) == 2

    run(awaited)


def test_it_is_put_together_of_parts(world: World):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.past("kept:1", ("e", 1), 5, newest_first=False))
        assert await asked(world, Found(0, "e", 1, 8, kept(2, 3))) == Ask("kept:1", "e", 1, 5)
        assert await asked(world, Found(0, "e", 3, 9, kept(4, 5))) == Ask("kept:1", "e", 3, 3)
        assert await asked(world, Found(0, "e", 5, 9, kept(6, 6))) == Ask("kept:1", "e", 5, 1)
        past = await waiting
        assert [one.offset for one in past.publications] == [2, 3, 4, 5, 6]
        assert past.position == ("e", 6), "so that who goes on from there misses nothing"

    run(awaited)


@pytest.mark.parametrize(("verdict", "epoch", "top"), [(Verdict.UNKNOWN_EPOCH, "f", 1), (Verdict.ROLLED_BACK, "f", 2)])
def test_if_the_engine_is_another_one_meanwhile_it_is_what_the_first_one_said(
    world: World, verdict: Verdict, epoch: str, top: int
):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.past("kept:1", ("e", 1), 5, newest_first=False))
        await asked(world, Found(0, "e", 1, 8, kept(2, 3)))
        await asked(world, Found(verdict, epoch, top, top))
        past = await waiting
        assert [one.offset for one in past.publications] == [2, 3]
        assert past.position == ("e", 3)

    run(awaited)


@pytest.mark.parametrize("limit", [-1, 1.0, "5", None, True], ids=repr)
def test_what_is_no_number_of_publications_is_refused(world: World, limit: Any):
    async def awaited() -> None:
        found = await failure(world.desk.past("kept:1", None, limit, newest_first=False))
        assert found == f"ValueError: limit={limit!r}: a number of publications is wanted"

    run(awaited)
    assert world.link.take() == []


def test_while_there_is_no_engine_nobody_can_be_asked(world: World):
    world.link.is_open = False

    async def awaited() -> None:
        found = await failure(world.desk.past("kept:1", None, 1, newest_first=False))
        assert found == "StateError: the engine, which keeps histories, is being started again"

    run(awaited)
    assert world.desk._asked == {}


def test_one_that_ends_answers_nobody_and_that_is_said(world: World):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(failure(world.desk.past("kept:1", None, 1, newest_first=False)))
        await turn()
        world.desk.on_engine_lost("it was killed")
        world.desk.on_engine_lost("it was killed")
        assert await waiting == "StateError: the engine, which keeps histories, has ended: it was killed"
        assert world.desk._asked == {}

    run(awaited)


def test_one_that_does_not_answer_is_waited_for_no_longer_than_said(world: World):
    async def awaited() -> None:
        begun = asyncio.get_running_loop().time()
        found = await failure(world.desk.past("kept:1", None, 1, newest_first=False))
        assert found == f"StateError: the engine has not answered within {ANSWER_LIMIT:g} s"
        assert asyncio.get_running_loop().time() - begun == pytest.approx(ANSWER_LIMIT)
        assert world.desk._asked == {}
        [(_, number, _)] = world.link.take()
        world.desk.on_past(number, encode(Found(0, "e", 0, 0)))

    run(awaited)


def test_no_two_questions_have_one_number(world: World):
    async def awaited() -> None:
        tasks = [asyncio.ensure_future(world.desk.recover(7, "kept:1", ("", 0)))]
        tasks += [asyncio.ensure_future(world.desk.past("kept:1", None, 1, newest_first=False)) for _ in range(2)]
        published = [world.desk.publish("kept:1", "x", None, None) for _ in range(2)]
        await turn()
        assert [one[2] > 0 for one in world.outbox.take()] == [True]
        numbers = [one[1] for one in world.link.take()]
        assert len(set(numbers)) == len(numbers) == 4
        for task in tasks:
            task.cancel()
        for number in numbers:
            world.appended(number)
        assert [await one for one in published] == [("e", 1)] * 2

    run(awaited)


def test_a_question_has_never_the_number_of_one_that_nobody_waits_for(world: World):
    async def awaited() -> None:
        world.desk._numbers = iter([1 << 32, (1 << 32) + 1])
        waiting = asyncio.ensure_future(world.desk.recover(7, "kept:1", ("", 0)))
        await turn()
        [(_, _, number, _, _)] = world.outbox.take()
        waiting.cancel()
        assert 0 < number < 1 << 32

    run(awaited)


@pytest.mark.parametrize("rules", [False, True])
def test_whether_there_are_topics_with_a_history(rules: bool):
    assert World(rules=rules).desk.any is rules


def test_the_desk_is_the_one_that_its_link_tells(world: World):
    assert world.link.asker is world.desk
