"""Frames for clients without WebSocket. Down goes a response that does not end; up, each frame is a request of its own.

* HTTP streaming: the body of a POST is the first frame, the response one frame after another. In JSON each line ends
  with a newline; in protobuf each message has its length.
* Server-sent events, JSON alone: a GET has the first frame in its query, and each line is an event of its own.

Such a client learns why it was ended only by a push (`Session(push_disconnect=True)`): at the mere end of the response
it connects again. Leave the response open for a moment after the push, until the client is gone: one library looks at
what it has read only after it has seen the end.

Its later frames come as `Codec.emulation` reads them, to wherever `node` says the response is, and belong to the
session that they name.
"""

from collections.abc import Callable

from msgspec import Struct

from mooring.centrifuge.codec import Codec

#: What the query of the GET calls the first frame. It may have a token: keep it out of logs.
CONNECT_PARAMETER = "cf_connect"

#: What goes with either kind of response, so that nobody on the way keeps it back.
HEADERS = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))


class Stream(Struct, frozen=True):
    """A kind of response. `chunk` makes of a frame what goes into the response."""

    content_type: str
    chunk: Callable[[bytes], bytes]


def http_stream(codec: Codec) -> Stream:
    if codec.binary:
        return Stream("application/octet-stream", lambda frame: frame)
    return Stream("application/json", lambda frame: frame + b"\n")


def event_stream() -> Stream:
    """For frames of JSON."""
    return Stream("text/event-stream", _events)


def _events(frame: bytes) -> bytes:
    return b"".join([b"data: %b\n\n" % line for line in frame.split(b"\n")])
