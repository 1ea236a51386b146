"""F6, seen by clients: all workers end again and again."""

import asyncio
import contextlib
import os
import signal
import urllib.error
import urllib.request

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from e2e.peers import LIMIT, STATS, adds_up, app, client, drained, fetch, in_loop, logged, stats, until
from support.serving import Serving

BREAKS = """
if os.path.exists("broken"):
    os._exit(7)

@server.on("message")
def said(server, frame):
    report("handled", frame.data)
    server.push(frame.fd, f"{frame.data} {os.getpid()}")
"""
SETTINGS = {"restart_free": 0, "restart_backoff_max": 1.5, "restart_window": 0.5, "degraded_after": 3}
HOPELESS = "all workers end again and again"


def refusal(server: Serving, method: str = "GET") -> tuple[int, str | None, bytes]:
    """Status, Retry-After and body of what is no success."""
    request = urllib.request.Request(server.http + "/", method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=LIMIT)
    with caught.value as answer:
        return answer.code, answer.headers["Retry-After"], answer.read()


async def send_held(ws: ClientConnection, count: int) -> None:
    with contextlib.suppress(ConnectionClosed):
        for n in range(count):
            await ws.send(f"held {n}")


async def until_hopeless(server: Serving, workers: int = 1) -> None:
    server.script.with_name("broken").touch()
    for number in range(workers):
        os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
    await logged(server, HOPELESS)


@in_loop(90)
async def test_f06_while_all_workers_are_degraded_http_is_answered_503():
    with Serving(app(BREAKS, STATS), worker_num=2, **SETTINGS) as server:
        # it waits from before on, as requests do while a worker is started again
        server.script.with_name("broken").touch()
        for number in (0, 1):
            os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
        await logged(server, "was ended by SIGKILL", count=2)
        early = asyncio.create_task(asyncio.to_thread(refusal, server))
        await logged(server, HOPELESS)
        for status, retry, body in [await early, await asyncio.to_thread(refusal, server)]:
            assert (status, retry) == (503, "2")
            assert b"no worker serves: they end again and again" in body
        assert await asyncio.to_thread(refusal, server, "HEAD") == (503, "2", b"")
        with pytest.raises(InvalidStatus) as refused:
            async with client(server):
                pass
        assert refused.value.response.status_code == 503
        # by itself, as soon as a worker is there, though they are degraded for a while longer
        server.script.with_name("broken").unlink()
        counts = await until(lambda: attempt(server), "requests are answered again")
        assert adds_up(counts)
        assert counts["unserved_refused"] >= 4
        assert counts["gateways"][0]["dropped_reasons"] == {"degraded": 1}, "the one that waited had been accepted"
        await logged(server, "workers serve again")
        assert server.stop() == 0
        drained(server)


def attempt(server: Serving) -> dict | None:
    with contextlib.suppress(urllib.error.HTTPError):
        return stats(server)
    return None


@in_loop(90)
async def test_f06_messages_are_held_for_a_time_and_then_the_client_is_told_1013():
    with Serving(app(BREAKS, STATS), worker_num=1, degraded_hold_time=1.0, **SETTINGS) as server:
        async with client(server) as talks, client(server) as silent:
            await talks.send("hello")
            await talks.recv()
            await until_hopeless(server)
            sending = asyncio.create_task(send_held(talks, 100))  # more than what may be in flight
            with pytest.raises(ConnectionClosed) as closed:
                await talks.recv()
            await sending
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "try again later: no worker serves")
            # one that says nothing stays, and is served by whoever comes
            server.script.with_name("broken").unlink()
            await logged(server, "serves in place of the one that ended")
            await silent.send("after")
            assert (await silent.recv()).startswith("after ")
        counts = await until(lambda: attempt(server), "requests are answered again")
        assert counts["unserved_closed"] == 1
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 0
        assert [word for word in server.reports("handled") if word != "hello"] == ["after"]


@in_loop(90)
async def test_f06_what_is_held_is_handled_when_a_worker_comes_in_time():
    with Serving(app(BREAKS, STATS), worker_num=1, degraded_hold_time=60.0, **SETTINGS) as server:
        async with client(server) as ws:
            await until_hopeless(server)
            for n in range(100):
                await ws.send(f"held {n}")
            server.script.with_name("broken").unlink()
            answers = [(await ws.recv()).split()[1] for _ in range(100)]
            assert answers == [str(n) for n in range(100)]
        assert server.stop() == 0


@in_loop(60)
async def test_f06_one_degraded_worker_of_two_refuses_nobody():
    with Serving(app(BREAKS, STATS), worker_num=2, **SETTINGS) as server:
        server.script.with_name("broken").touch()
        os.kill(server.pid_of("worker 1"), signal.SIGKILL)
        await logged(server, "worker 1 is degraded")
        async with client(server) as ws:
            await ws.send("hello")
            assert (await ws.recv()).startswith("hello ")
        assert b"unserved_refused" in await asyncio.to_thread(fetch, server)
        assert not [line for line in server.lines if HOPELESS in line]
