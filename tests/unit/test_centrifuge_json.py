"""What is special about JSON: data is embedded, and must not do harm where it stands."""

import json

import pytest
from msgspec import Raw

from mooring.centrifuge.codec import encode_publication
from mooring.centrifuge.codes import NotJson, Violation
from mooring.centrifuge.commands import (
    ClientInfo,
    Publication,
    Push,
    Reply,
    RpcResult,
    ServerMessage,
    Subscribe,
    SubscribeResult,
)
from mooring.centrifuge.json import JsonCodec, nested_deeper
from mooring.centrifuge.limits import Limits

CODEC = JsonCodec()


def replies_with(data):
    """Every place where data can stand."""
    publication = Publication(data)
    info = ClientInfo("", "", data)
    yield Reply(1, rpc=RpcResult(data))
    yield Reply(push=Push("a", pub=publication))
    yield Reply(push=Push("a", pub=Publication(info=info)))
    yield Reply(push=Push("a", pub=Publication(info=ClientInfo("", "", chan_info=data))))
    yield Reply(push=Push(message=ServerMessage(data)))
    yield Reply(push=Push(subscribe=Subscribe(data=data)))
    yield Reply(1, subscribe=SubscribeResult(data=data))
    yield Reply(1, subscribe=SubscribeResult(publications=[Publication(Raw(b"1")), publication]))


@pytest.mark.parametrize("text", ['{"a":\n[1,\r\n 2]}', ' "x y" ', "\t1\n"])
def test_data_becomes_one_line(text):
    for reply in replies_with(Raw(text.encode())):
        frame = CODEC.encode([reply])
        assert b"\n" not in frame
        assert b"\r" not in frame
        assert json.dumps(json.loads(text)) in json.dumps(json.loads(frame))


@pytest.mark.parametrize(
    "data",
    [b'1,"push":{}', b"{", b"[1,]", b"01", b"NaN", b"nul", b"\xff", b'"\xff"', b'"\x01"', b"1 2", b"{} {}", b'"'],
)
def test_what_is_no_value_is_not_embedded(data):
    for reply in replies_with(Raw(data)):
        with pytest.raises(NotJson):
            CODEC.encode([reply])


@pytest.mark.parametrize("data", [b"", b" "])
def test_nothing_is_left_out_and_blanks_are_no_value(data):
    for reply in replies_with(Raw(data)):
        if data:
            with pytest.raises(NotJson):
                CODEC.encode([reply])
        else:
            json.loads(CODEC.encode([reply]))


@pytest.mark.parametrize(
    ("text", "depth"),
    [("1", 0), ("[]", 1), ('{"a":[{}]}', 3), ('"[[[["', 0), (r'"\"[[["', 0), (r'["\\",[]]', 2), ("[],[],[]", 1)],
)
def test_depth(text, depth):
    assert not nested_deeper(text.encode(), depth)
    assert not depth or nested_deeper(text.encode(), depth - 1)


def test_deep_data_is_refused_both_ways():
    deep = b"[" * 20 + b"]" * 20
    codec = JsonCodec(Limits(depth=20))
    assert encode_publication(codec, "a", Publication(Raw(deep)))
    with pytest.raises(Violation, match="20"):
        codec.commands(b'{"id":1,"rpc":{"data":' + deep + b"}}")
    for hostile in (b"[" * 60_000, b'{"a":' * 10_000, b'{"id":1,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"):
        with pytest.raises(Violation):
            CODEC.commands(hostile)
    with pytest.raises(NotJson, match="20"):
        codec.encode([Reply(1, rpc=RpcResult(Raw(b"[" + deep + b"]")))])
    with pytest.raises(NotJson):
        CODEC.encode([Reply(1, rpc=RpcResult(Raw(b"[" * 100_000 + b"]" * 100_000)))])


def test_blank_lines_are_let_pass():
    assert len(CODEC.commands(b'{"id":1,"ping":{}}\n\n{}\n')) == 2


@pytest.mark.parametrize("text", [b'{"id":1,"rpc":{"data":"\xff"}}', b'{"id":1,"x":"\xc3\x28"}'])
def test_bytes_that_are_no_text(text):
    with pytest.raises(Violation):
        CODEC.commands(text)
