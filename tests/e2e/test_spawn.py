"""Work that connections own, over reloads, stops and deaths: it has its time, or somebody is told."""

import asyncio
import contextlib
import json
import os
import re
import signal
import time
import urllib.request
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import adds_up, client, drained, edit, in_loop, logged, stats, until
from support.serving import LIMIT, Serving, eventually
from support.talking import ask, dial, hear

DONE = r"reload: done, the generation before (\d+) is gone"

APP = """
import asyncio
VERSION = "v1"

def parts(word):
    # until somebody makes a file of that name
    number = 0
    while not os.path.exists(word):
        yield number
        number += 1

async def long(fd, word):
    try:
        for number in parts(word):
            server.push(fd, f"{word} {number} {VERSION}")
            await asyncio.sleep(0.02)
        server.push(fd, f"{word} done")
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)  # a `finally` may have something to do
        server.push(fd, f"{word} cut")
        raise
    finally:
        report("finally", word)

async def tidy(fd, word):
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.3)
        report("tidied", word)

kept = set()

@server.on("message")
async def said(server, frame):
    fd, (verb, *words) = frame.fd, frame.data.split()
    if verb == "start":
        server.spawn(fd, long(fd, words[0]), name=words[0])
    elif verb == "endless":
        server.spawn(fd, long(fd, words[0]), endless=True)
    elif verb == "tidy":
        server.spawn(fd, tidy(fd, words[0]), endless=True)
    elif verb == "leave":
        for _ in range(2):
            server._running().works.end_endless()
            await asyncio.sleep(0.01)
    elif verb == "task":
        kept.add(asyncio.create_task(long(fd, words[0])))
    elif verb == "hang":
        report("hangs")
        time.sleep(3600)
    server.push(fd, f"{verb} {VERSION} {server.cancel(fd) if verb == 'stop' else os.getpid()}")

@server.on("error")
def failing(server, fd, failure):
    report("error", failure.event, failure.name, failure.exception)
    server.push(fd, f"lost {failure.name}")

@server.on("request")
async def page(request, response):
    if request.path == "/stream":
        stream = response.event_stream(endless=request.query.get("endless") == "1")
        for number in parts(request.query["until"]):
            await stream.send(f"{number} {VERSION}")
            await asyncio.sleep(0.02)
        await stream.send("done")
        return
    response.end(json.dumps(server.stats()))
"""


def serving(**settings: Any) -> Serving:
    return Serving(APP, **{"worker_num": 1, "graceful_timeout": 10, **settings})


def end(server: Serving, word: str) -> None:
    """What is called so comes to its end."""
    server.script.with_name(word).touch()


def reload(server: Serving) -> int:
    """New code serves; the old worker may still be there."""
    mark = server.mark()
    edit(server.script, '"v1"', '"v2"')
    server.signal(signal.SIGHUP)
    server.wait_log("generation 2 serves", since=mark)
    return mark


@pytest.mark.parametrize("gateways", [1, 2])
def test_a_reload_lets_it_end_and_then_the_connection_moves(gateways: int) -> None:
    with serving(gateway_num=gateways) as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        mark = reload(server)
        with dial(server) as other:
            assert ask(other, "who", r"who (v\d) .*")[1] == "v2"
        assert ask(client, "who", r"who (v\d) .*")[1] == "v1", "it stays with the worker that runs its work"
        assert not [line for line in server.lines[mark:] if re.search(DONE, line)]
        end(server, "long")
        hear(client, "long done")
        eventually(lambda: ask(client, "who", r"who (v\d) .*")[1] == "v2")
        server.wait_log(DONE, since=mark)
        counts = stats(server)
        assert adds_up(counts)
        assert (counts["uncertain"], counts["dropped"], counts["spawned"]) == (0, 0, 0)
        assert server.reports("error") == []
        assert server.stop() == 0
        drained(server)


def test_a_message_stops_it_in_the_old_worker() -> None:
    with serving() as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        mark = reload(server)
        assert ask(client, "stop", r"stop (v\d) (\d)").groups() == ("v1", "1")
        hear(client, "long cut")
        server.wait_log(DONE, since=mark)
        assert ask(client, "who", r"who (v\d) .*")[1] == "v2"
        assert stats(server)["dropped"] == 0


def test_a_message_that_was_held_by_a_handler_reaches_it_too() -> None:
    """The connection waits for its handler at the reload; the work that this handler has begun lets it go on there."""
    app = APP.replace(
        'elif verb == "endless"',
        """elif verb == "slow":
        server.push(fd, "slow")
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
        server.spawn(fd, long(fd, words[0]))
    elif verb == "endless\"""",
    )
    with Serving(app, worker_num=1, graceful_timeout=20, in_flight_messages=1) as server, dial(server) as client:
        ask(client, "slow long", "slow")
        mark = reload(server)
        client.send("stop")
        server.script.with_name("go on").touch()
        assert hear(client, r"stop (v\d) (\d)").groups() == ("v1", "1")
        server.wait_log(DONE, since=mark)


def test_what_does_not_end_in_time_is_cut_and_told() -> None:
    with serving(graceful_timeout=5) as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        mark = reload(server)
        hear(client, "long cut")
        hear(client, "lost long")
        server.wait_log(DONE, since=mark)
        server.wait_log(
            "report error spawn long long: this worker has to end, and graceful_timeout is over", since=mark
        )
        server.wait_log(r"'long', spawned for connection \d+, is lost")
        assert not [line for line in server.lines[mark:] if "did not finish" in line], "nobody had to be killed"
        assert ask(client, "who", r"who (v\d) .*")[1] == "v2"
        counts = stats(server)
        assert adds_up(counts)
        assert [one["dropped_reasons"] for one in counts["gateways"]] == [{"cut": 1}]
        assert server.stop() == 0
        drained(server)


def test_what_is_endless_ends_at_once() -> None:
    with serving() as server, dial(server) as client:
        ask(client, "endless loop", "loop 0 v1")
        began = time.monotonic()
        mark = reload(server)
        hear(client, "loop cut")
        server.wait_log(DONE, since=mark)
        assert time.monotonic() - began < 8, "it has not used up graceful_timeout"
        assert stats(server)["dropped"] == 0
        assert server.reports("error") == []
        ask(client, "endless loop", "loop 0 v2")
        assert server.stop() == 0


def test_that_each_gateway_says_it_interrupts_no_finally() -> None:
    """Said here by the application: two gateways may say it in one turn of the loop, and then it is one cancel."""
    with serving() as server, dial(server) as client:
        ask(client, "tidy up", "tidy v1 .*")
        ask(client, "leave", "leave v1 .*")
        server.wait_log("report tidied up")


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_stop_lets_it_end(mode: str) -> None:
    with serving(mode=mode) as server, dial(server) as idle, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            idle.recv(LIMIT)
        hear(client, r"long \d+ v1")
        end(server, "long")
        hear(client, "long done")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(LIMIT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert server.ended() == 0
        counts = drained(server)
        assert (counts.get("in_flight", 0), counts.get("dropped", 0)) == (0, 0)


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_stop_cuts_what_does_not_end(mode: str) -> None:
    with serving(mode=mode, graceful_timeout=2) as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        server.signal(signal.SIGTERM)
        hear(client, "long cut")
        with pytest.raises(ConnectionClosed) as closed:
            hear(client, "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert server.ended() == 0
        counts = drained(server)
        assert (counts.get("in_flight", 0), counts.get("dropped", 0)) == (0, 1)


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_stop_in_a_hurry_does_not_wait_for_it(mode: str) -> None:
    with serving(mode=mode, graceful_timeout=60) as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        server.signal(signal.SIGTERM)
        server.wait_log("stopping")
        hear(client, "long .*")
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.ended() == 0
        assert time.monotonic() - began < 10
        assert "(adds up)" in "\n".join(server.lines[-4:])


def test_servers_that_are_replaced_let_it_end() -> None:
    with serving(mode="base", worker_num=2) as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        server.signal(signal.SIGHUP)
        server.wait_log("reload")
        hear(client, r"long \d+ v1")
        end(server, "long")
        hear(client, "long done")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(LIMIT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


@pytest.mark.parametrize("gateways", [1, 2])
def test_of_a_dead_workers_work_the_next_one_is_told(gateways: int) -> None:
    with serving(worker_num=2, gateway_num=gateways) as server, dial(server) as client:
        client.send("start one")
        client.send("start two")
        pid = int(ask(client, "who", r"who v1 (\d+)")[1])
        hear(client, r"two \d+ v1")
        os.kill(pid, signal.SIGKILL)
        assert {hear(client, r"lost (\w+)")[1] for _ in range(2)} == {"one", "two"}
        server.wait_log(rf"report error spawn one one: worker \d \(pid {pid}\) ended while it ran")
        assert int(ask(client, "who", r"who v1 (\d+)")[1]) != pid
        counts = stats(server)
        assert adds_up(counts)
        assert (counts["uncertain"], counts["spawned"]) == (2, 0)
        assert server.stop() == 0
        drained(server)


def test_a_worker_that_is_killed_while_it_leaves() -> None:
    """It hangs, so it can't cut anything; the supervisor ends it, and the successor is told."""
    with serving(graceful_timeout=2, worker_num=1) as server, dial(server) as client, dial(server) as other:
        ask(client, "start long", "long 0 v1")
        other.send("hang")
        server.wait_log("report hangs")
        reload(server)
        hear(client, "lost long")
        assert ask(client, "who", r"who (v\d) .*")[1] == "v2"
        assert adds_up(stats(server))


def test_work_of_a_gateway_that_dies_is_cancelled() -> None:
    with serving() as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        mark = server.mark()
        os.kill(server.pid_of("gateway 0"), signal.SIGKILL)
        server.wait_log("report finally long", since=mark)
        server.wait_log("serves in place", since=mark)
        with dial(server) as again:
            end(server, "next")
            ask(again, "start next", "next done")
            eventually(lambda: stats(server)["spawned"] == 0)
        assert server.stop() == 0
        drained(server)


@pytest.mark.parametrize("mode", ["base", "process"])
def test_an_event_stream_that_ends_by_itself_has_the_same_time(mode: str) -> None:
    """At a stop; and at a reload, where there are reloads."""
    with serving(mode=mode) as server:
        with urllib.request.urlopen(f"{server.http}/stream?until=first", timeout=LIMIT) as answer:
            assert answer.readline() == b"data: 0 v1\n"
            if mode == "process":
                mark = reload(server)
                end(server, "first")
                text = answer.read()
                server.wait_log(DONE, since=mark)
            else:
                server.signal(signal.SIGTERM)
                server.wait_log("stopping")
                end(server, "first")
                text = answer.read()
            assert text.endswith(b"data: done\n\n")
        if mode == "process":
            with urllib.request.urlopen(f"{server.http}/stream?until=second", timeout=LIMIT) as answer:
                assert answer.readline() == b"data: 0 v2\n"
                server.signal(signal.SIGTERM)
                server.wait_log("stopping")
                end(server, "second")
                assert answer.read().endswith(b"data: done\n\n")
        assert server.ended() == 0


def test_an_event_stream_is_cut_when_the_time_is_over() -> None:
    with serving(graceful_timeout=2) as server:
        with urllib.request.urlopen(f"{server.http}/stream?until=never", timeout=LIMIT) as answer:
            assert answer.readline() == b"data: 0 v1\n"
            mark = reload(server)
            assert b"done" not in answer.read()
            server.wait_log(DONE, since=mark)
            server.wait_log("1 event streams are cut", since=mark)
        assert server.stop() == 0


def test_tasks_of_handlers_have_the_time_too() -> None:
    with serving() as server, dial(server) as client:
        ask(client, "task long", "long 0 v1")
        mark = reload(server)
        # the server does not know whose it is
        eventually(lambda: ask(client, "who", r"who (v\d) .*")[1] == "v2")
        server.wait_log(r"waiting up to [\d.]+ s for 1 tasks that handlers have started: long", since=mark)
        end(server, "long")
        hear(client, "long done")
        server.wait_log(DONE, since=mark)


def test_tasks_of_handlers_are_cut_and_named() -> None:
    with serving(graceful_timeout=5) as server, dial(server) as client:
        ask(client, "task long", "long 0 v1")
        mark = reload(server)
        hear(client, "long cut")
        server.wait_log(
            r"1 tasks that handlers have started did not end within .* s and are cancelled: long", since=mark
        )
        server.wait_log(DONE, since=mark)
        assert not [line for line in server.lines[mark:] if "did not finish" in line]


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_stop_does_not_take_long_for_tasks_that_never_end(mode: str) -> None:
    app = """
    import asyncio
    kept = []

    async def loop(what):
        try:
            await asyncio.Event().wait()
        finally:
            report("ended", what)

    def tick():
        kept.append(asyncio.ensure_future(loop("of a timer")))

    @server.on("worker_start")
    def begin(server, number):
        kept.append(asyncio.get_running_loop().create_task(loop("of worker_start")))

    @server.on("message")
    def said(server, frame):
        server.after(0, tick)
        if frame.data == "start":
            kept.append(asyncio.ensure_future(loop("of a handler")))
        server.push(frame.fd, "ok")
    """
    for text, most in (("x", 1), ("start", 1 + 1)):
        with Serving(app, mode=mode, worker_num=1, graceful_timeout=60) as server, dial(server) as client:
            assert ask(client, text, "ok")
            server.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                client.recv(LIMIT)
            began = time.monotonic()
            assert server.ended() == 0
            assert time.monotonic() - began < 8 * most
            assert len(server.reports("ended")) == 1 + most
            assert bool([line for line in server.lines if "tasks that handlers" in line]) == (text == "start")


def test_every_worker_is_asked_for_its_stats() -> None:
    with serving() as server, dial(server) as client:
        ask(client, "start long", "long 0 v1")
        with urllib.request.urlopen(server.http, timeout=LIMIT) as answer:
            counts = json.loads(answer.read())
        assert [one["spawned"] for gateway in counts["gateways"] for one in gateway["workers"]] == [1]


SHORT = """
import asyncio

async def work(fd, text):
    for _ in range(3):
        await asyncio.sleep(0.002)
    server.push(fd, f"did {text}")

@server.on("message")
def said(server, frame):
    if frame.data.endswith("7"):
        server.cancel(frame.fd, "work")
    server.spawn(frame.fd, work(frame.fd, frame.data))

@server.on("error")
def failing(server, fd, failure):
    report("error", failure.name, failure.exception)

@server.on("request")
def stats(request, response):
    response.end(json.dumps(server.stats()))
"""


@in_loop(120)
@pytest.mark.parametrize("gateways", [1, 2])
async def test_the_books_balance_over_deaths_and_reloads(gateways: int) -> None:
    """Work begins and ends all the time, clients come and go, workers are killed and replaced: in the end nothing of it
    is left in any ledger, and each piece is in the sums once."""
    over = asyncio.Event()

    async def talk(server: Serving, number: int) -> None:
        while not over.is_set():
            async with client(server) as ws:
                for count in range(30):
                    await ws.send(f"{number}-{count}")
                    if count % 3 == 2:
                        with contextlib.suppress(TimeoutError):  # what a killed worker ran says nothing
                            async with asyncio.timeout(0.5):
                                await ws.recv()

    with Serving(SHORT, worker_num=2, gateway_num=gateways, graceful_timeout=10, max_spawned=100) as server:
        talkers = [asyncio.create_task(talk(server, number)) for number in range(8)]
        for round in range(3):
            mark = server.mark()
            os.kill(server.pid_of(f"worker {round % 2}"), signal.SIGKILL)
            await logged(server, "serves in place", since=mark)
            server.signal(signal.SIGUSR1)
            await logged(server, DONE, since=mark)
        over.set()
        await asyncio.gather(*talkers)
        # the one that asks is in flight, and others before it may be, until they are acknowledged
        await until(lambda: (found := stats(server))["spawned"] == 0 and found["in_flight"] == 1)
        counts = stats(server)
        assert adds_up(counts)
        assert counts["bad_records"] == 0
        assert counts["dropped"] == 0, [one["dropped_reasons"] for one in counts["gateways"]]
        assert server.stop() == 0
        drained(server)
