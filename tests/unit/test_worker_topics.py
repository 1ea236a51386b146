"""Topics with a history in a worker: what becomes of what it publishes, who shall hear them, what was published."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from mooring import Frame, Opcode, PublishRefused, PublishUncertain
from mooring._core.gateway_end import Outbox
from mooring._core.wire import Mail
from mooring.engine.letters import Append, Follow, Form
from mooring.types import Position, Recovery, Verdict
from mooring.worker import topics as module
from mooring.worker.topics import ANSWER_LIMIT, SENT
from support.desks import World, encode, failure, run, turn, value_of
from support.loops import LIMIT


@pytest.fixture
def world() -> World:
    return World()


# ------------------------------------------------------------------ publishing


def test_without_a_history_it_is_told_to_the_gateways_and_nobody_waits(world: World):
    published = world.desk.publish("plain:1", "x", None, 7)
    assert world.outbox.take() == [("publish", "plain:1", "x", None, 7)]
    assert world.link.take() == []
    assert published is SENT

    async def awaited() -> None:
        assert await published is None
        assert await published is None

    run(awaited)


@pytest.mark.parametrize(
    ("data", "opcode", "is_json", "code", "payload"),
    [
        ("ä", None, False, Opcode.TEXT, "ä".encode()),
        (b"\xff", None, False, Opcode.BINARY, b"\xff"),
        (bytearray(b"x"), Opcode.TEXT, False, Opcode.TEXT, b"x"),
        (Frame(b"y", Opcode.BINARY), None, False, Opcode.BINARY, b"y"),
        (b"[1]", Opcode.TEXT, True, Opcode.TEXT, b"[1]"),
    ],
    ids=["text", "bytes", "text-as-bytes", "frame", "json"],
)
def test_with_one_it_goes_to_the_engine_alone(
    world: World, data: Any, opcode: int | None, is_json: bool, code: int, payload: bytes
):
    world.desk.publish("kept:1", data, opcode, [7, 8], is_json=is_json)
    assert world.outbox.take() == []
    left_out = b"".join(fd.to_bytes(8, "little") for fd in (7, 8))
    [(mail, number, append)] = world.link.take()
    assert mail == Mail.APPEND
    assert append == Append("kept:1", Form.BARE, code, payload, 10, 2.5, left_out)
    world.appended(number)


@pytest.mark.parametrize(("is_json", "form"), [(False, Form.TEXT), (True, Form.JSON)])
def test_where_clients_are_told_their_position_its_form_says_what_it_is(world: World, is_json: bool, form: Form):
    world.desk.publish("told:1", b"[1]", Opcode.TEXT, None, is_json=is_json)
    [(_, number, append)] = world.link.take()
    assert append == Append("told:1", form, Opcode.TEXT, b"[1]", 20, 0.0)
    world.appended(number)


def test_who_awaits_it_gets_the_position_whenever_that_is_and_as_often_as_it_likes(world: World):
    async def awaited() -> None:
        one, other = world.desk.publish("kept:1", "x", None, None), world.desk.publish("kept:1", "y", None, None)
        waiting = [asyncio.ensure_future(value_of(one)) for _ in range(2)] + [asyncio.ensure_future(value_of(other))]
        await turn()
        assert not any(task.done() for task in waiting)
        (_, first, _), (_, second, _) = world.link.take()
        world.appended(second, offset=6)
        world.appended(first, offset=5)
        assert await asyncio.gather(*waiting) == [("e", 5), ("e", 5), ("e", 6)]
        found = await one
        assert isinstance(found, Position)
        assert found == await one

    run(awaited)
    assert world.logged == []


def test_who_gives_up_waiting_does_not_disturb_the_others(world: World):
    async def awaited() -> None:
        published = world.desk.publish("kept:1", "x", None, None)
        one, other = asyncio.ensure_future(value_of(published)), asyncio.ensure_future(value_of(published))
        await turn()
        one.cancel()
        await turn()
        [(_, number, _)] = world.link.take()
        world.appended(number, offset=5)
        assert await other == ("e", 5)
        assert one.cancelled()

    run(awaited)


def test_what_can_not_be_sent_is_refused_at_once_and_nothing_is_published(world: World):
    for topic, data, opcode, exclude, error in [
        ("kept:1", 5, None, None, TypeError),
        ("kept:1", b"\xff", Opcode.TEXT, None, ValueError),
        ("kept:1", "x", Opcode.PING, None, ValueError),
        ("kept:1", "x", None, "seven", TypeError),
        ("kept:1", "x", None, range(1025), ValueError),
        ("kept:" + "x" * 251, "x", None, None, ValueError),
        ("told:1", b"bytes", None, None, ValueError),
    ]:
        with pytest.raises(error):
            world.desk.publish(topic, data, opcode, exclude)
    assert world.link.take() == world.outbox.take() == []
    assert world.desk._published == {}


def test_what_could_not_be_sent_as_json_is_too_long(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LONGEST", 5)
    world.desk.publish("told:1", "12345", None, None)
    with pytest.raises(ValueError, match="6 bytes: at most 5 can be published in a topic with a history"):
        world.desk.publish("told:1", "123456", None, None)
    [(_, number, _)] = world.link.take()
    world.appended(number)
    world.desk.publish("plain:1", "123456", None, None)


def test_bytes_where_clients_get_json_are_refused_with_what_to_do(world: World):
    with pytest.raises(ValueError, match=r"'told:1' has positions=True.*publish text or JSON there"):
        world.desk.publish("told:1", b"x", None, None)


@pytest.mark.parametrize("topic", [5, None, b"kept:1", ["kept:1"]], ids=repr)
@pytest.mark.parametrize("what", ["publish", "subscribe", "unsubscribe"])
def test_what_is_no_name_gets_the_same_error_as_without_histories(what: str, topic: Any):
    messages = []
    for rules in (False, True):
        desk = World(rules=rules).desk
        desk._outbox = Outbox()
        arguments = (topic, "x", None, None) if what == "publish" else (7, topic)
        with pytest.raises(TypeError) as caught:
            getattr(desk, what)(*arguments)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("is_open", "is_full", "why"),
    [
        (False, False, "the engine is being started again"),
        (True, True, "the engine does not take it fast enough"),
    ],
)
def test_what_the_engine_does_not_take_now_is_refused_and_not_kept_for_later(
    world: World, is_open: bool, is_full: bool, why: str
):
    world.link.is_open, world.link.is_full = is_open, is_full

    async def awaited() -> None:
        published = world.desk.publish("kept:1", "x", None, None)
        assert await failure(published) == f"PublishRefused: nothing was published: {why}"
        assert await failure(published) == f"PublishRefused: nothing was published: {why}", "however often"

    run(awaited)
    assert world.link.take() == []
    assert world.desk._published == {}


def test_a_process_whose_engine_was_never_there_refuses(world: World):
    desk = World().desk
    desk._link = None

    async def awaited() -> None:
        assert "being started again" in await failure(desk.publish("kept:1", "x", None, None))
        assert "being started again" in await failure(desk.past("kept:1", None, 1, newest_first=False))

    run(awaited)


def test_what_the_engine_refuses_is_said_with_its_reason(world: World):
    async def awaited() -> None:
        published = world.desk.publish("kept:1", "x", None, None)
        [(_, number, _)] = world.link.take()
        world.appended(number, "", 0, "no room")
        with pytest.raises(PublishRefused, match=r"^nothing was published: no room$"):
            await published

    run(awaited)


def test_of_what_is_under_way_when_the_engine_ends_nobody_can_say(world: World):
    async def awaited() -> None:
        done, lost, later = (world.desk.publish("kept:1", f"{number}", None, None) for number in range(3))
        (_, first, _), (_, second, _), _ = world.link.take()
        world.appended(first, offset=4)
        waiting = asyncio.ensure_future(failure(lost))
        await turn()
        world.desk.on_engine_lost("it was killed")
        expected = "PublishUncertain: it may have been published or not: the engine has ended: it was killed"
        assert await waiting == expected
        assert await failure(later) == expected
        assert await done == ("e", 4)
        world.appended(second)  # it can't come any more; if it did, it would change nothing
        with pytest.raises(PublishUncertain):
            await lost
        published = world.desk.publish("kept:1", "again", None, None)
        [(_, number, _)] = world.link.take()
        assert number not in (first, second)
        world.appended(number, "f", 1)
        assert await published == ("f", 1)

    run(awaited)


@pytest.mark.parametrize("seen", [False, True])
def test_a_failure_that_nobody_awaits_is_logged_and_one_that_somebody_has_seen_is_not(world: World, seen: bool):
    async def awaited() -> None:
        published = world.desk.publish("kept:1", "x", None, None)
        world.desk.on_engine_lost("it was killed")
        if seen:
            await failure(published)

    run(awaited)
    gc.collect()
    assert len(world.logged) == (not seen)
    if not seen:
        assert world.logged[0].startswith("a publication in kept:1 that nobody awaits has failed: it may have been")


def test_who_has_given_up_waiting_has_not_seen_the_failure(world: World):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(value_of(world.desk.publish("kept:1", "x", None, None)))
        await turn()
        waiting.cancel()
        await turn()
        world.desk.on_engine_lost("it was killed")

    run(awaited)
    gc.collect()
    assert len(world.logged) == 1


def test_what_has_gone_well_leaves_nothing_behind(world: World):
    world.desk.publish("kept:1", "x", None, None)
    [(_, number, _)] = world.link.take()
    world.appended(number)
    world.appended(number)
    gc.collect()
    assert (world.logged, world.desk._published) == ([], {})


# ------------------------------------------------------------------ subscribing


@pytest.mark.parametrize("rules", [False, True])
def test_without_a_history_a_subscription_is_as_ever(rules: bool):
    world = World(rules=rules)
    assert world.desk.subscribe(7, "plain:1") is True
    assert world.desk.unsubscribe(7, "plain:1") is True
    assert world.desk.subscribe(5, "plain:1") is False
    assert world.outbox.take() == [
        ("subscribe", 7, "plain:1", False),
        ("subscribe", 7, "plain:1", True),
        ("subscribe", 5, "plain:1", False),
    ]


def test_with_one_the_gateway_is_asked(world: World):
    assert world.desk.subscribe(7, "kept:1") is True
    assert world.desk.unsubscribe(7, "kept:1") is True
    assert world.desk.subscribe(5, "kept:1") is False
    nothing = Follow("kept:1")
    told = world.outbox.take()
    assert [(fd, follow, leave) for _, fd, _, follow, leave in told] == [
        (7, nothing, False),
        (7, nothing, True),
        (5, nothing, False),
    ]
    assert [number > 0 for _, _, number, _, _ in told] == [True, False, True]
    assert world.link.take() == [], "it is the gateway that asks the engine"


def sent(world: World) -> list[bytes]:
    return [append.data for _, _, append in world.link.take()]


def test_what_is_published_behind_a_subscription_waits_for_it(world: World):
    numbers = []
    for fd in (7, 8):
        world.desk.subscribe(fd, "kept:1")
        numbers.append(world.outbox.take()[0][2])
    for text in ("one", "two"):
        world.desk.publish("kept:1", text, None, None)
        world.desk.publish("kept:2", text, None, None)
    assert sent(world) == [b"one", b"two"], "those of the other topic"
    world.desk.on_followed(numbers[1], encode((0, "e", 0)))
    assert sent(world) == []
    world.desk.on_followed(numbers[0], b"")
    assert sent(world) == [b"one", b"two"]
    world.desk.publish("kept:1", "three", None, None)
    assert sent(world) == [b"three"]


def test_a_subscription_that_is_refused_holds_nobody(world: World):
    world.desk.subscribe(5, "kept:1")
    world.desk.publish("kept:1", "one", None, None)
    assert sent(world) == [b"one"]


def test_a_gateway_that_is_gone_or_says_nothing_holds_nobody_for_ever(world: World):
    async def held() -> None:
        for gone in (True, False):
            world.desk.subscribe(7, "kept:1")
            world.desk.publish("kept:1", "one", None, None)
            assert sent(world) == []
            if gone:
                world.outbox.fds.remove(7)
                world.desk.gateway_lost()
                world.outbox.fds.add(7)
            else:
                await asyncio.sleep(ANSWER_LIMIT + 0.1)
            assert sent(world) == [b"one"]

    run(held)


def test_what_waits_when_the_engine_ends_was_not_sent(world: World):
    async def held() -> None:
        world.desk.subscribe(7, "kept:1")
        number = world.outbox.take()[0][2]
        waits = world.desk.publish("kept:1", "one", None, None)
        world.link.is_open = False
        world.desk.on_engine_lost("it has died")
        world.desk.on_followed(number, b"")
        assert await failure(waits) == "PublishRefused: nothing was published: the engine is being started again"
        world.link.is_open = True
        world.desk.subscribe(7, "kept:1")
        number = world.outbox.take()[0][2]
        waits = world.desk.publish("kept:1", "two", None, None)
        world.desk.on_engine_lost("it has died")
        world.desk.on_followed(number, b"")
        [(_, publication, append)] = world.link.take()
        assert append.data == b"two", "there is another one"
        world.appended(publication)
        assert await waits == Position("e", 1)

    run(held)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_who_comes_with_a_position_gets_a_verdict_and_where_it_goes_on(world: World, verdict: Verdict):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.recover(7, "kept:1", Position("e", 3)))
        await turn()
        [(what, fd, number, follow, leave)] = world.outbox.take()
        assert (what, fd, follow, leave) == ("follow", 7, Follow("kept:1", "e", 3), False)
        assert number > 0, "0 would be one that nobody waits for"
        world.desk.on_followed(number + 1, encode((0, "x", 0)))
        await turn()
        assert not waiting.done()
        world.desk.on_followed(number, encode((verdict, "f", 5)))
        world.desk.on_followed(number, encode((0, "x", 0)))
        found = await waiting
        assert found == Recovery(verdict, Position("f", 5))
        assert bool(found) is (verdict is Verdict.RECOVERED)
        assert world.desk._follows == {}
        world.desk.on_followed(number, b"")

    run(awaited)


def test_a_connection_that_is_none_or_is_none_any_more_gets_nothing(world: World):
    async def awaited() -> None:
        assert await world.desk.recover(5, "kept:1", ("", 0)) is None
        world.outbox.take()
        waiting = asyncio.ensure_future(world.desk.recover(7, "kept:1", ("", 0)))
        await turn()
        [(_, _, number, _, _)] = world.outbox.take()
        world.desk.on_followed(number, b"")
        assert await waiting is None
        assert world.desk._follows == {}

    run(awaited)


def test_those_whose_gateway_is_lost_are_told_and_others_wait_on(world: World):
    async def awaited() -> None:
        lost, other = (asyncio.ensure_future(world.desk.recover(fd, "kept:1", ("", 0))) for fd in (7, 8))
        await turn()
        world.outbox.fds = {8}
        world.desk.gateway_lost()
        world.desk.gateway_lost()
        assert await lost is None
        assert not other.done()
        world.desk.on_engine_lost("it was killed")
        await turn()
        assert not other.done(), "its gateway asks the next one"
        [number] = world.desk._follows
        world.desk.on_followed(number, encode((0, "e", 0)))
        assert await other

    run(awaited)


def test_who_gives_up_waiting_for_a_verdict_leaves_nothing_behind(world: World):
    async def awaited() -> None:
        waiting = asyncio.ensure_future(world.desk.recover(7, "kept:1", ("", 0)))
        await turn()
        [(_, _, number, _, _)] = world.outbox.take()
        waiting.cancel()
        world.desk.on_followed(number, encode((0, "e", 0)))
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert world.desk._follows == {}

    run(awaited)


NO_POSITIONS: list[Any] = [
    *("e", 5, ("e",), ("e", 1, 2)),
    *(("e", -1), ("e", 1.0), ("e", True), (None, 1), (b"e", 1), ("e", "1"), ("\ud800", 1)),
]


@pytest.mark.parametrize("since", NO_POSITIONS, ids=repr)
def test_what_is_no_position_is_refused(world: World, since: Any):
    async def awaited() -> None:
        says = f"ValueError: since={since!r}: a position is an epoch and an offset"
        assert (await failure(world.desk.recover(7, "kept:1", since))).startswith(says)
        assert (await failure(world.desk.past("kept:1", since, 1, newest_first=False))).startswith(says)

    run(awaited)
    assert world.outbox.take() == world.link.take() == []


@pytest.mark.parametrize("what", ["recover", "past"])
def test_a_number_that_is_too_large_is_refused_like_any_other_nonsense(world: World, what: str):
    async def awaited() -> None:
        if what == "recover":
            found = await failure(world.desk.recover(7, "kept:1", ("e", 1 << 64)))
        else:
            found = await failure(world.desk.past("kept:1", ("e", 1 << 64), 1, newest_first=False))
        assert found.startswith("ValueError: "), found

    run(awaited)


def test_a_topic_without_a_history_has_no_position(world: World):
    async def awaited() -> None:
        for asked in (
            world.desk.recover(7, "plain:1", ("", 0)),
            world.desk.past("plain:1", None, 1, newest_first=False),
        ):
            assert await failure(asked) == (
                "StateError: the topic 'plain:1' has no history: call server.topic('plain:1', history_size=...)"
            )
        assert (await failure(world.desk.recover(7, "", ("", 0)))).startswith("ValueError: ")

    run(awaited)
    assert world.outbox.take() == world.link.take() == []


# ------------------------------------------------------------------ other threads


class Noting(list[Any]):
    """What waits; `event` says that something does."""

    def __init__(self) -> None:
        super().__init__()
        self.event = threading.Event()

    def append(self, one: Any) -> None:
        super().append(one)
        self.event.set()


@pytest.mark.parametrize("loop_runs", [False, True])
def test_who_waits_in_the_loop_of_another_thread_is_woken_there(world: World, loop_runs: bool):
    published = world.desk.publish("kept:1", "x", None, None)
    [(_, number, _)] = world.link.take()
    waiting = published._waiting = Noting()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(value_of(published))))
    thread.start()
    assert waiting.event.wait(LIMIT)

    async def awaited() -> None:
        world.appended(number, offset=5)

    if loop_runs:
        run(awaited)
    else:
        world.appended(number, offset=5)
    thread.join(LIMIT)
    assert found == [("e", 5)]


def test_what_is_over_while_somebody_begins_to_wait_is_not_waited_for(world: World):
    published = world.desk.publish("kept:1", "x", None, None)
    [(_, number, _)] = world.link.take()

    class Late(list[Any]):
        def append(self, one: Any) -> None:
            world.appended(number, offset=5)
            super().append(one)

    published._waiting = Late()

    async def awaited() -> None:
        async with asyncio.timeout(1):
            assert await published == ("e", 5)

    run(awaited)


def test_one_whose_loop_has_ended_keeps_nobody_from_being_told(world: World):
    async def give_up() -> None:
        waiting = asyncio.ensure_future(value_of(one))
        await turn()
        waiting.cancel()

    one, other = (world.desk.publish("kept:1", text, None, None) for text in "xy")
    thread = threading.Thread(target=lambda: asyncio.run(give_up()))
    thread.start()
    thread.join(LIMIT)
    world.desk.on_engine_lost("it was killed")

    async def awaited() -> None:
        assert (await failure(one)).startswith("PublishUncertain")
        assert (await failure(other)).startswith("PublishUncertain")

    run(awaited)


def test_at_its_end_a_worker_waits_for_what_it_has_published(world: World):
    async def finishing() -> None:
        for text in "xyz":
            world.desk.publish("kept:1", text, None, None)
        (_, one, _), (_, other, _), (_, third, _) = world.link.take()
        end = asyncio.ensure_future(world.desk.finish())
        for number in (other, one):
            await turn()
            assert not end.done()
            world.appended(number)
        world.appended(third, refused="full")
        await end
        gc.collect()
        assert len(world.logged) == 1  # who has failed is logged as ever
        assert "a publication in kept:1 that nobody awaits has failed" in world.logged[0]

    run(finishing)


def test_it_does_not_wait_for_ever(world: World):
    async def finishing() -> None:
        one, _ = (world.desk.publish("kept:1", text, None, None) for text in "xy")
        await world.desk.finish()
        assert world.logged == [
            "2 publications may be lost: the engine has not told of them within 5 s, and this worker ends"
        ]
        world.desk.on_engine_lost("it was killed")
        assert (await failure(one)).startswith("PublishUncertain")

    run(finishing)


def test_what_waits_for_a_subscription_is_limited_too(world: World, monkeypatch: pytest.MonkeyPatch):
    """A handler subscribes and then publishes without end: nothing is handed over before it lets others run."""
    monkeypatch.setattr("mooring.worker.topics.UNSENT_LIMIT", 1000)

    async def publishing() -> None:
        for _ in range(2):
            world.desk.subscribe(7, "kept:1")
            ((_, _, question, _, _),) = world.outbox.take()
            waiting = [world.desk.publish("kept:1", "x" * 400, None, None) for _ in range(4)]
            assert await failure(waiting.pop()) == (
                "PublishRefused: nothing was published: the engine does not take it fast enough"
            )
            world.desk.on_followed(question, b"")
            sent = world.link.take()
            assert len(sent) == 3
            for _, number, _ in sent:
                world.appended(number)
            assert [await one for one in waiting] == [("e", 1)] * 3

    run(publishing)
