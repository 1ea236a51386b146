"""Work that a connection owns: beside its messages, cancelled with it, bounded, and reported like a handler."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from contract.modes import only
from support.serving import LIMIT, Serving, eventually
from support.talking import ask, dial, hear

APP = """
import asyncio, contextvars, threading

who = contextvars.ContextVar("who", default="nobody")

async def answer(fd, word, pause=0.02):
    try:
        for number in range(100000):
            server.push(fd, f"{word} {number} {who.get()}")
            await asyncio.sleep(pause)
    except asyncio.CancelledError:
        server.push(fd, f"{word} cancelled")
        raise
    finally:
        report("finally", word, os.getpid())

async def fails(how):
    await asyncio.sleep(0)
    if how == "exit":
        sys.exit(3)
    if how == "bad":
        raise BadRequest(400, "not so")
    raise RuntimeError(how)

async def short(fd, text):
    who.set("changed")
    await asyncio.sleep(0)
    server.push(fd, f"done {text}")
    return len(text)

async def clean(fd):
    server.push(fd, f"cancelled {server.cancel(fd)}, left {len(server.spawned(fd))}")

async def generator():
    yield 1

async def tidy(fd, word):
    server.push(fd, "begun")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.3)
        report("tidied", word)

async def swallows(fd, word):
    server.push(fd, "begun")
    for _ in range(2):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            report("swallowed", word)

def tell(fd, call):
    try:
        server.push(fd, f"{call()}")
    except Exception as error:
        server.push(fd, f"{type(error).__name__}: {error}")

@server.on("message")
async def said(server, frame):
    fd, (verb, *words) = frame.fd, frame.data.split()
    if verb == "start":
        who.set(words[1] if len(words) > 1 else "somebody")
        server.spawn(fd, answer(fd, words[0]))
        who.set("later")
    elif verb == "named":
        server.spawn(fd, answer(fd, words[0]), name=words[1])
    elif verb == "stop":
        server.push(fd, f"stopped {server.cancel(fd, *words)}")
    elif verb == "names":
        server.push(fd, " ".join(task.get_name() for task in server.spawned(fd)))
    elif verb == "owns":
        server.push(fd, f"owns {server.get_client_info(fd).spawned}")
    elif verb == "fail":
        server.spawn(fd, fails(words[0]), name="failing")
    elif verb == "result":
        server.push(fd, f"result {await server.spawn(fd, short(fd, words[0]))} {who.get()}")
    elif verb == "clean":
        server.spawn(fd, clean(fd))
    elif verb == "twice":
        for word in words:
            server.spawn(fd, short(fd, word))
    elif verb == "function":
        tell(fd, lambda: server.spawn(fd, short))
    elif verb == "generator":
        tell(fd, lambda: server.spawn(fd, generator()))
    elif verb == "thread":
        tell(fd, lambda: None)
        thread = threading.Thread(target=lambda: tell(fd, lambda: server.spawn(fd, short(fd, "x"))))
        thread.start()
        thread.join()
    elif verb == "cancel-in-thread":
        server.spawn(fd, answer(fd, "threaded", 5))
        await asyncio.to_thread(tell, fd, lambda: server.cancel(fd))
    elif verb == "thread-with-loop":
        async def other_loop():
            tell(fd, lambda: server.spawn(fd, short(fd, "x")))
        await asyncio.to_thread(asyncio.run, other_loop())
    elif verb == "same":
        twice = answer(fd, "first")
        server.spawn(fd, twice)
        await asyncio.sleep(0)  # it has begun
        second = server.spawn(fd, twice, name="second")
        await asyncio.wait([second])
        report("second", second.exception())
    elif verb == "tidy":
        server.spawn(fd, tidy(fd, words[0]))
    elif verb == "swallows":
        server.spawn(fd, swallows(fd, words[0]))
    elif verb == "timer":
        server.after(0.001, lambda: server.spawn(fd, answer(fd, "timed")))
    elif verb == "numbers":
        server._running().works._number = (1 << 32) - 3
        for _ in range(4):
            server.spawn(fd, answer(fd, "number", 5))
    elif verb == "odd":
        tell(fd, lambda: server.spawn(fd, short(fd, "x"), name="\\ud800"))
        tell(fd, lambda: server.cancel(fd, 5))
        tell(fd, lambda: server.spawn(fd, short(fd, "x"), name="x" * 256))
        tell(fd, lambda: server.spawn(fd, short(fd, "x"), name=5))
    elif verb == "gone":
        task = server.spawn(int(words[0]), short(fd, "never"))
        await asyncio.wait([task])
        server.push(fd, f"gone {task.cancelled()}")
    elif verb == "late":
        server.spawn(fd, answer(fd, "first"))
        await asyncio.sleep(0)  # it has begun
        server.disconnect(fd)
        task = server.spawn(fd, answer(fd, "second"))
        await asyncio.wait([task])
        report("late", task.cancelled())
    elif verb == "stats":
        stats = server.stats()
        told = ("accepted", "finished", "uncertain", "dropped", "in_flight", "spawned")
        server.push(fd, json.dumps({key: stats[key] for key in told}))
    elif verb == "fd":
        server.push(fd, f"{fd}")
    elif verb == "leave":
        server.disconnect(fd, 4000, "bye")

@server.on("error")
def failing(server, fd, failure):
    report("error", failure.event, failure.name, type(failure.exception).__name__)

@server.on("request")
async def page(request, response):
    if request.path == "/own":
        try:
            server.spawn(request.fd, short(request.fd, "x"))
        except StateError as error:
            response.end(f"{error}")
        return
    fd = int(request.query["fd"])
    if request.path == "/cancel":
        response.end(f"{server.cancel(fd)}")
    elif server.get_client_info(fd).worker_id == server.worker_id and request.query.get("elsewhere"):
        response.end("here")
    else:
        server.spawn(fd, answer(fd, "foreign"))
        response.end(f"{os.getpid()}")
"""


@pytest.fixture(scope="session")
def spawning(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, max_spawned=4, max_connections_per_address=0) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])
        assert not [line for line in running.lines if "never awaited" in line or "never retrieved" in line]


def counts(client: ClientConnection) -> dict[str, int]:
    found: dict[str, int] = json.loads(ask(client, "stats", r"\{.*\}")[0])
    assert found["accepted"] == found["finished"] + found["uncertain"] + found["dropped"] + found["in_flight"]
    return found


def test_it_runs_beside_messages_and_one_of_them_stops_it(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as client:
        ask(client, "start beside", r"beside 3 somebody")
        assert ask(client, "names", r"answer( answer)*")[0] == "answer"
        assert ask(client, "stop answer", r"stopped (\d)")[1] == "1"
        assert client.recv(LIMIT) == "beside cancelled", "nothing of it comes behind that"
        spawning.wait_log("report finally beside", since=since)
        assert ask(client, "stop", r"stopped (\d)")[1] == "0"
        assert ask(client, "fd", r"\d+")


def test_several_by_name(spawning: Serving) -> None:
    with dial(spawning) as client:
        client.send("named a one")
        client.send("named b two")
        client.send("named c two")
        assert ask(client, "names", r"one two two")
        eventually(lambda: ask(client, "owns", r"owns (\d)")[1] == "3")
        assert ask(client, "stop two", r"stopped (\d)")[1] == "2"
        hear(client, "b cancelled")
        hear(client, "c cancelled")
        hear(client, r"a \d+ nobody")
        assert ask(client, "stop three", r"stopped (\d)")[1] == "0"
        assert ask(client, "stop", r"stopped (\d)")[1] == "1"
        eventually(lambda: ask(client, "owns", r"owns (\d)")[1] == "0")


def test_who_cancels_is_left_out(spawning: Serving) -> None:
    with dial(spawning) as client:
        client.send("start one")
        assert ask(client, "clean", r"cancelled (\d), left (\d)").groups() == ("1", "2")
        eventually(lambda: ask(client, "names", "(answer|clean| )*")[0] == "")


def test_it_ends_with_its_connection(spawning: Serving) -> None:
    for leave in ("closes", "drops", "is closed"):
        since = spawning.mark()
        with dial(spawning) as client:
            ask(client, f"start {leave.replace(' ', '-')}", r".* 1 somebody")
            if leave == "drops":
                client.socket.shutdown(socket.SHUT_RDWR)
            elif leave == "is closed":
                client.send("leave")
                with pytest.raises(ConnectionClosed):
                    hear(client, "never")
        spawning.wait_log(f"report finally {leave.replace(' ', '-')}", since=since)
        assert not [line for line in spawning.lines[since:] if "Traceback" in line or "lost" in line]


def test_its_context_is_that_of_the_call(spawning: Serving) -> None:
    with dial(spawning) as client:
        assert ask(client, "start it me", r"it 0 (\w+)")[1] == "me"
        assert ask(client, "result four", r"result (\d+) (\w+)").groups() == ("4", "nobody")


def test_there_are_few_for_each_connection(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as other, dial(spawning) as client:
        for number in range(4):
            client.send(f"start n{number}")
            other.send(f"start n{number}")
        client.send("start over")
        with pytest.raises(ConnectionClosed) as closed:
            hear(client, "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        spawning.wait_log(
            r"SpawnFull: .* owns max_spawned=4 pieces of work already: cancel\(fd\) ends them", since=since
        )
        hear(other, "n3 5 .*")
        spawning.wait_log("report finally n3", since=since)


def test_what_it_raises_is_reported_like_a_handlers(spawning: Serving) -> None:
    for how, code, kind in (("oops", 1011, "RuntimeError"), ("exit", 1011, "StateError"), ("bad", 1008, "BadRequest")):
        since = spawning.mark()
        with dial(spawning) as client, pytest.raises(ConnectionClosed) as closed:
            ask(client, f"fail {how}", "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        spawning.wait_log(f"report error spawn failing {kind}", since=since)
        if how == "oops":
            spawning.wait_log(
                rf"{closed.value.rcvd.reason}: 'failing', spawned for connection \d+, failed", since=since
            )
            spawning.wait_log("RuntimeError: oops", since=since)


def test_a_connection_may_be_kept(mode: dict[str, Any]) -> None:
    with Serving(APP, **mode, on_error="keep") as server, dial(server) as client:
        client.send("fail oops")
        server.wait_log("report error spawn failing RuntimeError")
        assert ask(client, "fd", r"\d+")


def test_mistakes_are_named(spawning: Serving) -> None:
    with dial(spawning) as client:
        said = r"(\w+Error: .*)"
        assert ask(client, "function", said)[1] == (
            "TypeError: spawn(fd, short): it is a function; call it: spawn(fd, short(...))"
        )
        assert "takes a coroutine" in ask(client, "generator", said)[1]
        assert "called in a thread" in ask(client, "thread", said)[1]
        assert "called in a thread" in ask(client, "thread-with-loop", said)[1]
        assert "called in a thread" in ask(client, "cancel-in-thread", said)[1]
        assert ask(client, "stop", r"stopped (\d)")[1] == "1"
        assert ask(client, "odd", said)[1] == r"ValueError: the name of work can't be encoded in UTF-8: '\ud800'"
        assert "is a str, not int" in hear(client, said)[1]
        assert "at most 255 bytes" in hear(client, said)[1]
        assert "is a str, not int" in hear(client, said)[1]
    assert "is no WebSocket, or none yet, and owns no work" in fetch(spawning, "/own")


def fetch(server: Serving, path: str) -> str:
    with urllib.request.urlopen(server.http + path, timeout=LIMIT) as answer:
        return str(answer.read().decode())


def test_its_finally_is_given_a_moment_when_the_connection_ends_behind_a_cancel(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as client:
        ask(client, "tidy room", "begun")
        assert ask(client, "stop", r"stopped (\d)")[1] == "1"
    spawning.wait_log("report tidied room", since=since)


def test_who_swallows_a_cancel_is_cancelled_again_when_the_connection_ends(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as client:
        ask(client, "swallows it", "begun")
        assert ask(client, "stop", r"stopped (\d)")[1] == "1"
        spawning.wait_log("report swallowed it", since=since)
    eventually(lambda: spawning.lines[since:].count("report swallowed it") == 2)


def test_the_same_coroutine_a_second_time_does_the_first_no_harm(mode: dict[str, Any]) -> None:
    with Serving(APP, **mode, on_error="keep") as server, dial(server) as client:
        client.send("same")
        server.wait_log("report second coroutine is being awaited already")
        assert ask(client, "names", r"answer")
        hear(client, r"first \d+ nobody")


def test_a_timer_that_returns_it_does_not_wait_for_it(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as client:
        ask(client, "timer", "timed 1 .*")
    spawning.wait_log("report finally timed", since=since)
    with dial(spawning) as client:
        eventually(lambda: counts(client)["spawned"] == 0)
    assert not [line for line in spawning.lines[since:] if "ERROR" in line]


@only("base", "process")
def test_their_numbers_begin_again(spawning: Serving) -> None:
    with dial(spawning) as client:
        client.send("numbers")
        assert ask(client, "stop", r"stopped (\d)")[1] == "4"
        eventually(lambda: counts(client)["spawned"] == 0)


def test_for_a_connection_that_has_gone_it_does_not_begin(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as client:
        with dial(spawning) as other:
            fd = ask(other, "fd", r"\d+")[0]
        for one in (fd, "0", "5", str(1 << 62)):
            eventually(lambda one=one: ask(client, f"gone {one}", r"gone (\w+)")[1] == "True")
        assert not [line for line in spawning.lines[since:] if "never awaited" in line]


def test_one_that_closes_is_gone_for_it_also_when_it_owns_work(spawning: Serving) -> None:
    since = spawning.mark()
    with dial(spawning) as client:
        client.send("late")
        spawning.wait_log("report late True", since=since)
        spawning.wait_log("report finally first", since=since)
    assert not [line for line in spawning.lines[since:] if "Traceback" in line or "finally second" in line]


def test_it_is_counted(spawning: Serving) -> None:
    with dial(spawning) as client:
        # what asks is in flight; requests of those who were here before may not be acknowledged yet
        eventually(lambda: (counts(client)["spawned"], counts(client)["in_flight"]) == (0, 1))
        before = counts(client)
        client.send("start one")
        client.send("start two")
        hear(client, "two 1 .*")
        now = counts(client)
        assert now["spawned"] == 2
        assert now["in_flight"] == before["in_flight"] + 2
        client.send("stop")
        eventually(lambda: counts(client)["spawned"] == 0)
        assert counts(client)["dropped"] == before["dropped"]
        client.send("twice " + "x " * 3)
        for _ in range(3):
            hear(client, "done x")
        eventually(lambda: counts(client)["spawned"] == 0)


@only("process", "process-2", "base-2")
def test_work_in_another_worker_ends_with_the_connection_and_is_cancelled_from_anywhere(spawning: Serving) -> None:
    for ends in ("close", "stop"):
        since = spawning.mark()
        with dial(spawning) as client:
            fd = ask(client, "fd", r"\d+")[0]
            for _ in range(100):
                pid = fetch(spawning, f"/spawn?fd={fd}&elsewhere=1")
                if pid != "here":
                    break
            hear(client, "foreign 2 nobody")
            assert ask(client, "names", r"\w*")[0] == "", "it is in another worker"
            if ends == "stop":
                client.send("stop other")
                hear(client, "stopped 0")
                hear(client, r"foreign \d+ nobody")
                client.send("stop answer")
                hear(client, "foreign cancelled")
                assert ask(client, "fd", r"\d+")
        spawning.wait_log(f"report finally foreign {pid}", since=since)


def test_task_workers_own_none(mode: dict[str, Any]) -> None:
    app = """
    async def work(): ...

    @server.on("task")
    def task(server, task):
        try:
            server.spawn(1, work())
        except StateError as error:
            return str(error)

    @server.on("message")
    async def said(server, frame):
        server.push(frame.fd, await server.task(1))
    """
    with Serving(app, **mode, task_worker_num=1) as server, dial(server) as client:
        assert "works in workers only" in ask(client, "x", ".*")[0]
        assert not [line for line in server.lines if "never awaited" in line]
