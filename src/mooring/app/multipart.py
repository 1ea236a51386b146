"""The grammar of multipart/form-data (RFC 7578, RFC 2046 section 5.1): bytes in, parts out; no I/O.

A boundary is a line: only behind CR LF, or at the very beginning, and with nothing but padding behind it. Whatever
readers could take for the one or the other is refused, as are header lines that can be read in two ways, because a
filter in front of us that reads them otherwise would let pass what it should stop. A part that is merely odd costs
nobody anything: it is handed over as it is.

How the network cuts the bytes makes no difference: every decision is taken at a byte, not at the end of a piece.
"""

import re
from collections.abc import Iterator

from mooring.errors import BadRequest

PART_HEADERS = 16  # RFC 7578 section 4.8 leaves three
PART_HEADER_SIZE = 8192  # bytes; file names are in it
PADDING = 256  # bytes of white space behind a boundary
MOST_OPTIONS = 16  # of Content-Disposition; three mean something

# RFC 2046 section 5.1.1
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PADDING = re.compile(rb"[ \t]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0A-\x1F\x7F]")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
# What a quoted string is: to RFC 9110 section 5.6.4 a backslash escapes, to browsers, which percent-encode quotes, it
# is a backslash. Who writes "C:\dir\" means the second.
_OPTIONS = [
    re.compile(rf"[ \t]*+;[ \t]*+(?:({_TOKEN})[ \t]*+=[ \t]*+({_TOKEN}|{quoted}))?(?=[ \t]*+(?:;|$))")
    for quoted in (r'"(?:[^"\\]|\\.)*+"', r'"[^"]*+"')
]
_ESCAPED = re.compile(r'\\(["\\])')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'((?:[^%]|%[0-9a-f]{2})*)", re.IGNORECASE)  # RFC 8187 section 3.2.1
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")

Head = list[tuple[str, str]]
"""The header lines of a part: names in lower case, values as `text` makes them."""
_PREAMBLE, _TAIL, _HEAD, _BODY, _EPILOGUE = range(5)


def is_boundary(text: str) -> bool:
    return _BOUNDARY.fullmatch(text) is not None


class Splitter:
    """Splits a body into parts; of each `feed` gives its header lines, its content in pieces, and None for its end."""

    def __init__(self, boundary: str, most_parts: int) -> None:
        self._delimiter = b"\r\n--" + boundary.encode()
        self._most_parts = most_parts
        self._buffer = b"\r\n"  # the first boundary may stand at the beginning
        self._state = _PREAMBLE
        self._text = False  # there is more than white space before the first boundary
        self._head: Head = []
        self._parts = 0

    @property
    def ended(self) -> bool:
        """The last boundary has come; what is behind it means nothing (RFC 2046 section 5.1.1)."""
        return self._state == _EPILOGUE

    def feed(self, data: bytes) -> Iterator[Head | bytes | None]:
        """The next piece of the body; to be iterated to its end. Raises BadRequest, and is over then."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while self._state != _EPILOGUE:
            if self._state == _TAIL:
                after = self._after_boundary(buffer, at)
                if after < 0:
                    break
                at = after
            elif self._state == _HEAD:
                after = self._after_line(buffer, at)
                if after < 0:
                    break
                at = after
                if self._state != _HEAD:
                    yield self._head
                if self._state == _TAIL:  # a part without even an empty content
                    yield None
            else:
                end = buffer.find(self._delimiter, at)
                found = end >= 0
                end = end if found else self._unsure(buffer, at)
                if self._state == _PREAMBLE:
                    self._text = self._text or bool(buffer[at:end].strip())
                elif end > at:
                    yield buffer[at:end]
                at = end
                if not found:
                    break
                if self._state == _BODY:
                    yield None
                at, self._state = at + len(self._delimiter), _TAIL
        self._buffer = b"" if self.ended else buffer[at:]

    def _unsure(self, buffer: bytes, at: int) -> int:
        """Where what may be the beginning of a boundary begins; the end, if nothing is."""
        start = buffer.rfind(b"\r", max(at, len(buffer) - len(self._delimiter) + 1))
        return start if start >= 0 and self._delimiter.startswith(buffer[start:]) else len(buffer)

    def _after_boundary(self, buffer: bytes, at: int) -> int:
        """Where to go on behind the rest of its line; -1: it is not here yet."""
        if buffer.startswith(b"--", at):
            if self._parts == 0 and self._text:
                raise BadRequest(400, "the form is malformed: it has a text, and no part")
            self._state = _EPILOGUE
            return at + 2
        match = _PADDING.match(buffer, at, at + PADDING)
        end = match.end() if match else at
        line_end = buffer[end : end + 2]
        if line_end == b"\r\n":
            self._parts += 1
            if self._parts > self._most_parts:
                raise too_large(self._most_parts)
            self._head = []
            self._state = _HEAD
            return end + 2
        if line_end in (b"", b"\r") or (line_end == b"-" and end == at):
            return -1
        raise BadRequest(400, "the form is malformed: a boundary is not followed by a line end")

    def _after_line(self, buffer: bytes, at: int) -> int:
        """Where to go on behind a header line, or behind the end of the head; -1: it is not here yet."""
        end = buffer.find(b"\r\n", at)
        if end > at:
            self._head.append(self._line(buffer[at:end]))
            return end + 2
        if end < 0:
            if len(buffer) - at > PART_HEADER_SIZE + 1:  # and its CR
                raise too_large(self._most_parts)
            return -1
        if buffer.startswith(self._delimiter, at):
            self._state = _TAIL
            return at + len(self._delimiter)
        if self._delimiter.startswith(buffer[at : at + len(self._delimiter)]):
            return -1
        self._state = _BODY
        return at + 2

    def _line(self, line: bytes) -> tuple[str, str]:
        if len(line) > PART_HEADER_SIZE or len(self._head) >= PART_HEADERS:
            raise too_large(self._most_parts)
        if _CONTROL.search(line):
            raise BadRequest(400, "the form is malformed: a control character in a header line of a part")
        name, colon, value = line.partition(b":")
        # White space before a name would continue the line before: RFC 5322 section 2.2.3, and nobody does it.
        if not colon or not _NAME.fullmatch(name):
            raise BadRequest(400, "the form is malformed: a header line of a part is not: name, colon, value")
        return name.decode().lower(), text(value.strip(b" \t"))


def too_large(most_parts: int) -> BadRequest:
    return BadRequest(
        413,
        f"the form has more than {most_parts} parts, or a part has more than {PART_HEADERS} header lines or a longer "
        f"one than {PART_HEADER_SIZE} bytes",
    )


def text(value: bytes) -> str:
    """File names are UTF-8 (RFC 7578 section 5.1); those of old clients are in what their system has."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def disposition(value: str) -> tuple[str, str | None]:
    """The name of the field and of the file, if it is one, that a Content-Disposition tells. The first is "" where it
    does not tell which field it is, or tells in a way that can be read as another."""
    kind, semicolon, _ = value.partition(";")
    options = _options(value, len(kind)) if semicolon else {}
    if options is None or kind.strip(" \t").lower() != "form-data":
        return "", "" if "filename" in value.lower() else None
    name = _named(options, "name")
    return name or "", _named(options, "filename")


def _options(value: str, start: int) -> dict[str, str] | None:
    """The parameters from there on; None when they are malformed, or one is there twice."""
    for pattern in _OPTIONS:
        found: dict[str, str] = {}
        at, count = start, 0
        while (match := pattern.match(value, at)) is not None and count < MOST_OPTIONS:
            at, count = match.end(), count + 1
            if match[1] is not None:
                if match[1].lower() in found:
                    return None
                found[match[1].lower()] = match[2]
        if not value[at:].strip(" \t"):
            return found
    return None


def _named(options: dict[str, str], name: str) -> str | None:
    """RFC 7578 section 4.2 forbids the extended form, but some clients have no other, or put into the plain one what
    nobody can read (RFC 2047)."""
    plain, extended = options.get(name), options.get(name + "*")
    if extended is not None and (plain is None or plain.strip('"').startswith("=?")):
        return _extended(extended.strip('"'))
    return None if plain is None else _plain(plain)


def _plain(value: str) -> str:
    quoted = value[0] == '"'
    value = value[1:-1] if quoted else value
    if quoted and '\\"' in value:
        return _ESCAPED.sub(r"\1", value)
    # browsers escape these three, and nothing else (the HTML standard, section 4.10.22.8)
    return value.replace("%0D", "\r").replace("%0A", "\n").replace("%22", '"') if "%" in value else value


def _extended(value: str) -> str:
    """As it is when it is malformed: it is only shown."""
    match = _EXTENDED.fullmatch(value)
    if match is None or not value.isascii():
        return value
    octets = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), match[2].encode())
    try:
        return octets.decode(match[1])
    except UnicodeDecodeError:
        return value


def base_name(filename: str) -> str:
    """Old Internet Explorers send the whole path."""
    return filename.rpartition("\\")[2] if filename[1:3] == ":\\" or filename[:2] == "\\\\" else filename
