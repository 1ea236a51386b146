"""Frames of the Centrifuge protocol: both encodings read or refuse them by a code; a session stays a session."""

from collections.abc import Iterator
from contextlib import suppress

from fuzz.harness import pieces
from mooring.centrifuge.actions import Close, ConnectAnswer, Send
from mooring.centrifuge.codec import Codec
from mooring.centrifuge.codes import Violation, as_reason
from mooring.centrifuge.commands import Command, PingResult, Reply, RpcResult
from mooring.centrifuge.core import State
from mooring.centrifuge.json import JsonCodec
from mooring.centrifuge.protobuf import ProtobufCodec, Splitter
from mooring.centrifuge.session import Session

CODECS: tuple[Codec, ...] = (JsonCodec(), ProtobufCodec())
HELLO = {"json": b'{"id":1,"connect":{}}', "protobuf": b"\x04\x08\x01\x22\x00"}


def seeds() -> Iterator[bytes]:
    yield from HELLO.values()
    yield b'{"id":1,"connect":{"token":"t","data":{},"subs":{"a":{"recover":true,"offset":5,"epoch":"e"}}}}'
    yield b'{"id":2,"subscribe":{"channel":"a","flag":1}}\n{"id":3,"rpc":{"method":"m","data":[1,"\\u2713"]}}\n{}\n'
    yield b'{"id":4,"history":{"channel":"a","limit":-1,"since":{"offset":1,"epoch":"e"},"reverse":true}}'
    yield b'{"session":"s","node":"n","data":"{\\"send\\":{\\"data\\":1}}"}'
    yield b"\x0b\x08\x02\x2a\x07\x0a\x01a\x18\x01\x38\x05\x08\x08\x03\x6a\x04\x0a\x02{}\x00"
    yield b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"


def one(data: bytes) -> None:
    for codec in CODECS:
        commands = read(codec, data)
        if commands is not None:
            again(codec, commands)
        with suppress(Violation):
            codec.emulation(data)
        talk(codec, data)
    in_pieces(data)


def read(codec: Codec, data: bytes) -> list[Command] | None:
    try:
        return codec.commands(data)
    except Violation as violation:
        end = violation.disconnect
        assert end.code == 3501
        assert end.reason == as_reason(end.reason)
        return None


def again(codec: Codec, commands: list[Command]) -> None:
    """What was read from JSON can stand in a frame of JSON, and keeps to its line."""
    for command in commands:
        if command.rpc is not None and codec.name == "json":
            frame = codec.encode([Reply(command.id, rpc=RpcResult(command.rpc.data)), Reply(1, ping=PingResult())])
            assert frame.count(b"\n") == 1


def talk(codec: Codec, data: bytes) -> None:
    session = Session(codec, "c1", 0.0)
    session.receive(HELLO[codec.name], 0.0)
    [ask] = session.take()
    session.answer(ask.ticket, ConnectAnswer("ann"), 0.0)  # type: ignore[union-attr]
    [hello] = session.take()
    assert isinstance(hello, Send)
    session.receive(data, 1.0)
    actions = session.take()
    ended = [isinstance(action, Close) for action in actions]
    assert not any(ended[:-1])
    assert any(ended) == (session.state is State.CLOSED)


def in_pieces(data: bytes) -> None:
    """However the bytes come, the same messages come out, or the same refusal."""
    whole, found = Splitter(), Splitter()
    try:
        expected = whole.feed(data)
    except Violation:
        return
    parts: list[bytes] = []
    for piece in pieces(data):
        parts += found.feed(piece)
    assert parts == expected
