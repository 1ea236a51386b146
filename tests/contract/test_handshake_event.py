"""The handshake in the user's hand: the events `handshake`, `origin` and `subprotocol`."""

import asyncio
import json
import os
import re
import signal
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from contract.clients import KEY, TEXT, Raw, close_frame, get, handshake
from contract.modes import only
from frames import frame
from support.serving import Serving, eventually

# What a handler does stands in the query of the request: an expression.
APP = """
import asyncio

async def seen(path):
    while not os.path.exists(path):
        await asyncio.sleep(0.002)

async def later(value):
    await asyncio.sleep(0.01)
    return value

def fail(error):
    raise error

def did(server, fd):
    # all of it is refused: there is no WebSocket yet
    report("before", server.push(fd, "early"), server.subscribe(fd, "all"), server.disconnect(fd),
           server.is_established(fd), server.exists(fd))
    server.publish("all", "early")

def code_of(request):
    report("handshake", request.path, server.worker_id, os.getpid())
    return request.query.get("do", "None")

SYNC = '''
@server.on("handshake")
def judge(server, request):
    return eval(code_of(request))
'''
ASYNC = '''
@server.on("handshake")
async def judge(server, request):
    result = eval(code_of(request))
    return await result if asyncio.iscoroutine(result) else result
'''
exec(SYNC if os.environ.get("SYNC") else ASYNC)

@server.on("open")
def opened(server, request):
    server.push(request.fd, json.dumps(dict(server.session(request.fd))))
    report("open", request.path, server.worker_id, os.getpid())

@server.on("message")
def said(server, frame):
    server.push(frame.fd, eval(frame.data))

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, dict(server.session(fd)))

@server.on("request")
def asked(request, response):
    response.json(eval(request.query["code"]))
"""


@pytest.fixture(scope="module", params=["sync", "async"])
def judging(mode: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Serving]:
    env = {"SYNC": "1"} if request.param == "sync" else {}
    with Serving(APP, env=env, subprotocols=["set"], allowed_origins=["https://ok.example"], **mode) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


@pytest.fixture(scope="module")
def waiting(mode: dict[str, Any]) -> Iterator[Serving]:
    """The `async def` handler only, with a short limit."""
    with Serving(APP, handshake_timeout=0.3, **mode) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def path_of(do: str, path: str = "/") -> str:
    return f"{path}?do={quote(do)}"


def counter(server: Serving, name: str) -> int:
    with Raw(server, get(f"/?code=server.stats()['{name}']")) as raw:
        return raw.answer().json()


def head_of(raw: Raw) -> list[str]:
    return raw.until(b"\r\n\r\n").decode().rstrip().split("\r\n")


@pytest.mark.parametrize("do", ["None", "True", "Accept()"])
def test_accepted(judging: Serving, do: str):
    """The 101 as ever, then `open` in the same worker, then messages, then `close`."""
    mark = judging.mark()
    with Raw(
        judging, handshake(path_of(do, "/right"), "Sec-WebSocket-Protocol: other, set") + frame(TEXT, b"'x' * 3")
    ) as raw:
        first, *fields = head_of(raw)
        assert first == "HTTP/1.1 101 Switching Protocols"
        assert "Sec-WebSocket-Protocol: set" in fields
        assert len(fields) == 4
        assert raw.text() == "{}"
        assert raw.text() == "xxx"
        raw.send(close_frame(4000))
        assert raw.close_frame() == (4000, "")
    judging.wait_log("^report close 4000 {}$", since=mark)
    asked, opened = [line for line in judging.reports("", mark) if "/right" in line]
    assert asked.replace("handshake", "open") == opened


def test_texts_may_be_more_than_a_str(judging: Serving):
    """A StrEnum, say: what counts is its text."""
    kind = "type('Kind', (str,), {'__str__': None, 'encode': None})"
    do = f"(lambda text: Accept(text('b'), headers={{text('X-One'): text('1')}}))({kind})"
    with Raw(judging, handshake(path_of(do), "Sec-WebSocket-Protocol: a, b, set")) as raw:
        fields = head_of(raw)
        assert "Sec-WebSocket-Protocol: b" in fields
        assert "X-One: 1" in fields


def test_accepted_with_everything(judging: Serving):
    do = (
        "Accept('b', headers=[('X-One', '1'), ('X-One', '2')], cookies={'c': 'd'},"
        " session={'user': 'ada', 'n': [1, 2]})"
        ".cookie('sid', '1', max_age=5, same_site='Strict')"
    )
    with Raw(judging, handshake(path_of(do), "Sec-WebSocket-Protocol: a, b, set")) as raw:
        first, *fields = head_of(raw)
        assert first.split()[1] == "101"
        assert [field for field in fields if not field.startswith(("Upgrade", "Connection", "Sec-WebSocket-Acc"))] == [
            "Sec-WebSocket-Protocol: b",
            "X-One: 1",
            "X-One: 2",
            "Set-Cookie: c=d; Path=/; SameSite=Lax; HttpOnly",
            "Set-Cookie: sid=1; Max-Age=5; Path=/; SameSite=Strict; HttpOnly",
        ]
        assert json.loads(raw.text()) == {"user": "ada", "n": [1, 2]}
        raw.send(frame(TEXT, b"json.dumps(dict(server.session(frame.fd)))"))
        assert json.loads(raw.text()) == {"user": "ada", "n": [1, 2]}


def test_the_session_that_the_handler_has_written(judging: Serving):
    mine = "server.session(request.fd)"
    do = f"[{mine}.update(a=1, b=2), {mine}.pop('b'), Accept(session={{'c': 3}})][2]"
    mark = judging.mark()
    with Raw(judging, handshake(path_of(do))) as raw:
        head_of(raw)
        assert json.loads(raw.text()) == {"a": 1, "c": 3}
    judging.wait_log(r"^report close 1006 \{'a': 1, 'c': 3\}", since=mark)


def test_a_session_begins_empty(judging: Serving):
    """What requests and handshakes on the same connection wrote before is not there."""
    with Raw(judging, get("/?code=server.session(request.fd).update(old=1)")) as raw:
        assert raw.answer().status == 200
        raw.send(handshake(path_of("Accept(session={'new': 1})")))
        head_of(raw)
        assert json.loads(raw.text()) == {"new": 1}


def test_no_sub_protocol_if_none_is_wanted(judging: Serving):
    with Raw(judging, handshake(path_of("Accept('')"), "Sec-WebSocket-Protocol: set")) as raw:
        assert not [line for line in head_of(raw) if "Protocol:" in line]


REFUSALS = {
    "False": (403, {}, b"403 Forbidden"),
    "Reject()": (403, {}, b"403 Forbidden"),
    "Reject(401, 'who are you?', {'WWW-Authenticate': 'Bearer'})": (
        401,
        {"www-authenticate": "Bearer", "content-type": "text/plain; charset=utf-8"},
        b"who are you?",
    ),
    "Reject(429, b'[1]', [('Retry-After', '5'), ('Content-Type', 'application/json')])": (
        429,
        {"retry-after": "5", "content-type": "application/json"},
        b"[1]",
    ),
    "Reject(503, '')": (503, {"content-length": "0"}, b""),
    "fail(HttpError(402, 'pay', {'X-Price': '1', 'Connection': 'close'}))": (402, {"x-price": "1"}, b"402: pay\n"),
    "fail(HttpError(402, 'pay first', [('X-Price', '1')]))": (402, {"x-price": "1"}, b"402: pay first\n"),
}


@pytest.mark.parametrize("do", REFUSALS)
def test_refused(judging: Serving, do: str):
    """Status, headers and body as said, the end of the connection, and nothing but a line and a count of it."""
    status, headers, body = REFUSALS[do]
    before, mark = counter(judging, "handshakes_refused"), judging.mark()
    with Raw(judging, handshake(path_of(do, "/refused")) + get("/smuggled")) as raw:
        answer = raw.answer()
        assert (answer.status, answer.body[: len(body)]) == (status, body)
        assert {name.lower(): value for name, value in answer.headers.items()}.items() >= headers.items()
        assert answer.closes
        assert raw.rest() == b""
    judging.wait_refusal(f"handshake on connection .* refused with {status}$", since=mark)
    assert counter(judging, "handshakes_refused") == before + 1
    assert not judging.reports("open /refused")


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("fail(SystemExit(3))", "SystemExit"),
        ("fail(asyncio.CancelledError())", "CancelledError"),
        ("'yes'", "return Accept"),
        ("{}", "return Accept"),
        ("Accept('unknown')", "choose one of request.subprotocols"),
        ("Accept(headers={'Upgrade': 'h2c'})", "header Upgrade: in the answer to a handshake the server sets it"),
        ("Accept(headers={'connection': 'close'})", "header connection"),
        ("Accept(headers={'Sec-WebSocket-Accept': 'x'})", "header Sec-WebSocket-Accept"),
        ("Accept(headers={'Sec-WebSocket-Extensions': 'x'})", "header Sec-WebSocket-Extensions"),
        ("Accept(headers={'Content-Length': '5'})", "header Content-Length"),
        ("Accept(headers={'X': 'a\\r\\nY: b'})", "control characters"),
        ("Accept(cookies={'a': 'b c'})", "percent-encode"),
        ("Accept(session={'a': object()})", "TypeError"),
        ("Accept(session={'a': 'x' * 5000})", "session_limit"),
        ("Reject(200)", "a handshake is refused with 400 to 599"),
        ("Reject(400, 'x', {'Transfer-Encoding': 'chunked'})", "header Transfer-Encoding"),
        ("fail(HttpError(400, 'x', [('Upgrade', 'x')]))", "header Upgrade"),
        ("server.spawn(request.fd, later(1))", "for a client that a 'handshake' handler accepts, spawn in 'open'"),
    ],
)
def test_faults_are_500(judging: Serving, do: str, said: str):
    """The id of the error leads to the traceback; the client learns nothing else, the worker goes on."""
    mark = judging.mark()
    with Raw(judging, handshake(path_of(do))) as raw:
        answer = raw.answer()
        assert answer.status == 500
        found = re.fullmatch(rb"the handler failed, error ([0-9a-f]{8})\n", answer.body)
        assert found, answer.body
        assert raw.rest() == b""
    judging.wait_log(f"error {found[1].decode()}: the 'handshake' handler failed on connection", since=mark)
    judging.wait_log(re.escape(said), since=mark)
    with Raw(judging, handshake()) as raw:
        assert head_of(raw)[0].split()[1] == "101"


def test_the_gateway_judges_first(judging: Serving):
    """What RFC 6455, the settings or the policy of origins refuses never gets to the handler."""
    mark = judging.mark()
    for request, status in [
        (handshake("/never").replace(b"Version: 13", b"Version: 12"), 426),
        (handshake("/never").replace(KEY.encode(), b"short"), 400),
        (handshake("/never", "Origin: https://elsewhere.example"), 403),
        (handshake("/never", "Sec-WebSocket-Protocol: a b"), 400),
    ]:
        with Raw(judging, request) as raw:
            assert raw.answer().status == status
    with Raw(judging, handshake("/always", "Origin: https://ok.example")) as raw:
        assert head_of(raw)[0].split()[1] == "101"
        raw.text()
    judging.wait_log("^report handshake /always", since=mark)
    assert not judging.reports("handshake /never", mark)
    assert len(judging.reports("handshake /always", mark)) == 1


def test_nothing_is_sent_before_the_101(judging: Serving):
    mark = judging.mark()
    with Raw(judging, handshake(path_of("did(server, request.fd)"))) as raw:
        assert head_of(raw)[0].split()[1] == "101"
        assert raw.text() == "{}"
        raw.send(frame(TEXT, b"'now'"))
        assert raw.text() == "now"
    judging.wait_log("^report before", since=mark)
    assert judging.reports("before", mark) == ["False False False False True"]


def test_frames_behind_the_request_wait_for_the_handler(waiting: Serving):
    with Raw(waiting) as raw:
        raw.send(handshake(path_of("later(Accept(session={'a': 1}))")) + frame(TEXT, b"'one'") + frame(TEXT, b"'two'"))
        assert head_of(raw)[0].split()[1] == "101"
        assert [raw.text() for _ in range(3)] == ['{"a": 1}', "one", "two"]


def test_a_handler_that_takes_too_long(waiting: Serving):
    """504, and what it says later has no effect."""
    folder = Path(f"/proc/{waiting.pid}/cwd").resolve()
    before, mark = counter(waiting, "handshakes_timed_out"), waiting.mark()
    with Raw(waiting, handshake(path_of("seen('late')", "/late"))) as raw:
        answer = raw.answer()
        assert answer.status == 504
        assert b"in time" in answer.body
        assert raw.rest() == b""
    waiting.wait_log("handshake on connection .* refused with 504: ", since=mark)
    assert counter(waiting, "handshakes_timed_out") == before + 1
    (folder / "late").touch()
    eventually(lambda: counter(waiting, "connections") == 1)
    assert not waiting.reports("open /late")


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_client_that_leaves_meanwhile(mode: dict[str, Any], how: str, tmp_path: Path):
    with Serving(APP, cwd=tmp_path, **mode) as server:
        with Raw(server, handshake(path_of("seen('go')"))) as raw:
            server.wait_log("^report handshake")
            if how == "reset":
                raw.reset()
        if how == "reset":
            eventually(lambda: counter(server, "connections") == 1)
        (tmp_path / "go").touch()
        if how == "end":  # its half only, as far as anybody can tell: it gets the 101, and then its end is seen
            server.wait_log("^report open")
            server.wait_log("^report close 1006")
        eventually(lambda: counter(server, "connections") == 1)
        assert len(server.reports("open")) == (how == "end")
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


def test_a_client_that_ends_its_half_meanwhile(mode: dict[str, Any], tmp_path: Path):
    """It gets its answer, and as a WebSocket it is gone then."""
    with Serving(APP, cwd=tmp_path, ping_interval=0, **mode) as server:
        with Raw(server, handshake(path_of("seen('go')"))) as raw:
            server.wait_log("^report handshake")
            raw.socket.shutdown(socket.SHUT_WR)
            (tmp_path / "go").touch()
            assert head_of(raw)[0].split()[1] == "101"
            server.wait_log("^report close 1006")
        assert server.stop() == 0


def test_a_stop_does_not_wait_for_more_than_the_handler(mode: dict[str, Any], tmp_path: Path):
    """One that is accepted after the stop began is told 503."""
    with Serving(APP, cwd=tmp_path, **mode) as server, Raw(server, handshake(path_of("seen('go')"))) as raw:
        server.wait_log("^report handshake")
        server.signal(signal.SIGTERM)
        eventually(lambda: refused(server))
        (tmp_path / "go").touch()
        assert raw.answer().status == 503
        assert raw.rest() == b""
        raw.socket.close()
        assert server.ended() == 0
        assert server.reports("open") == []


@only("process", "process-2")
def test_the_worker_ends_while_its_handler_runs(mode: dict[str, Any]):
    """Nobody knows what it did, so it is not asked again: the client is told."""
    with Serving(APP, **mode) as server, Raw(server, handshake(path_of("os.kill(os.getpid(), 9)"))) as raw:
        answer = raw.answer()
        assert answer.status == 502
        assert b"has ended" in answer.body
        assert raw.rest() == b""
        raw.socket.close()
        server.wait_log("uncertain: handshake of connection")
        assert server.stop() == 0
        assert server.reports("close") == []


@only("process", "process-2")
def test_the_worker_ends_before_its_handler_began(mode: dict[str, Any]):
    """Another one is asked."""
    mode = {**mode, "worker_num": 1, "gateway_num": 1}
    with Serving(APP, close_timeout=0.3, **mode) as server, Raw(server) as raw, Raw(server) as other:
        pid = server.pid_of("worker 0")
        other.upgrade("/")
        other.text()
        other.send(frame(TEXT, b"report('blocked') or time.sleep(60)"))
        server.wait_log("^report blocked")
        raw.send(handshake(path_of("Accept(session={'a': 1})", "/second")))
        with Raw(server, b"nonsense\r\n\r\n") as behind:  # its answer shows that the gateway has come so far
            assert behind.answer().status == 400
        os.kill(pid, signal.SIGKILL)
        assert head_of(raw)[0].split()[1] == "101"
        assert raw.text() == '{"a": 1}'
        assert server.stop() == 0
        assert len(server.reports("handshake /second")) == 1


def refused(server: Serving) -> bool:
    with socket.socket() as newcomer:
        return newcomer.connect_ex(("127.0.0.1", server.port)) != 0


@only("process", "process-2")
def test_while_there_is_no_worker(mode: dict[str, Any], tmp_path: Path):
    """503 when none comes in time. At a listener with more patience the successor decides."""
    app = """
    patient = server.listen("127.0.0.1", 0, handshake_timeout=60)
    while os.path.exists("hold"):
        time.sleep(0.01)
    """
    mode = {**mode, "worker_num": 1, "gateway_num": 1}
    with Serving(textwrap.dedent(app) + APP, cwd=tmp_path, handshake_timeout=0.5, **mode) as server:
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", server.wait_log("listening on .*").group())[1])
        (tmp_path / "hold").touch()
        mark = server.mark()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("worker 0 .* is gone", since=mark)
        with Raw(server, handshake(path_of("Accept(session={'a': 1})")), port=port) as patient:
            with Raw(server, handshake(path_of("None", "/late"))) as raw:
                answer = raw.answer()
                assert (answer.status, answer.closes) == (503, True)
                assert b"no worker" in answer.body
            (tmp_path / "hold").unlink()
            assert head_of(patient)[0].split()[1] == "101"
            assert patient.text() == '{"a": 1}'
        assert server.stop() == 0
        assert not server.reports("open /late")


# ---------------------------------------------------------------------------------------------- origin, sub-protocol

CHOOSING = """
@server.on("origin")
async def origin(server, request):
    report("origin", request.headers["origin"])
    return request.headers["origin"].endswith(".example.org")

ALWAYS_THE_SAME = Accept()

@server.on("handshake")
def judge(server, request):
    if request.path == "/one-for-all":
        return ALWAYS_THE_SAME

@server.on("subprotocol")
def subprotocol(server, request):
    if "refuse" in request.subprotocols:
        raise HttpError(426, "other sub-protocols, please")
    report("subprotocol", request.subprotocols)
    return next((name for name in request.subprotocols if name.startswith("v")), None)

@server.on("message")
def said(server, frame): ...
"""


@pytest.fixture(scope="module")
def choosing(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(CHOOSING, allowed_origins=["https://ok.example"], **mode) as running:
        yield running
        assert running.stop() == 0


def test_the_origin_handler(choosing: Serving):
    """It is asked for origins that the settings do not allow, and for no others."""
    mark = choosing.mark()
    for origin, status in [
        ("https://app.example.org", 101),
        ("https://example.net", 403),
        ("null", 403),
        ("https://ok.example", 101),
        (None, 101),
    ]:
        with Raw(choosing, handshake("/", *([f"Origin: {origin}"] if origin else []))) as raw:
            assert head_of(raw)[0].split()[1] == str(status), origin
    with Raw(choosing, handshake("/", "Origin: https://a.example.org", "Origin: https://b.example.org")) as raw:
        assert raw.answer().status == 403
    choosing.wait_log("^report origin null", since=mark)
    assert choosing.reports("origin", mark) == ["https://app.example.org", "https://example.net", "null"]


def test_the_subprotocol_handler(choosing: Serving):
    mark = choosing.mark()
    for offered, chosen in [(["a, v2", "v1"], "v2"), (["a"], None), ([], None)]:
        with Raw(choosing, handshake("/", *[f"Sec-WebSocket-Protocol: {value}" for value in offered])) as raw:
            fields = dict(line.split(": ", 1) for line in head_of(raw)[1:])
            assert fields.get("Sec-WebSocket-Protocol") == chosen
    choosing.wait_log("^report subprotocol", since=mark, count=2)
    assert choosing.reports("subprotocol", mark) == ["['a', 'v2', 'v1']", "['a']"]


def test_an_answer_can_be_given_twice(choosing: Serving):
    """What one client was given is not the next one's."""
    for offered, chosen in [("v1", "v1"), ("v2", "v2"), ("a", None), ("v1", "v1")]:
        with Raw(choosing, handshake("/one-for-all", f"Sec-WebSocket-Protocol: {offered}")) as raw:
            first, *lines = head_of(raw)
            assert first.split()[1] == "101"
            assert dict(line.split(": ", 1) for line in lines).get("Sec-WebSocket-Protocol") == chosen


def test_any_of_the_handlers_can_refuse(choosing: Serving):
    with Raw(choosing, handshake("/", "Sec-WebSocket-Protocol: refuse")) as raw:
        answer = raw.answer()
        assert (answer.status, answer.body) == (426, b"426: other sub-protocols, please\n")


# ---------------------------------------------------------------------------------------------- reload

CHANGING = """
exec(open("handlers").read())

@server.on("open")
def opened(server, request):
    server.push(request.fd, "opened")

@server.on("message")
def said(server, frame):
    server.reload()
"""


@only("process", "process-2")
async def test_a_reload_adds_and_removes_the_handler(mode: dict[str, Any], tmp_path: Path):
    handlers = tmp_path / "handlers"
    handlers.write_text("")
    refusing = '@server.on("handshake")\ndef judge(server, request):\n    return False\n'
    with Serving(CHANGING, cwd=tmp_path, **mode) as server:
        with Raw(server, handshake()) as keeper:
            head_of(keeper)
            keeper.text()
            for text, status in [(refusing, 403), ("", 101)]:
                handlers.write_text(text)
                mark = server.mark()
                keeper.send(frame(TEXT, b"reload"))
                await asyncio.to_thread(server.wait_log, "reload: done", since=mark)
                with Raw(server, handshake()) as raw:
                    assert head_of(raw)[0].split()[1] == str(status)
        assert server.stop() == 0
