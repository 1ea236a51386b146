"""Clients that do not read, clients that do not stop, handlers that are slow: memory is bounded, nobody else waits."""

import asyncio
import contextlib
import threading
import time

import pytest

from e2e.peers import BOTH_MODES, STATS, Rude, Talkers, app, client, drained, in_loop, logged, memory, stats, until
from support.serving import LIMIT, Serving

MIB = 1 << 20
MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])

# "fill N" pushes N messages of 16 KiB, one in each turn; anything else is answered with the pid.
FILLING = """
import asyncio

@server.on("message")
async def said(server, frame):
    word, _, rest = frame.data.partition(" ")
    if word == "fill":
        for n in range(int(rest)):
            if not server.push(frame.fd, f"{n:08d}" + "x" * 16376):
                break
            await asyncio.sleep(0)
    server.push(frame.fd, f"{frame.data} {os.getpid()}")

@server.on("close")
def left(server, fd, code, reason):
    report("close", fd, code, reason)
"""


def numbers(messages):
    """What the messages begin with."""
    return [int(message[:8]) for message in messages]


async def found_slow(server):
    """The gateway has given up on a client, which has close_timeout left to read why."""
    await until(lambda: stats(server)["slow_consumers"] == 1, "somebody was found slow")


@MODES
@in_loop()
async def test_f31_a_client_that_does_not_read(mode):
    """It is closed with 1008 and told why, behind whole frames; the others notice nothing."""
    with Serving(app(FILLING, STATS), **mode) as server:
        async with Talkers(server, 4) as talkers:
            with Rude(server) as rude:
                rude.send("fill 2000")  # 32 MB
                await found_slow(server)
                await asyncio.gather(*[one.goes_on(100) for one in talkers])
                messages, close = await asyncio.to_thread(rude.read_to_end)
            await logged(server, "^report close .* 1008 slow consumer: the out-queue is full$")
            assert (close.code, close.reason) == (1008, "slow consumer: the out-queue is full")
            assert 0 < len(messages) < 2000
            assert numbers(messages) == list(range(len(messages)))
            assert {len(message) for message in messages} == {16384}
            assert max(one.longest for one in talkers) < 5.0
        assert all(one.in_order() for one in talkers)
        counts = await asyncio.to_thread(stats, server)
        assert counts["slow_consumers"] == 1
        assert counts["dropped"] == 0


@MODES
@in_loop()
async def test_f31_a_client_that_stays_above_the_high_water(mode):
    """Less than the limit, but for too long."""
    settings = {"write_limit": 64 * MIB, "write_high_water": 65536, "write_timeout": 0.5}
    with Serving(app(FILLING, STATS), **settings, **mode) as server:
        with Rude(server) as rude:
            rude.send("fill 1000")
            await found_slow(server)
            _, close = await asyncio.to_thread(rude.read_to_end)
            assert (close.code, close.reason) == (1008, "slow consumer: it took less than 500 bytes per second")
        await logged(server, "^report close .* 1008 slow consumer: it took less than 500 bytes per second$")


@MODES
@in_loop()
async def test_a_client_that_reads_slowly_but_reads(mode):
    """It never falls behind for long, so it stays and gets everything."""
    with Serving(app(FILLING, STATS), write_limit=64 * MIB, **mode) as server:
        async with client(server, max_queue=1) as ws:
            await ws.send("fill 1000")
            assert numbers([await ws.recv() for _ in range(1000)]) == list(range(1000))
            assert (await ws.recv()).startswith("fill 1000 ")
        assert (await asyncio.to_thread(stats, server))["slow_consumers"] == 0


@MODES
@in_loop()
async def test_a_burst_that_fills_kernel_and_queue_arrives(mode):
    """Nobody writes to that connection afterwards, and nothing comes from it: what is left goes when there is room."""
    code = """
    @server.on("open")
    def opened(server, request):
        server.push(request.fd, str(request.fd))

    @server.on("message")
    def said(server, frame):
        taken = [server.push(int(frame.data), f"{n:08d}".ljust(100_000)) for n in range(85)]
        server.push(frame.fd, str(sum(taken)))
    """
    with Serving(app(code), write_limit=8 * MIB, **mode) as server, Rude(server) as slow:
        [fd] = slow.read(1)
        async with client(server) as other:
            await other.recv()
            await other.send(fd)
            assert await other.recv() == "85"
        assert numbers(await asyncio.to_thread(slow.read, 85)) == list(range(85))


@in_loop()
async def test_f31_publish_to_a_hundred_of_whom_one_does_not_read():
    code = """
    import asyncio

    @server.on("open")
    def opened(server, request):
        server.subscribe(request.fd, "all")

    @server.on("message")
    async def said(server, frame):
        if frame.data == "fill":  # what the kernel takes, so that the next message has to wait
            info, pushed = server.get_client_info(frame.fd), 0
            while pushed * 16384 - info.bytes_sent < 100_000:
                server.push(frame.fd, "-1".ljust(16384))
                pushed += 1
                while info.messages_sent < pushed:  # the gateway may be behind
                    await asyncio.sleep(0.001)
                    info = server.get_client_info(frame.fd)
            return report("full")
        for n in range(100):
            server.publish("all", f"{n:08d}".ljust(4096))
            await asyncio.sleep(0.002)
        server.publish("all", "end")

    @server.on("close")
    def left(server, fd, code, reason):
        report("close", code, reason)
    """
    with Serving(app(code, STATS), worker_num=2, write_limit=256 * 1024) as server:
        gateway = server.pid_of("gateway 0")
        before = memory(gateway)

        async def hundred(ws):
            got = []
            while (message := await ws.recv()) != "end":
                got.append(message)
            return numbers(got)

        async with contextlib.AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(client(server)) for _ in range(99)]
            with Rude(server) as rude:
                rude.send("fill")
                await logged(server, "^report full")
                listening = [asyncio.create_task(hundred(ws)) for ws in readers]
                # an `open` that is finished has left the gateway with its subscription
                while any(
                    w["in_flight"] > 1 for w in (await asyncio.to_thread(stats, server))["gateways"][0]["workers"]
                ):
                    pass
                await readers[0].send("go")
                await found_slow(server)
                messages, close = await asyncio.to_thread(rude.read_to_end)
                for got in await asyncio.gather(*listening):
                    assert got == list(range(100))
                assert close.code == 1008
                sequence = [number for number in numbers(messages) if number >= 0]
                assert sequence == list(range(len(sequence)))
                assert len(sequence) < 100
            await logged(server, "^report close 1008 slow consumer: the out-queue is full")
            assert len(server.reports("close")) == 1
        assert memory(gateway, "VmHWM") - before < 32 * MIB


class Flood(threading.Thread):
    """Sends numbered messages from its own thread, without end, until all are sent or the socket is closed."""

    def __init__(self, rude, count, size=64 * 1024):
        super().__init__(daemon=True)
        self.rude, self.count, self.size, self.sent = rude, count, size, 0
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            for n in range(self.count):
                self.rude.socket.sendall(self.rude.frame(f"{n:08d}".ljust(self.size)))
                self.sent += 1


def standstill(*floods):
    """How much is sent when nothing more goes out: the senders sleep in the kernel, and still do a moment later."""
    end = time.monotonic() + LIMIT
    before, since = [], 0.0
    while time.monotonic() < end:
        now = [flood.sent for flood in floods]
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 0.4:
            return now
        time.sleep(0.02)
    raise AssertionError("the flood did not come to a standstill")


@MODES
@in_loop()
async def test_f28_a_flood_for_a_slow_handler(mode):
    """The gateway stops reading: its memory does not grow, and every message is handled in order."""
    code = """
    @server.on("message")
    async def said(server, frame):
        if not os.path.exists("go on"):
            report("waits")
            while not os.path.exists("go on"):
                await asyncio.sleep(0.01)
        number = int(frame.data[:8])
        if number != said.next:
            report("wrong", number, said.next)
        said.next = number + 1
        if said.next == 1000:
            report("all handled")
    said.next = 0
    """
    with Serving(app("import asyncio", code), **mode) as server:
        pids = [pid for pid, title in server.titles().items() if "supervisor" not in title]
        before = {pid: memory(pid) for pid in pids}
        with Rude(server, receive_buffer=65536) as rude:
            flood = Flood(rude, 1000)  # 64 MB; the kernel's buffers of both sides hold about 10
            await logged(server, "^report waits")
            assert (await asyncio.to_thread(standstill, flood))[0] < 400, "the gateway went on reading"
            for pid in pids:
                assert memory(pid, "VmHWM") - before[pid] < 8 * MIB
            server.script.with_name("go on").touch()
            await logged(server, "^report all handled")
            await asyncio.to_thread(flood.join, LIMIT)
            assert flood.sent == 1000
            assert not server.reports("wrong")
            for pid in pids:
                assert memory(pid, "VmHWM") - before[pid] < 12 * MIB
        assert server.stop() == 0
        assert drained(server) == {"accepted": 1000, "finished": 1000, "uncertain": 0, "dropped": 0}


@in_loop()
async def test_f28_a_flood_for_a_blocked_worker_does_not_stop_the_other_one():
    code = """
    @server.on("message")
    def said(server, frame):
        if frame.data == "block":
            report("blocked")
            while not os.path.exists("go on"):
                time.sleep(0.01)
        if len(frame.data) < 100:
            server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    with Serving(code, worker_num=2) as server:
        with contextlib.ExitStack() as stack:
            by_worker = {}
            for _ in range(6):
                rude = stack.enter_context(Rude(server, receive_buffer=65536))
                rude.send("who")
                by_worker.setdefault(rude.read(1)[0], []).append(rude)
            blocked, free = by_worker.values()
            blocked[0].send("block")
            await logged(server, "^report blocked")
            floods = [Flood(rude, 200) for rude in blocked[1:] + free[1:]]
            stuck = floods[: len(blocked) - 1]
            assert stuck
            assert max(await asyncio.to_thread(standstill, *stuck)) < 200
            for flood in floods[len(stuck) :]:
                await asyncio.to_thread(flood.join, LIMIT)
                assert flood.sent == 200, "it waits although its worker is free"
            longest = 0.0
            for n in range(200):
                start = time.monotonic()
                free[0].send(str(n))
                free[0].read(1)
                longest = max(longest, time.monotonic() - start)
            assert longest < 5.0
            server.script.with_name("go on").touch()
            for flood in stuck:
                await asyncio.to_thread(flood.join, LIMIT)
                assert flood.sent == 200
            for rude in blocked:
                rude.send("last")
            assert blocked[0].read(1)[0].startswith("block ")
            for rude in blocked:
                assert rude.read(1)[0].startswith("last ")
        assert server.stop() == 0
        assert drained(server)["accepted"] == 6 + 1 + 200 * len(floods) + 200 + len(blocked)


@in_loop()
@pytest.mark.parametrize(
    ("settings", "size", "clients", "in_flight"),
    [
        ({"in_flight_messages": 16}, 10, 1, 16),
        ({"in_flight_messages": 5}, 10, 2, 10),
        ({"in_flight_bytes": 262144}, 100_000, 1, 3),  # one message is let through while there is any room
        ({"in_flight_bytes": 1000}, 5000, 1, 1),
        ({"worker_messages": 30}, 10, 4, 30),
        ({"worker_bytes": 100_000, "in_flight_bytes": 1 << 30}, 60_000, 3, 2),
    ],
    ids=["messages", "few messages", "bytes", "one too large", "worker messages", "worker bytes"],
)
async def test_limits_of_what_is_in_flight(settings, size, clients, in_flight):
    """Exactly so much is handed over; the rest waits, and is handled in order afterwards."""
    code = """
    import asyncio
    seen = 0

    @server.on("message")
    async def said(server, frame):
        global seen
        while not os.path.exists("go on"):
            infos = [server.get_client_info(fd) for fd in server.connections]
            now = sum(info.in_flight for info in infos)
            if now != seen:
                report("in flight", now)
                seen = now
            # each client sends all of it with one write, of which the gateway has read the first part at least
            if all(info.bytes_received > 200 for info in infos):
                report("all have come")
            await asyncio.sleep(0.01)
        server.push(frame.fd, frame.data[:8])
    """
    with Serving(code, worker_num=1, **settings) as server:
        with contextlib.ExitStack() as stack:
            rude = [stack.enter_context(Rude(server, receive_buffer=65536)) for _ in range(clients)]
            sending = [asyncio.to_thread(one.send, *[f"{n:08d}".ljust(size) for n in range(40)]) for one in rude]
            sending = asyncio.gather(*sending)
            await logged(server, f"^report in flight {in_flight}$")  # before, an `open` may not be acknowledged yet
            mark = server.mark()
            await logged(server, "^report all have come", since=mark, count=20)
            server.script.with_name("go on").touch()
            for one in rude:
                assert numbers(await asyncio.to_thread(one.read, 40)) == list(range(40))
            await sending
        assert server.stop() == 0
        assert max(map(int, server.reports("in flight", since=mark)), default=0) <= in_flight
        assert drained(server) == {"accepted": 40 * clients, "finished": 40 * clients, "uncertain": 0, "dropped": 0}
