# cython: auto_pickle=False, autotestdict=False
"""What the head of a request says: whom it asks for what, and where its body ends. It is complete, see http.pyx.

llhttp does the grammar of methods, targets and fields; the checks around it are ours. It must report the same target
and the same number of fields as we have counted: if two readings of one head differ, the head is refused. So is what
could be read in two ways by anybody else, in particular whatever says where the body ends (RFC 9112 section 6).
"""

import re

import httptools

from mooring._core.http_grammar cimport is_token

cdef enum:
    NAME_LIMIT = 256           # bytes of a field name

# A host and an optional port. Narrower than RFC 3986: no percent-encoding and no sub-delims, of which
# no name that can be looked up has any, and a comma would be two Host fields joined by a proxy.
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")


class HttpError(Exception):
    """A request that can't be served. `status` goes to the client, `reason` says why in plain words."""

    def __init__(self, status, reason):
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


cdef class ParsedRequest:
    """One complete request. Field names are lower-case, values are decoded as latin-1, in order."""

    def __init__(self, str method not None, str target not None, int minor, list headers not None,
                 bytes body not None=b"", bint keep_alive=True, bint upgrade=False):
        self.method = method
        self.target = target
        self.minor = minor
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.upgrade = upgrade

    def __repr__(self):
        return f"<ParsedRequest {self.method} {self.target!r} HTTP/1.{self.minor}, {len(self.body)} bytes>"


cdef class Head:
    """The request without its body, and how that is delimited."""

    def __cinit__(self):
        self._target = b""
        self._pairs = []

    # What llhttp calls.

    def on_url(self, bytes url):
        self._target += url

    def on_header(self, bytes name, bytes value):
        self._pairs.append((name, value))

    cdef int _judge_fields(self) except -1:
        """Copies the fields into the request and draws the conclusions: host, persistence, body, upgrade."""
        cdef ParsedRequest request = self.request
        cdef str key, value
        cdef bytes raw_name, raw_value
        for raw_name, raw_value in self._pairs:
            if len(raw_name) > NAME_LIMIT:
                raise HttpError(431, f"the name of a header field is longer than {NAME_LIMIT} bytes")
            key = raw_name.lower().decode("latin-1")
            value = raw_value.strip(b" \t").decode("latin-1")
            request.headers.append((key, value))
            self._note(key, value)
        # RFC 9112 section 9.3: `close` wins over `keep-alive`.
        request.keep_alive = not self._closes and (request.minor == 1 or self._keeps)
        if self._host is not None:
            _check_host(self._host)
        elif request.minor == 1:
            raise HttpError(400, "no Host field")
        request.target = _origin_form(request.method, request.target, self._host)
        self._delimit_body()
        # RFC 9110 section 10.1.1: HTTP/1.0 knows no Expect.
        if self._expect is not None and request.minor == 1:
            expectations = set(_elements(self._expect))
            if expectations - {"100-continue", ""}:
                raise HttpError(417, "the only expectation that can be met is 100-continue")
            self.expects = (self.chunked or self.length > 0) and "100-continue" in expectations
        return 0

    cdef int _note(self, str key, str value) except -1:
        """Keeps what a field says about the message itself."""
        if key == "host":
            self._host = _only(self._host, value, "Host")
        elif key == "connection":
            options = _elements(value)
            self._closes = self._closes or "close" in options
            self._keeps = self._keeps or "keep-alive" in options
        elif key == "upgrade":
            self.request.upgrade = self.request.upgrade or "websocket" in _elements(value)
        elif key == "content-length":
            self._length = _only(self._length, value, "Content-Length")
        elif key == "transfer-encoding":
            self._coding = _only(self._coding, value.lower(), "Transfer-Encoding")
        elif key == "expect":
            self._expect = value if self._expect is None else f"{self._expect}, {value}"
        return 0

    cdef int _delimit_body(self) except -1:
        """RFC 9112 section 6."""
        cdef str length = self._length
        cdef str coding = self._coding
        if coding is not None:
            if length is not None:
                raise HttpError(400, "both Transfer-Encoding and Content-Length")
            if self.request.minor == 0:
                raise HttpError(400, "Transfer-Encoding in an HTTP/1.0 request")
            if coding != "chunked":
                # RFC 9112 section 6.1 (501) and 6.3 point 4 (400).
                if coding.endswith((", chunked", ",chunked")) and coding.count("chunked") == 1:
                    raise HttpError(501, "the only transfer coding known here is chunked")
                raise HttpError(400, "Transfer-Encoding is not exactly: chunked")
            self.chunked = True
        elif length is not None:
            # str.isdigit() also holds for digits that are not ASCII; 19 digits fit into 64 bits
            if not (length.isascii() and length.isdigit() and len(length) <= 19):
                raise HttpError(400, "Content-Length is not 1 to 19 digits")
            self.length = int(length)
        # The bytes behind an upgrade belong to the next protocol; a body would be a second reading of them.
        if self.request.upgrade and (self.chunked or self.length):
            raise HttpError(400, "an upgrade request with a body")
        return 0


cdef Head read_head(bytes head, Py_ssize_t count):
    _refuse_control_bytes(head)
    cdef list parts = head[:head.index(b"\r\n")].split(b" ")
    if len(parts) != 3:
        raise HttpError(400, "the request line is not: method, space, target, space, version")
    cdef bytes method = parts[0], target = parts[1], version = parts[2]
    _check_request_line(method, target, version)
    cdef Head found = Head()
    try:
        httptools.HttpRequestParser(found).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # llhttp stops behind the head of an upgrade; so do we
    except httptools.HttpParserInvalidMethodError:
        raise HttpError(501, "this method is not known here") from None
    except httptools.HttpParserError as error:
        raise HttpError(400, f"not HTTP: {error}") from None
    if found._target != target or len(found._pairs) != count:
        raise HttpError(400, "the request can be read in two ways")
    found.request = ParsedRequest(method.decode("latin-1"), target.decode("latin-1"), version[7] - 48, [])
    found._judge_fields()
    return found


cdef int _refuse_control_bytes(const unsigned char[::1] head) except -1:
    """Only CR LF and tab may stand in a head. (RFC 9110 section 5.5 lets a reader keep other control
    bytes; but readers differ in what they take for white space.)"""
    cdef Py_ssize_t i
    cdef unsigned char c
    for i in range(head.shape[0]):
        c = head[i]
        if c >= 0x20 and c != 0x7F:
            continue
        if c == b"\r":
            if head[i + 1] != b"\n":  # the head ends with LF, so there is a byte behind every CR
                raise HttpError(400, "a CR that is not followed by LF")
        elif c != b"\n" and c != b"\t":
            raise HttpError(400, f"the control byte 0x{c:02x} in the head of the request")
    return 0


cdef int _check_request_line(bytes method, bytes target, bytes version) except -1:
    cdef unsigned char c
    if not is_token(method.decode("latin-1")):
        raise HttpError(400, "the method is not a token")
    if len(version) != 8 or not version.startswith(b"HTTP/") or version[6] != 46 \
            or not (48 <= version[5] <= 57 and 48 <= version[7] <= 57):
        raise HttpError(400, "the version is not: HTTP/, digit, dot, digit")
    if version != b"HTTP/1.1" and version != b"HTTP/1.0":
        raise HttpError(505, "the versions spoken here are HTTP/1.1 and HTTP/1.0")
    if not target:
        raise HttpError(400, "the target is empty")
    for c in target:
        if c <= 0x20 or c >= 0x7F or c == b"#":
            raise HttpError(400, f"the byte 0x{c:02x} in the target: it has to be percent-encoded")
    if method == b"CONNECT":
        raise HttpError(501, "this is not a proxy: no CONNECT")
    return 0


cdef int _check_host(str host) except -1:
    match = _HOST.fullmatch(host)
    if match is None or (match[1] is not None and int(match[1]) > 65535):
        raise HttpError(400, "Host is not a host name or address with an optional port")
    return 0


cdef str _origin_form(str method, str target, str host):
    """The target without scheme and authority, which only proxies need (RFC 9112 section 3.2)."""
    if target[0] == "/":
        return target
    if target == "*":
        if method != "OPTIONS":
            raise HttpError(400, "the target * is for OPTIONS only")
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise HttpError(400, "the target is neither a path nor an http URL")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    path = rest[len(authority):]
    _check_host(authority)
    # RFC 9112 section 3.2.2 would have us overlook Host; but who routed this request by it would not know.
    if host is not None and host.lower() != authority.lower():
        raise HttpError(400, "the host of the target is not the one of the Host field")
    if not path:
        path = "*" if method == "OPTIONS" else "/"
    return path if path[0] != "?" else "/" + path


cdef str _only(str former, str value, str name):
    """The value of a field that may be there once."""
    if former is not None:
        raise HttpError(400, f"more than one {name} field")
    return value


cdef list _elements(str value):
    """Those of a comma-separated field value, in lower case (RFC 9110 section 5.6.1)."""
    return [element.strip(" \t") for element in value.lower().split(",")]
