"""Files as answers: which file a path names, and what RFC 9110 makes of it (conditions, one range, HEAD).

A path that a client had a hand in is walked one name at a time, from a directory that is open already, and no symbolic
link is followed: whatever the names are, and whatever is renamed meanwhile, the walk cannot leave that directory. Only
regular files are opened, never a FIFO that would block or a device.
"""

import errno
import os
import re
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from functools import cache
from mimetypes import MimeTypes
from typing import NamedTuple
from urllib.parse import quote, unquote

from mooring.errors import ConfigError, HttpError
from mooring.types import Headers

INDEX = "index.html"
DEEPEST = 64  # names in a path; each costs a system call
CHUNK = 1 << 18  # bytes read at once
CHEAP = 1 << 16  # bytes that cost no more to be read and sent here than by the gateway (bench/files.py)
PIECE = 1 << 16  # bytes of a large file that are read and sent at a time

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}

TYPES = {
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apk": "application/vnd.android.package-archive",
    ".avif": "image/avif",
    ".cbor": "application/cbor",
    ".deb": "application/vnd.debian.binary-package",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",  # RFC 9639
    ".geojson": "application/geo+json",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".ico": "image/vnd.microsoft.icon",
    ".ics": "text/calendar",
    ".js": "text/javascript",  # RFC 9239
    ".jsonld": "application/ld+json",
    ".jxl": "image/jxl",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".map": "application/json",  # of sources
    ".md": "text/markdown",
    ".mid": "audio/midi",
    ".mjs": "text/javascript",
    ".mka": "audio/matroska",  # RFC 9559
    ".mkv": "video/matroska",
    ".mp3": "audio/mpeg",
    ".mpd": "application/dash+xml",
    ".oga": "audio/ogg",  # RFC 5334
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".ogx": "application/ogg",
    ".opus": "audio/ogg",  # RFC 7845 section 9
    ".otf": "font/otf",
    ".rtf": "application/rtf",
    ".toml": "application/toml",
    ".ttc": "font/collection",
    ".ttf": "font/ttf",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".yaml": "application/yaml",  # RFC 9512
    ".yml": "application/yaml",
}
_ENCODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_TEXT = frozenset({"application/json", "application/xml", "image/svg+xml"})

# A list of one range; empty elements don't count (RFC 9110 section 5.6.1.2).
_RANGE = re.compile(r"bytes=(?:[ \t,]*,[ \t]*)?([0-9]*)-([0-9]*)(?:[ \t]*,[ \t,]*)?", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[^"]*"')
_MANY = 19  # digits; no file is as large as a number with more


class Opened(NamedTuple):
    """A regular file, open for reading; whoever has it closes it."""

    fd: int
    name: str


class FileAnswer(NamedTuple):
    """What to answer. `length` is that of the body, also where it is left out (HEAD). If `body` is None it is too large
    to be read at once; it begins at byte `first` of the file, which was changed at `modified` (nanoseconds)."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | None
    length: int
    first: int = 0
    modified: int = 0


# ------------------------------------------------------------------ which file


class Documents:
    """A directory whose files are served under their names."""

    def __init__(self, folder: str) -> None:
        """Raises ConfigError when it is no directory that can be opened."""
        try:
            self._fd = os.open(folder, _DIRECTORY)
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            if isinstance(error, OSError) and not os.path.isabs(folder):
                what = f"{os.path.abspath(folder)}: {what}"
            raise ConfigError(f"document_root={folder!r}: {what}") from None

    def find(self, target: str) -> Opened | str | None:
        """The file that a request target names; or where to go instead, from a directory without its slash to the
        one with it, as links in its index.html are relative to that; or None."""
        names = names_in(target.partition("?")[0])
        if names is None:
            return None
        slash = names[-1] == ""
        if slash:
            names[-1] = INDEX
        found = open_beneath(self._fd, names)
        if found is not None or slash:
            return found
        index = open_beneath(self._fd, [*names, INDEX])
        if index is None:
            return None
        os.close(index.fd)
        # The names are checked: it can't begin with "//", which would be another host.
        query = quote(target.partition("?")[2], safe="!$&'()*+,;=:@/?%~-._")
        return "/" + "/".join(map(quote, names)) + "/" + ("?" + query if query else "")

    def close(self) -> None:
        os.close(self._fd)


def names_in(path: str) -> list[str] | None:
    """The names of the path of a URL, the last one empty if it ends in a slash; None if no file may have that path.

    It is split before it is decoded, so an encoded slash is part of a name; and no name with one is served. A segment
    "." is the folder itself (RFC 3986 section 5.2.4), as apt asks for; ".." is refused, for who sends it on purpose
    means no good."""
    if path[:1] != "/" or not path.isascii():
        return None
    parts = path[1:].split("/", DEEPEST - 1)
    try:
        names = [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        return None
    slash = names[-1] in ("", ".")
    names = [*_without_dots(names[:-1] if slash else names), *[""] * slash]
    return names if all(map(_may_be_served, names[:-1])) and (slash or _may_be_served(names[-1])) else None


def _without_dots(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != "."]


def _may_be_served(name: str) -> bool:
    """Neither a way out nor two names nor hidden: .git, .env and the like are where they are by mistake."""
    if not name or any(character in name for character in "/\\\0"):
        return False
    return name[0] != "." or name == ".well-known"  # RFC 8615


def open_beneath(directory: int, names: Sequence[str]) -> Opened | None:
    """The regular file at the end of the names, each of which `_may_be_served`; None when there is none."""
    above = directory
    try:
        for name in names[:-1]:
            below = os.open(os.fsencode(name), _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            if above != directory:
                os.close(above)
            above = below
        return _open_regular(os.fsencode(names[-1]), above)
    except (OSError, UnicodeEncodeError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_THERE:
            raise
        return None
    finally:
        if above != directory:
            os.close(above)


def _open_regular(path: bytes, directory: int | None = None) -> Opened | None:
    # Looked at first, because opening a device may already do something; and again, because it may be another by now.
    if not stat.S_ISREG(os.stat(path, dir_fd=directory, follow_symlinks=False).st_mode):
        return None
    fd = os.open(path, _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return Opened(fd, os.path.basename(os.fsdecode(path)))


def open_for_sending(path: "str | os.PathLike[str]", root: "str | os.PathLike[str] | None") -> Opened:
    """What `Response.send_file` sends. Raises HttpError 404, ValueError."""
    text = os.fspath(path)
    why = "not a file, or none that is served"
    try:
        if root is None:
            if ".." in text.split("/"):
                raise ValueError(f'send_file({text!r}): ".." in a path; give the directory it must stay in as root')
            found = _open_regular(os.fsencode(text))
        else:
            *folders, name = text.removeprefix("/").split("/", DEEPEST - 1)
            names = [*_without_dots(folders), name]
            directory = os.open(root, _DIRECTORY)
            try:
                found = open_beneath(directory, names) if all(map(_may_be_served, names)) else None
            finally:
                os.close(directory)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        found, why = None, os.strerror(error.errno)
    if found is None:
        where = text if root is None else os.path.join(root, text.removeprefix("/"))
        with suppress(OSError):  # of the working directory, which may be gone
            where = os.path.abspath(where)
        raise HttpError(404, "there is no such file") from FileNotFoundError(errno.ENOENT, why, where)
    return found


@cache
def _types() -> MimeTypes:
    """Without the tables of the machine, which differ from one to the next. Not every process that could send files is
    asked for one: the standard library's tables take longer to make than all that is imported here."""
    types = MimeTypes()
    for suffix, kind in TYPES.items():
        types.add_type(kind, suffix)
    return types


def content_type_of(name: str) -> str:
    """By the name's suffix; a compressed file is sent as what it is, not as what is in it."""
    kind, encoding = _types().guess_type(name)
    if encoding is not None:
        return _ENCODED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXT else kind


_CLAIM = struct.Struct("=QQQqQQ")  # a FileClaim, see mooring._core.files


def claim(fd: int, first: int, length: int) -> tuple[bytes, bytes] | None:
    """What tells another process which part of this file it shall send: how to know the file again, and its path. None
    when it has no path any more."""
    try:
        path = os.readlink(b"/proc/self/fd/%d" % fd)
    except OSError:
        return None
    facts = os.fstat(fd)
    if not facts.st_nlink or path[:1] != b"/":
        return None
    return _CLAIM.pack(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, first, length), path


# ------------------------------------------------------------------ what to answer


def whole(fd: int, limit: int, *, head_only: bool) -> FileAnswer:
    """The file without conditions or ranges."""
    facts = os.fstat(fd)
    body = b"" if head_only else _read(fd, 0, facts.st_size, limit)
    return FileAnswer(200, [], body, facts.st_size, 0, facts.st_mtime_ns)


def conditional(fd: int, method: str, headers: Headers, limit: int) -> FileAnswer:
    """The file, or the part of it, or the news about it, that the fields of a GET or HEAD ask for."""
    facts = os.fstat(fd)
    size = facts.st_size
    tag = f'"{facts.st_mtime_ns:x}-{size:x}"'
    fields = [("ETag", tag), ("Last-Modified", formatdate(int(facts.st_mtime), usegmt=True))]
    status = _precondition(headers, tag, int(facts.st_mtime))
    if status:
        return FileAnswer(status, fields, b"", 0)
    fields.append(("Accept-Ranges", "bytes"))
    if method == "HEAD":
        return FileAnswer(200, fields, b"", size)
    # A date in If-Range never fits: a file may change twice in a second, or get its date from elsewhere, and parts of
    # two would be joined (RFC 9110 section 13.1.5). The whole file is right in any case.
    wanted = _range(headers.get("range", ""), size) if headers.get("if-range", tag) == tag else None
    if wanted is None:
        return FileAnswer(200, fields, _read(fd, 0, size, limit), size, 0, facts.st_mtime_ns)
    first, end = wanted
    if first >= end:
        return FileAnswer(416, [("Content-Range", f"bytes */{size}")], b"", 0)
    fields.append(("Content-Range", f"bytes {first}-{end - 1}/{size}"))
    body = _read(fd, first, end - first, limit)
    return FileAnswer(206, fields, body, end - first, first, facts.st_mtime_ns)


def _precondition(headers: Headers, tag: str, modified: int) -> int:
    """304, 412, or 0 to go on; in the order of RFC 9110 section 13.2.2."""
    if "if-match" in headers:
        if not _lists(headers["if-match"], tag, weak=False):
            return 412
    else:
        date = _date(headers.get("if-unmodified-since"))
        if date is not None and modified > date:
            return 412
    if "if-none-match" in headers:
        return 304 if _lists(headers["if-none-match"], tag, weak=True) else 0
    date = _date(headers.get("if-modified-since"))
    return 304 if date is not None and modified <= date else 0


def _lists(field: str, tag: str, *, weak: bool) -> bool:
    """RFC 9110 section 8.8.3.2: the weak comparison overlooks W/, to the strong one it is no match."""
    if field.strip(" \t") == "*":
        return True
    return any((found.removeprefix("W/") if weak else found) == tag for found in _TAG.findall(field))


def _date(field: str | None) -> float | None:
    if field is None or len(field) > 40:
        return None
    try:
        date = parsedate_to_datetime(field)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None  # RFC 9110 section 13.1.3: a date that is none is ignored


def _range(field: str, size: int) -> tuple[int, int] | None:
    """First byte and end of the one range asked for; first >= end: there is no such part. None: everything, which
    RFC 9110 section 14.2 allows for whatever is not one range."""
    match = _RANGE.fullmatch(field)
    if match is None:
        return None
    first, last = (_number(digits) for digits in match.groups())
    if first is None:
        if last is None or (size == 0 and last):
            return None
        return max(size - last, 0), size
    if last is None:
        return first, size
    return (first, min(last + 1, size)) if first <= last else None


def _number(digits: str) -> int | None:
    """Digits are the client's, as many as a field may have: int() takes quadratic time."""
    digits = digits.lstrip("0") or digits[:1]
    return None if not digits else int(digits) if len(digits) <= _MANY else int("9" * _MANY)


def _read(fd: int, first: int, count: int, limit: int) -> bytes | None:
    if count > limit:
        return None
    chunks = []
    while count:
        chunk = os.pread(fd, min(count, CHUNK), first)
        if not chunk:
            raise HttpError(503, "the file has changed while it was read", [("Retry-After", "1")])
        chunks.append(chunk)
        first, count = first + len(chunk), count - len(chunk)
    return b"".join(chunks)
