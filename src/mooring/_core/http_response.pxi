"""What a response is written with. Included by `http.pyx`; nothing of a request is known here."""

def response_head(int status, headers, str reason=None):
    """Status line, header fields and the empty line.

    Raises ValueError for whatever could end a line early or be read differently by another program: a
    name that is no token, control characters, characters outside latin-1, a status outside 100 to 599.
    """
    cdef str name, value
    if not 100 <= status <= 599:
        raise ValueError(f"status {status} is not between 100 and 599")
    if reason is None:
        reason = REASONS.get(status, "")
    if not _is_field_value(reason):
        raise ValueError(f"reason {reason!r}: control characters and characters outside latin-1 can't be sent")
    cdef list lines = [f"HTTP/1.1 {status} {reason}\r\n"]
    for name, value in headers:
        if name is None or value is None:
            raise TypeError("a header field is a pair of str")
        if not _is_token(name):
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
