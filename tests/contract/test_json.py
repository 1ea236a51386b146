"""JSON, sent and received, and messages of a type."""

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import BINARY, TEXT, Asker, Raised, Raw, close_frame, crowd, dial, get, websocket
from contract.test_topics import fence
from frames import frame
from mooring import ConfigError, Server
from support.serving import Serving, eventually

NAMES = (f"json-{number}" for number in itertools.count())

# ---------------------------------------------------------------------------------------------- sending


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("{'a': [1, 2.5, None, True, 'grüße']}", '{"a":[1,2.5,null,true,"grüße"]}'),
        ("'text'", '"text"'),
        ("None", "null"),
        ("b'bytes'", '"Ynl0ZXM="'),
        ("Opcode.TEXT", "1"),
        ("get_info(fd).state", "2"),
        ("(1, 2)", "[1,2]"),
        ("float('nan')", "null"),
        ("1 << 70", "1180591620717411303424"),
        ("['x' * 70000]", '["' + "x" * 70000 + '"]'),
    ],
)
async def test_a_value_is_one_text_message(
    server: Serving, mode: dict[str, Any], workers: list[Asker], value: str, sent: str
):
    value = value.replace("get_info", "server.get_client_info")
    room = next(NAMES)
    with websocket(server) as (raw, fd):
        value = value.replace("(fd)", f"({fd})")
        for asker in workers:
            assert asker(f"server.push_json({fd}, {value})") is True
            assert raw.frame() == (TEXT, sent.encode())
            assert asker(f"server.bind({fd}, {room!r}) and server.push_user_json({room!r}, {value})") is None
            assert raw.frame() == (TEXT, sent.encode())
            said = f"server.subscribe({fd}, {room!r}) and server.publish_json({room!r}, {value})"
            assert asker(f"{said} and None") is None
            assert raw.frame() == (TEXT, sent.encode())


async def test_to_everybody_else(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    room = next(NAMES)
    async with crowd(server, mode, "/eval") as peers:
        for peer in peers:
            assert await peer.ask(f"server.subscribe(fd, {room!r}) and server.bind(fd, {room!r})") is True
        for asker in workers:
            for call in ("publish_json", "push_user_json"):
                asker(f"server.{call}({room!r}, {{'n': 1}}, exclude={peers[0].fd})")
                for peer in peers[1:]:
                    assert await peer.recv() == '{"n":1}'
                await fence(peers, asker)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("object()", "TypeError"), ("{(1, 2): 3}", "TypeError"), (r"'\ud800'", "ValueError"), ("server", "TypeError")],
)
@pytest.mark.parametrize("call", ["push_json(1, {})", "publish_json('x', {})", "push_user_json('x', {})"])
def test_what_is_no_json_cannot_be_sent(workers: list[Asker], call: str, value: str, kind: str):
    with pytest.raises(Raised) as raised:
        workers[0](f"server.{call.format(value)}")
    assert kind in raised.value.kinds


def test_a_connection_that_is_gone(workers: list[Asker]):
    assert workers[0]("server.push_json(12345, [])") is False


@pytest.mark.parametrize("call", ["push(fd, {})", "push(fd, ['x'])", "publish('x', {})", "push_user('x', {})"])
async def test_who_pushes_a_dict_is_told_what_to_do(server: Serving, call: str):
    async with dial(server, "/eval") as peer:
        with pytest.raises(Raised, match=r"not (dict|list); push_json\(\) and publish_json\(\) send others as JSON"):
            await peer.ask(f"server.{call}")


@pytest.mark.parametrize("fd", ["'5'", "frame", "5.0", "None", "request"])
@pytest.mark.parametrize(
    "call",
    [
        "push({}, 'x')",
        "push_json({}, 'x')",
        "ping({})",
        "disconnect({})",
        "close({})",
        "exists({})",
        "is_established({})",
        "get_client_info({})",
        "subscribe({}, 'x')",
        "unsubscribe({}, 'x')",
        "bind({}, 'x')",
        "pause({})",
        "resume({})",
        "drain({})",
        "publish('x', 'x', exclude={})",
    ],
)
async def test_who_gives_no_fd_is_told_what_one_is(server: Serving, call: str, fd: str):
    if call.startswith("publish") and fd == "None":
        return
    async with dial(server, "/eval") as peer:
        given = "opened[fd]" if fd == "request" else fd
        with pytest.raises(Raised, match=r"an fd is an int, such as frame\.fd or request\.fd, not ") as raised:
            await peer.ask(f"server.{call.format(given)}")
        assert raised.value.kinds[0] == "TypeError"


@pytest.mark.parametrize("call", ["publish('x', 'x', fd)", "push(fd, 'x', '2')", "push_user('x', 'x', [fd])"])
async def test_who_gives_no_opcode_is_told_what_one_is(server: Serving, call: str):
    """Above all who gives there whom to leave out."""
    async with dial(server, "/eval") as peer:
        with pytest.raises(Raised, match=r"an Opcode is wanted there, .*; who is left out of a publish is exclude=fd"):
            await peer.ask(f"server.{call}")


async def test_an_fd_may_be_an_int_of_another_kind(server: Serving):
    async with dial(server, "/eval") as peer:
        await peer.send("server.push(type('Int', (), {'__index__': lambda self: fd})(), 'heard')")
        assert await peer.recv() == "heard"


# ---------------------------------------------------------------------------------------------- messages of a type

APP = """
import asyncio, msgspec
from mooring import BadMessage, Opcode

class Move(msgspec.Struct, tag="move", tag_field="kind"):
    x: int
    y: int = 0

class Say(msgspec.Struct, tag="say", tag_field="kind"):
    text: str

async def waited(server, frame, value):
    await asyncio.sleep(0)
    return answer(server, frame, value)

def answer(server, frame, value):
    if isinstance(value, Say) and value.text == "refuse":
        raise BadMessage("nobody says that", "$.text")
    if isinstance(value, Say) and value.text == "fail":
        raise ValueError("a fault of the application")
    server.push_json(frame.fd, {"is": type(value).__name__, "value": value})

@server.on("open")
def opened(server, request):
    server.push_json(request.fd, {"fd": request.fd, "worker": server.worker_id, "pid": os.getpid()})

server.on("message", waited if os.environ["HOW"] == "later" else answer, type=Move | Say)

plain = server.listen("127.0.0.1", 0)

@plain.on("message")
def of_frames(server, frame):
    server.push_json(frame.fd, [frame.json(), frame.json(dict[str, int])])

points = server.listen("127.0.0.1", 0, on_invalid="close")

@points.on("message", type=list[Move])
async def of_points(server, frame, moves):
    server.push_json(frame.fd, [move.x for move in moves])

silent = server.listen("127.0.0.1", 0, on_invalid="ignore")

@silent.on("invalid")
async def silently(server, fd, problem):
    await asyncio.sleep(0.01)
    server.push(fd, f"told: {problem}")

raising = server.listen("127.0.0.1", 0)

@raising.on("invalid")
def fails(server, fd, problem):
    raise LookupError("in the handler of invalid")

@server.on("invalid")
def invalid(server, fd, problem):
    report("invalid", fd, json.dumps([type(problem).__name__, problem.reason, problem.path, repr(problem.data)]))

@server.on("error")
def failing(server, fd, failure):
    report("error", fd, failure.event, type(failure.exception).__name__)

@server.on("close")
def left(server, fd, code, reason):
    report("close", fd, code)

@server.on("request")
def asked(request, response):
    response.json(server.stats())
"""
SERVER, PLAIN, CLOSES, SILENT, RAISING = range(5)


@pytest.fixture(scope="module", params=["at once", "later"])
def app(request: pytest.FixtureRequest, mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, env={"HOW": request.param}, on_error="keep", **mode) as running:
        ports = running.wait_log(r"listening on (.*)")[1]
        running.ports = [int(port) for port in re.findall(r":(\d+)", ports)]  # type: ignore[attr-defined]
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


class Talk:
    """A client of one of the listeners; each is told what its messages have come to."""

    def __init__(self, app: Serving, listener: int, raw: Raw) -> None:
        self.raw = raw
        self.fd = json.loads(raw.text())["fd"]

    def say(self, *messages: str | bytes) -> None:
        frames = (frame(BINARY, m) if isinstance(m, bytes) else frame(TEXT, m.encode()) for m in messages)
        self.raw.send(b"".join(frames))

    def ask(self, message: str | bytes) -> Any:
        self.say(message)
        return json.loads(self.raw.text())


@contextlib.contextmanager
def talk(app: Serving, listener: int = SERVER) -> Iterator[Talk]:
    with Raw(app, port=app.ports[listener]) as raw:  # type: ignore[attr-defined]
        assert raw.upgrade("/").status == 101
        yield Talk(app, listener, raw)


def wrong(reason: str, path: str) -> dict[str, Any]:
    return {"error": {"reason": reason, "path": path}}


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ('{"kind": "move", "x": 1}', {"is": "Move", "value": {"kind": "move", "x": 1, "y": 0}}),
        (b'{"kind": "move", "x": 1, "y": 2}', {"is": "Move", "value": {"kind": "move", "x": 1, "y": 2}}),
        ('{"kind": "say", "text": "grüße"}', {"is": "Say", "value": {"kind": "say", "text": "grüße"}}),
        ('{"text": "x", "more": [1], "kind": "say"}', {"is": "Say", "value": {"kind": "say", "text": "x"}}),
    ],
)
def test_a_handler_gets_the_value(app: Serving, message: str | bytes, value: object):
    with talk(app) as client:
        assert client.ask(message) == value


INVALID = [
    ("", "the message is not JSON: Input data was truncated", "$"),
    ("no JSON", "the message is not JSON: invalid character (byte 4)", "$"),
    ("[]", "Expected `object`, got `array`", "$"),
    ("{}", "Object missing required field `kind`", "$"),
    ('{"kind": "jump"}', "Invalid value 'jump'", "$.kind"),
    ('{"kind": "move"}', "Object missing required field `x`", "$"),
    ('{"kind": "move", "x": "1"}', "Expected `int`, got `str`", "$.x"),
    ('{"kind": "say", "text": "refuse"}', "nobody says that", "$.text"),
    ("[" * 5000, "Expected `object`, got `array`", "$"),
]


@pytest.mark.parametrize(("message", "reason", "path"), INVALID)
def test_what_is_not_of_the_type_is_answered_and_told(app: Serving, message: str, reason: str, path: str):
    """It is counted, the connection stays, and no handler has failed."""
    with talk(app) as client:
        before, mark = count(app), app.mark()
        assert client.ask(message) == wrong(reason, path)
        assert client.ask(message.encode()) == wrong(reason, path)
        assert client.ask('{"kind": "move", "x": 1}')["is"] == "Move"
        assert count(app) == before + 2
        app.wait_log(f"^report invalid {client.fd} ", since=mark, count=2)
        assert app.reports(f"error {client.fd}") == []
        told = [json.loads(line) for line in app.reports(f"invalid {client.fd}", since=mark)]
        raised = reason == "nobody says that"
        assert told == [
            ["BadMessage", reason, path, "None" if raised else repr(sent)] for sent in (message, message.encode())
        ]


def test_it_is_logged(app: Serving):
    """At most ten times in a second, like everything that is refused."""
    with talk(app) as client:
        line = (
            rf"INFO .*a message of connection {client.fd} is not what its handler takes: Expected `object`.* \(at \$\)"
        )
        eventually(lambda: client.ask("[]") and any(re.search(line, one) for one in app.lines))


def count(app: Serving) -> int:
    with Raw(app, get("/")) as raw:
        return int(json.loads(raw.answer().body)["messages_invalid"])


def test_messages_keep_their_order(app: Serving):
    good, bad = '{"kind": "move", "x": %d}', "no JSON"
    with talk(app) as client:
        client.say(*[bad if n % 3 == 1 else good % n for n in range(30)])
        for n in range(30):
            told = json.loads(client.raw.text())
            assert told["error"]["path"] == "$" if n % 3 == 1 else told["value"]["x"] == n


def test_a_long_reason_is_cut(app: Serving):
    with talk(app) as client:
        told = client.ask(json.dumps({"kind": "x" * 100_000}))
        assert told["error"]["path"] == "$.kind"
        assert len(told["error"]["reason"]) < 600


def test_a_fault_of_the_application_is_a_fault(app: Serving):
    """A ValueError of its own is not taken for one of the client's."""
    with talk(app) as client:
        mark = app.mark()
        client.say('{"kind": "say", "text": "fail"}')
        app.wait_log(f"^report error {client.fd} message ValueError", since=mark)
        assert app.reports(f"invalid {client.fd}") == []
        assert client.ask('{"kind": "move", "x": 1}')["is"] == "Move"


def test_a_handler_that_reads_the_frame_itself(app: Serving):
    with talk(app, PLAIN) as client:
        assert client.ask('{"a": 1}') == [{"a": 1}, {"a": 1}]
        assert client.ask('{"a": "x"}') == wrong("Expected `int`, got `str`", "$[...]")
        assert client.ask("{") == wrong("the message is not JSON: Input data was truncated", "$")
        assert client.ask('{"a": 2}') == [{"a": 2}, {"a": 2}]


def test_a_listener_may_close(app: Serving):
    with talk(app, CLOSES) as client:
        assert client.ask('[{"kind": "move", "x": 4}]') == [4]
        mark = app.mark()
        client.say('[{"kind": "move", "x": 4}, {"kind": "move", "x": []}]', '[{"kind": "move", "x": 4}]')
        assert client.raw.close_frame() == (1008, "Expected `int`, got `array`, at $[1].x")
        client.raw.send(close_frame(1008))
        assert client.raw.rest() == b""
        app.wait_log(f"^report close {client.fd} 1008", since=mark)
        assert [json.loads(line)[2] for line in app.reports(f"invalid {client.fd}", since=mark)] == ["$[1].x"]


def test_a_listener_may_leave_the_answer_to_its_handler(app: Serving):
    """Which is suspended: the next message waits for it."""
    with talk(app, SILENT) as client:
        client.say("no", '{"kind": "move", "x": 3}')
        assert client.raw.text().startswith("told: the message is not JSON")
        assert json.loads(client.raw.text())["value"]["x"] == 3


def test_a_handler_of_invalid_that_raises(app: Serving):
    with talk(app, RAISING) as client:
        mark = app.mark()
        assert "error" in client.ask("no")
        code, reason = client.raw.close_frame()
        assert code == 1011
        app.wait_log(f"{reason}: the 'invalid' handler failed", since=mark)


# ---------------------------------------------------------------------------------------------- refused at the start


@pytest.mark.parametrize("name", ["ping", "pong", "close"])
def test_control_frames_are_no_json(name: str, tmp_path: Path):
    app = """
    server.set(port=0, open_websocket_%s_frame=True)

    @server.on("message", type=int)
    def message(server, frame, number): ...
    """
    with Serving(app % name, ready=False) as running:
        running.wait_log(f"open_websocket_{name}_frame hands control frames to 'message', whose handler takes JSON")


def test_types_that_are_none():
    server = Server()

    def handler(server: object, frame: object, value: object) -> None: ...

    with pytest.raises(ConfigError, match="only a 'message' is JSON of a type"):
        server.on("open", handler, type=int)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="no JSON can be decoded into that"):
        server.on("message", handler, type=5)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"is called as message\(server, frame, value\)"):
        server.on("message", type=int)(lambda server, frame: None)
    with pytest.raises(ConfigError, match=r"handler\(.*\) -> None takes 3 parameters, not 2; the value of a typed"):
        server.on("message")(handler)
