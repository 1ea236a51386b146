"""Two other readers of WebSocket frames, wsproto and websockets, and how their readings compare with ours.

Where the oracles differ from RFC 6455 or from us, and what is done about it:

* wsproto has no limits. It is compared with a decoder that has none either.
* wsproto does not know close code 1014, which was registered after it was written: it is not generated.
* wsproto reads text with Python's incremental decoder, which takes the first two octets of a surrogate
  (ED A0 to ED BF) and refuses the third. So it may hand out control frames that stand between.
* websockets leaves it to a higher layer whether text is UTF-8. Where that is what we refuse, only what came
  before is compared.
* websockets takes lengths that are wider than they need be, and takes the top bit of a length for a part
  of it (section 5.2: MUST be minimal, MUST be 0). Where that is what we refuse, only what came before is
  compared; so too for a control frame whose length has more than 7 bits.
* websockets does not allow a close inside a fragmented message (section 5.4 allows control frames there).
* websockets allows a control frame only as many bytes as the message around it may still have.
* websockets has no limit on the number of fragments: neither has the decoder that is compared with it.
* websockets looks at the length before it looks at the rest of the header, so that a frame that is too big
  and wrong is too big to it, and wrong to us.
* websockets looks at the reason of a close before the code: when both are wrong, it says 1007, we say 1002.
* Both look at some things later than we do (websockets at most of them when the frame is complete), and
  wsproto at the length sooner. So when one has a verdict and the other has none, both are given more bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.frames import Frame
from websockets.protocol import Protocol, Side
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from mooring._core.ws import Decoder, check_close

CLOSE = 8
NO_LIMIT = (1 << 64) - 1


@dataclass
class Reading:
    """(opcode, payload) up to the first close; the close code the stream deserves, 0 for none; and why."""

    events: list[tuple[int, bytes]] = field(default_factory=list)
    fault: int = 0
    reason: str = ""

    @property
    def closed(self) -> bool:
        return bool(self.events) and self.events[-1][0] == CLOSE

    @property
    def ended(self) -> bool:
        return self.closed or self.fault != 0


def ours(pieces: list[bytes], max_message: int = NO_LIMIT) -> Reading:
    codec = Decoder(max_message, (1 << 32) - 1)
    reading = Reading()
    for piece in pieces:
        for opcode, payload in codec.feed(piece):
            reading.events.append((opcode, payload))
            if opcode == CLOSE:
                reading.fault, _ = check_close(payload)
                return reading
        if codec.error is not None:
            reading.fault, reading.reason = codec.error
            return reading
    return reading


def by_wsproto(data: bytes) -> Reading:
    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(data)
    reading = Reading()
    message = b""
    try:
        for got in protocol.received_frames():
            if got.opcode == CLOSE:
                code, reason = got.payload
                payload = b"" if code == 1005 else int(code).to_bytes(2, "big") + reason.encode()
                reading.events.append((CLOSE, payload))
                break
            if got.opcode >= 8:
                reading.events.append((int(got.opcode), bytes(got.payload)))
                continue
            message += got.payload.encode() if isinstance(got.payload, str) else got.payload
            if got.message_finished:
                reading.events.append((int(got.opcode), message))
                message = b""
    except ParseFailed as error:
        reading.fault, reading.reason = int(error.code), str(error)
    return reading


def by_websockets(data: bytes, max_size: int) -> Reading:
    protocol = Protocol(Side.SERVER, max_size=max_size)
    protocol.receive_data(data)
    reading = Reading()
    message = b""
    opcode = 0
    for got in protocol.events_received():
        assert isinstance(got, Frame)
        if got.opcode >= 8:
            reading.events.append((int(got.opcode), bytes(got.data)))
            continue
        opcode = int(got.opcode) or opcode
        message += got.data
        if got.fin:
            reading.events.append((opcode, message))
            message = b""
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        reading.fault, reading.reason = int(protocol.close_sent.code), str(protocol.parser_exc)
    return reading


# ------------------------------------------------------------------ comparison


Reader = Callable[[bytes], Reading]


def both(data: bytes, us: Reader, them: Reader) -> tuple[Reading, Reading]:
    """Two readings, and both have a verdict or neither. The bytes behind are an unmasked frame, or more payload."""
    readings = us(data), them(data)
    if readings[0].ended != readings[1].ended:
        data += bytes(1 << 17)
        readings = us(data), them(data)
    return readings


def events_before_close(reading: Reading) -> list[tuple[int, bytes]]:
    """A bad close is an event and a fault to us, and only a fault to the oracles."""
    return reading.events[:-1] if reading.closed and reading.fault else reading.events


def assert_as_wsproto(data: bytes, us: Reader) -> str:
    """Gives the name of the difference that kept the verdict out of the comparison, or nothing."""
    reading, theirs = both(data, us, by_wsproto)
    events = events_before_close(reading)
    if reading.fault == 1007 and not reading.closed and (theirs.events, theirs.fault) != (events, 1007):
        assert theirs.events[: len(events)] == events, data
        assert all(opcode >= 8 for opcode, _ in theirs.events[len(events) :]), data
        return "a surrogate, refused late"
    assert theirs.events == events, data
    assert reading.fault == theirs.fault, (data, reading.reason, theirs.reason)
    return ""


def assert_as_websockets(data: bytes, max_size: int, us: Reader) -> str:
    """The same for websockets."""
    reading, theirs = both(data, us, lambda data: by_websockets(data, max_size))
    events = events_before_close(reading)
    got = len(theirs.events)
    if theirs.fault == 1009 and got < len(reading.events):
        assert theirs.events == events[:got], data
        assert reading.events[got][0] >= 8, data
        return "a control frame in a message that is almost too big"
    if any(text in reading.reason for text in ("fewest bytes", "top bit", "at most 125")):
        assert theirs.events[: len(events)] == events, data
        return "a length that is not minimal"
    if reading.fault == 1007 and not reading.closed:
        assert theirs.events[: len(events)] == events, data
        return "text that is not UTF-8"
    if theirs.reason == "incomplete fragmented message":
        assert reading.closed
        assert theirs.events == reading.events[:-1], data
        return "a close inside a message"
    assert theirs.events == events, data
    if reading.fault == 1002 and theirs.fault == 1009:
        return "too big and wrong"
    if reading.fault == 1002 and theirs.fault == 1007 and reading.closed:
        return "a close with a wrong code and a wrong reason"
    assert reading.fault == theirs.fault, (data, reading.reason, theirs.reason)
    return ""
