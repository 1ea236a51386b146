"""Process mode: a worker ends, for any reason, and no client notices. Guarantee 3 of the design."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections import Counter

import pytest
from wsproto.events import CloseConnection

from e2e.peers import (
    HELD_BACK,
    NOTED,
    STATS,
    UNCERTAIN,
    Rude,
    Talkers,
    adds_up,
    app,
    begun_and_ended,
    client,
    drained,
    fetch,
    in_loop,
    logged,
    stats,
    taken,
    until,
)
from support.serving import LIMIT, Serving, eventually

GONE = r"worker (\d+) \(pid (\d+)\) is gone: .*; (\d+) events go to another worker, (\d+) are uncertain"
SERVES = r"worker \d+ \(pid (\d+)\) serves in place of the one that ended"

# "block" never ends; anything else is answered with the pid.
BLOCKING = """
@server.on("message")
def said(server, frame):
    report("begin", os.getpid(), frame.data)
    if frame.data == "block":
        time.sleep(600)
    server.push(frame.fd, f"{frame.data} {os.getpid()}")
"""


@in_loop(60)
async def test_f01_kills_under_load(tmp_path):
    """Four kills while 16 clients talk: no connection ends, each message is answered once or reported once."""
    notes = tmp_path / "notes"
    code = """
    @server.on("message")
    def said(server, frame):
        with noted(frame.data):
            time.sleep(0.001)
            server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    with Serving(
        app(NOTED, UNCERTAIN, STATS, code), worker_num=2, restart_free=100, env={"NOTES": str(notes)}
    ) as server:
        async with Talkers(server, 16) as talkers:
            for kill in range(4):
                mark = server.mark()
                os.kill(server.pid_of(f"worker {kill % 2}"), signal.SIGKILL)
                doubtful = int((await logged(server, GONE, since=mark))[4])
                pid = (await logged(server, SERVES, since=mark))[1]
                if doubtful:  # a report that is itself interrupted is not repeated, so the next kill waits for it
                    await logged(server, r"^report uncertain", since=mark, count=doubtful)
                await asyncio.gather(*[one.goes_on(5) for one in talkers])
                assert int(pid) == server.pid_of(f"worker {kill % 2}")
        begun, ended = begun_and_ended(notes)
        reported = set()
        for one in talkers:
            # The answer and the end of its handler leave the worker together, so it is one or the other.
            outcomes = Counter([number for number, _ in one.answers] + one.uncertain)
            assert outcomes == Counter(range(one.sent))
            assert [number for number, _ in one.answers] == sorted(number for number, _ in one.answers)
            reported.update(f"{one.name} {number}" for number in one.uncertain)
        sent = {f"{one.name} {number}" for one in talkers for number in range(one.sent)}
        assert max(Counter(begun).values()) == 1
        assert set(begun) - set(ended) <= reported
        assert sent - reported <= set(ended)
        counts = stats(server)
        assert adds_up(counts)
        assert counts["uncertain"] == len(reported)
        assert counts["dropped"] == 0
        assert counts["connections_closed"] == len(talkers)
        assert server.stop() == 0
        total = drained(server)
        assert (total["accepted"], total["uncertain"]) == (len(sent) + 1, len(reported))


@in_loop()
async def test_what_had_not_started_goes_to_the_successor():
    with Serving(app(BLOCKING, UNCERTAIN, STATS), worker_num=1) as server:
        old = server.pid_of("worker 0")
        async with client(server) as a, client(server) as b:
            for ws in (a, b):  # so that "open" is acknowledged before the worker blocks
                await ws.send("hello")
                assert await ws.recv() == f"hello {old}"
            await a.send("block")
            await logged(server, rf"^report begin {old} block$")
            for n in range(5):
                await a.send(f"a{n}")
                await b.send(f"b{n}")
            await taken(a)
            await taken(b)
            os.kill(old, signal.SIGKILL)
            gone = await logged(server, GONE)
            assert gone.groups() == ("0", str(old), "10", "1")
            new = (await logged(server, SERVES))[1]
            assert await a.recv() == "uncertain block"
            assert [await a.recv() for _ in range(5)] == [f"a{n} {new}" for n in range(5)]
            assert [await b.recv() for _ in range(5)] == [f"b{n} {new}" for n in range(5)]
            # and nothing more: each was handled once
            await a.send("last")
            assert await a.recv() == f"last {new}"
            counts = await asyncio.to_thread(stats, server)
            assert (counts["accepted"], counts["finished"], counts["uncertain"]) == (15, 13, 1)
            assert counts["redelivered"] == 10
            assert counts["connections"] == 3
        assert server.stop() == 0
        assert server.reports("uncertain") == [f"block | worker 0 (pid {old}) ended while its handler ran"]
        assert Counter(server.reports("begin")) == Counter(
            [f"{old} hello"] * 2 + [f"{old} block", f"{new} last", *[f"{new} {x}{n}" for x in "ab" for n in range(5)]]
        )
        assert drained(server)["uncertain"] == 1


@in_loop()
async def test_another_worker_takes_over_at_once():
    """With a second worker nobody waits for the successor, which here never gets ready."""
    with Serving(app(HELD_BACK, BLOCKING, UNCERTAIN), worker_num=2) as server:
        old = {server.pid_of(f"worker {n}") for n in (0, 1)}
        async with client(server) as a, client(server) as b:
            pids = []
            for ws in (a, b):
                await ws.send("who")
                pids.append(int((await ws.recv()).split()[1]))
            assert set(pids) == old
            await a.send("block")
            await logged(server, r"^report begin \d+ block$")
            await a.send("behind it")
            await taken(a)
            server.script.with_name("held back").touch()
            os.kill(pids[0], signal.SIGKILL)
            assert await a.recv() == "uncertain block"
            assert await a.recv() == f"behind it {pids[1]}"
            await b.send("who")
            assert await b.recv() == f"who {pids[1]}"
            assert not [line for line in server.lines if "serves in place" in line]


@in_loop()
async def test_the_frame_of_the_event_is_the_one_that_was_sent():
    code = """
    @server.on("message")
    def said(server, frame):
        os.kill(os.getpid(), 9)

    @server.on("uncertain")
    def uncertain(server, frame, reason):
        server.push(frame.fd, repr((type(frame).__name__, frame.data, int(frame.opcode), frame.finish)))
    """
    with Serving(code, worker_num=1) as server:
        async with client(server) as ws:
            for data, opcode in (("tschüß ✓", 1), (bytes(range(256)) * 3, 2), ("", 1), (b"", 2)):
                await ws.send(data)
                assert await ws.recv() == repr(("Frame", data, opcode, True))


def get(server, path, out):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            out[path] = (answer.status, answer.read().decode())
    except Exception as error:
        out[path] = error


def test_requests_of_a_dead_worker():
    """In progress: 502 that says why, or a cut answer. Not started: answered by the successor."""
    code = """
    @server.on("message")
    def said(server, frame):
        pass

    @server.on("request")
    async def page(request, response):
        if request.path == "/stats":
            return response.end(json.dumps(server.stats()))
        report("begin", request.path)
        if request.path == "/begun":
            response.write("half ")
        if request.path in ("/slow", "/begun"):
            await asyncio.sleep(600)
        if request.path == "/block":
            time.sleep(600)
        response.end(f"{os.getpid()}")
    """
    with Serving(app("import asyncio", code), worker_num=1) as server:
        old = server.pid_of("worker 0")
        out = {}
        threads = []
        for path in ("/slow", "/begun", "/block", "/next"):
            threads.append(threading.Thread(target=get, args=(server, path, out)))
            threads[-1].start()
            if path != "/next":
                server.wait_log(rf"^report begin {path}$")
        # "/next" waits behind "/block", or has not arrived yet: either way nobody has begun it
        os.kill(old, signal.SIGKILL)
        for thread in threads:
            thread.join(LIMIT)
        new = server.pid_of("worker 0")
        status, text = out["/slow"]
        assert status == 502
        assert "the worker that was handling this request has ended; it may have had an effect" in text
        assert out["/block"] == out["/slow"]
        assert isinstance(out["/begun"], http.client.IncompleteRead)
        assert out["/next"] == (200, str(new))
        counts = json.loads(fetch(server, "/stats"))
        assert adds_up(counts)
        assert counts["uncertain"] == 3
        assert server.stop() == 0
        assert drained(server) == {"accepted": 5, "finished": 2, "uncertain": 3, "dropped": 0}


WATCHED = """
@server.on("open")
def opened(server, request):
    report("open", request.path)
    server.session(request.fd)["path"] = request.path

@server.on("message")
def said(server, frame):
    report("message", server.session(frame.fd)["path"], frame.data)
    server.push(frame.fd, f"{server.session(frame.fd)['path']} {frame.data}")

@server.on("close")
def left(server, fd, code, reason):
    report("close", server.session(fd)["path"], code, reason)
"""


@in_loop()
async def test_what_happens_while_there_is_no_worker():
    """The successor is held back: what happens meanwhile reaches it, in order, when it comes."""
    with Serving(app(HELD_BACK, WATCHED), worker_num=1) as server:
        gate = server.script.with_name("held back")
        async with client(server, "/stays") as stays:
            with Rude(server, "/cut") as cut, Rude(server, "/says%20and%20goes") as goes:
                await stays.send("1")
                await stays.recv()
                await logged(server, "^report open", count=3)
                gate.touch()
                os.kill(server.pid_of("worker 0"), signal.SIGKILL)
                await logged(server, GONE)
                mark = server.mark()
                goes.send("2")
                goes.socket.sendall(goes.protocol.send(CloseConnection(4001, "enough")))
                cut.socket.close()
                Rude(server, "/short").socket.close()  # gone before its `open` is handled
                async with client(server, "/new") as new:
                    await new.send("3")
                    await stays.send("4")
                    gate.unlink()
                    assert await new.recv() == "/new 3"
                    assert await stays.recv() == "/stays 4"
                _, close = await asyncio.to_thread(goes.read_to_end)
                assert close.code == 4001
                await logged(server, "^report close", since=mark, count=4)
        said = [line.removeprefix("report ") for line in server.lines[mark:] if line.startswith("report ")]
        assert [line for line in said if "/cut" in line] == [
            "close /cut 1006 the peer ended the connection without a close frame"
        ]
        assert [line for line in said if "/short" in line] == [
            "open /short",
            "close /short 1006 the peer ended the connection without a close frame",  # with what `open` wrote
        ]
        assert [line for line in said if "/says" in line] == [
            "message /says and goes 2",
            "close /says and goes 4001 enough",
        ]
        assert [line for line in said if "/new" in line] == ["open /new", "message /new 3", "close /new 1000 "]
        assert server.stop() == 0
        assert drained(server) == {"accepted": 4, "finished": 4, "uncertain": 0, "dropped": 0}


@in_loop()
async def test_pings_and_closes_are_answered_while_there_is_no_worker():
    with Serving(app(HELD_BACK, WATCHED), worker_num=1) as server:
        async with client(server, "/a", close_timeout=1) as a:
            await a.send("1")
            await a.recv()
            server.script.with_name("held back").touch()
            os.kill(server.pid_of("worker 0"), signal.SIGKILL)
            await logged(server, GONE)
            await (await a.ping())
            await a.close(4001, "enough")
            assert a.close_code == 4001
            server.script.with_name("held back").unlink()
            await logged(server, "^report close /a 4001 enough")


@in_loop()
async def test_a_stop_does_not_wait_for_workers_that_are_gone():
    with Serving(app(HELD_BACK, WATCHED), worker_num=1, graceful_timeout=60) as server:
        async with client(server, "/a") as a:
            await a.send("1")
            await a.recv()
            server.script.with_name("held back").touch()
            os.kill(server.pid_of("worker 0"), signal.SIGKILL)
            await logged(server, GONE)
            began = time.monotonic()
            assert await asyncio.to_thread(server.stop) == 0
            assert time.monotonic() - began < 10
        assert drained(server)["accepted"] == 1


@pytest.mark.parametrize("size", [0, 1000, 50_000, 200_000], ids=["short", "1 kB", "50 kB", "more than the page holds"])
@in_loop()
async def test_what_is_done_does_not_wait_for_the_handler_that_blocks(size):
    """All in one packet, which the worker handles in one turn: only what runs is uncertain."""
    code = """
    @server.on("message")
    def said(server, frame):
        report("begin", os.getpid(), frame.data)
        if frame.data == "block":
            server.push(frame.fd, "half done")
            time.sleep(600)
        server.push(frame.fd, f"{frame.data} {os.getpid()} " + SIZE * "x")
    """.replace("SIZE", str(size))
    with Serving(app(code, UNCERTAIN, STATS), worker_num=1) as server:
        old = server.pid_of("worker 0")
        with Rude(server, receive_buffer=1 << 20) as one:
            one.send("a", "b", "c", "d", "block", "e", "f")
            await logged(server, rf"^report begin {old} block$")
            os.kill(old, signal.SIGKILL)
            gone = await logged(server, GONE)
            assert gone.groups() == ("0", str(old), "2", "1")
            new = (await logged(server, SERVES))[1]
            got = await asyncio.to_thread(one.read, 7)
            assert [message.split()[:2] for message in got] == [
                *[[name, str(old)] for name in "abcd"],
                ["uncertain", "block"],
                *[[name, new] for name in "ef"],
            ]
            assert {len(message) for message in got if "uncertain" not in message} == {len(f"a {old} ") + size}
            counts = await asyncio.to_thread(stats, server)
            assert adds_up(counts)
            assert (counts["uncertain"], counts["redelivered"]) == (1, 2)
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 1


@in_loop()
async def test_what_is_done_counts_through_every_gateway():
    """A handler that has ended had published through two gateways: both deliver it, though its worker was killed."""
    code = """
    @server.on("open")
    def opened(server, request):
        server.subscribe(request.fd, "all")
        server.push(request.fd, str(len([g for g in server.stats()["gateways"] if g["connections"]])))

    @server.on("message")
    def said(server, frame):
        report("begin", frame.data)
        if frame.data == "block":
            time.sleep(600)
        server.publish("all", frame.data)
    """
    with Serving(app(code, UNCERTAIN), worker_num=1, gateway_num=2) as server:
        with contextlib.ExitStack() as stack:
            ones = []
            used = "1"
            while used == "1":  # the kernel chooses the gateway
                ones.append(stack.enter_context(Rude(server)))
                [used] = await asyncio.to_thread(ones[-1].read, 1)
            ones[0].send("done", "block")
            await logged(server, "^report begin block$")
            os.kill(server.pid_of("worker 0"), signal.SIGKILL)
            await logged(server, GONE, count=2)
            for one in ones:
                assert await asyncio.to_thread(one.read, 1) == ["done"]
        assert server.stop() == 0


@in_loop()
async def test_sessions_and_topics_survive():
    code = """
    @server.on("open")
    def opened(server, request):
        server.session(request.fd).update(name=request.query["name"], visits=[1, {"two": b"3"}])
        server.subscribe(request.fd, "room")
        server.subscribe(request.fd, request.query["name"])

    @server.on("message")
    def said(server, frame):
        session = server.session(frame.fd)
        if frame.data == "die":
            os.kill(os.getpid(), 9)
        session["said"] = session.get("said", 0) + 1
        server.publish("room", json.dumps([os.getpid(), session["name"], session["said"]]))
        server.publish("anna", f"for anna: {session['visits']}")
    """
    with Serving(code, worker_num=1) as server:
        async with client(server, "/?name=anna") as anna, client(server, "/?name=otto") as otto:
            pids = set()
            for said in range(1, 4):
                await otto.send("hello")
                pid, *rest = json.loads(await anna.recv())
                assert rest == ["otto", said]
                assert await anna.recv() == "for anna: [1, {'two': b'3'}]"
                assert json.loads(await otto.recv()) == [pid, "otto", said]
                pids.add(pid)
                mark = server.mark()
                await anna.send("die")
                await logged(server, GONE, since=mark)
            assert len(pids) == 3


@in_loop()
async def test_a_worker_killed_with_its_answers_on_the_way():
    """All 200 are answered and acknowledged, and the gateway has not read it yet: nothing is handled again."""
    code = """
    @server.on("message")
    def said(server, frame):
        if frame.data == "wait":
            while not os.path.exists("go on"):
                time.sleep(0.001)
        server.push(frame.fd, f"{frame.data} {os.getpid()}")
        if frame.data == "199":
            # runs when the turn is over in which the channel was flushed
            asyncio.get_running_loop().call_soon(report, "all sent")
    """
    with Serving(app("import asyncio", code, UNCERTAIN), worker_num=1, in_flight_messages=300) as server:
        worker, gateway = server.pid_of("worker 0"), server.pid_of("gateway 0")
        async with client(server) as ws:
            await ws.send("wait")
            for n in range(200):
                await ws.send(str(n))
            await taken(ws)
            os.kill(gateway, signal.SIGSTOP)
            server.script.with_name("go on").touch()
            await logged(server, "^report all sent$")
            os.kill(worker, signal.SIGKILL)
            await until(lambda: worker not in server.pids(), "the worker is reaped")
            os.kill(gateway, signal.SIGCONT)
            gone = await logged(server, GONE)
            assert gone.groups() == ("0", str(worker), "0", "0")
            assert [await ws.recv() for _ in range(201)] == [f"{n} {worker}" for n in ["wait", *range(200)]]
            await ws.send("after")
            assert (await ws.recv()).startswith("after ")
        assert server.stop() == 0
        assert drained(server) == {"accepted": 202, "finished": 202, "uncertain": 0, "dropped": 0}


@in_loop()
async def test_a_worker_killed_with_something_unread_on_both_sides():
    """The kernel then tells the gateway of a reset, too: the answers that came before it count all the same."""
    code = """
    @server.on("message")
    def said(server, frame):
        number = frame.data[:8]
        if number == "00000000":
            while not os.path.exists("go on"):
                time.sleep(0.001)
        report("begin", number)
        if number == "00000150":
            time.sleep(600)
        server.push(frame.fd, f"{number} {os.getpid()}")
    """
    room = {"in_flight_messages": 300, "in_flight_bytes": 1 << 24, "worker_bytes": 1 << 24}
    with Serving(app(code, UNCERTAIN), worker_num=1, **room) as server:
        worker, gateway = server.pid_of("worker 0"), server.pid_of("gateway 0")
        async with client(server, max_queue=None) as ws:
            for n in range(200):
                await ws.send(f"{n:08d}".ljust(16384))  # together much more than is read at once
            await taken(ws)
            os.kill(gateway, signal.SIGSTOP)
            server.script.with_name("go on").touch()
            await logged(server, "^report begin 00000150$")
            os.kill(worker, signal.SIGKILL)
            await until(lambda: worker not in server.pids(), "the worker is reaped")
            os.kill(gateway, signal.SIGCONT)
            got = [(await ws.recv()).split() for _ in range(200)]
            doubtful = [int(words[1]) for words in got if words[0] == "uncertain"]
            by_old = [int(words[0]) for words in got if words[1:] == [str(worker)]]
            by_new = [int(words[0]) for words in got if words[0] != "uncertain" and words[1] != str(worker)]
            assert by_old + doubtful + by_new == list(range(200))
            assert len(by_old) >= 100, "answers were lost with the worker"
            assert by_new == list(range(151, 200))
        assert server.stop() == 0
        assert Counter(server.reports("begin")).most_common(1)[0][1] == 1
        counts = drained(server)
        assert (counts["accepted"], counts["uncertain"]) == (200, len(doubtful))


@in_loop()
async def test_a_worker_that_dies_in_the_middle_of_a_pipeline(tmp_path):
    """Wherever the line between done and not begun lies, nothing is handled twice and nothing is silent."""
    code = """
    @server.on("message")
    def said(server, frame):
        with noted(frame.data):
            if frame.data == "100":
                os.kill(os.getpid(), 9)
            server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    notes = tmp_path / "notes"
    settings = {"worker_num": 1, "in_flight_messages": 300, "env": {"NOTES": str(notes)}}
    with Serving(app(NOTED, UNCERTAIN, code), **settings) as server:
        old = server.pid_of("worker 0")
        async with client(server) as ws:
            for n in range(200):
                await ws.send(str(n))
            got = [(await ws.recv()).split() for _ in range(200)]
            doubtful = [int(words[1]) for words in got if words[0] == "uncertain"]
            by_old = [int(words[0]) for words in got if words[1:] == [str(old)]]
            by_new = [int(words[0]) for words in got if words[0] != "uncertain" and words[1] != str(old)]
            assert by_old + doubtful + by_new == list(range(200))  # done, then under way, then not begun
            assert doubtful == [100]
            begun, _ = begun_and_ended(notes)
            assert begun == [str(n) for n in range(200)]
        assert server.stop() == 0
        counts = drained(server)
        assert (counts["accepted"], counts["uncertain"]) == (200, len(doubtful))


@in_loop()
async def test_a_worker_that_is_stopped():
    """SIGSTOP: its clients wait, those of the other worker notice nothing; killed then, nothing of it is lost."""
    code = """
    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    with Serving(code, worker_num=2) as server:
        async with Talkers(server, 4) as talkers, client(server) as ws:
            await ws.send("who")
            pid = int((await ws.recv()).split()[1])
            others = [one for one in talkers if one.answers[-1][1] != str(pid)]
            assert 0 < len(others) < 4
            os.kill(pid, signal.SIGSTOP)
            for n in range(5):
                await ws.send(str(n))
            await taken(ws)
            await asyncio.gather(*[one.goes_on(300) for one in others])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.recv(), 0.05)
            os.kill(pid, signal.SIGCONT)
            assert [await ws.recv() for _ in range(5)] == [f"{n} {pid}" for n in range(5)]
            os.kill(pid, signal.SIGSTOP)
            for n in range(5):
                await ws.send(str(n))
            await taken(ws)
            os.kill(pid, signal.SIGKILL)
            answers = [await ws.recv() for _ in range(5)]
            assert [answer.split()[0] for answer in answers] == [str(n) for n in range(5)]
            assert str(pid) not in {answer.split()[1] for answer in answers}
        assert all(one.in_order() for one in talkers)
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 0


def test_restarts_that_go_on(tmp_path):
    """A worker that dies again and again is started again and again, later each time; the gateway stays."""
    code = """
    @server.on("message")
    def said(server, frame):
        os.kill(os.getpid(), 9)
    """
    with Serving(app(code, STATS), worker_num=1, restart_free=1, restart_backoff_max=0.3) as server:
        gateway = server.pid_of("gateway 0")

        @in_loop()
        async def kill_thrice():
            async with client(server) as ws:
                for _ in range(3):
                    mark = server.mark()
                    await ws.send("die")
                    await logged(server, SERVES, since=mark)

        kill_thrice()
        server.wait_log(r"restarting it in 0\.\d s")
        eventually(lambda: stats(server)["uncertain"] == 3)
        assert server.pid_of("gateway 0") == gateway


CLOSING = """
import asyncio

@server.on("message")
async def said(server, frame):
    report("said", frame.data)
    if frame.data == "leave":
        while server.get_client_info(frame.fd).in_flight < 3:
            await asyncio.sleep(0.002)
        server.disconnect(frame.fd, 4000)
        report("pid", os.getpid())
        await asyncio.sleep(600)

@server.on("close")
def left(server, fd, code, reason):
    report("close", code)
"""


@in_loop()
async def test_what_is_behind_a_disconnect_goes_to_nobody():
    """Its worker would not have handled it, and the one that takes over does not; it is dropped, by that name."""
    with Serving(app(STATS, CLOSING), worker_num=2) as server:
        async with client(server) as ws:
            for text in ("leave", "behind", "behind"):
                await ws.send(text)
            await ws.wait_closed()
            assert ws.close_code == 4000
        pid = (await logged(server, r"^report pid (\d+)"))[1]
        os.kill(int(pid), signal.SIGKILL)
        await logged(server, "^report close 4000")
        found = stats(server)["gateways"][0]
        assert found["dropped_reasons"] == {"disconnected": 2}
        assert found["uncertain"] == 1
        assert "said behind" not in server.reports()
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]
