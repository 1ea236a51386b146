"""WebSocket frames (RFC 6455 section 5), sans-IO: bytes in, messages and control frames out.

How decoding works
------------------
`decode_next` is called with what the socket gave, again and again, until it wants more bytes. Its whole state is a
small C struct, so an idle connection costs no object and no buffer:

* A header may arrive in pieces; up to 14 bytes of it are kept. Its first two bytes are judged as soon as they are
  there, the length when the header is whole, before any payload is looked at: against what the message already
  holds, so no sum can wrap. Nothing is ever allocated for bytes that were only promised.
* A message that lies whole in the input (the common case) is unmasked where it stands and handed out as a pointer.
* Any other payload is unmasked into one growing buffer as it arrives, and text is checked as it arrives, so a wrong
  octet fails the connection at once (section 8.1) and not when the message ends.
* A control frame may come between the fragments of a message (section 5.4), so it has a buffer of its own.

After FAILED the decoder must not be called again: the connection is over (section 7.1.7).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8, PyUnicode_FromObject
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from mooring._core.buffer cimport Buffer, buffer_free, buffer_reserve, buffer_size

from typing import Any

from msgspec import ValidationError
from msgspec.json import Decoder as JsonDecoder

from mooring.errors import BadMessage
from mooring.types import Opcode

cdef enum:
    DECODERS = 128           # types of which one is kept

cdef dict OPCODES = {int(opcode): opcode for opcode in Opcode}
cdef tuple OPCODE_OF = tuple([OPCODES.get(code) for code in range(16)])     # by number, without making an int of it


cdef inline DecodeResult _fail(FrameEvent* event, uint16_t code, const char* reason) noexcept nogil:
    event.code = code
    event.reason = reason
    return FAILED


cdef inline uint8_t _header_size(const uint8_t* head) noexcept nogil:
    """Bytes of a frame's header, told from its first two (section 5.2). One without a mask is a short control frame."""
    cdef uint8_t length = head[1] & 0x7F
    if not head[1] & 0x80:
        return 2
    return 14 if length == 127 else 8 if length == 126 else 6


cdef DecodeResult _begin_frame(FrameDecoder* d, const FrameLimits* limits, const uint8_t* head,
                               FrameEvent* event) noexcept nogil:
    """Judges the length in a complete header, whose first two bytes are good, and sets the frame up; NEED_MORE when
    it is good too."""
    cdef uint8_t opcode = head[0] & 0x0F
    cdef bint final = head[0] >> 7
    cdef uint64_t length = head[1] & 0x7F
    cdef uint64_t held = buffer_size(&d.message)
    cdef uint64_t most = limits.message
    cdef const uint8_t* key = head + 2
    cdef int i
    if length == 126:
        length = (<uint64_t> head[2] << 8) | head[3]
        if length < 126:
            return _fail(event, 1002, b"a length must use the fewest bytes (RFC 6455 section 5.2)")
        key = head + 4
    elif length == 127:
        length = 0
        for i in range(8):
            length = (length << 8) | head[2 + i]
        if length >> 63:
            return _fail(event, 1002, b"the top bit of a length must be 0 (RFC 6455 section 5.2)")
        if length < 65536:
            return _fail(event, 1002, b"a length must use the fewest bytes (RFC 6455 section 5.2)")
        key = head + 10
    if opcode < 8:
        if opcode != OP_CONTINUATION:
            d.message_opcode = opcode
            d.compressed = head[0] & 0x40 != 0
            d.fragments = 0
            memset(&d.utf8, 0, sizeof(d.utf8))
        d.fragments += 1
        if d.fragments > limits.fragments:
            return _fail(event, 1009, b"too many fragments in one message")
        if d.compressed:
            most += most // 8 + 64   # what does not compress grows a little; the limit counts after inflation
        # held <= most holds always, so the subtraction cannot wrap
        if length > most - held:
            return _fail(event, 1009, b"message too big")
    d.bare = not head[1] & 0x80
    if d.bare:
        memset(d.key, 0, 4)      # changes no byte
    else:
        memcpy(d.key, key, 4)
    d.opcode = opcode
    d.final = final
    d.left = length
    d.phase = 0
    d.payload = True
    return NEED_MORE


cdef inline DecodeResult _check_first_two(const FrameDecoder* d, const FrameLimits* limits, const uint8_t* head,
                                          FrameEvent* event) noexcept nogil:
    """What the first two bytes of a header can be refused for; NEED_MORE when they are good."""
    cdef uint8_t opcode = head[0] & 0x0F
    if head[0] & 0x70 and not (d.deflates and head[0] & 0x70 == 0x40 and (opcode == OP_TEXT or opcode == OP_BINARY)):
        return _fail(event, 1002, b"a reserved bit is set and no extension was agreed (RFC 6455 section 5.2)")
    if opcode > OP_PONG or 2 < opcode < 8:
        return _fail(event, 1002, b"reserved opcode (RFC 6455 section 5.2)")
    if not head[1] & 0x80:
        # what scripts of a page can choose must not stand on the wire as it is (section 10.3): they choose no pong
        if opcode != OP_PONG and opcode != OP_CLOSE:
            return _fail(event, 1002, b"frames of a client must be masked (RFC 6455 section 5.1)")
        if not limits.unmasked:
            return _fail(event, 1002,
                         b"frames of a client must be masked (RFC 6455 section 5.1); see unmasked_control_frames")
    if opcode >= 8:
        if not head[0] & 0x80:
            return _fail(event, 1002, b"a control frame must not be fragmented (RFC 6455 section 5.5)")
        if head[1] & 0x7F > CONTROL_LIMIT:
            return _fail(event, 1002, b"a control frame holds at most 125 bytes (RFC 6455 section 5.5)")
    elif opcode == OP_CONTINUATION:
        if d.message_opcode == 0:
            return _fail(event, 1002, b"nothing to continue (RFC 6455 section 5.4)")
    elif d.message_opcode != 0:
        return _fail(event, 1002, b"a new message inside a fragmented one (RFC 6455 section 5.4)")
    return NEED_MORE


cdef DecodeResult _end_data_frame(FrameDecoder* d, FrameEvent* event) noexcept nogil:
    """The last byte of a data frame is in `message`; a message event if it was the final frame."""
    d.payload = False
    if not d.final:
        return NEED_MORE
    if d.message_opcode == OP_TEXT and d.utf8.need and not d.compressed:
        return _fail(event, 1007, b"text ends inside a character (RFC 6455 section 8.1)")
    event.opcode = d.message_opcode
    event.compressed = d.compressed
    event.data = d.message.data + d.message.start
    event.size = buffer_size(&d.message)
    d.message_opcode = 0
    d.spent_message = True
    return MESSAGE


cdef DecodeResult _take_payload(FrameDecoder* d, uint8_t* data, size_t take, FrameEvent* event) noexcept nogil:
    """`take` <= `left` payload bytes of the current frame."""
    # the whole payload is here: nothing of it came before
    cdef bint whole = take == d.left and buffer_size(&d.control if d.opcode >= 8 else &d.message) == 0
    cdef Buffer* target
    cdef uint8_t* where
    if d.opcode >= 8:
        if whole:
            mooring_unmask(data, data, take, d.key, 0)
            event.data = data
            event.size = take
        else:
            if buffer_reserve(&d.control, take) < 0:
                return _fail(event, 1011, b"out of memory")
            mooring_unmask(d.control.data + d.control.end, data, take, d.key, d.phase)
            d.control.end += take
            d.phase = (d.phase + take) & 3
            d.left -= take
            if d.left:
                return NEED_MORE
            event.data = d.control.data + d.control.start
            event.size = buffer_size(&d.control)
            d.spent_control = True
        d.payload = False
        event.opcode = d.opcode
        return CONTROL
    if whole and d.final and d.opcode != OP_CONTINUATION:
        mooring_unmask(data, data, take, d.key, 0)
        if d.opcode == OP_TEXT and not d.compressed:
            if not mooring_utf8_feed(&d.utf8, data, take):
                return _fail(event, 1007, b"text is not UTF-8 (RFC 6455 section 8.1)")
            if d.utf8.need:
                return _fail(event, 1007, b"text ends inside a character (RFC 6455 section 8.1)")
        event.opcode = d.opcode
        event.compressed = d.compressed
        event.data = data
        event.size = take
        d.message_opcode = 0
        d.payload = False
        return MESSAGE
    target = &d.message
    if buffer_reserve(target, take) < 0:
        return _fail(event, 1011, b"out of memory")
    where = target.data + target.end
    if take:
        mooring_unmask(where, data, take, d.key, d.phase)
    target.end += take
    d.phase = (d.phase + take) & 3
    d.left -= take
    if d.message_opcode == OP_TEXT and take and not d.compressed and not mooring_utf8_feed(&d.utf8, where, take):
        return _fail(event, 1007, b"text is not UTF-8 (RFC 6455 section 8.1)")
    return _end_data_frame(d, event) if d.left == 0 else NEED_MORE


cdef DecodeResult decode_next(FrameDecoder* d, const FrameLimits* limits, uint8_t* data, size_t size,
                              size_t* position, FrameEvent* event) noexcept nogil:
    """Reads on at data[position]; advances it. MESSAGE, CONTROL and FAILED fill `event`."""
    cdef DecodeResult outcome
    cdef size_t at = position[0]
    cdef size_t take
    cdef uint8_t needed
    decoder_release(d)
    while True:
        if not d.payload:
            if d.have == 0 and size - at >= 2:
                outcome = _check_first_two(d, limits, data + at, event)
                if outcome == FAILED:
                    return FAILED
                needed = _header_size(data + at)
                if size - at >= needed:
                    if _begin_frame(d, limits, data + at, event) == FAILED:
                        return FAILED
                    at += needed
            if not d.payload:
                # the header is split over reads: collect it, never more than it needs
                while at < size:
                    d.head[d.have] = data[at]
                    d.have += 1
                    at += 1
                    if d.have == 2 and _check_first_two(d, limits, d.head, event) == FAILED:
                        return FAILED
                    if d.have >= 2 and d.have == _header_size(d.head):
                        if _begin_frame(d, limits, d.head, event) == FAILED:
                            return FAILED
                        d.have = 0
                        break
                if not d.payload:
                    position[0] = at
                    return NEED_MORE
        take = size - at
        if take > d.left:
            take = <size_t> d.left
        if take == 0 and d.left:
            position[0] = at
            return NEED_MORE
        outcome = _take_payload(d, data + at, take, event)
        at += take
        if outcome != NEED_MORE:
            position[0] = at
            return outcome


cdef void decoder_release(FrameDecoder* d) noexcept nogil:
    if d.spent_message:
        buffer_free(&d.message)
        d.spent_message = False
    if d.spent_control:
        buffer_free(&d.control)
        d.spent_control = False


cdef void decoder_free(FrameDecoder* d) noexcept nogil:
    buffer_free(&d.message)
    buffer_free(&d.control)


cdef size_t encode_header(uint8_t* out, uint8_t opcode, bint final, uint64_t size) noexcept nogil:
    cdef int i
    out[0] = (0x80 if final else 0) | opcode
    if size < 126:
        out[1] = <uint8_t> size
        return 2
    if size < 65536:
        out[1] = 126
        out[2] = <uint8_t> (size >> 8)
        out[3] = <uint8_t> (size & 0xFF)
        return 4
    out[1] = 127
    for i in range(8):
        out[2 + i] = <uint8_t> ((size >> (56 - 8 * i)) & 0xFF)
    return 10


cdef bint may_send_close_code(int code) noexcept nogil:
    """Section 7.4: what an endpoint may put into a close frame, with the codes registered since."""
    if 3000 <= code <= 4999:
        return True
    return 1000 <= code <= 1014 and code != 1004 and code != 1005 and code != 1006


cdef bint is_utf8(const uint8_t* data, size_t size) noexcept nogil:
    cdef mooring_utf8 state
    memset(&state, 0, sizeof(state))
    return mooring_utf8_feed(&state, data, size) and state.need == 0


cdef uint16_t parse_close(const uint8_t* data, size_t size, uint16_t* code) noexcept nogil:
    if size == 0:
        code[0] = 1005
        return 0
    if size == 1:
        return 1002
    code[0] = (<uint16_t> data[0] << 8) | data[1]
    if not may_send_close_code(code[0]):
        return 1002
    if not is_utf8(data + 2, size - 2):
        return 1007
    return 0


# ------------------------------------------------------------------ what the application sees

cdef class Frame:
    """One message, as a handler gets it and as `push` takes it.

    fd: the connection it came from (0 for a frame that was made by hand); data: `str` for text, `bytes` otherwise;
    opcode: an `Opcode`; finish: always True, messages arrive whole; flags: 0, kept for extensions;
    attempt: 1 unless the message is handled again after a worker ended in the middle of it.
    """

    def __init__(self, data: str | bytes = b"", opcode: int | None = None, *, fd: int = 0, attempt: int = 1) -> None:
        if opcode is None:
            opcode = OP_TEXT if isinstance(data, str) else OP_BINARY
        if opcode not in OPCODES:
            raise ValueError(f"opcode {opcode}: RFC 6455 knows 0, 1, 2, 8, 9 and 10")
        self.fd = fd
        self.data = data
        self.code_of_opcode = opcode
        self.finish = True
        self.attempt = attempt

    @property
    def opcode(self) -> Opcode:
        return OPCODE_OF[self.code_of_opcode & 15]

    def json(self, type: object = None) -> Any:
        """The value of a message that is JSON, as text or binary: with `type` one that msgspec knows (a Struct, a union
        of Structs with tags, a dataclass, list[int], ...), checked and made to it; without, what JSON has.

        Raises BadMessage, a ValueError, when it is none: a handler that lets it pass answers with it. TypeError for a
        `type` that msgspec can't decode into.
        """
        return value_of(self, decoder_of(type))

    def __repr__(self) -> str:
        shown = repr(self.data)
        if len(shown) > 60:
            shown = f"{shown[:57]}..."
        return f"<{type(self).__name__} fd={self.fd} opcode={self.opcode.name} data={shown}>"


cdef dict _decoders = {}             # by type
cdef object _anything = JsonDecoder()
cdef str _OF_KEY = "key` in `"       # what msgspec says in place of a path


def decoder_of(type: object) -> JsonDecoder:
    """What decodes JSON into a type; None: into what JSON has. TypeError for what is no such type."""
    if type is None:
        return _anything
    try:
        found = _decoders.get(type)
    except TypeError:                # it has no hash
        return JsonDecoder(type)
    if found is None:
        found = JsonDecoder(type)
        if len(_decoders) >= DECODERS:
            _decoders.clear()        # somebody makes types while the server runs
        _decoders[type] = found
    return found


def value_of(frame: Frame, decoder: JsonDecoder) -> Any:
    """What a decoder makes of a message. Raises BadMessage when it is nothing."""
    try:
        return decoder.decode(frame.data)
    except ValidationError as error:
        reason, _, path = str(error).rpartition(" - at `")
        if path.startswith(_OF_KEY):
            reason, path = f"{reason} as a key", path[len(_OF_KEY):]
        if not reason or not path.startswith("$") or not path.endswith("`"):
            reason, path = str(error), "$`"  # it has no path; what looks like one are an application's own words
        problem = BadMessage(reason, path[:-1], frame.data)
    except RecursionError:
        problem = BadMessage("the message is JSON that is nested too deeply", "$", frame.data)
    except (ValueError, ArithmeticError) as error:
        said = str(error).removeprefix("JSON is malformed: ")
        problem = BadMessage(f"the message is not JSON: {said}", "$", frame.data)
    raise problem from None


cdef class CloseFrame(Frame):
    """A close frame: `push(fd, CloseFrame(4000, "bye"))` starts the closing handshake.

    Raises ValueError for a code that may not be sent (RFC 6455 section 7.4) or a reason over 123 bytes.
    """

    def __init__(self, code: int = 1000, reason: object = "", *, fd: int = 0) -> None:
        self.data = close_payload(code, reason)
        self.fd = fd
        self.code_of_opcode = OP_CLOSE
        self.finish = True
        self.attempt = 1
        self.code = code
        self.reason = PyUnicode_FromObject(reason)


cdef Frame new_frame(uint64_t fd, int opcode, const uint8_t* data, size_t size):
    """A received message; `data` is known to be UTF-8 when the opcode says text."""
    cdef Frame frame
    if opcode == OP_CLOSE:
        frame = CloseFrame.__new__(CloseFrame)
        (<CloseFrame> frame).code = (data[0] << 8) | data[1] if size >= 2 else 1005
        (<CloseFrame> frame).reason = data[2:size].decode() if size > 2 else ""
    else:
        frame = Frame.__new__(Frame)
    frame.fd = fd
    frame.code_of_opcode = opcode
    frame.finish = True
    frame.attempt = 1
    if opcode == OP_TEXT:
        frame.data = PyUnicode_DecodeUTF8(<const char*> data, size, NULL)
    else:
        frame.data = PyBytes_FromStringAndSize(<const char*> data, size)
    return frame


def close_payload(code: int, reason: object) -> bytes:
    """A close frame's payload; ValueError for what may not be sent."""
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close is a str, not {type(reason).__name__}")
    text = str.encode(reason)
    if not isinstance(code, int) or not 0 <= code <= 4999 or not may_send_close_code(code):
        raise ValueError(f"close code {code}: use 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 section 7.4)")
    if len(text) > CONTROL_LIMIT - 2:
        raise ValueError(f"the reason has {len(text)} bytes in UTF-8; at most 123 fit into a close frame")
    return int(code).to_bytes(2, "big") + text


cdef bytes _octets(data):
    """A copy. TypeError for an int, of which bytes() would make that many zeros."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"a frame carries str or bytes, not {type(data).__name__}")
    return bytes(data)


def pack(data: str | bytes | Frame, opcode: int | None = None) -> bytes:
    """One whole unmasked frame, as a server sends it. ValueError for what no frame can hold or may be sent."""
    cdef uint8_t header[SERVER_HEADER_LIMIT]
    cdef uint16_t code = 0
    if isinstance(data, Frame):
        opcode = (<Frame> data).code_of_opcode if opcode is None else opcode
        data = data.data
    if opcode is None:
        opcode = OP_TEXT if isinstance(data, str) else OP_BINARY
    if opcode not in OPCODES:
        raise ValueError(f"opcode {opcode}: RFC 6455 knows 0, 1, 2, 8, 9 and 10")
    payload = data.encode() if isinstance(data, str) else _octets(data)
    if opcode >= 8 and len(payload) > CONTROL_LIMIT:
        raise ValueError(f"a control frame holds at most 125 bytes, not {len(payload)} (RFC 6455 section 5.5)")
    if opcode == OP_TEXT and not isinstance(data, str) and not is_utf8(payload, len(payload)):
        raise ValueError("text must be UTF-8; send other bytes with opcode=Opcode.BINARY")
    if opcode == OP_CLOSE and parse_close(payload, len(payload), &code):
        raise ValueError("not a close frame that may be sent (RFC 6455 section 7.4); use CloseFrame(code, reason)")
    size = encode_header(header, opcode, True, len(payload))
    return header[:size] + payload


def unpack(data: bytes) -> Frame:
    """The one whole frame that `data` is, masked or not. ValueError when it is not exactly one good frame."""
    cdef uint16_t code = 0
    data = _octets(data)
    if len(data) < 2:
        raise ValueError("a frame has at least 2 bytes")
    if not data[1] & 0x80:
        # the decoder is a server's and wants a mask: the key 0 changes no byte
        size = {126: 4, 127: 10}.get(data[1] & 0x7F, 2)
        data = bytes([data[0], data[1] | 0x80]) + data[2:size] + bytes(4) + data[size:]
    codec = Decoder(len(data), 1)
    events = codec.feed(data)
    if codec.error is not None:
        raise ValueError(codec.error[1])
    if len(events) != 1 or codec.rest:
        raise ValueError("exactly one whole frame is needed")
    opcode, payload = events[0]
    if opcode != OP_CLOSE:
        return Frame(payload.decode() if opcode == OP_TEXT else payload, opcode)
    if parse_close(payload, len(payload), &code):
        raise ValueError("not a close frame that may be sent (RFC 6455 section 7.4)")
    closing = <CloseFrame> CloseFrame.__new__(CloseFrame)
    closing.data = payload
    closing.code_of_opcode = OP_CLOSE
    closing.finish = True
    closing.attempt = 1
    closing.code = code
    closing.reason = payload[2:].decode()
    return closing


def check_close(payload: bytes) -> tuple[int, int]:
    """(fault, code) of a received close payload: fault is 0 or the close code to answer with."""
    cdef uint16_t code = 0
    fault = parse_close(payload, len(payload), &code)
    return fault, code


cdef class Decoder:
    """The frame decoder for tests and tools: feed bytes, get (opcode, payload) for messages and control frames."""

    cdef FrameDecoder state
    cdef FrameLimits limits
    cdef readonly object error
    cdef readonly int rest

    def __cinit__(self, max_message: int = 1 << 20, max_fragments: int = 1024, unmasked: bool = False) -> None:
        memset(&self.state, 0, sizeof(self.state))
        self.limits.unmasked = unmasked
        self.limits.message = max_message
        self.limits.fragments = max_fragments
        self.error = None

    def __dealloc__(self) -> None:
        decoder_free(&self.state)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Events in order. After a fault `error` is (close code, reason) and every later feed gives nothing."""
        cdef size_t position = 0
        cdef FrameEvent event
        cdef DecodeResult outcome
        cdef size_t size = len(data)
        # the decoder unmasks in place; and a sanitizer sees what reads beyond memory that ends where the bytes end
        cdef uint8_t* copy = <uint8_t*> malloc(size)
        if copy == NULL and size:
            raise MemoryError("no memory for a copy")
        memcpy(copy, <const uint8_t*> data, size)
        events = []
        try:
            while self.error is None:
                outcome = decode_next(&self.state, &self.limits, copy, size, &position, &event)
                if outcome == NEED_MORE:
                    break
                if outcome == FAILED:
                    self.error = (event.code, event.reason.decode())
                else:
                    events.append((event.opcode, PyBytes_FromStringAndSize(<const char*> event.data, event.size)))
        finally:
            free(copy)
        self.rest = self.state.have + (self.state.payload or self.state.message_opcode != 0)
        return events
