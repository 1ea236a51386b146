"""`redeliver`: what a worker was handling when it ended is handled again, three times at most. Faults F1 and F7."""

import asyncio
import os
import signal
import urllib.error
from collections import Counter

import pytest

from e2e.peers import STATS, UNCERTAIN, Rude, adds_up, app, client, drained, fetch, in_loop, logged, stats, until
from support.serving import Serving

QUARANTINED = """
@server.on("quarantined")
def quarantined(server, frame, reason):
    report("quarantined", frame.attempt, frame.data, "|", reason)
    server.push(frame.fd, f"quarantined {frame.data}")
"""

# "die N": the worker ends while it handles this, in the first N attempts.
DYING = """
@server.on("message")
def said(server, frame):
    report("begin", frame.attempt, frame.data)
    word, _, times = frame.data.partition(" ")
    server.push(frame.fd, f"half of {frame.data}")
    if word == "die" and frame.attempt <= int(times):
        os.kill(os.getpid(), 9)
    server.push(frame.fd, f"{frame.data} in attempt {frame.attempt}")
"""


def refused(server):
    """The status of an answer that is an error."""
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(server)
    error.value.close()
    return error.value.code


def serving(*parts, **settings):
    return Serving(app(*parts), **{"worker_num": 1, "redeliver": True, "restart_free": 100, **settings})


@in_loop(60)
async def test_it_is_handled_again_in_its_place():
    """In one packet: what came before is handled once, what came after waits."""
    with serving(DYING, UNCERTAIN, QUARANTINED, STATS) as server:
        with Rude(server) as one:
            one.send("a", "die 2", "b")
            got = await asyncio.to_thread(one.read, 6)
            assert got == [
                "half of a",
                "a in attempt 1",
                "half of die 2",
                "die 2 in attempt 3",
                "half of b",
                "b in attempt 1",
            ]
            counts = await asyncio.to_thread(stats, server)
        assert server.reports("begin") == ["1 a", "1 die 2", "2 die 2", "3 die 2", "1 b"]
        assert adds_up(counts)
        assert (counts["uncertain"], counts["dropped"], counts["repeated"]) == (0, 0, 2)
        assert server.stop() == 0
        assert drained(server) == {"accepted": 4, "finished": 4, "uncertain": 0, "dropped": 0}


@in_loop(60)
async def test_f07_what_ends_three_workers_is_quarantined():
    with serving(DYING, UNCERTAIN, QUARANTINED, STATS) as server:
        with Rude(server) as one, Rude(server) as other:
            one.send("a", "die 9", "b")
            other.send("c")
            got = await asyncio.to_thread(one.read, 5)
            assert got == ["half of a", "a in attempt 1", "quarantined die 9", "half of b", "b in attempt 1"]
            assert await asyncio.to_thread(other.read, 2) == ["half of c", "c in attempt 1"]
            counts = await asyncio.to_thread(stats, server)
        assert Counter(server.reports("begin"))["3 die 9"] == 1
        assert not [line for line in server.reports("begin") if line.startswith("4")]
        [report] = server.reports("quarantined")
        assert report.startswith("3 die 9 | worker 0 (pid ")
        assert report.endswith("ended while its handler ran, the last of 3")
        assert await logged(server, r"ERROR .* an event of connection \d+ is quarantined: worker 0 \(pid \d+\) ended")
        assert not server.reports("uncertain")
        assert adds_up(counts)
        assert counts["dropped"] == 1
        assert counts["gateways"][0]["dropped_reasons"] == {"quarantined": 1}
        assert server.stop() == 0
        assert drained(server) == {"accepted": 5, "finished": 4, "uncertain": 0, "dropped": 1}


@in_loop(60)
async def test_the_counts_add_up_while_it_waits_for_a_worker():
    """The gateway itself is asked, by the application in any worker."""
    code = """
    import asyncio

    @server.on("message")
    async def said(server, frame):
        report("begin", os.getpid(), frame.attempt)
        while not os.path.exists("go on"):
            await asyncio.sleep(0.001)
        server.push(frame.fd, f"{frame.data} {frame.attempt}")
    """
    with serving(code, STATS, worker_num=2) as server:
        async with client(server) as ws:
            await ws.send("x")
            first = int((await logged(server, r"^report begin (\d+) 1"))[1])
            assert (await asyncio.to_thread(stats, server))["in_flight"] == 2
            os.kill(first, signal.SIGKILL)
            second = int((await logged(server, r"^report begin (\d+) 2"))[1])
            assert second != first
            await logged(server, "serves in place")
            counts = await asyncio.to_thread(stats, server)
            assert adds_up(counts)
            assert (counts["in_flight"], counts["uncertain"], counts["repeated"]) == (2, 0, 1)
            server.script.with_name("go on").touch()
            assert await ws.recv() == "x 2"


@in_loop(60)
async def test_open_and_close_are_handled_again_too():
    """With what the first attempt had left in the session."""
    code = """
    @server.on("open")
    def opened(server, request):
        tries = server.session(request.fd).get("tries", 0) + 1
        server.session(request.fd)["tries"] = tries
        if tries < 3:
            server.stats()                      # what was sent so far has arrived
            os.kill(os.getpid(), 9)
        server.push(request.fd, f"opened {tries}")

    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, "never")

    @server.on("close")
    def left(server, fd, code, reason):
        report("close", os.getpid(), code)
        if not os.path.exists("closed once"):
            open("closed once", "w").close()
            os.kill(os.getpid(), 9)
        report("left", server.session(fd)["tries"])
    """
    with serving(code) as server:
        async with client(server) as ws:
            assert await ws.recv() == "opened 3"
        await logged(server, "^report left 3$")
        assert len(server.reports("close")) == 2
        assert server.stop() == 0


@in_loop(60)
async def test_requests_are_not_handled_again():
    code = """
    @server.on("request")
    def page(request, response):
        report("begin")
        os.kill(os.getpid(), 9)

    @server.on("message")
    def said(server, frame):
        pass
    """
    with serving(code) as server:
        status = await asyncio.to_thread(refused, server)
        assert status == 502
        await until(lambda: len(server.pids()) == 2, "the successor is there")
        assert server.reports("begin") == [""]
        assert server.stop() == 0
        assert drained(server) == {"accepted": 1, "finished": 0, "uncertain": 1, "dropped": 0}


@in_loop(60)
async def test_a_report_that_is_interrupted_is_told_again():
    """Also without `redeliver`; and given up after three workers."""
    code = """
    @server.on("message")
    def said(server, frame):
        if frame.data.startswith("die"):
            os.kill(os.getpid(), 9)
        server.push(frame.fd, frame.data)

    @server.on("uncertain")
    def uncertain(server, frame, reason):
        report("told", frame.data)
        if len([1 for line in open("told")]) < int(frame.data.split()[1]):
            open("told", "a").write("x\\n")
            os.kill(os.getpid(), 9)
        server.push(frame.fd, f"uncertain {frame.data}")
    """
    with serving(code, STATS, redeliver=False) as server:
        server.script.with_name("told").write_text("")
        with Rude(server) as one:
            one.send("die 2", "a")
            assert await asyncio.to_thread(one.read, 2) == ["uncertain die 2", "a"]
            assert len(server.reports("told")) == 3
            one.send("die 9", "b")
            assert await asyncio.to_thread(one.read, 1) == ["b"]
            assert len(server.reports("told")) == 6
            await logged(server, r"3 workers ended while they were told of a lost event of connection \d+")
            counts = await asyncio.to_thread(stats, server)
        assert adds_up(counts)
        assert (counts["uncertain"], counts["reports_lost"]) == (2, 1)
        assert server.stop() == 0
        assert drained(server) == {"accepted": 5, "finished": 3, "uncertain": 2, "dropped": 0}
