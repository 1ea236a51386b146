"""Users, from every worker to connections in every gateway; and pause."""

import itertools
from typing import Any

import pytest

from contract.clients import Asker, Raised, crowd, dial
from support.serving import Serving

NAMES = (f"user-{number}" for number in itertools.count())


@pytest.fixture
def user() -> str:
    """A user id that no other test uses."""
    return next(NAMES)


async def test_a_user_is_reached_on_all_connections_from_every_worker(
    server: Serving, mode: dict[str, Any], workers: list[Asker], user: str
):
    async with crowd(server, mode, "/eval") as peers, dial(server) as stranger:
        for peer in peers:
            assert await peer.ask(f"server.bind(fd, {user!r})") is True
        for asker in workers:
            assert sorted(asker(f"server.connections_of({user!r})")) == sorted(peer.fd for peer in peers)
            assert asker(f"server.push_user({user!r}, 'from {asker.worker}')") is None
            for peer in peers:
                assert await peer.recv() == f"from {asker.worker}"
            asker(f"server.push({stranger.fd}, 'fence')")
            assert await stranger.recv() == "fence"


async def test_a_connection_has_one_user_or_none(server: Serving, workers: list[Asker], user: str):
    async with dial(server, "/eval") as peer:
        asker = workers[0]
        for name, there in (("first", [peer.fd]), ("second", [])):
            assert await peer.ask(f"server.bind(fd, '{user}-first')") is True
            if name == "second":
                assert await peer.ask(f"server.bind(fd, '{user}-second')") is True
            assert asker(f"server.connections_of('{user}-first')") == there
        assert asker(f"server.connections_of('{user}-second')") == [peer.fd]
        assert await peer.ask("server.bind(fd, None)") is True
        assert asker(f"server.connections_of('{user}-second')") == []


async def test_it_ends_with_the_connection(server: Serving, workers: list[Asker], user: str):
    async with dial(server, "/eval") as peer:
        assert await peer.ask(f"server.bind(fd, {user!r})") is True
        fd = peer.fd
    for asker in workers:
        assert asker(f"server.connections_of({user!r})") == []
        assert asker(f"server.bind({fd}, {user!r})") is False


async def test_disconnect_user(server: Serving, mode: dict[str, Any], workers: list[Asker], user: str):
    async with crowd(server, mode, "/eval") as peers, dial(server) as stranger:
        for peer in peers:
            assert await peer.ask(f"server.bind(fd, {user!r})") is True
        assert workers[-1](f"server.disconnect_user({user!r}, 4001, 'logged out')") is None
        for peer in peers:
            assert await peer.refused_to_go_on() == (4001, "logged out")
        assert workers[0](f"server.connections_of({user!r})") == []
        assert workers[0](f"server.push({stranger.fd}, 'still here')") is True
        assert await stranger.recv() == "still here"


async def test_a_user_is_no_topic(server: Serving, mode: dict[str, Any], workers: list[Asker], user: str):
    """Nor does it count as one (max_topics is 4 here), and the name of a topic cannot be made to look like a user's."""
    asker = workers[0]
    async with dial(server, "/eval") as peer:
        assert await peer.ask(f"server.bind(fd, {user!r})") is True
        for number in range(4):
            assert await peer.ask(f"server.subscribe(fd, '{user} {number}')") is True
        asker(f"server.publish({user!r}, 'to the topic')")
        asker(f"server.publish('{user} 3', 'to the fourth topic')")
        assert await peer.recv() == "to the fourth topic"
        with pytest.raises(Raised, match="is a str, not bytes"):
            asker(f"server.publish(b'\\xff' + {user.encode()!r}, 'x')")
        assert asker(f"server.push_user({user!r}, b'\\x00\\x01')") is None
        assert await peer.recv() == b"\0\1"


async def test_a_number_is_a_name_too(server: Serving, workers: list[Asker]):
    async with dial(server, "/eval") as peer:
        assert await peer.ask("server.bind(fd, 77001)") is True
        assert workers[0]("server.connections_of('77001')") == [peer.fd]


@pytest.mark.parametrize("user", ["''", "'x' * 255", "'é' * 128", "1.5", "b'bytes'"])
async def test_what_can_be_no_user_is_refused(workers: list[Asker], user: str):
    for call in ("push_user({}, 'x')", "connections_of({})", "bind(1, {})", "disconnect_user({})"):
        with pytest.raises(Raised, match="user id"):
            workers[0](f"server.{call.format(user)}")


async def test_pause_and_resume(server: Serving, workers: list[Asker]):
    """What is sent meanwhile is not handled, and not lost."""
    async with dial(server) as peer:
        asker = workers[-1]
        assert asker(f"server.pause({peer.fd})") is True
        # the gateway has taken it before it answers this
        assert asker(f"server.push({peer.fd}, 'paused')") is True
        assert await peer.recv() == "paused"
        for number in range(40):
            await peer.send(f"number {number}")
        assert asker(f"server.push({peer.fd}, 'still')") is True
        assert await peer.recv() == "still"
        assert asker(f"server.resume({peer.fd})") is True
        assert [await peer.recv() for _ in range(40)] == [f"number {number}" for number in range(40)]
        gone = peer.fd
    assert asker(f"server.pause({gone})") is False
    assert asker(f"server.resume({gone})") is False
