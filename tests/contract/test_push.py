"""push, disconnect, close, and what can be asked about a connection: from every worker, for every connection."""

import contextlib
import json
import time
from typing import Any

import pytest

from contract.clients import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Asker,
    Peer,
    Raised,
    Raw,
    close_frame,
    crowd,
    dial,
    get,
    handshake,
    websocket,
)
from frames import frame
from mooring import ConnectionState
from support.serving import Serving, eventually

# ---------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    ("pushed", "opcode", "payload"),
    [
        ("'grüße'", TEXT, "grüße".encode()),
        ("''", TEXT, b""),
        ("'grüße'.encode()", BINARY, "grüße".encode()),
        ("bytearray(b'abc')", BINARY, b"abc"),
        ("memoryview(b'abc')", BINARY, b"abc"),
        (r"b'\xff'", BINARY, b"\xff"),
        ("b'', None", BINARY, b""),
        ("'', None", TEXT, b""),
        ("'grüße'.encode(), Opcode.TEXT", TEXT, "grüße".encode()),
        ("bytearray(b'abc'), opcode=1", TEXT, b"abc"),
        (r"b'\xff\x00', Opcode.BINARY", BINARY, b"\xff\x00"),
        (r"b'\xff\x00', 2", BINARY, b"\xff\x00"),
        (r"bytes(range(256)), opcode=Opcode.BINARY", BINARY, bytes(range(256))),
        ("'text', Opcode.BINARY", BINARY, b"text"),
        ("Frame('text')", TEXT, b"text"),
        (r"Frame(b'\xff')", BINARY, b"\xff"),
        ("Frame(b'text', Opcode.TEXT)", TEXT, b"text"),
        (r"Frame(b'\xff'), Opcode.TEXT", BINARY, b"\xff"),  # a Frame brings its own opcode
        ("frame", TEXT, b"server.push(fd, frame)"),
        ("b'are you there', Opcode.PING", PING, b"are you there"),
        ("'', Opcode.PING", PING, b""),
        ("b'x' * 125, Opcode.PING", PING, b"x" * 125),
        ("Frame(b'p', Opcode.PING)", PING, b"p"),
        ("b'i am here', Opcode.PONG", PONG, b"i am here"),
        ("CloseFrame(4005, 'grüße')", CLOSE, (4005).to_bytes(2, "big") + "grüße".encode()),
        ("CloseFrame()", CLOSE, b"\x03\xe8"),
    ],
)
def test_a_push_is_one_frame(server: Serving, pushed: str, opcode: int, payload: bytes):
    """Exactly these bytes, behind the answer True and before whatever is pushed next."""
    with websocket(server, "/eval") as (raw, _):
        raw.send(frame(TEXT, f"server.push(fd, {pushed})".encode()))
        assert raw.frame() == (opcode, payload)
        if opcode == CLOSE:
            raw.send(frame(CLOSE, payload))
            assert raw.rest() == b""
        else:
            assert json.loads(raw.text())["value"] is True


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_every_form_of_length(server: Serving, size: int):
    with websocket(server, "/eval") as (raw, _):
        raw.send(frame(TEXT, f"server.push(fd, b'z' * {size}, Opcode.BINARY)".encode()))
        assert raw.frame() == (BINARY, b"z" * size)


@pytest.mark.parametrize(
    ("pushed", "message"),
    [
        ("'x', 3", "opcode 3: RFC 6455 knows 0, 1, 2, 8, 9 and 10"),
        ("'x', 11", "opcode 11"),
        ("'x', 16", "opcode 16"),
        ("'x', -1", "opcode -1"),
        ("'x', Opcode.CONTINUATION", "continuation"),
        ("'x', Opcode.CLOSE", "CloseFrame"),
        (r"b'\xff', Opcode.TEXT", "UTF-8"),
        (r"b'caf\xc3', Opcode.TEXT", "UTF-8"),
        (r"b'\xed\xa0\x80', Opcode.TEXT", "UTF-8"),
        (r"'\ud800'", "surrogates"),
        (r"Frame(b'\xff', Opcode.TEXT)", "UTF-8"),
        ("[setattr(frame, 'finish', False), frame][1]", "finish=False"),
        ("Frame('x', Opcode.CONTINUATION)", "continuation"),
        ("Frame('x', Opcode.CLOSE)", "CloseFrame"),
        ("b'x' * 126, Opcode.PING", "125"),
        ("b'x' * 126, Opcode.PONG", "125"),
        ("CloseFrame(1005)", "1005"),
        ("CloseFrame(1000, 'x' * 124)", "123"),
    ],
)
async def test_what_cannot_be_sent_is_a_value_error(server: Serving, pushed: str, message: str):
    async with dial(server, "/eval") as peer:
        with pytest.raises(Raised) as raised:
            await peer.ask(f"server.push(fd, {pushed})")
        assert "ValueError" in raised.value.kinds
        assert message in raised.value.message
        assert await peer.ask("'nothing was sent, and the connection is well'")


@pytest.mark.parametrize("pushed", ["None", "5", "['x']", "{}"])
async def test_what_is_no_data_is_a_type_error(server: Serving, pushed: str):
    async with dial(server, "/eval") as peer:
        with pytest.raises(Raised) as raised:
            await peer.ask(f"server.push(fd, {pushed})")
        assert raised.value.kinds[0] == "TypeError"
        assert "a message is a str, bytes or a Frame, not" in raised.value.message


TEXTS = """[
    server.subscribe(fd, Kind("a topic")), server.publish(Kind("a topic"), Kind("published")),
    server.unsubscribe(fd, Kind("a topic")), server.push(fd, Kind("pushed")), server.bind(fd, Kind("a user")),
    server.push_user(Kind("a user"), Kind("to a user")), server.disconnect(fd, 4000, Kind("bye")),
]"""


@pytest.mark.parametrize(
    "kind",
    [
        "type('Kind', (str,), {'encode': None, '__str__': None})(text)",
        "__import__('enum').StrEnum('Kind', {'ONE': text}).ONE",
    ],
)
async def test_a_text_may_be_more_than_a_str(server: Serving, kind: str):
    """A StrEnum, markup that is safe: what counts is its text."""
    code = TEXTS.replace("Kind(", f"(lambda text: {kind})(")
    async with dial(server, "/eval") as peer:
        await peer.send(code)
        told = [await peer.recv() for _ in range(3)]
        assert sorted(told) == ["published", "pushed", "to a user"]
        assert await peer.ended() == (4000, "bye")


# fds of nobody: made up, of another gateway, of one there can't be, and none at all
STRANGERS = ["1", "1 << 22", "5 << 57", "63 << 57 | 12345", "(1 << 63) - 1", "0", "-1", "1 << 63", "1 << 64", "1 << 90"]


@pytest.mark.parametrize("fd", STRANGERS)
def test_unknown_fds(workers: list[Asker], fd: str):
    """Nothing happens, and nothing raises."""
    for asker in workers:
        assert asker(f"server.push({fd}, 'x')") is False
        assert asker(f"server.push({fd}, CloseFrame())") is False
        assert asker(f"server.disconnect({fd})") is False
        assert asker(f"server.close({fd})") is False
        assert asker(f"server.exists({fd})") is False
        assert asker(f"server.is_established({fd})") is False
        assert asker(f"server.get_client_info({fd})") is None
        assert asker(f"server.subscribe({fd}, 'topic')") is False
        assert asker(f"server.unsubscribe({fd}, 'topic')") is False
        assert asker(f"dict(server.session({fd}))") == {}


async def test_gone_fds(server: Serving, workers: list[Asker]):
    async with dial(server) as peer:
        fd = peer.fd
    for asker in workers:
        eventually(lambda asker=asker: asker(f"server.exists({fd})") is False)
        for method in ("push", "subscribe", "unsubscribe"):
            assert asker(f"server.{method}({fd}, 'x')") is False
        for method in ("disconnect", "close", "is_established"):
            assert asker(f"server.{method}({fd})") is False
        assert asker(f"server.get_client_info({fd})") is None
        assert fd not in asker("server.connections")


def test_fds_of_http_connections(workers: list[Asker]):
    """They exist, and are no WebSocket."""
    for asker in workers:
        for other in workers:
            assert asker(f"server.exists({other.fd})") is True
            assert asker(f"server.is_established({other.fd})") is False
            assert asker(f"server.push({other.fd}, 'x')") is False
            assert asker(f"server.disconnect({other.fd})") is False
            assert asker(f"server.subscribe({other.fd}, 'x')") is False


# ---------------------------------------------------------------------------------------------- from everywhere

THREADS = pytest.mark.parametrize("in_thread", [False, True], ids=["in the loop", "in a thread"])


@THREADS
async def test_push_from_every_worker(server: Serving, mode: dict[str, Any], workers: list[Asker], in_thread: bool):
    async with crowd(server, mode) as peers:
        for asker in workers:
            for peer in peers:
                assert asker(f"server.push({peer.fd}, 'from {asker.worker}')", in_thread=in_thread) is True
                assert await peer.recv() == f"from {asker.worker}"


@THREADS
async def test_disconnect_from_every_worker(
    server: Serving, mode: dict[str, Any], workers: list[Asker], in_thread: bool
):
    for asker in workers:
        async with crowd(server, mode) as peers:
            for number, peer in enumerate(peers):
                code = f"server.disconnect({peer.fd}, {4000 + number}, 'by {asker.worker}')"
                assert asker(code, in_thread=in_thread) is True
                assert await peer.refused_to_go_on() == (4000 + number, f"by {asker.worker}")


@THREADS
async def test_close_from_every_worker(server: Serving, mode: dict[str, Any], workers: list[Asker], in_thread: bool):
    for asker in workers:
        async with crowd(server, mode) as peers:
            for peer in peers:
                assert asker(f"server.close({peer.fd})", in_thread=in_thread) is True
                assert await peer.refused_to_go_on() == (1000, "")


@THREADS
async def test_looks_from_every_worker(server: Serving, mode: dict[str, Any], workers: list[Asker], in_thread: bool):
    async with crowd(server, mode) as peers:
        for asker in workers:
            for peer in peers:
                assert asker(f"server.exists({peer.fd})", in_thread=in_thread) is True
                assert asker(f"server.is_established({peer.fd})", in_thread=in_thread) is True
                assert asker(f"server.get_client_info({peer.fd}).worker_id", in_thread=in_thread) == peer.worker
            fds = asker("server.connections", in_thread=in_thread)
            assert len(fds) == len(set(fds))
            assert {peer.fd for peer in peers} | {other.fd for other in workers} <= set(fds)


def test_close_ends_an_http_connection(server: Serving, workers: list[Asker]):
    for asker in workers:
        with Raw(server, get("/eval?code=request.fd")) as raw:
            fd = raw.answer().json()["value"]
            assert asker(f"server.close({fd})") is True
            assert raw.rest() == b""
        eventually(lambda asker=asker, fd=fd: asker(f"server.exists({fd})") is False)


def test_a_push_from_a_thread_wakes_the_loop(server: Serving, workers: list[Asker]):
    """The worker sleeps, and no event of its own will wake it soon."""
    with websocket(server) as (raw, fd):
        for asker in workers:
            code = f"[server.push({fd}, 'one'), server.publish('nobody', 'x'), server.push({fd}, 'two')]"
            asker(f"run_later(0.05, {code!r})")
            began = time.monotonic()
            assert raw.text() == "one"
            assert raw.text() == "two"
            assert time.monotonic() - began < 2


async def test_pushes_of_threads_do_not_mix(server: Serving, workers: list[Asker]):
    """Four threads and the loop push to one connection: whole frames, each one's in its order."""
    count = 300
    async with dial(server, "/eval") as peer:
        for asker in workers:
            push = f"[server.push({peer.fd}, f'{{who}} {{n}} ' + 'x' * n) for n in range({count})]"
            names = ["a", "b", "c", "d"]
            threads = [f"asyncio.to_thread(lambda who={name!r}: {push})" for name in names]
            code = f"await asyncio.gather({', '.join(threads)}, (lambda who='e': asyncio.sleep(0, {push}))())"
            assert asker(code) == [[True] * count] * 5
            got: dict[str, list[int]] = {}
            for message in await peer.take(5 * count):
                who, number, filling = str(message).split(" ")
                assert filling == "x" * int(number)
                got.setdefault(who, []).append(int(number))
            assert got == {name: list(range(count)) for name in [*names, "e"]}


async def test_pushes_arrive_in_order(server: Serving, workers: list[Asker]):
    async with dial(server) as peer:
        for asker in workers:
            pushes = f"[server.push({peer.fd}, str(n), n % 2 + 1) for n in range(1000)]"
            assert asker(pushes) == [True] * 1000
            assert await peer.take(1000) == [b"%d" % n if n % 2 else str(n) for n in range(1000)]


async def test_a_push_in_open_comes_behind_the_101(server: Serving):
    """Never before: a client would take it for nonsense."""
    for _ in range(20):
        with Raw(server, handshake("/echo?open=server.push(fd,'second')")) as raw:
            assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            assert "fd" in json.loads(raw.text())
            assert raw.text() == "second"


async def test_push_in_the_close_handler(server: Serving):
    """The connection that closes is gone; others are not."""
    mark = server.mark()
    async with dial(server) as other:
        code = f"[server.push(fd, 'x'), server.exists(fd), server.push({other.fd}, 'it left')]"
        async with dial(server, name="leaving", close=code):
            pass
        assert await other.recv() == "it left"
    server.wait_log(r"^report leaving closing \[false, false, true\]", since=mark)


# ---------------------------------------------------------------------------------------------- disconnect


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", (1000, "")),
        (", 1001", (1001, "")),
        (", 3000, 'x'", (3000, "x")),
        (", CloseCode.SERVICE_RESTART, 'grüße €'", (1012, "grüße €")),
        (", code=4999, reason='x' * 123", (4999, "x" * 123)),
    ],
)
async def test_disconnect_tells_the_client_and_the_handler(server: Serving, arguments: str, expected: tuple[int, str]):
    mark = server.mark()
    async with dial(server, "/eval", name="sent_away") as peer:
        await peer.send(f"server.disconnect(fd{arguments})")
        assert await peer.refused_to_go_on() == expected
    server.wait_log(rf"^report sent_away close {expected[0]} {expected[1]}$", since=mark)
    assert len([line for line in server.reports("sent_away", mark) if line.startswith("close")]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *["0", "-1", "1", "999", "1004", "1005", "1006", "1015", "1016", "2999", "5000", "65536", "1 << 40"],
        "1000, 'x' * 124",
        "1000, 'ü' * 62",
        r"1000, '\ud800'",
    ],
)
async def test_what_no_close_frame_can_say_is_a_value_error(server: Serving, arguments: str):
    async with dial(server, "/eval") as peer:
        for fd in (peer.fd, 1):
            with pytest.raises(Raised) as raised:
                await peer.ask(f"server.disconnect({fd}, {arguments})")
            assert "ValueError" in raised.value.kinds, raised.value
        assert await peer.ask("server.is_established(fd)")


async def test_after_disconnect_nothing_is_sent(server: Serving, workers: list[Asker]):
    """What one worker does is done in that order: pushed before, closed, pushed in vain."""
    for asker in workers:
        async with dial(server) as peer:
            asker(f"[server.push({peer.fd}, 'a'), server.disconnect({peer.fd}, 4000), server.push({peer.fd}, 'b')]")
            assert await peer.recv() == "a"
            assert await peer.refused_to_go_on() == (4000, "")


async def test_disconnect_twice(server: Serving):
    """The first one counts."""
    mark = server.mark()
    async with dial(server, "/eval", name="twice") as peer:
        await peer.send("[server.disconnect(fd, 4001), server.disconnect(fd, 4002), server.close(fd)]")
        assert await peer.refused_to_go_on() == (4001, "")
    server.wait_log("^report twice close 4001 $", since=mark)


def test_disconnect_waits_for_the_peers_answer(server: Serving):
    """The connection ends when the client has answered, and is not established meanwhile (RFC 6455 section 7.1.1)."""
    with websocket(server, "/eval") as (raw, fd), Raw(server) as other:
        raw.send(frame(TEXT, b"server.disconnect(fd, 4000, 'x')"))
        assert raw.close_frame() == (4000, "x")
        state = f"server.get_client_info({fd}).state"
        code = f"[server.exists({fd}),server.is_established({fd}),{state},server.push({fd},'x')]"
        other.send(get(f"/eval?code={code}"))
        assert other.answer().json()["value"] == [True, False, ConnectionState.CLOSING, False]
        raw.send(frame(TEXT, b"too late, not handled") + close_frame(4000))
        assert raw.rest() == b""


# ---------------------------------------------------------------------------------------------- what is known


def test_client_info_of_a_websocket(server: Serving, workers: list[Asker]):
    began = time.time()
    with websocket(server, "/eval") as (raw, fd):
        raw.send(frame(TEXT, b"dataclasses.asdict(server.get_client_info(fd))"))
        inside = json.loads(raw.text())
        for asker in workers:
            info = asker(f"dataclasses.asdict(server.get_client_info({fd}))")
            assert info["fd"] == fd
            assert info["state"] == ConnectionState.OPEN
            assert (info["remote_ip"], info["remote_port"]) == raw.socket.getsockname()
            assert info["server_port"] == server.port
            assert info["worker_id"] == inside["worker"]
            assert began - 0.1 <= info["connect_time"] <= info["last_receive_time"] <= time.time() + 0.1
            assert info["messages_received"] == 1
            assert info["messages_sent"] == 2
            assert info["bytes_received"] > 150
            assert info["bytes_sent"] > 150
            # it is acknowledged behind the answer that we have
            eventually(lambda asker=asker: asker(f"server.get_client_info({fd}).in_flight") == 0)
        assert inside["value"]["in_flight"] == 1  # the message that asks
        assert set(inside["value"]) == set(info)


def test_client_info_of_a_request(server: Serving, workers: list[Asker]):
    for asker in workers:
        info = asker("dataclasses.asdict(server.get_client_info(request.fd))")
        assert info["fd"] == asker.fd
        assert info["state"] == ConnectionState.HTTP
        assert info["worker_id"] == asker.worker
        assert info["remote_port"] == asker.raw.socket.getsockname()[1]
        # what was asked before is acknowledged behind its answer, perhaps not yet
        eventually(lambda asker=asker: asker("server.get_client_info(request.fd).in_flight") == 1)


def test_last_receive_time_goes_on(server: Serving, workers: list[Asker]):
    with websocket(server) as (raw, fd):
        look = f"server.get_client_info({fd}).last_receive_time"
        before = workers[0](look)
        time.sleep(0.02)
        raw.send(frame(PING))
        assert raw.frame() == (PONG, b"")
        assert before < workers[-1](look) <= time.time() + 0.1


async def test_fds_differ(server: Serving, mode: dict[str, Any]):
    """Also those of connections that came after others had gone."""
    seen: list[int] = []

    async def come_and_go() -> None:
        async with crowd(server, mode) as peers:
            seen.extend(peer.fd for peer in peers)

    for _ in range(3):
        await come_and_go()
    assert len(set(seen)) == len(seen)
    assert all(0 < fd < 1 << 63 for fd in seen)


async def test_a_stale_fd_reaches_nobody(server: Serving, workers: list[Asker]):
    """The place of a connection is taken again by the next: its old id stays dead."""
    async with dial(server) as first:
        stale = first.fd
    eventually(lambda: workers[0](f"server.exists({stale})") is False)
    async with contextlib.AsyncExitStack() as stack:
        newer: list[Peer] = [await stack.enter_async_context(dial(server)) for _ in range(4)]
        for asker in workers:
            assert asker(f"server.push({stale}, 'not for you')") is False
            assert asker(f"server.disconnect({stale})") is False
        for peer in newer:
            await peer.send("mine")
            assert await peer.recv() == "mine"
