# cython: auto_pickle=False, autotestdict=False
"""What a response is written with. Nothing of a request is known here.

Whatever stands in a status line or a header comes from an application, which may have it from a client. So it is
looked at here, in the one place that writes it out: what could end a line early, or be read differently by another
program, is an error of who gave it ("response splitting").
"""

from http import HTTPStatus

from cpython.unicode cimport PyUnicode_FromObject

from mooring._core.http_grammar cimport is_token

REASONS = {status.value: status.phrase for status in HTTPStatus}
LAST_CHUNK = b"0\r\n\r\n"


cdef bint _is_field_value(str text) noexcept:
    cdef Py_UCS4 c
    for c in text:
        if c > 0xFF or c == 0x7F or (c < 0x20 and c != u"\t"):
            return False
    return True


cdef inline str _text(object given):
    """An exact str, also of what is a str beside something else (StrEnum, markup that is safe)."""
    if type(given) is str:
        return <str> given
    if not isinstance(given, str):
        raise TypeError(f"a header field is a pair of str, {type(given).__name__} is none")
    return <str> PyUnicode_FromObject(given)


def response_head(int status, headers, reason=None):
    """Status line, header fields and the empty line.

    Raises ValueError for whatever could end a line early or be read differently by another program: a
    name that is no token, control characters, characters outside latin-1, a status outside 100 to 599.
    """
    cdef str name, value, phrase
    if not 100 <= status <= 599:
        raise ValueError(f"status {status} is not between 100 and 599")
    phrase = _text(REASONS.get(status, "") if reason is None else reason)
    if not _is_field_value(phrase):
        raise ValueError(f"reason {phrase!r}: control characters and characters outside latin-1 can't be sent")
    cdef list lines = [f"HTTP/1.1 {status} {phrase}\r\n"]
    for given_name, given_value in headers:
        name, value = _text(given_name), _text(given_value)
        if not is_token(name):
            raise ValueError(f"header name {name!r} is not a token (RFC 9110 section 5.6.2)")
        if not _is_field_value(value):
            raise ValueError(
                f"header {name}: {value!r}: control characters and characters outside latin-1 can't be sent"
            )
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def chunk(bytes data not None):
    """One chunk of a chunked body. Nothing for no data: an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
