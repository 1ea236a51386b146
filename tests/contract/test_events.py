"""Which handlers are called: each event in the right process, with its parameters, as often as it happens."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from websockets.sync.client import connect

from contract.clients import Asker, Peer, Raw, all_askers, close_frame, dial, get, websocket
from contract.modes import only
from frames import frame
from support.serving import Serving

# KIND stands for `def` or `async def`.
EVERY_EVENT = """
def here(word, given, *rest):
    report(word, os.getpid(), given is server, server.worker_id, *rest)

@server.on("start")
KIND started(server):
    here("start", server)

@server.on("worker_start")
KIND worker_started(server, worker_id):
    here("worker_start", server, worker_id, server.connections)

@server.on("worker_stop")
KIND worker_stopped(server, worker_id):
    here("worker_stop", server, worker_id)

@server.on("shutdown")
KIND stopped(server):
    here("shutdown", server)

@server.on("open")
KIND opened(server, request):
    here("open", server, request.fd, type(request).__name__, request.path, request.query)

@server.on("message")
KIND said(server, frame):
    about = [type(frame).__name__, repr(frame.data), int(frame.opcode), frame.finish, frame.flags, frame.attempt]
    here("message", server, frame.fd, *about)
    server.push(frame.fd, "got it")

@server.on("close")
KIND left(server, fd, code, reason):
    here("close", server, fd, code, reason)

@server.on("request")
KIND asked(request, response):
    here("request", server, request.method, request.path, type(response).__name__)
    response.end("answered")
"""


def pids_of_workers(server: Serving, mode: dict[str, Any]) -> list[int]:
    role = "worker" if mode["mode"] == "process" else "server"
    return [server.pid_of(f"{role} {number}") for number in range(mode["worker_num"])]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_every_event(mode: dict[str, Any], kind: str):
    """One client and one request, from the start to the end of a server."""
    with Serving(EVERY_EVENT.replace("KIND", kind), **mode) as server:
        server.wait_log("^report start ")
        pids = pids_of_workers(server, mode)
        with connect(server.url + "/a%20b?x=1", proxy=None) as ws:
            for message in ("text", b"binary"):
                ws.send(message)
                assert ws.recv(10) == "got it"
            ws.close(4001, "grüße")
        server.wait_log("^report close ")
        with Raw(server, get("/page", "Connection: close", method="POST")) as raw:
            assert raw.answer().body == b"answered"
        assert server.stop() == 0
        said = [line.split(maxsplit=1) for line in server.reports()]

    def of(word: str) -> list[str]:
        return [rest for event, rest in said if event == word]

    # a worker's own life
    assert sorted(of("worker_start")) == sorted(f"{pid} True {n} {n} []" for n, pid in enumerate(pids))
    assert sorted(of("worker_stop")) == sorted(f"{pid} True {n} {n}" for n, pid in enumerate(pids))
    assert of("start") == [f"{pids[0]} True 0"]
    assert of("shutdown") == [f"{pids[0]} True 0"]
    # the client, all in one worker
    pid, _, worker, fd = of("open")[0].split()[:4]
    assert pid == str(pids[int(worker)])
    where = f"{pid} True {worker}"
    assert of("open") == [f"{where} {fd} Request /a b {{'x': '1'}}"]
    assert of("message") == [f"{where} {fd} Frame 'text' 1 True 0 1", f"{where} {fd} Frame b'binary' 2 True 0 1"]
    assert of("close") == [f"{where} {fd} 4001 grüße"]
    (request,) = of("request")
    assert request.split()[1:] == ["True", str(pids.index(int(request.split()[0]))), "POST", "/page", "Response"]
    # and their order
    words = [event for event, _ in said]
    count = mode["worker_num"]
    assert words == [
        *["worker_start"] * count,
        "start",
        *["open", "message", "message", "close"],
        "request",
        *["worker_stop"] * count,
        "shutdown",
    ]


@only("base", "process")
def test_a_handler_can_be_any_callable(mode: dict[str, Any]):
    """Objects, bound methods and partials; also given to on() directly."""
    app = """
    import functools

    class Handler:
        async def __call__(self, server, frame):
            server.push(frame.fd, f"object {frame.data}")

        def left(self, server, fd, code, reason):
            report("left", code)

    def opened(word, server, request):
        server.push(request.fd, word)

    handler = Handler()
    assert server.on("message", handler) is handler
    server.on("close", handler.left)
    server.on("open", functools.partial(opened, "welcome"))
    """
    with Serving(app, **mode) as server:
        with connect(server.url, proxy=None) as ws:
            assert ws.recv(10) == "welcome"
            ws.send("x")
            assert ws.recv(10) == "object x"
        server.wait_log("^report left 1000")


@only("base", "base-2", "process")
def test_a_failing_worker_start_ends_the_start(mode: dict[str, Any]):
    app = """
    @server.on("message")
    def said(server, frame): ...

    @server.on("worker_start")
    def started(server, worker_id):
        raise RuntimeError("the database is not there")

    @server.on("start")
    def never(server):
        report("start")
    """
    with Serving(app, ready=False, **mode) as server:
        assert server.ended() == 1
        text = "\n".join(server.lines)
        assert "Traceback" in text
        assert "RuntimeError: the database is not there" in text
        assert "report start" not in text


@only("base", "process")
def test_a_failing_start_handler_ends_nothing(mode: dict[str, Any]):
    app = """
    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, frame.data)

    @server.on("start")
    def fails(server):
        raise RuntimeError("on purpose")
    """
    with Serving(app, **mode) as server:
        server.wait_log("RuntimeError: on purpose")
        with connect(server.url, proxy=None) as ws:
            ws.send("still here")
            assert ws.recv(10) == "still here"
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------- order


def reports_of(server: Serving, name: str, since: int = 0) -> list[str]:
    server.wait_log(rf"^report {name} close ", since=since)
    return server.reports(name, since)


async def test_open_first_and_close_last(server: Serving):
    """`open` is suspended while messages come in, and the last message while the client leaves."""
    mark = server.mark()
    wait = "await asyncio.sleep(0.1)"
    async with dial(server, "/order", name="ordered", open=wait, close=wait) as peer:
        await peer.send("1 0.05")
        await peer.send("2 0")
        await peer.send("3 0.1")
        await peer.ws.close(4002, "bye")
    assert await asyncio.to_thread(reports_of, server, "ordered", mark) == [
        "open /order",
        "opened null",
        *["message 1 0.05", "handled 1 0.05"],
        *["message 2 0", "handled 2 0"],
        *["message 3 0.1", "handled 3 0.1"],
        "closing null",
        "close 4002 bye",
    ]


async def test_messages_one_at_a_time(server: Serving):
    """However long each handler is suspended: none overtakes, none overlaps, for each of several connections."""

    async def talk() -> None:
        async with dial(server, "/order") as peer:
            for number in range(12):
                await peer.send(f"{number} {(number * 5 % 4) * 0.004}")
            expected = [f"{word} {number}" for number in range(12) for word in ("begin", "end")]
            assert await peer.take(24) == expected

    await asyncio.gather(*[talk() for _ in range(6)])


async def test_others_go_on_while_one_handler_waits(server: Serving, mode: dict[str, Any], folder):
    """A handler that is suspended holds up its own connection and nobody else, in its own worker neither."""
    go_on = folder / "others go on"
    async with contextlib.AsyncExitStack() as stack:
        held = await stack.enter_async_context(dial(server, "/eval"))
        await held.send(f"await seen({go_on.name!r})")
        await held.send("'the next message of the same connection'")
        others = [await stack.enter_async_context(dial(server)) for _ in range(4)]
        for other in others:
            await other.send("hello")
            assert await other.recv() == "hello"
        if mode["mode"] == "process":
            assert {0, 1} == {other.worker for other in others}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(held.recv(), 0.05)
        go_on.touch()
        assert json.loads(await held.recv())["value"] is None
        assert json.loads(await held.recv())["value"] == "the next message of the same connection"


async def test_a_push_from_elsewhere_reaches_a_connection_whose_handler_waits(
    server: Serving, workers: list[Asker], folder
):
    go_on = folder / "a push from elsewhere"
    async with dial(server, "/eval") as held:
        await held.send(f"await seen({go_on.name!r})")
        for asker in workers:
            assert asker(f"server.push({held.fd}, 'from {asker.worker}')")
            assert await held.recv() == f"from {asker.worker}"
        go_on.touch()
        assert json.loads(await held.recv())["value"] is None


# ---------------------------------------------------------------------------------------------- close


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (close_frame(1000), "1000"),
        (close_frame(1001, b"page closed"), "1001 page closed"),
        (close_frame(3000, "grüße €".encode()), "3000 grüße €"),
        (close_frame(4999, b"x" * 123), "4999 " + "x" * 123),
        (close_frame(None), "1005"),
        (frame(1, b"not finished", fin=False) + close_frame(4003), "4003"),
        (frame(8, b"\x03"), "1002 a close frame with a wrong payload (RFC 6455 section 5.5.1)"),
    ],
    ids=["1000", "1001", "utf8", "longest", "no code", "in a fragmented message", "wrong"],
)
def test_close_tells_code_and_reason(server: Serving, payload: bytes, expected: str):
    mark = server.mark()
    with websocket(server, name="closing") as (raw, _):
        raw.send(payload)
        raw.close_frame()
        assert raw.rest() == b""
    assert reports_of(server, "closing", mark) == ["open /echo", f"close {expected}"]


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_lost_connection_closes_with_1006(server: Serving, how: str):
    mark = server.mark()
    with websocket(server, name="lost") as (raw, _):
        raw.send(frame(1, b"x"))
        assert raw.text() == "x"
        if how == "reset":
            raw.reset()
    first, *rest, last = reports_of(server, "lost", mark)
    assert first == "open /echo"
    assert rest == ["message x", "handled x"]
    assert last.startswith("close 1006 ")


def test_what_was_sent_before_the_end_is_handled(server: Serving):
    """A client that sends, and is gone at once: its messages come first, its `close` last."""
    mark = server.mark()
    with websocket(server, "/order", name="hasty") as (raw, _):
        raw.send(b"".join(frame(1, b"%d 0" % n) for n in range(5)) + close_frame(4004))
    said = reports_of(server, "hasty", mark)
    assert [line for line in said if line.startswith("handled")] == [f"handled {n} 0" for n in range(5)]
    assert said[0] == "open /order"
    assert said[-1] == "close 4004"


def test_messages_behind_the_close_frame_are_not_handled(server: Serving):
    mark = server.mark()
    with websocket(server, name="behind") as (raw, _):
        raw.send(frame(1, b"before") + close_frame(1000) + frame(1, b"behind"))
        # the gateway answers it at once: the echo of the message may come too late, and is not sent then
        assert raw.rest() in (b"\x88\x02\x03\xe8", b"\x81\x06before\x88\x02\x03\xe8")
    assert reports_of(server, "behind", mark) == ["open /echo", "message before", "handled before", "close 1000"]


def test_nothing_is_told_of_who_never_was_a_websocket(server: Serving):
    """Neither a request nor a handshake that was refused has `open` and `close`."""
    mark = server.mark()
    with Raw(server, get("/?name=stranger", "Connection: close")) as raw:
        assert raw.answer().status == 200
        assert raw.rest() == b""
    with Raw(server) as raw:
        assert raw.upgrade("/?name=stranger", "Origin: http://elsewhere.example").status == 403
    with websocket(server, name="known") as (raw, _):
        pass
    reports_of(server, "known", mark)
    assert server.reports("stranger", mark) == []


async def test_close_is_told_in_the_worker_that_had_open(server: Serving, mode: dict[str, Any]):
    async def live(number: int) -> Peer:
        async with dial(server, name=f"n{number}", close="[server.worker_id, os.getpid()]") as peer:
            return peer

    mark = server.mark()
    peers = await asyncio.gather(*[live(number) for number in range(8)])
    for number, peer in enumerate(peers):
        said = await asyncio.to_thread(reports_of, server, f"n{number}", mark)
        assert f"closing [{peer.worker}, {peer.pid}]" in said
    if mode["mode"] == "process":
        assert {peer.worker for peer in peers} == {0, 1}


def test_handlers_run_where_worker_id_says(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    assert [asker.pid for asker in workers] == pids_of_workers(server, mode)
    assert [asker("server.worker_pid") for asker in workers] == [asker.pid for asker in workers]
    assert [asker("threading.current_thread() is threading.main_thread()") for asker in workers] == [True] * len(
        workers
    )
    with all_askers(server, mode) as others:
        assert [asker.pid for asker in others] == [asker.pid for asker in workers]
