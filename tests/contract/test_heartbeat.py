"""Pings that the server sends, and control frames that the application asked to see."""

import time
from typing import Any

from websockets.sync.client import connect

from contract.clients import CLOSE, PING, PONG, TEXT, Raw, close_frame
from frames import frame
from support.serving import Serving, eventually

APP = """
@server.on("message")
def said(server, frame):
    report("message", frame.opcode.name, repr(frame.data), getattr(frame, "code", ""), getattr(frame, "reason", ""))
    if frame.data == "ping":
        server.ping(frame.fd, b"mine")
    elif frame.data == "block":
        time.sleep(1.5)
    elif frame.data == "round trip":
        server.push(frame.fd, repr(server.get_client_info(frame.fd).round_trip))

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, reason)
"""
QUICK = {"ping_interval": 0.2, "pong_timeout": 0.4}
PATIENT = {"ping_interval": 0.2, "pong_timeout": 1.5}  # a client of this test may wait for a CPU


def test_a_client_that_answers_stays_and_is_measured(mode: dict[str, Any]):
    with Serving(APP, **PATIENT, **mode) as server, connect(server.url, ping_interval=None) as ws:

        def measured() -> bool:
            ws.send("round trip")
            return ws.recv(5) != "None"

        time.sleep(2.0)  # silence is what this is about: longer than both limits together
        assert eventually(measured)
        ws.send("round trip")
        assert 0 < float(ws.recv(5)) < 1


def test_one_that_does_not_is_closed(mode: dict[str, Any]):
    with Serving(APP, **QUICK, **mode) as server, Raw(server) as raw:
        assert raw.upgrade("/").status == 101
        began = time.monotonic()
        assert raw.frame()[0] == PING
        assert raw.rest() == b""
        assert time.monotonic() - began > 0.5
        server.wait_log("^report close 1006 no answer to a ping$")


def test_whatever_it_says_is_a_sign_of_life(mode: dict[str, Any]):
    with Serving(APP, **QUICK, **mode) as server, Raw(server) as raw:
        raw.upgrade("/")
        said = began = time.monotonic()
        late = 0.0  # it may have waited for a CPU
        while said < began + 1.2:
            raw.send(frame(TEXT, b"here"))
            time.sleep(0.05)
            late, said = max(late, time.monotonic() - said), time.monotonic()
        raw.send(frame(TEXT, b"ping"))
        opcode, payload = raw.frame()
        while late > QUICK["ping_interval"] / 2 and (opcode, payload) == (PING, b""):
            opcode, payload = raw.frame()
        assert (opcode, payload) == (PING, b"mine"), "and no other one before it"


def test_pings_go_on_while_the_worker_is_busy():
    with Serving(APP, **PATIENT, mode="process", worker_num=1) as server, connect(server.url, ping_interval=None) as ws:
        ws.send("block")
        ws.send("round trip")
        assert float(ws.recv(10)) < 1
        assert server.stop() == 0


def test_control_frames_are_messages_for_whoever_asks(mode: dict[str, Any]):
    asked = {f"open_websocket_{kind}_frame": True for kind in ("ping", "pong", "close")}
    with Serving(APP, **asked, **mode) as server, Raw(server) as raw:
        raw.upgrade("/")
        raw.send(frame(PING, b"abc"))
        assert raw.frame() == (PONG, b"abc")
        raw.send(frame(PONG, b"unasked") + close_frame(4001, b"bye"))
        assert raw.close_frame()[0] == 4001
        server.wait_log("^report close 4001 bye$")
        assert server.reports("message") == [
            "PING b'abc'",
            "PONG b'unasked'",
            "CLOSE b'\\x0f\\xa1bye' 4001 bye",
        ]


def test_and_for_nobody_else(mode: dict[str, Any]):
    with Serving(APP, **mode) as server, Raw(server) as raw:
        raw.upgrade("/")
        raw.send(frame(PING, b"abc") + frame(PONG, b"") + close_frame(4001, b"bye"))
        server.wait_log("^report close 4001 bye$")
        assert server.reports("message") == []


def test_pongs_that_were_asked_for_are_no_flood(mode: dict[str, Any]):
    """Neither by the application nor by the gateway; one more than that is counted."""
    with Serving(APP, control_frame_limit=10, ping_interval=0.1, **mode) as server, Raw(server) as raw:
        raw.upgrade("/")
        for _ in range(60):
            raw.send(frame(TEXT, b"ping"))
            opcode, payload = raw.frame()
            while payload != b"mine":
                assert opcode == PING
                raw.send(frame(PONG, payload))
                opcode, payload = raw.frame()
            raw.send(frame(PONG, payload))
        raw.send(frame(PONG, b"unasked") * 30)  # a few of them may pass for answers to pings that are on their way
        while (found := raw.frame())[0] == PING:
            pass
        assert found == (CLOSE, (1008).to_bytes(2, "big") + b"too many pings and pongs")


def test_a_flood_of_them_closes(mode: dict[str, Any]):
    with Serving(APP, control_frame_limit=20, **mode) as server, Raw(server) as raw:
        raw.upgrade("/")
        raw.send(frame(PING, b"") * 20)
        assert [raw.frame() for _ in range(20)] == [(PONG, b"")] * 20
        raw.send(frame(PING, b""))
        assert raw.close_frame() == (1008, "too many pings and pongs")
