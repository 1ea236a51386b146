"""Several listeners on one server, each with its own settings and handlers."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from contract.clients import Raw, get, handshake
from contract.modes import only
from support.serving import LIMIT, Serving

APP = """
admin = server.listen("127.0.0.1", 0, max_message_size=10, body_limit=5, subprotocols=["admin"],
                      allowed_origins=["https://admin.example"], websocket_compression=True, server_header=False)
local = server.listen(unix_socket=os.path.abspath("x.sock"))

@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")

@server.on("message")
def said(server, frame):
    if frame.data == "info":
        info = server.get_client_info(frame.fd)
        server.push(frame.fd, json.dumps([info.listener, info.server_port, info.unix_socket]))
    elif frame.data == "publish":
        server.publish("all", "to all of you, " * 10)
    else:
        server.push(frame.fd, f"server: {frame.data}")

@server.on("close")
def left(server, fd, code, reason):
    report("close at the server's", code)

@server.on("request")
def page(request, response):
    response.end("the server's page")

@admin.on("message")
async def asked(server, frame):
    if frame.data == "die":
        report("dying")
        os.kill(os.getpid(), 9)
    if frame.data == "info":
        said(server, frame)
    else:
        server.push(frame.fd, f"admin: {frame.data}")

@admin.on("close")
async def left_admin(server, fd, code, reason):
    report("close at the admin's", code)

@admin.on("request")
async def admin_page(request, response):
    response.end(f"the admin's page, port {request.server_port}")

@admin.on("uncertain")
def uncertain(server, frame, reason):
    report("uncertain at the admin's", frame.data)

@admin.on("handshake")
def judge(server, request):
    return request.query.get("key") != "wrong"
"""


class Several:
    """A running server with three listeners."""

    def __init__(self, server: Serving, folder: Path) -> None:
        self.server = server
        ports = re.findall(r"127\.0\.0\.1:(\d+)", server.wait_log("listening on .*").group())
        assert len(ports) == 2
        self.ports = [int(port) for port in ports]
        self.path = str(folder / "x.sock")

    def admin(self, query: str = "", **options: Any) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.ports[1]}/{query}", proxy=None, **options)

    def own(self, **options: Any) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.ports[0]}/", proxy=None, **options)

    def local(self, **options: Any) -> ClientConnection:
        return unix_connect(self.path, "ws://localhost/", **options)


@pytest.fixture(scope="module")
def several(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    folder = tmp_path_factory.mktemp("several").resolve()
    with Serving(APP, cwd=folder, **mode) as server:
        yield Several(server, folder)
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]
    assert os.listdir(folder) == []


def ask(ws: ClientConnection, text: str) -> Any:
    ws.send(text)
    return ws.recv(LIMIT)


def test_messages_reach_the_handler_of_their_listener(several: Several):
    with several.own() as own, several.admin() as admin, several.local() as local:
        for word in ("one", "two"):
            assert ask(own, word) == f"server: {word}"
            assert ask(admin, word) == f"admin: {word}"
            assert ask(local, word) == f"server: {word}"


def test_what_is_known_of_a_client(several: Several):
    with several.own() as own, several.admin() as admin, several.local() as local:
        assert json.loads(ask(own, "info")) == [0, several.ports[0], ""]
        assert json.loads(ask(admin, "info")) == [1, several.ports[1], ""]
        assert json.loads(ask(local, "info")) == [2, 0, several.path]


def test_close_and_request_reach_it_too(several: Several):
    mark = several.server.mark()
    with several.admin() as admin, several.own() as own, several.local() as local:
        for number, ws in enumerate((own, admin, local)):
            ws.close(4001 + number)  # codes of this test; those of earlier ones may still be reported
    several.server.wait_log("^report close at the admin's 4002", since=mark)
    several.server.wait_log("^report close at the server's 4001", since=mark)
    several.server.wait_log("^report close at the server's 4003", since=mark)
    for port, text, named in [(0, "the server's page", True), (1, f"the admin's page, port {several.ports[1]}", False)]:
        with Raw(several.server, get(), port=several.ports[port]) as raw:
            answer = raw.answer()
            assert answer.body == text.encode()
            assert ("server" in dict(answer.headers)) == named


@pytest.mark.parametrize(
    ("listener", "named"), [(0, True), (1, False)], ids=["the server's", "one with server_header=False"]
)
@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, handshake("/").replace(b"Sec-WebSocket-Key", b"X-Key")),
        (403, handshake("/", "Origin: https://evil.example")),
        (200, get()),
        (413, get("/", "Content-Length: 1000000000", method="POST")),
        (505, get("/", version="3.0")),
    ],
    ids=["no host", "no key", "origin", "page", "body", "version"],
)
def test_no_answer_names_the_server_that_shall_not(
    several: Several, listener: int, named: bool, status: int, request_: bytes
) -> None:
    """Whoever gives it: the application, a worker or a gateway."""
    with Raw(several.server, request_, port=several.ports[listener]) as raw:
        answer = raw.answer()
        assert (answer.status, "server" in dict(answer.headers)) == (status, named)


def test_limits_are_those_of_the_listener(several: Several):
    with several.own() as own, several.admin() as admin:
        assert ask(own, "x" * 100) == "server: " + "x" * 100
        admin.send("x" * 11)
        with pytest.raises(ConnectionClosedError) as closed:
            admin.recv(LIMIT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    for port, status in zip(several.ports, (200, 413), strict=True):
        with Raw(several.server, port=port) as raw:
            raw.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n123456")
            assert raw.answer().status == status


def test_handshakes_are_judged_as_the_listener_says(several: Several):
    origin = {"origin": "https://admin.example"}
    with several.admin(**origin) as admin:
        assert ask(admin, "hello") == "admin: hello"
    for connecting in (several.own, several.local):
        with pytest.raises(InvalidStatus, match="403"), connecting(**origin):
            pass
    with several.admin(subprotocols=["x", "admin"]) as admin, several.own(subprotocols=["x", "admin"]) as own:
        assert (admin.subprotocol, own.subprotocol) == ("admin", None)
    with several.admin() as admin, several.own() as own:
        assert admin.response is not None
        assert own.response is not None
        names = ["Sec-WebSocket-Extensions" in ws.response.headers for ws in (admin, own)]  # type: ignore[union-attr]
        assert names == [True, False]
    with pytest.raises(InvalidStatus, match="403"), several.admin("?key=wrong"):
        pass
    with connect(f"ws://127.0.0.1:{several.ports[0]}/?key=wrong", proxy=None) as own:
        assert ask(own, "hello") == "server: hello"


def test_a_topic_knows_no_listeners(several: Several):
    with several.own() as own, several.admin() as admin, several.local() as local:
        assert ask(admin, "hello") == "admin: hello"  # `open` is over
        assert ask(local, "hello") == "server: hello"
        own.send("publish")
        for ws in (own, admin, local):
            assert ws.recv(LIMIT) == "to all of you, " * 10


@only("process", "process-2")
def test_what_is_uncertain_is_told_to_the_handler_of_the_listener(mode: dict[str, Any], tmp_path: Path):
    with Serving(APP, cwd=tmp_path, **mode) as server:
        several = Several(server, tmp_path)
        with several.admin() as admin:
            admin.send("die")
            server.wait_log("^report uncertain at the admin's die")
            assert ask(admin, "hello") == "admin: hello"
        server.wait_log("^report close at the admin's 1000")
        assert server.stop() == 0


@only("process")
def test_a_reload_cannot_change_how_many_there_are(mode: dict[str, Any], tmp_path: Path):
    """Connections of a listener that the new code does not know are served by the server's handlers."""
    app = tmp_path / "more.py"
    more = 'more = server.listen("127.0.0.1", 0)\n@more.on("message")\ndef m(s, f): s.push(f.fd, "more")\n'
    app.write_text(more)
    text = (
        'exec(open("more.py").read())\n@server.on("message")\ndef said(server, frame): server.push(frame.fd, "own")\n'
    )
    with Serving(text, cwd=tmp_path, **mode) as server:
        port = re.findall(r"127\.0\.0\.1:(\d+)", server.wait_log("listening on .*").group())[1]
        with connect(f"ws://127.0.0.1:{port}/", proxy=None) as ws:
            assert ask(ws, "hello") == "more"
            for new, words, answer in [
                ("", "has 0 further listeners, the server 1: restart it", "own"),
                (more * 2, "has 2 further listeners, the server 1: restart it", "more"),
            ]:
                app.write_text(new)
                mark = server.mark()
                server.signal(signal.SIGHUP)
                server.wait_log("reload: done", since=mark)
                server.wait_log(words, since=mark)
                assert ask(ws, "hello") == answer
        assert server.stop() == 0


@only("base", "process")
def test_all_of_them_or_none(mode: dict[str, Any], tmp_path: Path):
    """The last address is taken: one line, exit code 98, and nothing is left of those before."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        more = f'server.listen(unix_socket=os.path.abspath("x.sock"))\nserver.listen("127.0.0.1", {port})\n'
        with Serving(more + APP, cwd=tmp_path, ready=False, **mode) as server:
            assert server.ended() == 98
            [line] = [line for line in server.lines if " ERROR " in line]
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in line
    assert "Traceback" not in "\n".join(server.lines)
    assert not any("ready" in line for line in server.lines)
    assert os.listdir(tmp_path) == []
