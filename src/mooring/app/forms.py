"""Form bodies: application/x-www-form-urlencoded, and multipart/form-data with its files (RFC 7578).

The grammar of multipart is read by the library `multipart`, in its strict mode. What is left to decide here is what
a form may be: each bound is checked before the work that it bounds, and what a client got wrong is a BadRequest,
which the worker answers with 400 or 413 unless the handler catches it. Everything stays in memory, at most twice the
size of the body.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from mooring.errors import BadRequest
from mooring.types import Headers

PART_HEADERS = 16  # RFC 7578 section 4.8 leaves three
PART_HEADER_SIZE = 8192  # bytes; file names are in it

STRAYS = 1000  # per cent signs that escape nothing; they stay as they are

_STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?')  # RFC 9110 section 5.6.6
# RFC 2046 section 5.1.1
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form. It is in memory: what should outlive the request, `save`."""

    name: str
    """Of the form's field."""
    filename: str
    """As the client calls it: text to be shown, after escaping. It may be anything, "../../etc/passwd" included, so
    never make a path of it."""
    content_type: str
    """As the client calls it, without parameters; "application/octet-stream" when it says nothing. Not checked."""
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self) -> bytes:
        """The content."""
        return self.data

    def save(self, path: "str | PathLike[str]") -> None:
        """Write the content to a file, replacing it if it is there. The path is yours, never the client's."""
        Path(path).write_bytes(self.data)

    def __repr__(self) -> str:
        return f"<UploadedFile {self.name!r} {self.filename!r} {len(self.data)} bytes>"


class Form(NamedTuple):
    """The fields and files of a body, each under its name in the order of arrival."""

    fields: dict[str, list[str]]
    files: dict[str, list[UploadedFile]]


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a form may have at most; see the settings of the same names."""

    form_field_limit: int = 1000
    multipart_part_limit: int = 100


def parse_form(headers: Headers, body: bytes, limits: FormLimits) -> Form:
    """The form in a body; an empty one when the body is no form. Raises BadRequest."""
    types = headers.getlist("content-type")
    kind = types[0].partition(";")[0].strip(" \t").lower() if types else ""
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return Form({}, {})
    if len(types) > 1:
        raise BadRequest(400, "Content-Type is there twice")  # another program may have read the other one
    if kind == "multipart/form-data":
        return _multipart(_boundary(types[0]), body, limits)
    return Form(_urlencoded(body, limits.form_field_limit), {})


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


def _multipart(boundary: str, body: bytes, limits: FormLimits) -> Form:
    parser = PushMultipartParser(
        boundary,
        max_header_size=PART_HEADER_SIZE,
        max_header_count=PART_HEADERS,
        max_segment_count=limits.multipart_part_limit,
        strict=True,
    )
    form = Form({}, {})
    part: MultipartSegment | None = None
    content: list[bytes] = []
    try:
        # The whole body at once: the parser makes its slices from one buffer and never joins any.
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                part, content = event, []
            elif event is not None:
                content.append(event)
            elif part is not None:
                _add(form, part, b"".join(content))
        if not parser.closed:
            parser.close()  # raises unless the last boundary has come
    except ParserLimitReached:
        raise BadRequest(
            413,
            f"the form has more than {limits.multipart_part_limit} parts, or a part has more than "
            f"{PART_HEADERS} header lines or a longer one than {PART_HEADER_SIZE} bytes",
        ) from None
    except MultipartError as error:
        raise BadRequest(400, f"the form is malformed: {error.args[0]}") from None
    return form


def _add(form: Form, part: MultipartSegment, content: bytes) -> None:
    names = [name for name, _ in part.headerlist]
    if len(set(names)) != len(names):
        raise BadRequest(400, "a part of the form has a header line twice")
    if part.filename is None:
        try:
            form.fields.setdefault(part.name, []).append(content.decode())
        except UnicodeDecodeError:
            raise BadRequest(400, "a field of the form is not UTF-8") from None
    elif part.filename or content:  # browsers send this pair empty where no file was chosen
        kind = part.content_type or "application/octet-stream"
        file = UploadedFile(part.name, part.filename, kind, content)
        form.files.setdefault(part.name, []).append(file)
