"""Form bodies: application/x-www-form-urlencoded, and multipart/form-data with its files (RFC 7578).

The grammar of multipart is read in multipart.py. What is left to decide here is what a form may be: each bound is
checked before the work that it bounds, and what a client got wrong is a BadRequest, which the worker answers with 400
or 413 unless the handler catches it. Fields and small files stay in memory; larger ones go to temporary files without a
name, which end with the process at the latest.

One odd part does not cost the others. A field that is no text, or in a charset that is not decoded here, is given as a
file, in bytes; a part that does not say which field it is has the name "".
"""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from os import PathLike
from typing import BinaryIO, NamedTuple

from mooring.app.multipart import Head, Splitter, base_name, disposition, is_boundary
from mooring.app.spools import Spools
from mooring.errors import BadRequest
from mooring.types import Headers

STRAYS = 1000  # per cent signs that escape nothing; they stay as they are

# Python knows codecs (idna, punycode) that take quadratic time; the client would choose one by name.
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252"})
_CHARSET = re.compile(r';[ \t]*charset[ \t]*=[ \t]*"?([A-Za-z0-9_.:-]+)', re.IGNORECASE)

_STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?')  # RFC 9110 section 5.6.6
_TWICE = ("content-disposition", "content-length", "content-type", "content-transfer-encoding")  # would say two things


class UploadedFile:
    """A file of a form. It goes with the request: what should outlive that, `save`."""

    __slots__ = ("charset", "content_type", "file", "filename", "name", "size")

    def __init__(
        self, name: str, filename: str, content_type: str, file: BinaryIO, size: int, charset: str | None = None
    ) -> None:
        self.name = name
        """Of the form's field."""
        self.charset = charset
        """The one that the client names for it, in lower case, or None. Not checked."""
        self.filename = filename
        """As the client calls it: text to be shown, after escaping. It may be anything, "../../etc/passwd" included, so
        never make a path of it. "" for a field without a file name that is no text in its charset."""
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
    spools: Spools = field(default_factory=Spools)


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
    if not is_boundary(boundary):
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


class _Part:
    """One on its way."""

    __slots__ = ("charset", "content", "content_type", "filename", "length", "name", "size", "spooled")

    def __init__(self, head: Head) -> None:
        fields: dict[str, str] = {}
        for name, value in head:
            if name in fields and name in _TWICE:
                raise BadRequest(400, "a part of the form has a header line twice")
            fields[name] = value
        self.name, filename = disposition(fields.get("content-disposition", ""))
        self.filename = None if filename is None else base_name(filename)
        kind = fields.get("content-type", "")
        self.content_type = kind.partition(";")[0].strip(" \t").lower()
        self.charset = declared_charset(kind)
        self.length = fields.get("content-length")
        self.content = BytesIO()
        self.spooled: BinaryIO | None = None
        self.size = 0

    def end(self) -> None:
        if self.length is not None and self.length != str(self.size):
            raise BadRequest(400, "the form is malformed: a part is not as long as its Content-Length says")

    @property
    def is_chosen(self) -> bool:
        """Browsers send an empty name and content where no file was chosen."""
        return self.filename != "" or self.size > 0

    def text(self, default: str) -> str | None:
        """The value of a field; None: it is a file, or no text in its charset."""
        charset = self.charset or default
        if self.filename is not None or charset not in CHARSETS:
            return None
        try:
            # some say ASCII, being asked for a charset, and send UTF-8 nevertheless
            return self.content.getvalue().decode("utf-8" if "ascii" in charset else charset)
        except UnicodeDecodeError:
            return None

    def file(self) -> UploadedFile:
        content = self.spooled or self.content
        content.seek(0)
        kind = self.content_type or "application/octet-stream"
        return UploadedFile(self.name, self.filename or "", kind, content, self.size, self.charset)


class MultipartReader:
    """Reads a multipart body that comes in pieces. What it has opened it closes, unless it gave a form. Raises
    BadRequest."""

    def __init__(self, content_type: str, limits: FormLimits) -> None:
        self._limits = limits
        self._splitter = Splitter(_boundary(content_type), limits.multipart_part_limit)
        self._parts: list[_Part] = []
        self._fields = 0  # bytes
        self._done = False

    def __enter__(self) -> "MultipartReader":
        return self

    def __exit__(self, *failure: object) -> None:
        if not self._done:
            for part in self._parts:
                if part.spooled is not None:
                    with suppress(OSError):  # of what it has not written, and has no room for
                        part.spooled.close()

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        for event in self._splitter.feed(data):
            if isinstance(event, bytes):
                self._keep(self._parts[-1], event)
            elif event is None:
                self._parts[-1].end()
            else:
                self._parts.append(_Part(event))

    def finish(self) -> Form:
        """The form, behind the last piece."""
        if not self._splitter.ended:
            raise BadRequest(400, "the form is malformed: its last boundary is missing")
        form = Form({}, {})
        default = self._default_charset()
        for part in self._parts:
            value = part.text(default)
            if value is not None:
                form.fields.setdefault(part.name, []).append(value)
            elif part.is_chosen:
                try:
                    form.files.setdefault(part.name, []).append(part.file())
                except OSError as problem:  # the last of it is written now
                    raise self._limits.spools.refuse(f"a temporary file can't be written: {problem}") from None
        self._done = True
        return form

    def _default_charset(self) -> str:
        """RFC 7578 section 4.6: a field may say what the others are in."""
        for part in self._parts:
            if part.name == "_charset_" and part.filename is None:
                charset = part.content.getvalue()[:40].decode("latin-1").strip().lower()
                return charset if charset in CHARSETS else "utf-8"
        return "utf-8"

    def _keep(self, part: _Part, data: bytes) -> None:
        """A piece of its content."""
        part.size += len(data)
        if part.filename is None:
            self._fields += len(data)
            if self._fields > self._limits.form_memory:
                raise BadRequest(413, f"the fields of the form have more than {self._limits.form_memory} bytes")
        elif part.spooled is None and part.size > self._limits.upload_spool_size:
            part.spooled = self._limits.spools.new()
            data = part.content.getvalue() + data
            part.content = BytesIO()
        try:
            (part.spooled or part.content).write(data)
        except OSError as problem:
            raise self._limits.spools.refuse(f"a temporary file can't be written: {problem}") from None


def close_files(form: Form) -> None:
    """Gives back the temporary files."""
    for files in form.files.values():
        for file in files:
            if not isinstance(file.file, BytesIO):
                with suppress(OSError):
                    file.file.close()
