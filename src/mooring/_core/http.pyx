# cython: auto_pickle=False, autotestdict=False
"""HTTP/1.1 without I/O: bytes in, requests out.

The theory. A server and the proxy in front of it must agree where one request ends and the next one
begins; wherever two readers may disagree, an attacker hides a second request ("smuggling"). So nothing
here is repaired or guessed: what RFC 9112 does not clearly allow is refused with a status, and the
codec stays broken afterwards, because the position of the next request is no longer known.

A request is read in three steps.

1. `_scan` walks over the lines of the head as bytes arrive. It remembers how far it came, so a head that
   arrives byte by byte costs no more than one that arrives at once, and every limit acts on bytes that
   are there, before the head is complete. An error is found at the first byte at which it is certain;
   that makes the result independent of how the network cut the bytes.
2. The complete head is parsed once (http_request.pyx).
3. The body is delimited here, not by llhttp: by Content-Length or by chunks, never by both.

One request is read ahead and no more: the bytes behind it stay unread until the next `next_event`.

A body of more than `stream_above` bytes is *streamed*: the request comes without it, and its parts by `next_part`.
"""

import re

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcpy

from mooring._core.http_grammar cimport is_tchar
from mooring._core.http_request cimport Head, ParsedRequest, read_head

from mooring._core.http_request import HttpError

CONTINUE = 100

cdef enum:
    TRAILER_LIMIT = 8192       # bytes of all trailer fields
    EXTENSION_LIMIT = 257      # bytes of the extensions of a chunk, with the ";" before them
    CHUNK_LINE_LIMIT = 275     # 16 hex digits, extensions, CR LF

_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*")
# Fields that say where a message ends or whom it is for: never in a trailer (RFC 9110 section 6.5.1).
_NOT_IN_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"host"))


cdef class HttpCodec:
    """Reads the requests of one connection.

    All limits are in bytes, but `field_count_limit`. `line_limit` bounds the request line, `field_limit`
    one field line, `head_limit` both together with all line ends, `body_limit` the decoded body. A longer body than
    `stream_above` comes in parts; -1: none does.
    """

    def __init__(self, Py_ssize_t line_limit=8192, Py_ssize_t field_limit=8192, Py_ssize_t head_limit=16384,
                 Py_ssize_t field_count_limit=100, Py_ssize_t body_limit=1 << 20, Py_ssize_t stream_above=-1):
        self.line_limit = line_limit
        self.field_limit = field_limit
        self.head_limit = head_limit
        self.field_count_limit = field_count_limit
        self.body_limit = body_limit
        self.stream_above = stream_above
        self._clear()

    cdef int _clear(self) except -1:
        self._buffer = bytearray()
        self._body = bytearray()
        self._state = HEAD
        self._need = 0
        return 0

    cdef HttpCodec another(self):
        cdef HttpCodec codec = HttpCodec.__new__(HttpCodec)
        codec.line_limit = self.line_limit
        codec.field_limit = self.field_limit
        codec.head_limit = self.head_limit
        codec.field_count_limit = self.field_count_limit
        codec.body_limit = self.body_limit
        codec.stream_above = self.stream_above
        codec._clear()
        return codec

    cpdef Py_ssize_t buffered(self) noexcept:
        """Bytes received and not consumed."""
        return PyByteArray_GET_SIZE(self._buffer)

    cpdef Py_ssize_t gathered(self) noexcept:
        """The same, and what chunks have carried so far."""
        return PyByteArray_GET_SIZE(self._buffer) + PyByteArray_GET_SIZE(self._body)

    cpdef bint is_idle(self) noexcept:
        """Between two requests: nothing of a next one has been received."""
        return self._state == HEAD and PyByteArray_GET_SIZE(self._buffer) == 0

    cdef bint is_in_body(self) noexcept:
        """The head is read, and more of the body is missing."""
        return self._state != HEAD and self._state != BROKEN

    cpdef receive(self, data):
        """Append bytes of the connection. They are looked at by `next_event`."""
        if self._state != BROKEN:
            self._buffer += data

    cpdef take_rest(self):
        """Hand over every byte that is not consumed, for the protocol the connection is upgraded to."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._restart_scan()
        return rest

    cpdef next_event(self):
        """The next complete request; CONTINUE, when the client waits for "100 Continue"; None: more
        bytes are needed. Raises HttpError on bad input, and again on every later call."""
        if self._state == BROKEN:
            raise HttpError(self._error.status, self._error.reason)
        try:
            return self._advance()
        except HttpError as error:
            self._break(error)
            raise

    cpdef next_part(self):
        """What has come of a streamed body; CONTINUE and None as of `next_event`; b"" behind its end."""
        if self._state == BROKEN:
            raise HttpError(self._error.status, self._error.reason)
        if not self.streaming:
            return b""
        try:
            return self._next_part()
        except HttpError as error:
            self._break(error)
            raise

    cdef int _break(self, error) except -1:
        self._state = BROKEN
        self._error = HttpError(error.status, error.reason)  # without the traceback and its frames
        self._request = None
        self._buffer.clear()
        self._body.clear()
        return 0

    cdef object _advance(self):
        if self._state == HEAD:
            if not self._read_head():
                return None
            if self._state == HEAD:  # a request without a body
                return self._finish(b"")
        if self._state == LENGTH and 0 <= self.stream_above < self._need:
            return self._begin_stream()
        if self._expects:
            # No need to invite a body that is already on its way (RFC 9110 section 10.1.1).
            self._expects = False
            if PyByteArray_GET_SIZE(self._buffer) == 0:
                return CONTINUE
        if self._state == LENGTH:
            if PyByteArray_GET_SIZE(self._buffer) < self._need:
                return None
            body = bytes(self._buffer[:self._need])
            del self._buffer[:self._need]
            return self._finish(body)
        if not self._read_chunks():
            return self._begin_stream() if 0 <= self.stream_above < PyByteArray_GET_SIZE(self._body) else None
        body = bytes(self._body)
        self._body.clear()
        return self._finish(body)

    cdef ParsedRequest _begin_stream(self):
        request = self._request
        request.streamed = True
        self._request = None
        self.streaming = True
        return request

    cdef object _next_part(self):
        cdef bint complete
        if self._expects:
            self._expects = False
            if PyByteArray_GET_SIZE(self._buffer) == 0:
                return CONTINUE
        if self._state == LENGTH:
            end = min(PyByteArray_GET_SIZE(self._buffer), self._need)
            part = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._need -= end
            complete = self._need == 0
        else:
            complete = self._read_chunks()
            part = bytes(self._body)
            self._body.clear()
            self._taken += len(part)
        if complete:
            self.streaming = False
            self._skipped = False
            self._taken = 0
            self._state = HEAD
        return part if part or complete else None

    cdef ParsedRequest _finish(self, bytes body):
        request = self._request
        request.body = body
        self._request = None
        self._skipped = False
        self._state = HEAD
        return request

    # Lines: the head, and the trailers behind the last chunk.

    cdef void _restart_scan(self) noexcept:
        self._line = self._scanned = self._lines = 0

    cdef Py_ssize_t _scan(self, Py_ssize_t first_limit, Py_ssize_t total_limit) except -2:
        """Walk over complete lines. Returns the position behind the empty line, -1 while it is missing.

        The content of every line must end within `total_limit` bytes from the start of the buffer.
        """
        cdef const char* base = PyByteArray_AS_STRING(self._buffer)
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self._buffer)
        cdef Py_ssize_t end, length, limit, room
        cdef const char* feed
        while True:
            feed = <const char*> memchr(base + self._scanned, b"\n", size - self._scanned)
            end = size if feed == NULL else feed - base
            # A CR at the end of what came so far may belong to the line end: not counted.
            length = end - self._line
            if length and base[end - 1] == b"\r":
                length -= 1
            limit = self.field_limit if self._lines else first_limit
            room = total_limit - self._line
            if length > limit or length > room:
                if limit > room:
                    raise HttpError(431, f"the header fields are longer than {total_limit} bytes")
                if self._lines == 0 and self._state == HEAD:
                    raise HttpError(414, f"the request line is longer than {limit} bytes")
                raise HttpError(431, f"a header field is longer than {limit} bytes")
            if feed == NULL:
                self._scanned = size
                return -1
            if end == self._line or base[end - 1] != b"\r":
                raise HttpError(400, "a line ends with LF alone instead of CR LF")
            if length == 0:
                return end + 1
            if self._lines and (base[self._line] == b" " or base[self._line] == b"\t"):
                raise HttpError(400, "a header field is folded over two lines (RFC 9112 section 5.2)")
            if self._lines > self.field_count_limit - (self._state == TRAILERS):
                raise HttpError(431, f"more than {self.field_count_limit} header fields")
            self._lines += 1
            self._line = self._scanned = end + 1

    cdef bint _read_head(self) except -1:
        """Consume one head and set the state its body needs. False: it is not complete."""
        cdef const unsigned char* base = <const unsigned char*> PyByteArray_AS_STRING(self._buffer)
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self._buffer)
        cdef Py_ssize_t end
        if size and base[0] == b"\r" and not self._skipped:
            # One empty line before a request, of clients that end a body with one (RFC 9112 section 2.2).
            if size == 1:
                return False
            if base[1] != b"\n":
                raise HttpError(400, "a CR that is not followed by LF")
            del self._buffer[:2]
            self._skipped = True
            base = <const unsigned char*> PyByteArray_AS_STRING(self._buffer)
            size -= 2
        if size == 0:
            return False
        if not is_tchar(base[0]):
            if base[0] == 0x16:
                raise HttpError(400, "this looks like TLS, and this port speaks plain HTTP")
            raise HttpError(400, "this is not an HTTP request")
        end = self._scan(self.line_limit, self.head_limit)
        if end < 0:
            return False
        text = bytes(self._buffer[:end])
        del self._buffer[:end]
        fields = self._lines - 1
        self._restart_scan()
        head = read_head(text, fields)
        self._request = head.request
        self._await_body(head)
        return True

    # The body (RFC 9112 section 6).

    cdef int _await_body(self, Head head) except -1:
        if head.chunked:
            self._state = CHUNK_SIZE
        elif head.length:
            if head.length > <uint64_t> self.body_limit:
                raise HttpError(413, f"the body is longer than {self.body_limit} bytes")
            self._need = <Py_ssize_t> head.length
            self._state = LENGTH
        self._expects = head.expects
        return 0

    cdef bint _read_chunks(self) except -1:
        """Move what arrived into the body (RFC 9112 section 7.1). True: the last chunk and the trailers
        are consumed too."""
        cdef Py_ssize_t end
        if self._state != TRAILERS:
            self._take_chunks()
        if self._state != TRAILERS:
            return False
        end = self._scan(self.field_limit, TRAILER_LIMIT)
        if end < 0:
            return False
        trailers = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._restart_scan()
        _check_trailers(trailers)
        return True

    cdef int _take_chunks(self) except -1:
        """Up to the last chunk. A receive buffer may hold 40,000 of them, so there is no Python object in this loop: it
        takes no longer than a body without chunks."""
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self._buffer)
        cdef Py_ssize_t filled = PyByteArray_GET_SIZE(self._body)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end
        cdef const unsigned char* base
        cdef const unsigned char* feed
        cdef char* body
        PyByteArray_Resize(self._body, filled + size)        # no chunk is longer than what is there
        base = <const unsigned char*> PyByteArray_AS_STRING(self._buffer)
        body = PyByteArray_AS_STRING(self._body)
        try:
            while self._state != TRAILERS:
                if self._state == CHUNK_SIZE:
                    end = min(size - at, CHUNK_LINE_LIMIT)
                    feed = <const unsigned char*> memchr(base + at, b"\n", end)
                    if feed == NULL:
                        if end == CHUNK_LINE_LIMIT:
                            raise HttpError(400, "the line before a chunk is too long")
                        break
                    if not _read_chunk_line(base + at, &self._chunk):
                        raise HttpError(400, "the line before a chunk is not: hexadecimal size, CR LF")
                    if self._chunk > <uint64_t> (self.body_limit - filled - self._taken):
                        raise HttpError(413, f"the body is longer than {self.body_limit} bytes")
                    at = feed - base + 1
                    self._state = CHUNK_DATA if self._chunk else TRAILERS
                elif self._state == CHUNK_DATA:
                    end = size - at
                    if <uint64_t> end > self._chunk:
                        end = <Py_ssize_t> self._chunk
                    memcpy(body + filled, base + at, end)
                    filled += end
                    at += end
                    self._chunk -= <uint64_t> end
                    if self._chunk:
                        break
                    self._state = CHUNK_END
                else:
                    if size - at < 2:
                        break
                    if base[at] != b"\r" or base[at + 1] != b"\n":
                        raise HttpError(400, "a chunk is not followed by CR LF")
                    at += 2
                    self._state = CHUNK_SIZE
        finally:
            PyByteArray_Resize(self._body, filled)
            del self._buffer[:at]
        return 0


cdef bint _read_chunk_line(const unsigned char* line, uint64_t* size) noexcept nogil:
    """The size of the chunk behind this line, which ends with LF; False: it is malformed.

    RFC 9112 section 7.1, without white space and without backslashes: extensions are dropped, so what is refused costs
    nothing, and what is taken must be read the same by everybody. No loop passes the LF, which is in none of the
    sets."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t digits
    size[0] = 0
    while _is_hex(line[at]):
        if at == 16:
            return False
        size[0] = size[0] << 4 | _hex_value(line[at])
        at += 1
    digits = at
    while at and line[at] == b";":
        at += 1
        if not is_tchar(line[at]):
            return False
        while is_tchar(line[at]):
            at += 1
        if line[at] != b"=":
            continue
        at += 1
        if line[at] == b'"':
            at += 1
            while line[at] == b"\t" or line[at] >= 0x20 and line[at] != b'"' and line[at] != b"\\" and line[at] != 0x7F:
                at += 1
            if line[at] != b'"':
                return False
            at += 1
        elif not is_tchar(line[at]):
            return False
        else:
            while is_tchar(line[at]):
                at += 1
    return digits > 0 and at - digits <= EXTENSION_LIMIT and line[at] == b"\r" and line[at + 1] == b"\n"


cdef inline bint _is_hex(unsigned char c) noexcept nogil:
    return b"0" <= c <= b"9" or b"a" <= c | 0x20 <= b"f"


cdef inline int _hex_value(unsigned char c) noexcept nogil:
    return c - 48 if c <= b"9" else (c | 0x20) - 87


cdef int _check_trailers(bytes block) except -1:
    """Trailers are dropped, but only well-formed ones: a reader who kept them must read the same."""
    for line in block[:len(block) - 4].split(b"\r\n") if len(block) > 2 else []:
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise HttpError(400, "a trailer is not: name, colon, value")
        if match[1].lower() in _NOT_IN_TRAILERS:
            raise HttpError(400, "a trailer field that may only stand in the head")
    return 0
