"""Every connection leaves one record when it ends, whatever ends it: the same in the log and for `ended`."""

import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from contract.clients import BINARY, TEXT, Raw, close_frame, get, handshake, only_gateway, websocket
from contract.closing import APP, QUICK, logged, the_record, told
from contract.modes import only
from frames import frame
from mooring._core.registry import Cause
from mooring.types import CAUSES
from support.serving import Serving, eventually


@pytest.fixture(scope="module")
def ending(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **QUICK, **mode) as running:
        yield running
        assert running.stop() == 0
        fds = [record["fd"] for record in logged(running)]
        assert len(fds) == len(set(fds))
        assert sorted(fds) == sorted(record["fd"] for record in told(running))


def test_every_cause_has_a_meaning():
    assert {cause.name.lower() for cause in Cause} - {"unknown"} == set(CAUSES)


# ---------------------------------------------------------------------------------------------- WebSockets


def leaves(raw: Raw, data: bytes, code: int) -> None:
    """It does what it may not, and goes when it is told so: until then the server reads on for a while."""
    raw.send(data)
    while (found := raw.frame())[0] != 8:
        pass
    assert found[1][:2] == code.to_bytes(2, "big")
    raw.socket.close()


WAYS: dict[str, tuple[Callable[[Raw], object], str, int]] = {
    "the peer's close frame": (lambda raw: raw.send(close_frame(4001, b"bye")), "client_closed", 4001),
    "without a code": (lambda raw: raw.send(close_frame(None)), "client_closed", 1005),
    "without a frame": (lambda raw: raw.socket.shutdown(socket.SHUT_WR), "client_ended", 1006),
    "a reset": (lambda raw: raw.reset(), "client_reset", 1006),
    "disconnect": (
        lambda raw: raw.send(frame(TEXT, b"server.disconnect(frame.fd, 4002, 'enough')")),
        "application_closed",
        4002,
    ),
    "disconnect, and the client leaves": (
        lambda raw: (
            raw.send(frame(TEXT, b"server.disconnect(frame.fd, 4003, 'enough')")),
            raw.close_frame(),
            raw.socket.shutdown(socket.SHUT_WR),
        ),
        "application_closed",
        4003,
    ),
    "close": (lambda raw: raw.send(frame(TEXT, b"server.close(frame.fd)")), "application_closed", 1000),
    "a handler that raises": (lambda raw: raw.send(frame(TEXT, b"1 / 0")), "handler_failed", 1011),
    "a message that is refused": (lambda raw: raw.send(frame(TEXT, b"refuse()")), "message_refused", 1008),
    "no mask": (lambda raw: leaves(raw, b"\x81\x01x", 1002), "protocol_error", 1002),
    "no text": (lambda raw: leaves(raw, frame(TEXT, b"\xff"), 1007), "invalid_data", 1007),
    "a large message": (lambda raw: leaves(raw, frame(BINARY, bytes(1001)), 1009), "message_too_big", 1009),
    "many pings": (lambda raw: leaves(raw, frame(9, b"") * 6, 1008), "too_many_pings", 1008),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_websocket_ends(ending: Serving, way: str):
    act, cause, code = WAYS[way]
    mark = ending.mark()
    with websocket(ending, f"/room?user=ann&way={len(way)}") as (raw, fd):
        act(raw)
        record = the_record(ending, mark)
    assert (record["cause"], record["code"], record["fd"]) == (cause, code, fd)
    assert (record["protocol"], record["phase"], record["path"]) == ("websocket", "open", "/room")
    assert (record["user"], record["requests"], record["listener"]) == ("ann", 1, 0)
    assert record["messages_sent"] == 1
    assert record["gateway"] == fd >> 57


def test_what_is_counted(ending: Serving):
    mark, before = ending.mark(), time.time()
    with websocket(ending, "/room") as (raw, _):
        port = raw.socket.getsockname()[1]
        for text in (b"None", b"server.push(frame.fd, bytes(5000))"):
            raw.send(frame(TEXT, text))
        assert len(raw.frame()[1]) == 5000
        raw.send(close_frame(1000, b"thanks"))
        record = the_record(ending, mark)
    assert (record["messages_received"], record["messages_sent"]) == (2, 2)
    assert record["bytes_received"] > 150
    assert 5000 < record["most_queued"] < record["bytes_sent"]
    assert (record["remote_ip"], record["remote_port"], record["reason"]) == ("127.0.0.1", port, "thanks")
    assert record["worker_id"] in (0, 1)
    assert abs(record["connect_time"] - before) < 20
    assert 0 <= record["duration"] < 20
    assert (record["tls"], record["subprotocol"], record["compression"]) == ("", "", "")
    assert record["user"] == ""
    assert record["round_trip"] is None


def test_what_an_ended_handler_raises_is_told(ending: Serving):
    mark = ending.mark()
    with websocket(ending, "/fails") as (raw, fd):
        raw.send(close_frame(1000))
        ending.wait_log(f"^report error ended {fd}", since=mark)
        the_record(ending, mark)


# ---------------------------------------------------------------------------------------------- the others


def answered(raw: Raw, status: int = 200) -> None:
    assert raw.answer().status == status


def refused_by(raw: Raw, request: bytes, status: int) -> None:
    """The client ends its half as soon as it has seen that the other one is ended."""
    raw.send(request)
    answered(raw, status)
    assert raw.rest() == b""
    raw.socket.close()


HTTP: dict[str, tuple[Callable[[Raw], object], str, int | None, str]] = {
    "never a byte": (lambda raw: raw.socket.close(), "client_ended", None, "request"),
    "half a request": (lambda raw: (raw.send(b"GET / HT"), raw.reset()), "client_reset", None, "request"),
    "behind an answer": (
        lambda raw: (raw.send(get("/")), answered(raw), raw.socket.close()),
        "client_ended",
        None,
        "idle",
    ),
    "the last answer": (
        lambda raw: refused_by(raw, get("/", "Connection: close"), 200),
        "answered",
        None,
        "handling",
    ),
    "a bad request": (lambda raw: refused_by(raw, b"GET / HTTP/1.1\r\n\r\n", 400), "bad_request", 400, "request"),
    "a bad request, and the client stays": (
        lambda raw: (raw.send(b"GET / HTTP/1.1\r\n\r\n"), answered(raw, 400), raw.rest()),
        "bad_request",
        400,
        "request",
    ),
    "another host": (
        lambda raw: refused_by(raw, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", 421),
        "bad_host",
        421,
        "handling",
    ),
    "a bad handshake": (
        lambda raw: refused_by(raw, handshake("/", "Origin: null"), 403),
        "bad_handshake",
        403,
        "handling",
    ),
    "a handshake that is refused": (
        lambda raw: refused_by(raw, handshake("/no"), 403),
        "handshake_refused",
        403,
        "handling",
    ),
    "a handshake that is late": (
        lambda raw: refused_by(raw, handshake("/late"), 504),
        "handshake_timeout",
        504,
        "handling",
    ),
    "no request": (lambda raw: raw.rest(), "request_timeout", None, "request"),
    "a slow request": (lambda raw: refused_by(raw, b"GET / HT", 408), "request_timeout", 408, "request"),
    "a large head": (lambda raw: refused_by(raw, get("/", "X: " + "x" * 100_000), 431), "bad_request", 431, "request"),
    "a large body": (
        lambda raw: refused_by(raw, get("/", f"Content-Length: {1 << 40}", method="POST"), 413),
        "bad_request",
        413,
        "request",
    ),
    "idle": (lambda raw: (raw.send(get("/")), answered(raw), raw.rest()), "keepalive_timeout", None, "idle"),
    "close": (
        lambda raw: (raw.send(get("/?do=server.close(request.fd)")), raw.rest()),
        "application_closed",
        None,
        "handling",
    ),
    "gone in a handler": (
        lambda raw: (raw.send(get("/?do=seen('never')")), time.sleep(0.1), raw.reset()),
        "client_reset",
        None,
        "handling",
    ),
}


@pytest.mark.parametrize("way", HTTP)
def test_an_http_connection_ends(ending: Serving, way: str, tmp_path: Path):
    act, cause, code, phase = HTTP[way]
    mark = ending.mark()
    if way == "gone in a handler":  # whose `disconnect` would wait for it
        with Raw(ending, get("/?do=seen('never')")) as raw:
            ending.wait_log("^report request", since=mark)
            raw.reset()
            ending.wait_log('"logger":"mooring.closed"', since=mark)
        (record,) = logged(ending, mark)
        Path(f"/proc/{ending.pid}/cwd/never").touch()
        ending.wait_log("^report ended", since=mark)
    else:
        with Raw(ending) as raw:
            act(raw)
            record = the_record(ending, mark)
    assert (record["cause"], record["code"], record["phase"], record["protocol"]) == (cause, code, phase, "http")
    if phase in ("handling", "idle"):
        assert record["requests"] == 1
        assert record["path"].startswith("/")


# ---------------------------------------------------------------------------------------------- the server's doing


def test_everybody_is_told_at_a_stop(mode: dict[str, Any]):
    with Serving(APP, **{**QUICK, "keepalive_timeout": 60, "header_timeout": 60}, **mode) as server:
        with websocket(server, "/"), Raw(server, get("/")) as raw, Raw(server):
            answered(raw)
            with Raw(server) as asker:

                def connections() -> int:
                    asker.send(get("/?do=len(server.connections)"))
                    return asker.answer().json()[1]

                eventually(lambda: connections() == 4)
                server.signal(signal.SIGTERM)
                assert server.ended() == 0
        records = logged(server)
        assert [record["cause"] for record in records] == ["shutdown"] * 4
        assert sorted((record["protocol"], record["code"]) for record in records if record["code"]) == [
            ("websocket", 1001)
        ]
        assert sorted(record["fd"] for record in told(server)) == sorted(record["fd"] for record in records)


def test_who_is_still_waited_for_when_the_time_is_up(mode: dict[str, Any]):
    """One has its last answer, and one its close frame; neither ends the connection."""
    limits = {**QUICK, "close_timeout": 60, "graceful_timeout": 0.3}
    with Serving(APP, **limits, **mode) as server, Raw(server) as refused, websocket(server, "/") as (raw, _):
        raw.send(frame(TEXT, b"server.disconnect(frame.fd, 4000, 'enough')"))
        raw.frame()
        refused.send(b"no request\r\n\r\n")
        assert refused.answer().status == 400
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
        assert sorted((one["cause"], one["code"]) for one in logged(server)) == [
            ("application_closed", 4000),
            ("bad_request", 400),
        ]


def test_time_limits_of_a_websocket(mode: dict[str, Any]):
    limits = {
        "ping_interval": 0.2,
        "pong_timeout": 1.5,
        "close_timeout": 0.3,
    }  # one of these clients is to answer in time
    limits |= {"close_records": "log", "log_format": "json"}
    with Serving(APP, **limits, **mode) as server:
        with websocket(server, "/") as (raw, _), websocket(server, "/") as (mute, dead):
            opcode, payload = raw.frame()
            assert opcode == 9
            raw.send(frame(10, payload))
            opcode, payload = raw.frame()
            raw.send(frame(10, payload) + close_frame(1000))
            while mute.received or mute.socket.recv(1000):
                mute.received = b""
            server.wait_log("^report ended", count=2)
        first, second = logged(server)
        assert (first["cause"], second["cause"], second["fd"]) == ("client_closed", "ping_timeout", dead)
        assert 0 < first["least_round_trip"] <= first["round_trip"] < 5
        assert server.stop() == 0
    limits |= {"heartbeat_idle_time": 0.4, "ping_interval": 0}
    with Serving(APP, **limits, **mode) as server:
        with websocket(server, "/") as (raw, _):
            assert raw.close_frame()[0] == 1001
            server.wait_log("^report ended")
        assert logged(server)[0]["cause"] == "heartbeat_timeout"
        assert server.stop() == 0


def test_a_client_that_does_not_read(mode: dict[str, Any]):
    limits = {"write_limit": 65536, "close_timeout": 0.3, "write_timeout": 0.3}
    limits |= {"close_records": "log", "log_format": "json"}
    with Serving(APP, **limits, **mode) as server:
        with websocket(server, "/") as (raw, _):
            raw.send(frame(TEXT, b"flood(frame.fd)"))
            server.wait_log("^report ended")
        record = logged(server)[0]
        assert (record["cause"], record["code"]) == ("slow_consumer", 1008)
        assert record["most_queued"] > 65536
        assert server.stop() == 0


def test_tls(mode: dict[str, Any], tmp_path: Path):
    authority = trustme.CA()
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = {"ssl_cert_file": str(tmp_path / "cert.pem"), "ssl_handshake_timeout": 1.5, "subprotocols": ["chat"]}
    deflate = {"websocket_compression": True, "close_records": "log", "log_format": "json"}
    with Serving(APP, **options, **deflate, **mode) as server:
        mark = server.mark()
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.settimeout(10)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                fields = ("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate")
                client.sendall(handshake("/", *fields))
                assert client.recv(65536).startswith(b"HTTP/1.1 101")
                client.sendall(close_frame(1000))
                record = the_record(server, mark)
        assert (record["tls"], record["subprotocol"]) == ("TLSv1.3", "chat")
        assert (record["compression"], record["cause"]) == ("permessage-deflate", "client_closed")
        for act, cause in (
            (lambda raw: raw.send(get("/")), "tls_failed"),
            (lambda raw: raw.send(b"\x16\x03\x01\x00\x05hello"), "tls_failed"),
            (lambda raw: None, "request_timeout"),
        ):
            mark = server.mark()
            with Raw(server) as raw:
                act(raw)
                raw.rest()
            record = the_record(server, mark)
            assert (record["cause"], record["phase"], record["tls"]) == (cause, "connecting", "")
        assert server.stop() == 0


def test_a_header_of_a_proxy_that_is_wrong(mode: dict[str, Any]):
    with Serving(
        APP, proxy_protocol="any", proxy_protocol_from=["127.0.0.0/8"], close_records="log", log_format="json", **mode
    ) as server:
        with Raw(server, get("/")) as raw:
            raw.rest()
        server.wait_log("^report ended")
        record = logged(server)[0]
        assert (record["cause"], record["phase"]) == ("bad_proxy_header", "connecting")
        assert server.stop() == 0


@only("process", "process-2")
def test_the_worker_of_a_request_ends(mode: dict[str, Any]):
    with Serving(APP, **QUICK, **mode) as server:
        with Raw(server, get("/?do=os.kill(os.getpid(),9)")) as raw:
            answered(raw, 502)
            server.wait_log("^report ended")
        (record,) = logged(server)
        assert (record["cause"], record["code"]) == ("worker_lost", 502)
        assert server.stop() == 0


@only("process", "process-2")
def test_a_gateway_that_ends(mode: dict[str, Any]):
    """Its workers write what it can't write any more, one for each connection, also if no worker had served it."""
    with Serving(APP, **{**QUICK, "header_timeout": 60, "keepalive_timeout": 60}, **mode) as server:
        with contextlib.ExitStack() as stack:
            with only_gateway(server, mode, 0):
                gone = {stack.enter_context(websocket(server, "/"))[1] for _ in range(4)}
                quick = stack.enter_context(Raw(server, get("/")))
                gone.add(quick.answer().json()[0])
                stack.enter_context(Raw(server))
                with Raw(server, get("/?do=len(server.connections)")) as raw:
                    fd, count = raw.answer().json()
                    assert count >= 7
            server.wait_log(f'^report ended .*"fd": {fd},')  # its end is none of the gateway's
            mark = server.mark()
            os.kill(server.pid_of("gateway 0"), signal.SIGKILL)
            server.wait_log('"cause":"gateway_lost"', since=mark, count=6)
            server.wait_log("^report ended", since=mark, count=6)
            records = [record for record in logged(server, mark) if record["cause"] == "gateway_lost"]
            assert gone < {record["fd"] for record in records}
            assert sorted(record["protocol"] for record in records) == ["http"] * 2 + ["websocket"] * 4
            assert sorted(map(str, records)) == sorted(
                str(record) for record in told(server, mark) if record["cause"] == "gateway_lost"
            )
            server.wait_log("serves in place", since=mark)
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------- settings


def test_each_listener_has_its_own_setting(mode: dict[str, Any], tmp_path: Path):
    app = f"""
    @server.on("message")
    def said(server, frame): ...

    @server.on("ended")
    def ended(server, record):
        report("ended", record.fd, record.listener)

    @server.on("request")
    def asked(request, response):
        response.end(str(request.fd))

    server.listen(unix_socket={str(tmp_path / "socket")!r}, close_records="log")
    """
    with Serving(app, close_records="on", **mode) as server:
        with Raw(server, get("/", "Connection: close")) as raw:
            raw.rest()
        server.wait_log("^report ended .* 0$")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            client.sendall(get("/a b".replace(" ", "%20"), "Connection: close"))
            while client.recv(65536):
                pass
        server.wait_log("^report ended .* 1$")
        line = server.wait_log(r"connection \d+ ended by answered (.*)")[1]
        assert len([line for line in server.lines if "ended by" in line]) == 1
        assert "by=server" in line
        assert 'path="/a%20b"' in line
        assert "code=" not in line
        assert server.stop() == 0


def test_nothing_is_kept_unless_asked_for(mode: dict[str, Any]):
    app = """
    @server.on("request")
    def asked(request, response):
        response.end(str(request.fd))
    """
    with Serving(app, **mode) as server:
        with Raw(server, get("/", "Connection: close")) as raw:
            raw.rest()
        assert server.stop() == 0
        assert "ended by" not in "\n".join(server.lines)
    app = "@server.on('ended')\ndef ended(server, record): ...\n" + app.replace("\n    ", "\n")
    with Serving(app, ready=False, **mode) as server:
        server.wait_log("set close_records to on or log, or remove the handler")
