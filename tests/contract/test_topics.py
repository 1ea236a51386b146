"""subscribe, unsubscribe, publish: to subscribers of every worker and every gateway, from every worker."""

import asyncio
import itertools
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from contract.clients import BINARY, TEXT, Asker, Peer, Raised, crowd, dial, get, halted, websocket
from contract.modes import only
from frames import frame
from support.serving import Serving

NAMES = (f"topic-{number}" for number in itertools.count())


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return next(NAMES)


async def fence(peers: list[Peer], asker: Asker) -> None:
    """Nothing but this is on its way to them: what a worker sends to one connection arrives in order."""
    for peer in peers:
        assert asker(f"server.push({peer.fd}, 'fence')") is True
        assert await peer.recv() == "fence"


@pytest.mark.parametrize("in_thread", [False, True], ids=["in the loop", "in a thread"])
async def test_publish_from_every_worker(
    server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str, in_thread: bool
):
    async with crowd(server, mode, "/eval") as peers, dial(server) as stranger:
        for peer in peers:
            assert await peer.ask(f"server.subscribe(fd, {topic!r})") is True
        for asker in workers:
            assert asker(f"server.publish({topic!r}, 'from {asker.worker}') and None", in_thread=in_thread) is None
            for peer in peers:
                assert await peer.recv() == f"from {asker.worker}"
            await fence([*peers, stranger], asker)


async def test_subscribe_from_every_worker(server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str):
    """A connection can be put into a topic, and taken out of it, by any worker."""
    async with crowd(server, mode) as peers:
        for asker in workers:
            for peer in peers:
                assert asker(f"server.subscribe({peer.fd}, {topic!r})") is True
            asker(f"server.publish({topic!r}, 'in')")
            for peer in peers:
                assert await peer.recv() == "in"
            for peer in peers[1:]:
                assert asker(f"server.unsubscribe({peer.fd}, {topic!r})") is True
            asker(f"server.publish({topic!r}, 'out')")
            assert await peers[0].recv() == "out"
            asker(f"server.unsubscribe({peers[0].fd}, {topic!r})")
            await fence(peers, asker)  # nothing orders what two workers say


@pytest.mark.parametrize(
    ("published", "opcode", "payload"),
    [
        ("'grüße'", TEXT, "grüße".encode()),
        ("'grüße'.encode()", BINARY, "grüße".encode()),
        ("bytearray(b'x')", BINARY, b"x"),
        (r"b'\xff'", BINARY, b"\xff"),
        ("'grüße'.encode(), Opcode.TEXT", TEXT, "grüße".encode()),
        ("'text', Opcode.BINARY", BINARY, b"text"),
        ("b'', exclude=1", BINARY, b""),
        (r"b'\xff', Opcode.BINARY", BINARY, b"\xff"),
        (r"Frame(b'\xff')", BINARY, b"\xff"),
        ("Frame('text')", TEXT, b"text"),
        ("''", TEXT, b""),
        ("'z' * 70000", TEXT, b"z" * 70_000),
    ],
)
def test_what_is_published_is_one_frame(
    server: Serving, workers: list[Asker], topic: str, published: str, opcode: int, payload: bytes
):
    with websocket(server) as (raw, fd):
        for asker in workers:
            asker(f"[server.subscribe({fd}, {topic!r}), server.publish({topic!r}, {published})]")
            assert raw.frame() == (opcode, payload)


@pytest.mark.parametrize(
    "arguments",
    [
        "'x', Opcode.PING",
        "'x', 0",
        "'x', 8",
        "'x', 3",
        r"b'\xff', Opcode.TEXT",
        r"'\ud800'",
        "CloseFrame()",
        "Frame('x', Opcode.PONG)",
        "(lambda frame: [setattr(frame, 'finish', False), frame][1])(Frame('x'))",
    ],
)
def test_what_cannot_be_published_is_a_value_error(workers: list[Asker], topic: str, arguments: str):
    with pytest.raises(Raised) as raised:
        workers[0](f"server.publish({topic!r}, {arguments})")
    assert "ValueError" in raised.value.kinds


@pytest.mark.parametrize("data", ["None", "5"])
def test_what_is_no_data_cannot_be_published(workers: list[Asker], topic: str, data: str):
    """Above all not bytes(5), five zeros."""
    with pytest.raises(Raised) as raised:
        workers[0](f"server.publish({topic!r}, {data}, Opcode.BINARY)")
    assert raised.value.kinds[0] == "TypeError"
    assert "a message is a str, bytes or a Frame, not" in raised.value.message


@pytest.mark.parametrize("name", ["''", "'x' * 256", "'ü' * 128"])
def test_names_of_topics_have_limits(workers: list[Asker], name: str):
    for code in (f"server.subscribe(1, {name})", f"server.unsubscribe(1, {name})", f"server.publish({name}, 'x')"):
        with pytest.raises(Raised) as raised:
            workers[0](code)
        assert "ValueError" in raised.value.kinds


async def test_odd_names_of_topics(server: Serving, workers: list[Asker]):
    async with dial(server) as peer:
        for name in ("x" * 255, "ü" * 127, " ", "a/b*#+", "\0", "\N{SNOWMAN}"):
            for asker in workers:
                asker(f"[server.subscribe({peer.fd}, {name!r}), server.publish({name!r}, 'heard')]")
                assert await peer.recv() == "heard"
                asker(f"server.unsubscribe({peer.fd}, {name!r})")
                await fence([peer], asker)  # nothing orders what two workers say


async def test_subscribing_twice_is_subscribing_once(server: Serving, workers: list[Asker], topic: str):
    async with dial(server) as peer:
        for asker in workers:
            assert asker(f"server.subscribe({peer.fd}, {topic!r})") is True
            await fence([peer], asker)
        workers[0](f"server.publish({topic!r}, 'once')")
        assert await peer.recv() == "once"
        await fence([peer], workers[0])
        workers[0](f"server.unsubscribe({peer.fd}, {topic!r})")
        workers[0](f"server.publish({topic!r}, 'never')")
        await fence([peer], workers[0])


async def test_several_topics(server: Serving, workers: list[Asker]):
    names = [next(NAMES) for _ in range(3)]
    async with dial(server) as all_of_them, dial(server) as one_of_them:
        for asker in workers:
            asker(f"[server.subscribe({all_of_them.fd}, name) for name in {names!r}]")
            asker(f"server.subscribe({one_of_them.fd}, {names[1]!r})")
            asker(f"[server.publish(name, name) for name in {names!r}]")
            assert await all_of_them.take(3) == names
            assert await one_of_them.recv() == names[1]
            await fence([one_of_them], asker)


async def test_a_subscription_ends_with_its_connection(server: Serving, workers: list[Asker], topic: str):
    async with dial(server) as staying:
        workers[0](f"server.subscribe({staying.fd}, {topic!r})")
        async with dial(server, name="leaver") as leaving:
            mark = server.mark()
            workers[0](f"server.subscribe({leaving.fd}, {topic!r})")
        server.wait_log("^report leaver close", since=mark)
        async with dial(server) as newcomer:
            workers[0](f"server.publish({topic!r}, 'still here')")
            assert await staying.recv() == "still here"
            await fence([newcomer], workers[0])


async def test_publishing_to_nobody(workers: list[Asker], topic: str):
    assert [asker(f"server.publish({topic!r}, 'x') and None") for asker in workers] == [None] * len(workers)


async def test_a_publisher_that_is_subscribed_hears_itself(server: Serving, topic: str):
    async with dial(server, "/eval") as peer:
        await peer.send(f"[server.subscribe(fd, {topic!r}), server.publish({topic!r}, 'a'), server.push(fd, 'b')]")
        assert await peer.take(2) == ["a", "b"]


async def test_subscribe_in_open(server: Serving, workers: list[Asker], topic: str):
    """As most applications do: it holds for the first message already."""
    async with dial(server, "/eval", open=f"server.subscribe(fd, {topic!r})") as peer:
        await peer.ask("'open is handled'")
        workers[0](f"server.publish({topic!r}, 'hello')")
        assert await peer.recv() == "hello"


async def test_a_connection_has_a_limit_of_topics(server: Serving, workers: list[Asker]):
    """The fifth of at most four: not joined, and the log says what to do."""
    mark = server.mark()
    names = [next(NAMES) for _ in range(5)]
    async with dial(server) as peer:
        workers[0](f"[server.subscribe({peer.fd}, name) for name in {names!r}]")
        workers[0](f"[server.publish(name, name) for name in {names!r}]")
        assert await peer.take(4) == names[:4]
        await fence([peer], workers[0])
        server.wait_log(rf"connection {peer.fd} is in 4 topics .*{names[4]}.*max_topics", since=mark)
        workers[0](f"[server.unsubscribe({peer.fd}, {names[0]!r}), server.subscribe({peer.fd}, {names[4]!r})]")
        workers[0](f"server.publish({names[4]!r}, 'now')")
        assert await peer.recv() == "now"


# ---------------------------------------------------------------------------------------------- order


async def test_each_publisher_is_heard_in_order(
    server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str
):
    """All workers publish at once, 200 messages each, in small portions."""
    count = 200
    async with crowd(server, mode) as peers:
        for peer in peers:
            workers[0](f"server.subscribe({peer.fd}, {topic!r})")
        await fence(peers, workers[0])
        one = f"server.publish({topic!r}, f'{{server.worker_id}} {{n}}')"
        code = f"[({one}, await asyncio.sleep(0)) for n in range({count})]"
        for asker in workers:
            asker.raw.send(get("/eval?code=" + code.replace(" ", "%20").replace("{", "%7B").replace("}", "%7D")))
        heard = [[str(message).split() for message in await peer.take(count * len(workers))] for peer in peers]
        for asker in workers:
            assert asker.raw.answer().status == 200
            for messages in heard:
                numbers = [int(number) for worker, number in messages if worker == str(asker.worker)]
                assert numbers == list(range(count))
        # all hear the same, between publishers and gateways too
        assert all(messages == heard[0] for messages in heard)


@only("process-2")
async def test_all_gateways_publish_in_one_order(
    server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str
):
    """Two workers publish one after the other while a gateway is behind, which mostly comes to the second one first."""
    first, second = workers
    async with crowd(server, mode) as peers:
        early = [peer for peer in peers if peer.gateway == 0]
        late = [peer for peer in peers if peer.gateway == 1]
        for peer in peers:
            first(f"server.subscribe({peer.fd}, {topic!r})")
        await fence(peers, first)
        with halted(server.pid_of("gateway 1")):
            # so that it mostly reads this one's channel before the other's: nothing orders a push by one worker
            # and a publish by another
            second(f"server.push({late[0].fd}, 'older')")
            first(f"server.publish({topic!r}, 'one')")
            assert await early[0].recv() == "one"
            second(f"server.publish({topic!r}, 'two')")
            assert await early[0].recv() == "two"
        heard = await late[0].take(3)
        assert [message for message in heard if message != "older"] == ["one", "two"]
        assert heard.index("older") < heard.index("two")
        assert [await peer.take(2) for peer in [*early[1:], *late[1:]]] == [["one", "two"]] * (len(peers) - 2)


@only("base-2")
async def test_all_servers_publish_in_one_order(
    server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str, folder: Path
):
    """The same where each worker is a gateway: one publishes while word of the other's message is on its way to it."""
    first, second = workers
    async with crowd(server, mode) as (early, late):
        for peer in (early, late):
            first(f"server.subscribe({peer.fd}, {topic!r})")
        await fence([early, late], first)
        mark = server.mark()
        second.raw.send(get(f"/eval?code=[block_until('{topic}'),server.publish('{topic}','two')]"))
        await asyncio.to_thread(server.wait_log, f"^report blocked until {topic}", since=mark)
        first(f"server.publish({topic!r}, 'one')")
        (folder / topic).touch()
        assert second.raw.answer().status == 200
        assert await early.take(2) == await late.take(2)


@only("base-2")
async def test_a_worker_sees_what_it_has_done_behind_a_publish_that_waits(
    server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str, folder: Path
):
    """Its publish waits for that of another process, which it has not read yet; and what it asks then, for both."""
    first, second = workers
    async with crowd(server, mode) as (early, late):
        for peer in (early, late):
            first(f"server.subscribe({peer.fd}, {topic!r})")
        await fence([early, late], first)
        mark = server.mark()
        code = f"server.publish('{topic}','two'),server.bind({late.fd},'{topic}'),server.connections_of('{topic}')"
        second.raw.send(get(f"/eval?code=[block_until('{topic}'),{code}][-1]"))
        await asyncio.to_thread(server.wait_log, f"^report blocked until {topic}", since=mark)
        first(f"server.publish({topic!r}, 'one')")
        (folder / topic).touch()
        assert second.raw.answer().json()["value"] == [late.fd]
        assert [await early.take(2), await late.take(2)] == [["one", "two"]] * 2


@only("process-2")
async def test_waiting_for_a_publish_has_a_limit(
    server: Serving, mode: dict[str, Any], workers: list[Asker], topic: str, folder: Path
):
    """A worker reaches one gateway and not the other, whose socket is full, and is busy then: that one goes on without.
    What it had published comes late, and is counted; afterwards there is one order again."""
    first, second = workers
    async with crowd(server, mode) as peers:
        early, late = peers[0], peers[-1]
        for peer in (early, late):
            first(f"server.subscribe({peer.fd}, {topic!r})")
        await fence([early, late], first)
        before = second("[gateway['published_out_of_order'] for gateway in server.stats()['gateways']]")
        mark = server.mark()
        with halted(server.pid_of("gateway 1")):
            fill = "[server.publish('nobody hears this', 'x' * 60_000) for _ in range(150)]"
            first(f"{fill} and None")  # its answer comes behind them, so that gateway 0 has read them all
            code = f"server.publish({topic!r}, 'one'), await asyncio.sleep(0), block_until({topic!r})"
            first.raw.send(get(f"/eval?code={quote(f'[{code}][-1]')}"))
            assert await early.recv() == "one"
            await asyncio.to_thread(server.wait_log, f"^report blocked until {topic}", since=mark)
            second(f"server.publish({topic!r}, 'two')")
            assert await early.recv() == "two"
        assert await late.recv() == "two"
        server.wait_log("has come to another gateway and not to this one", since=mark)
        (folder / topic).touch()
        assert first.raw.answer().json()["value"] is None
        assert await late.recv() == "one"
        first(f"server.publish({topic!r}, 'three')")
        assert [await early.recv(), await late.recv()] == ["three"] * 2
        after = second("[gateway['published_out_of_order'] for gateway in server.stats()['gateways']]")
        assert after[0] == before[0]
        assert after[1] > before[1]


def test_a_message_in_the_middle_of_publishes(server: Serving, workers: list[Asker], topic: str):
    """Pushes and publishes of one worker to one connection keep their order."""
    with websocket(server) as (raw, fd):
        for asker in workers:
            asker(f"server.subscribe({fd}, {topic!r})")
            asker(f"[[server.publish({topic!r}, f'p{{n}}'), server.push({fd}, f'q{{n}}')] for n in range(50)]")
            assert [raw.text() for _ in range(100)] == [f"{kind}{n}" for n in range(50) for kind in "pq"]
        raw.send(frame(TEXT, b"end"))
        assert raw.text() == "end"
