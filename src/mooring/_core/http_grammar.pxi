"""The grammar of HTTP/1.1, included by `http.pyx`: tables, and checks that raise HttpError or return 0."""

# RFC 9110 section 5.6.2. Indexed by the byte.
cdef bytes _TCHARS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
cdef bint[256] _is_tchar
for _c in range(256):
    _is_tchar[_c] = _c in _TCHARS

# A host and an optional port. Narrower than RFC 3986: no percent-encoding and no sub-delims, of which
# no name that can be looked up has any, and a comma would be two Host fields joined by a proxy.
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*")
# Fields that say where a message ends or whom it is for: never in a trailer (RFC 9110 section 6.5.1).
_NOT_IN_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"host"))


class HttpError(Exception):
    """A request that can't be served. `status` goes to the client, `reason` says why in plain words."""

    def __init__(self, status, reason):
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


cdef class _Fields:
    """What llhttp reports of one head."""

    cdef bytes target
    cdef list pairs

    def __cinit__(self):
        self.target = b""
        self.pairs = []

    def on_url(self, bytes url):
        self.target += url

    def on_header(self, bytes name, bytes value):
        self.pairs.append((name, value))


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
    if not _is_token(method.decode("latin-1")):
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
        if not _is_tchar[line[at]]:
            return False
        while _is_tchar[line[at]]:
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
        elif not _is_tchar[line[at]]:
            return False
        else:
            while _is_tchar[line[at]]:
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


cdef list _list(str value):
    """The lower-cased elements of a comma-separated field value (RFC 9110 section 5.6.1)."""
    return [element.strip(" \t") for element in value.lower().split(",")]


cdef bint _is_token(str text) noexcept:
    cdef Py_UCS4 c
    for c in text:
        if c > 0x7F or not _is_tchar[c]:
            return False
    return len(text) > 0


cdef bint _is_field_value(str text) noexcept:
    cdef Py_UCS4 c
    for c in text:
        if c > 0xFF or c == 0x7F or (c < 0x20 and c != u"\t"):
            return False
    return True
