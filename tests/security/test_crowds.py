"""C12, C19, C20, C22: clients that are slow, that do not read, that come and go, and that may not hear one another."""

import contextlib
import random
import threading
from collections.abc import Iterator

import pytest

from contract.clients import BINARY, TEXT, Raw, get, handshake
from frames import frame
from security.conftest import APP, MODES
from security.watch import MIB, descriptors, gateway_of, in_threads, watched
from support.serving import Serving, eventually

BOTH = pytest.mark.parametrize("mode", MODES)


def stats(server: Serving) -> dict[str, int]:
    with Raw(server, get("/stats")) as raw:
        return raw.answer().json()


@pytest.fixture(scope="module", params=MODES)
def hurried(request: pytest.FixtureRequest) -> Iterator[Serving]:
    limits = {"header_timeout": 1, "close_timeout": 1, "write_timeout": 1, "keepalive_timeout": 1}
    with Serving(APP, **limits, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


def test_c12_heads_that_come_byte_by_byte(hurried: Serving):
    """The time limit is for the whole head; bytes do not start it again."""
    crowd = [Raw(hurried) for _ in range(300)]
    stop = threading.Event()

    def drip() -> None:
        for octet in b"GET / HTTP/1.1\r\nHost: " + b"x" * 200:
            for raw in crowd:
                with contextlib.suppress(OSError):
                    raw.send(bytes([octet]))
            if stop.wait(0.1):
                return

    with watched(hurried):
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        try:
            for raw in crowd:
                assert raw.answer().status == 408
        finally:
            stop.set()
            thread.join()
            for raw in crowd:
                raw.socket.close()


def test_c12_clients_that_say_nothing(hurried: Serving):
    crowd = [Raw(hurried) for _ in range(500)]
    with watched(hurried):
        for raw in crowd:
            assert raw.rest() == b""
            raw.socket.close()


def test_c12_clients_that_reset_at_once(hurried: Serving):
    pid = gateway_of(hurried)
    with watched(hurried):
        before = descriptors(pid)
        for _ in range(2000):
            Raw(hurried).reset()
        for head in (b"G", b"GET / HTTP/1.1\r\n", get("/"), handshake("/attack")):
            for _ in range(100):
                Raw(hurried, head).reset()
        eventually(lambda: descriptors(pid) <= before, what="every descriptor is closed")


TOPICS = """
@server.on("message")
def said(server, frame):
    word, _, topic = frame.data.partition(" ") if isinstance(frame.data, str) else ("", "", "")
    if word == "sub":
        server.subscribe(frame.fd, topic)
    elif word == "unsub":
        server.unsubscribe(frame.fd, topic)
    elif word == "pub":
        server.publish(topic, topic)
    if word != "pub":
        server.push(frame.fd, frame.data, frame.opcode)
"""


@BOTH
def test_c19_topics_with_any_name(mode: str):
    """Who is subscribed is as in a model, whatever the names are."""
    app = APP.replace('@server.on("message")\ndef said', "def unused") + TOPICS
    chance = random.Random(19)
    names = ["*", "#", "a.*", "a", "A", "a ", "..", "\u00e4", "a\u0308", "\U0001f600", "\u0000", "%s", "{}", "x" * 200]
    names += [f"t{n}" for n in range(60)]
    with Serving(app, **MODES[mode]) as server, contextlib.ExitStack() as stack:
        with watched(server, 24 * MIB):
            crowd = [stack.enter_context(Raw(server)) for _ in range(20)]
            model: list[set[str]] = [set() for _ in crowd]
            for raw in crowd:
                assert raw.upgrade("/attack").status == 101
            for _ in range(1500):
                number = chance.randrange(len(crowd))
                raw, name = crowd[number], chance.choice(names)
                word = chance.choice(["sub", "sub", "unsub"])
                raw.send(frame(TEXT, f"{word} {name}".encode()))
                assert raw.text() == f"{word} {name}"
                if word == "sub":
                    model[number].add(name)
                else:
                    model[number].discard(name)
            publisher = stack.enter_context(Raw(server))
            assert publisher.upgrade("/attack").status == 101
            for name in names:
                publisher.send(frame(TEXT, f"pub {name}".encode()))
            publisher.send(frame(TEXT, b"sub end"))
            assert publisher.text() == "sub end"
            for raw, subscribed in zip(crowd, model, strict=True):
                for name in names:
                    if name in subscribed:
                        assert raw.text() == name
                raw.send(frame(TEXT, b"nothing else"))
                assert raw.text() == "nothing else"


def test_c20_nobody_hears_another(server: Serving):
    """Two floods with different secrets, while others come and are cut off: descriptor numbers and slots are used
    again at once. Nobody reads a byte that is not theirs."""
    end = threading.Event()

    def flood(number: int) -> None:
        chance = random.Random(number)
        secret = bytes([65 + number]) * 16
        rounds = 0
        while not end.is_set():
            with Raw(server) as raw:
                assert raw.upgrade("/canary").status == 101
                for _ in range(chance.randint(1, 20)):
                    message = secret * chance.randint(1, 2000)
                    raw.send(frame(BINARY, message))
                    if chance.random() < 0.9:
                        assert raw.frame() == (BINARY, message)
                    else:
                        break
                if chance.random() < 0.7:
                    raw.reset()
            rounds += 1
            if rounds == 150:
                break

    with watched(server, 32 * MIB):
        in_threads(4, flood)
        end.set()


PUBLISHING = """
@server.on("message")
async def said(server, frame):
    word, _, count = frame.data.partition(" ") if isinstance(frame.data, str) else ("", "", "")
    if word == "join":
        server.subscribe(frame.fd, "all")
    if word == "flood":
        for n in range(int(count)):
            server.publish("all", b"x" * 262144, Opcode.BINARY)
            await asyncio.sleep(0)
    server.push(frame.fd, frame.data, frame.opcode)
"""


@BOTH
def test_c22_a_client_that_never_reads(mode: str):
    """512 MiB are published to it. It is cut at its limit, and memory ends there."""
    app = APP.replace('@server.on("message")\ndef said', "def unused") + PUBLISHING
    with Serving(app, **MODES[mode]) as server:
        with watched(server, 32 * MIB), Raw(server, receive_buffer=4096) as deaf, Raw(server) as other:
            for raw in (deaf, other):
                assert raw.upgrade("/attack").status == 101
            deaf.send(frame(TEXT, b"join"))
            assert deaf.text() == "join"
            other.send(frame(TEXT, b"flood 2048"))
            assert other.text() == "flood 2048"
        assert stats(server)["slow_consumers"] == 1


def test_c22_a_client_that_only_provokes_refusals(server: Serving):
    """Thousands of wrong requests, of which no answer is read."""
    pid = gateway_of(server)
    with watched(server, 16 * MIB):
        before = descriptors(pid)
        crowd = []
        for _ in range(500):
            raw = Raw(server, receive_buffer=4096)
            with contextlib.suppress(OSError):
                for _ in range(10):
                    raw.send(get("/", "Content-Length: x"))
            crowd.append(raw)
        eventually(lambda: descriptors(pid) <= before, what="all of them are ended")
        for raw in crowd:
            raw.socket.close()
    assert stats(server)["failed"] >= 500
