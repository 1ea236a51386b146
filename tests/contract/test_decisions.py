"""What a handler has decided about a connection, its later calls in that worker see at once, whatever the mode."""

from typing import Any

import pytest

from contract.clients import Asker, Raw, all_askers, crowd, get
from support.serving import Serving, eventually

WAYS = {
    "disconnect": "server.disconnect(fd, 4001, 'bye')",
    "close": "server.close(fd)",
    "frame": "server.push(fd, CloseFrame(4001, 'bye'))",
    "user": "[server.bind(fd, f'u{fd}'), server.disconnect_user(f'u{fd}', 4001, 'bye')][0]",
}
SEEN = """[
    server.is_established(fd), server.exists(fd), server.get_client_info(fd).state.name, fd in server.connections,
    server.push(fd, "late"), server.ping(fd), server.push(fd, CloseFrame(1000)), server.disconnect(fd),
    server.subscribe(fd, "late"), server.unsubscribe(fd, "late"), server.bind(fd, "late"), server.pause(fd),
    server.resume(fd), await server.drain(fd),
]""".replace("\n", " ")
CLOSING = [False, True, "CLOSING", True, *[False] * 10]


@pytest.mark.parametrize("way", WAYS)
async def test_a_connection_that_was_closed_is_closing(
    server: Serving, workers: list[Asker], mode: dict[str, Any], way: str
):
    """In every worker, for connections of every gateway, whoever serves them; nothing more reaches the client."""
    for asker in workers:
        async with crowd(server, mode) as peers:
            for peer in peers:
                told = asker(f"[{WAYS[way]}, {SEEN}]", fd=peer.fd)
                assert told == [True, CLOSING]
                assert await peer.refused_to_go_on() == ((1000, "") if way == "close" else (4001, "bye"))
                eventually(lambda asker=asker, fd=peer.fd: not asker("server.exists(fd)", fd=fd))


async def test_what_was_decided_in_a_thread_and_for_many_users(
    server: Serving, workers: list[Asker], mode: dict[str, Any]
):
    """Of a user's connections those that were just bound to somebody else are not concerned."""
    async with crowd(server, mode) as peers:
        fds = [peer.fd for peer in peers]
        for asker in workers[:1]:
            asker("[server.bind(fd, 'both') for fd in fds]", fds=fds)
            seen = "[server.is_established(fd) for fd in fds]"
            code = f"[server.bind(fds[0], 'other'), server.disconnect_user('both'), {seen}]"
            told = asker(code, fds=fds, in_thread=True)
            assert told == [True, None, [True, *[False] * (len(fds) - 1)]]
        assert workers[-1]("server.push(fd, 'still open')", fd=fds[0])
        assert await peers[0].recv() == "still open"
        for peer in peers[1:]:
            assert await peer.refused_to_go_on() == (1000, "")


def test_an_http_connection_whose_last_answer_is_out_is_closing(server: Serving, mode: dict[str, Any]):
    for code in (
        "[response.header('Connection', 'close'), response.end('x')]",
        "[response.end('x'), server.close(request.fd)]",
    ):
        mark = server.mark()
        state = "report('state', server.get_client_info(request.fd).state.name)"
        with Raw(server, get(f"/eval?code=[{code},{state}]".replace(" ", "%20"))) as raw:
            assert raw.answer().body == b"x"
            assert raw.rest() == b""
        assert server.wait_log("^report state", since=mark).string == "report state CLOSING"


async def test_what_was_decided_is_not_kept_in_mind(server: Serving, mode: dict[str, Any]):
    """Neither of connections that are gone, nor of those that never were."""
    kept = "[len(server._worker.outbox.deciding()), server._worker.outbox.ended_count()]"
    with all_askers(server, mode) as askers:
        for asker in askers:
            for _ in range(3):
                async with crowd(server, mode) as peers:
                    for peer in peers:
                        assert asker("server.disconnect(fd)", fd=peer.fd)
                        await peer.ended()
            nobody = [(1 << 57) - 1, 12345, 0, -1, 1 << 70]
            assert asker("[server.disconnect(fd) for fd in fds]", fds=nobody) == [False] * 5
        for asker in askers:
            eventually(lambda asker=asker: asker(kept) == [0, 0])


def test_a_session_and_a_user_are_those_that_were_set(server: Serving, workers: list[Asker]):
    for asker in workers:
        session = "server.session(fd)"
        code = f"[{session}.update(a=1), dict({session}), {session}.pop('a'), dict({session})]"
        assert asker(code, fd=workers[0].fd) == [None, {"a": 1}, 1, {}]
