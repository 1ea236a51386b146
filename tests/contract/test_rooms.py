"""Who is in a room, and everybody but some: `exclude`, `subscribers`, `subscriber_count`."""

import itertools
from typing import Any

import pytest

from contract.clients import Asker, Peer, Raised, crowd, dial, halted
from contract.modes import only
from contract.test_topics import fence
from support.serving import Serving

NAMES = (f"room-{number}" for number in itertools.count())


@pytest.fixture
def room() -> str:
    """A topic that no other test uses."""
    return next(NAMES)


async def enter(peers: list[Peer], asker: Asker, room: str) -> None:
    """Whoever publishes next reaches them: nothing else orders what two workers say to a gateway."""
    for peer in peers:
        assert asker(f"server.subscribe({peer.fd}, {room!r})") is True
    await fence(peers, asker)


async def test_everybody_else_in_the_room(server: Serving, mode: dict[str, Any], workers: list[Asker], room: str):
    """From every worker, each left out in turn, whichever gateway has it."""
    async with crowd(server, mode) as peers:
        await enter(peers, workers[0], room)
        for asker in workers:
            for absent in peers:
                asker(f"server.publish({room!r}, 'from {asker.worker}', exclude={absent.fd})")
                for peer in peers:
                    if peer is not absent:
                        assert await peer.recv() == f"from {asker.worker}"
                await fence(peers, asker)


@pytest.mark.parametrize("kind", ["list", "tuple", "set", "iter"])
async def test_several_are_left_out(server: Serving, mode: dict[str, Any], workers: list[Asker], room: str, kind: str):
    async with crowd(server, mode) as peers, dial(server) as stranger:
        await enter(peers, workers[0], room)
        for count in range(len(peers) + 1):
            absent = [peer.fd for peer in peers[:count]]
            given = [*absent, *absent, stranger.fd, 0, -1, 1 << 70, 12345]
            workers[-1](f"server.publish({room!r}, 'n {count}', exclude={kind}({given}))")
            for peer in peers[count:]:
                assert await peer.recv() == f"n {count}"
            await fence([*peers, stranger], workers[-1])


async def test_nobody_is_left_out_by_none(server: Serving, workers: list[Asker], room: str):
    async with dial(server) as peer:
        await enter([peer], workers[0], room)
        for nobody in ("None", "()", "[]", "0"):
            workers[0](f"server.publish({room!r}, 'heard', exclude={nobody})")
            assert await peer.recv() == "heard"


async def test_a_sender_is_left_out_of_its_own_room(server: Serving, room: str):
    """And what it is pushed comes in order with what it publishes."""
    async with dial(server, "/eval") as sender, dial(server) as other:
        assert await sender.ask(f"server.subscribe({other.fd}, {room!r})") is True
        assert await sender.ask(f"server.subscribe(fd, {room!r})") is True
        await sender.send(
            f"[server.publish({room!r}, 'a'), server.publish({room!r}, 'b', exclude=fd), server.push(fd, 'c'), "
            f"server.publish({room!r}, 'd')]"
        )
        assert await sender.take(3) == ["a", "c", "d"]
        assert await other.take(3) == ["a", "b", "d"]


async def test_the_other_tabs_of_a_user(server: Serving, mode: dict[str, Any], workers: list[Asker], room: str):
    async with crowd(server, mode, "/eval") as peers:
        for peer in peers:
            assert await peer.ask(f"server.bind(fd, {room!r})") is True
        for asker in workers:
            asker(f"server.push_user({room!r}, 'elsewhere', exclude={peers[0].fd})")
            for peer in peers[1:]:
                assert await peer.recv() == "elsewhere"
            await fence(peers, asker)


@pytest.mark.parametrize(
    ("exclude", "kind", "message"),
    [
        ("'5'", "TypeError", "an fd is an int, such as frame.fd or request.fd, not '5' of type str"),
        ("['5']", "TypeError", "not '5' of type str"),
        ("b'5'", "TypeError", "not b'5' of type bytes"),
        ("2.0", "TypeError", "not 2.0 of type float"),
        ("[None]", "TypeError", "not None of type NoneType"),
        ("True", "TypeError", "exclude is the fd that is left out, or several, not True"),
        ("frame", "TypeError", "of type Frame"),
        ("range(1, 1026)", "ValueError", "exclude has more than 1024 fds, and no more can be left out"),
        ("itertools.count(1)", "ValueError", "exclude has more than 1024 fds, and no more can be left out"),
    ],
)
def test_what_cannot_be_left_out(workers: list[Asker], room: str, exclude: str, kind: str, message: str):
    with pytest.raises(Raised) as raised:
        workers[0](f"(lambda frame: server.publish({room!r}, 'x', exclude={exclude}))(Frame('text'))")
    assert raised.value.kinds[0] == kind
    assert message in raised.value.message


async def test_as_many_as_may_be_left_out(server: Serving, mode: dict[str, Any], workers: list[Asker], room: str):
    async with crowd(server, mode) as peers:
        await enter(peers, workers[0], room)
        absent = [peer.fd for peer in peers[1:]]
        workers[0](f"server.publish({room!r}, 'x' * 5000, exclude=[*range(1, 1025 - {len(absent)}), *{absent}])")
        assert await peers[0].recv() == "x" * 5000
        await fence(peers, workers[0])


@only("process-2")
async def test_it_keeps_the_order_of_all_gateways(
    server: Serving, mode: dict[str, Any], workers: list[Asker], room: str
):
    """Two workers publish one after the other, both without the same client, while a gateway is behind."""
    first, second = workers
    async with crowd(server, mode) as peers:
        await enter(peers, first, room)
        late = [peer for peer in peers if peer.gateway == 1]
        absent = peers[0]
        heard: dict[int, list[str]] = {}
        with halted(server.pid_of("gateway 1")):
            second(f"server.push({late[0].fd}, 'older')")
            first(f"server.publish({room!r}, 'one', exclude={absent.fd})")
            second(f"server.publish({room!r}, 'two', exclude={absent.fd})")
            first(f"server.publish({room!r}, 'three')")
        for peer in peers:
            pushed = peer is late[0]
            heard[peer.fd] = [str(message) for message in await peer.take(1 if peer is absent else 3 + pushed)]
            if pushed:  # of a push and the publishes of another worker nothing says which is first
                heard[peer.fd].remove("older")
        assert heard.pop(absent.fd) == ["three"]
        orders = list(heard.values())
        assert all(order == orders[0] for order in orders)
        assert sorted(orders[0]) == ["one", "three", "two"]


# ---------------------------------------------------------------------------------------------- who is there


async def test_who_is_in_a_room(server: Serving, mode: dict[str, Any], workers: list[Asker], room: str):
    async with crowd(server, mode) as peers, dial(server):
        for asker in workers:
            assert asker(f"server.subscribers({room!r})") == []
            assert asker(f"server.subscriber_count({room!r})") == 0
        for count, peer in enumerate(peers, 1):
            assert workers[0](f"server.subscribe({peer.fd}, {room!r}) and server.subscriber_count({room!r})") == count
        for asker in workers:
            for in_thread in (False, True):
                listed = asker(f"server.subscribers({room!r})", in_thread=in_thread)
                assert sorted(listed) == sorted(peer.fd for peer in peers)
                assert asker(f"server.subscriber_count({room!r})", in_thread=in_thread) == len(peers)
        workers[0](f"server.unsubscribe({peers[0].fd}, {room!r})")
        assert sorted(workers[0](f"server.subscribers({room!r})")) == sorted(peer.fd for peer in peers[1:])


async def test_who_leaves_is_not_in_the_room_when_close_is_told(server: Serving, workers: list[Asker], room: str):
    """So that `close` can say how many are left."""
    mark = server.mark()
    asked = f"[server.subscriber_count({room!r}), server.subscribers({room!r})]"
    async with dial(server) as stays:
        async with dial(server, name="leaver", close=asked) as leaves:
            await enter([stays, leaves], workers[0], room)
            assert workers[0](f"server.subscriber_count({room!r})") == 2
        told = server.wait_log(r"^report leaver closing (.*)", since=mark)
        assert told[1] == f"[1, [{stays.fd}]]"


async def test_who_is_being_closed_is_not_in_the_room(server: Serving, workers: list[Asker], room: str):
    """What is published does not reach it either."""
    async with dial(server) as stays, dial(server) as leaves:
        await enter([stays, leaves], workers[0], room)
        code = f"[server.disconnect({leaves.fd}), server.subscribers({room!r}), server.subscriber_count({room!r})]"
        assert workers[0](code) == [True, [stays.fd], 1]


@pytest.mark.parametrize("name", ["''", "'x' * 256"])
def test_what_is_no_name_of_a_room(workers: list[Asker], name: str):
    for call in ("subscribers", "subscriber_count"):
        with pytest.raises(Raised, match="a topic's name has 1 to 255 bytes") as raised:
            workers[0](f"server.{call}({name})")
        assert "ValueError" in raised.value.kinds


def test_a_user_is_no_room(workers: list[Asker]):
    with pytest.raises(Raised, match="a topic's name is a str, not bytes"):
        workers[0]("server.subscribers(b'\\xffann')")


@only("process-2")
async def test_a_gateway_that_stands_still_is_named(server: Serving, workers: list[Asker], room: str):
    with halted(server.pid_of("gateway 1")), pytest.raises(Raised, match="gateway 1 does not answer") as raised:
        workers[0](f"server.subscribers({room!r})")
    assert "StateError" in raised.value.kinds
