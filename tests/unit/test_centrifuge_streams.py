"""What goes into a response that does not end."""

import pytest
from msgspec import Raw

from mooring.centrifuge.commands import Publication, Push, Reply
from mooring.centrifuge.streams import event_stream, http_stream
from support.centrifuge_oracle import ORACLES

REPLIES = [Reply(push=Push("a", pub=Publication(Raw(b'{\n"text": "\\n"}')))), Reply(), Reply()]


@pytest.mark.parametrize("name", ORACLES)
def test_frames_after_frames(name):
    """The client sees one text of lines, or one row of messages, wherever the pieces were cut."""
    oracle = ORACLES[name]
    stream = http_stream(oracle.codec)
    frames = [oracle.codec.encode(REPLIES), oracle.codec.ping, oracle.codec.encode(REPLIES[:1])]
    body = b"".join(map(stream.chunk, frames))
    expected = [{"push": {"channel": "a", "pub": {"data": {"text": "\n"}}}}, {}, {}]
    if name == "json":
        assert body.endswith(b"\n")
        body = body[:-1]
    assert oracle.replies(body) == [*expected, {}, expected[0]]


def test_events():
    oracle = ORACLES["json"]
    stream = event_stream()
    assert stream.content_type == "text/event-stream"
    body = stream.chunk(oracle.codec.encode(REPLIES)) + stream.chunk(oracle.codec.ping)
    events = body.decode().split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    found = [oracle.replies(event.removeprefix("data: ").encode())[0] for event in events]
    assert found == [{"push": {"channel": "a", "pub": {"data": {"text": "\n"}}}}, {}, {}, {}]
