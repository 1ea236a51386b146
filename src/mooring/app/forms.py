"""Form bodies: application/x-www-form-urlencoded, and multipart/form-data with its files (RFC 7578).

The grammar of multipart is read by the library `multipart`, in its strict mode. What is left to decide here is what
a form may be: each bound is checked before the work that it bounds, and what a client got wrong is a BadRequest,
which the worker answers with 400 or 413 unless the handler catches it. Fields and small files stay in memory; larger
ones go to temporary files without a name, which end with the process at the latest.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from os import PathLike
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, StrictParserError

from mooring.errors import BadRequest
from mooring.types import Headers

PART_HEADERS = 16  # RFC 7578 section 4.8 leaves three
PART_HEADER_SIZE = 8192  # bytes; file names are in it

STRAYS = 1000  # per cent signs that escape nothing; they stay as they are

# Python knows codecs (idna, punycode) that take quadratic time; the client would choose one by name.
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252"})
_CHARSET = re.compile(r';[ \t]*charset[ \t]*=[ \t]*"?([A-Za-z0-9_.:-]+)', re.IGNORECASE)

_STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?')  # RFC 9110 section 5.6.6
_CONTROL = re.compile(rb"[\x00-\x08\x0A-\x1F\x7F]")
# RFC 2046 section 5.1.1
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


class UploadedFile:
    """A file of a form. It goes with the request: what should outlive that, `save`."""

    __slots__ = ("content_type", "file", "filename", "name", "size")

    def __init__(self, name: str, filename: str, content_type: str, file: BinaryIO, size: int) -> None:
        self.name = name
        """Of the form's field."""
        self.filename = filename
        """As the client calls it: text to be shown, after escaping. It may be anything, "../../etc/passwd" included, so
        never make a path of it."""
        self.content_type = content_type
        """As the client calls it, without parameters; "application/octet-stream" when it says nothing. Not checked."""
        self.file = file
        """The content, as an open file: in memory, or if it is larger than `upload_spool_size` in a temporary file that
        has no name. Closed when the handler is done."""
        self.size = size
        """Bytes."""

    @property
    def data(self) -> bytes:
        """The content."""
        return self.read()

    def read(self) -> bytes:
        """The content, all of it; a large file is better read in pieces, from `file`."""
        self.file.seek(0)
        return self.file.read()

    def save(self, path: "str | PathLike[str]") -> None:
        """Write the content to a file, replacing it if it is there. The path is yours, never the client's."""
        self.file.seek(0)
        with open(path, "wb") as target:
            shutil.copyfileobj(self.file, target, 1 << 18)

    def __repr__(self) -> str:
        return f"<UploadedFile {self.name!r} {self.filename!r} {self.size} bytes>"


class Form(NamedTuple):
    """The fields and files of a body, each under its name in the order of arrival."""

    fields: dict[str, list[str]]
    files: dict[str, list[UploadedFile]]


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a form may have at most; see the settings of the same names."""

    form_field_limit: int = 1000
    multipart_part_limit: int = 100
    form_memory: int = 1 << 20
    upload_spool_size: int = 1 << 16


def parse_form(headers: Headers, body: bytes, limits: FormLimits) -> Form:
    """The form in a body; an empty one when the body is no form. Raises BadRequest."""
    kind = form_type(headers)
    if kind is None:
        return Form({}, {})
    if kind == "multipart/form-data":
        with MultipartReader(headers["content-type"], limits) as reader:
            # The whole body at once: the parser makes its slices from one buffer and never joins any.
            reader.feed(body)
            return reader.finish()
    return Form(_urlencoded(body, limits.form_field_limit), {})


def form_type(headers: Headers) -> str | None:
    """Which kind of form a body is; None: it is none. Raises BadRequest."""
    types = headers.getlist("content-type")
    kind = types[0].partition(";")[0].strip(" \t").lower() if types else ""
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return None
    if len(types) > 1:
        raise BadRequest(400, "Content-Type is there twice")  # another program may have read the other one
    return kind


def declared_charset(content_type: str) -> str | None:
    """The one that a Content-Type names, in lower case."""
    match = _CHARSET.search(content_type)
    return match[1].lower() if match else None


def _urlencoded(body: bytes, limit: int) -> dict[str, list[str]]:
    """UTF-8 whatever the charset parameter says, as the URL standard has it."""
    if body.count(b"&") >= limit:
        raise BadRequest(413, f"the form has more than {limit} fields")
    if next(islice(_STRAY.finditer(body), STRAYS, None), None) is not None:
        raise BadRequest(400, "the form is not percent-encoded")
    # As escapes of Python, which C code decodes: urllib takes half a second for the worst megabyte.
    text = _STRAY.sub(b"%25", body.replace(b"\\", rb"\\")).replace(b"%", rb"\x").replace(b"+", b" ")
    fields: dict[str, list[str]] = {}
    try:
        for piece in filter(None, text.split(b"&")):
            name, _, value = piece.partition(b"=")
            fields.setdefault(_unescaped(name), []).append(_unescaped(value))
    except UnicodeDecodeError:
        raise BadRequest(400, "the form is not UTF-8") from None
    return fields


def _unescaped(text: bytes) -> str:
    return text.decode("unicode_escape").encode("latin-1").decode()


def _boundary(content_type: str) -> str:
    parameters = _parameters(content_type)
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(400, "the boundary in Content-Type is missing, malformed or longer than 70 characters")
    return boundary


def _parameters(field: str) -> Mapping[str, str]:
    """Those behind the value of a field. Strict, because a filter in front of us that reads them otherwise would let
    pass what it should stop."""
    found: dict[str, str] = {}
    end = field.find(";")
    while 0 <= end < len(field):
        match = _PARAMETER.match(field, end)
        if match is None or match.end() == end:
            raise BadRequest(400, "the parameters of Content-Type are malformed")
        end = match.end()
        name, value = match.groups()
        if name is None:
            continue
        if name.lower() in found:
            raise BadRequest(400, "a parameter of Content-Type is there twice")
        found[name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value
    return found


class _Parser(PushMultipartParser):  # type: ignore[misc]  # the library has no types
    """The library's, but a header line means the same however it is cut: the library looks for a line feed inside of
    one, and counts a carriage return behind the longest one, only where a piece of the body ends."""

    def _on_segment_headerline(self, line: bytes) -> None:
        if len(line) > PART_HEADER_SIZE:
            raise ParserLimitReached("Segment header too long")
        if _CONTROL.search(line):
            raise StrictParserError("Control character in segment header")
        super()._on_segment_headerline(line)


class MultipartReader:
    """Reads a multipart body that comes in pieces. What it has opened it closes, unless it gave a form. Raises
    BadRequest."""

    def __init__(self, content_type: str, limits: FormLimits) -> None:
        self._limits = limits
        boundary = _boundary(content_type)
        self._opening = b"\r\n--" + boundary.encode()  # what it must begin with; empty once it has
        self._first = b""  # what came, until it is as long as that
        self._parser = _Parser(
            boundary,
            max_header_size=PART_HEADER_SIZE + 1,  # and its CR
            max_header_count=PART_HEADERS,
            max_segment_count=limits.multipart_part_limit,
            strict=True,
        )
        self._form = Form({}, {})
        self._part: MultipartSegment | None = None
        self._content = BytesIO()
        self._spooled: BinaryIO | None = None
        self._size = 0
        self._fields = 0  # bytes
        self._done = False

    def __enter__(self) -> "MultipartReader":
        return self

    def __exit__(self, *failure: object) -> None:
        if not self._done:
            close_files(self._form)
            if self._spooled is not None:
                self._spooled.close()

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        if self._parser.closed or not data:
            return  # behind the last boundary, see below; and to the parser an empty piece is the end
        if self._opening:
            # Were there a preamble, the parser would refuse it or not, as its first piece has the boundary or not.
            data = self._first + data
            if len(data) < len(self._opening):
                self._first = data
                return
            if not data.startswith((self._opening, self._opening[2:])):
                raise BadRequest(400, "the form is malformed: it does not begin with its boundary")
            self._opening = b""
        with self._judged():
            try:
                for event in self._parser.parse(data):
                    if isinstance(event, MultipartSegment):
                        self._part, self._content, self._spooled, self._size = event, BytesIO(), None, 0
                    elif event is not None:
                        self._keep(event)
                    elif self._part is not None:
                        self._add(self._part)
            except StrictParserError:
                if not self._is_whole():
                    raise
                # The parser ignores what stands behind the last boundary, mostly a line end, as RFC 2046 section 5.1.1
                # demands; but not when that begins a piece of its own.

    def _is_whole(self) -> bool:
        """Whether the last boundary has come; the parser is closed then."""
        try:
            self._parser.close()
        except MultipartError:
            return False
        return True

    def finish(self) -> Form:
        """The form, behind the last piece."""
        with self._judged():
            if not self._parser.closed:
                self._parser.close()  # raises unless the last boundary has come
        self._done = True
        return self._form

    @contextmanager
    def _judged(self) -> Iterator[None]:
        try:
            yield
        except ParserLimitReached:
            raise BadRequest(
                413,
                f"the form has more than {self._limits.multipart_part_limit} parts, or a part has more than "
                f"{PART_HEADERS} header lines or a longer one than {PART_HEADER_SIZE} bytes",
            ) from None
        except MultipartError as error:
            raise BadRequest(400, f"the form is malformed: {error.args[0]}") from None

    def _keep(self, data: bytes | bytearray) -> None:
        """A piece of the present part's content."""
        self._size += len(data)
        if self._part is not None and self._part.filename is None:
            self._fields += len(data)
            if self._fields > self._limits.form_memory:
                raise BadRequest(413, f"the fields of the form have more than {self._limits.form_memory} bytes")
        elif self._spooled is None and self._size > self._limits.upload_spool_size:
            self._spooled = TemporaryFile()  # noqa: SIM115 - it is closed with the form
            self._spooled.write(self._content.getbuffer())
            self._content = BytesIO()
        (self._spooled or self._content).write(data)

    def _add(self, part: MultipartSegment) -> None:
        names = [name for name, _ in part.headerlist]
        if len(set(names)) != len(names):
            raise BadRequest(400, "a part of the form has a header line twice")
        if part.filename is None:
            try:
                self._form.fields.setdefault(part.name, []).append(self._content.getvalue().decode())
            except UnicodeDecodeError:
                raise BadRequest(400, "a field of the form is not UTF-8") from None
        elif part.filename or self._size:  # browsers send this pair empty where no file was chosen
            kind = part.content_type or "application/octet-stream"
            content = self._spooled or self._content
            content.seek(0)
            self._spooled = None  # the form has it now
            self._form.files.setdefault(part.name, []).append(
                UploadedFile(part.name, part.filename, kind, content, self._size)
            )


def close_files(form: Form) -> None:
    """Gives back the temporary files."""
    for files in form.files.values():
        for file in files:
            if not isinstance(file.file, BytesIO):
                file.file.close()
