"""Files as answers: which are found and which never, and what conditions and ranges make of them."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from mooring.app import static
from mooring.app.request import Request
from mooring.app.request_record import RequestRecord
from mooring.app.response import Response
from mooring.app.static import DEEPEST, Documents, Opened, content_type_of, open_for_sending
from mooring.errors import ConfigError, HttpError, StateError
from support.descriptors import open_descriptors

MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
TEN = b"0123456789"
TAG = f'"{MODIFIED * 10**9:x}-{len(TEN):x}"'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory of which everything may be read, with secrets around it."""
    root = tmp_path / "static"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "bare").mkdir()
    (root / ".git").mkdir()
    (root / ".well-known").mkdir()
    (tmp_path / "static-secret").mkdir()
    for path in ("index.html", "a b.txt", "%41.txt", "é.txt", "sub/index.html", "sub/deep/x.css", ".well-known/x.txt"):
        (root / path).write_text("public")
    (root / "ten.txt").write_bytes(TEN)
    os.utime(root / "ten.txt", (MODIFIED, MODIFIED))
    (root / "empty.txt").touch()
    for path in ("secret.txt", "static-secret/secret.txt", "static/.env", "static/.git/config"):
        (tmp_path / path).write_text("SECRET")
    (root / "link.txt").symlink_to("../secret.txt")
    (root / "inner.txt").symlink_to("ten.txt")
    (root / "linked").symlink_to("../static-secret")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
    return root


@pytest.fixture
def documents(root: Path) -> Iterator[Documents]:
    made = Documents(str(root))
    yield made
    made.close()


def content(found: Opened | str | None) -> bytes | str | None:
    if not isinstance(found, Opened):
        return found
    with open(found.fd, "rb") as file:
        return file.read()


# ------------------------------------------------------------------ which file


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/index.html",
        "/?a=b/../c",
        "/a%20b.txt",
        "/%2541.txt",
        "/%C3%A9.txt",
        "/sub/",
        "/sub/index.html",
        "/s%75b/deep/x.css?y",
        "/.well-known/x.txt",
        # a segment "." is the folder itself
        "/.",
        "/./",
        "/%2e/",
        "/./index.html",
        "/././index.html",
        "/%2E/index.html",
        "/sub/.",
        "/sub/./",
        "/sub/./index.html",
        "/./sub/%2e/deep/./x.css",
        "/.well-known/./x.txt",
    ],
)
def test_found(documents: Documents, target: str) -> None:
    assert content(documents.find(target)) == b"public"


OUTSIDE = [
    "/../secret.txt",
    "/sub/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/%2E./secret.txt",
    "/..%2fsecret.txt",
    "/..%2Fsecret.txt",
    "/sub%2f..%2f..%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
    "/..%252fsecret.txt",
    "/%c0%ae%c0%ae/secret.txt",  # dots in overlong UTF-8
    "/%c0%ae%c0%ae%c0%afsecret.txt",
    "/../static-secret/secret.txt",
    "/-secret/secret.txt",
    "-secret/secret.txt",
    "//secret.txt",
    "/static/../../secret.txt",
    "/link.txt",
    "/inner.txt",
    "/linked/secret.txt",
    "/linked/",
    "/up/secret.txt",
    "/loop",
    "/loop/x",
    "/fifo",
    "/socket",
    "/.env",
    "/.git/config",
    "/%2eenv",
    "/..",
    "/../",
    "/./..",
    "/.../",
    "/./.env",
    "/./.git/config",
    "/.git/./config",
    "/./../secret.txt",
    "/.%2e/./secret.txt",
    "/sub/./../../secret.txt",
    "/.%2f..%2fsecret.txt",
    "/./.%2e/secret.txt",
    "/.//index.html",
    "/.//",
    "/index.html/.",
    "/bare/.",
    "/sub/../index.html",
    "//index.html",
    "/sub//index.html",
    "/index.html/",
    "/index.html/x",
    "/bare",
    "/bare/",
    "/missing",
    "/ten.txt%00",
    "/ten.txt%00.html",
    "/%00",
    "/sub%2findex.html",
    "/%41.txt",
    "/é.txt",
    "/%e9.txt",
    "/%ff",
    "/%ed%a0%80",
    "",
    "*",
    "index.html",
    "?/index.html",
    "http://host/index.html",
    "/" + "a" * 5000,
    "/" + "%61" * 256,
    "/" + "a/" * 4000,
    "/" + "sub/deep/../../" * 500 + "index.html",
    "/" + "/" * 8000,
    "/" + "../" * 2000 + "etc/passwd",
]


@pytest.mark.parametrize("target", OUTSIDE)
def test_not_found(documents: Documents, root: Path, target: str) -> None:
    assert content(documents.find(target)) is None
    assert content(documents.find(str(root) + target)) is None


def test_absolute_paths_are_nothing_special(documents: Documents, root: Path) -> None:
    for path in (root / "ten.txt", root.parent / "secret.txt", "/etc/passwd"):
        assert documents.find(str(path)) is None
        assert documents.find("/" + str(path)) is None
        assert documents.find("/" + str(path).replace("/", "%2f")) is None


def test_depth(root: Path, documents: Documents) -> None:
    deep = root
    for _ in range(DEEPEST):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep.parent / "f").write_text("public")
    (deep / "f").write_text("too deep")
    assert content(documents.find("/" + "d/" * (DEEPEST - 1) + "f")) == b"public"
    assert content(documents.find("/" + "d/" * DEEPEST + "f")) is None
    assert content(documents.find("/" + "./" * (DEEPEST - 1) + "ten.txt")) == TEN
    assert content(documents.find("/" + "./" * DEEPEST + "ten.txt")) is None


def test_a_directory_without_its_slash(documents: Documents) -> None:
    assert documents.find("/sub") == "/sub/"
    assert documents.find("/s%75b?a=%0d%0ab&c=//x") == "/sub/?a=%0d%0ab&c=//x"
    assert documents.find("/./sub") == documents.find("/%2e/./sub") == "/sub/"
    assert documents.find("/.//sub") is None
    assert documents.find("//sub") is None, "the place to go must not be another host"
    assert documents.find("/\\sub") is None


def test_an_unreadable_file_is_not_there(root: Path, documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(static.os, "open", denied)
    assert documents.find("/ten.txt") is None


def test_other_faults_are_no_missing_file(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(static.os, "open", full)
    with pytest.raises(OSError, match="too many"):
        documents.find("/ten.txt")


def test_no_descriptor_is_left(documents: Documents, root: Path) -> None:
    before = open_descriptors()
    for target in [*OUTSIDE, "/sub", "/index.html", "/sub/deep/x.css"]:
        content(documents.find(target))
    assert open_descriptors() == before


def test_a_directory_renamed_meanwhile_is_the_same_directory(documents: Documents, root: Path) -> None:
    root.rename(root.with_name("moved"))
    root.mkdir()
    assert content(documents.find("/ten.txt")) == TEN


@pytest.mark.parametrize("folder", ["/nonexistent", "/etc/passwd", "a\0b"])
def test_a_root_that_is_none(folder: str) -> None:
    with pytest.raises(ConfigError, match="document_root="):
        Documents(folder)


@pytest.mark.parametrize(
    ("path", "root", "why"),
    [("no.txt", None, "No such file"), ("no.txt", "sub", "none that is served"), ("sub", None, "not a file")],
)
def test_a_file_that_is_not_there_is_named_for_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, root: str | None, why: str
) -> None:
    """Not for the client, who has only the reason."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(HttpError) as caught:
        open_for_sending(path, root)
    assert (caught.value.status, caught.value.reason) == (404, "there is no such file")
    cause = caught.value.__cause__
    assert isinstance(cause, FileNotFoundError)
    assert cause.filename == str(tmp_path / (root or "") / path)
    assert why in str(cause)


def test_a_root_that_is_not_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"document_root='public': {tmp_path}/public: No such file"):
        Documents("public")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.PNG", "image/png"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.ogg", "audio/ogg"),
        ("a.oga", "audio/ogg"),
        ("a.opus", "audio/ogg"),
        ("a.ogv", "video/ogg"),
        ("a.flac", "audio/flac"),
        ("a.m4a", "audio/mp4"),
        ("a.M4A", "audio/mp4"),
        ("a.mp3", "audio/mpeg"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.weba", "audio/webm"),
        ("a.mkv", "video/matroska"),
        ("a.wav", "audio/wav"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.ico", "image/vnd.microsoft.icon"),
        ("a.vtt", "text/vtt; charset=utf-8"),
        ("a.js.map", "application/json; charset=utf-8"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.deb", "application/vnd.debian.binary-package"),
        ("a.tar.gz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.txt.bz2", "application/x-bzip2"),
        ("a.Z", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
    ],
)
def test_content_type(name: str, kind: str) -> None:
    assert content_type_of(name) == kind


def test_content_types_are_those_of_every_machine(tmp_path: Path) -> None:
    """Whatever /etc/mime.types says, and whatever the application has added to Python's own table."""
    code = """if True:
        import mimetypes
        mimetypes.add_type("text/wrong", ".flac")
        mimetypes.add_type("text/wrong", ".unheard-of")
        from mooring.app.static import content_type_of
        mimetypes.add_type("text/wrong", ".ogg")
        print(*map(content_type_of, ("a.flac", "a.ogg", "a.unheard-of")))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["audio/flac", "audio/ogg", "application/octet-stream"]


# ------------------------------------------------------------------ what is answered


class Answer:
    """What a handler's response sends, taken apart."""

    def __init__(self, act: Any, method: str = "GET", headers: dict[str, str] | None = None, **options: Any) -> None:
        self.raw = b""
        record = RequestRecord(method, "/", 1, list((headers or {}).items()), "::1", 1, 2, "http", 0.0, 1)
        self.response = Response(Request(1, record), self.send, **options)
        act(self.response)
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(self.fields) == len(lines)

    def send(self, data: bytes, last: bool, close: bool) -> bool:
        self.raw += data
        return True


def ten(root: Path, method: str = "GET", **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(lambda r: r.send_file(root / "ten.txt"), method, fields)


def test_a_whole_file(root: Path) -> None:
    answer = ten(root)
    assert (answer.status, answer.body) == (200, TEN)
    assert answer.fields.items() >= {
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", "10"),
        ("etag", TAG),
        ("last-modified", DATE),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
    }


def test_head(root: Path) -> None:
    answer = ten(root, "HEAD", range="bytes=0-1")
    assert (answer.status, answer.body, answer.fields["content-length"]) == (200, b"", "10")
    large = Answer(lambda r: r.send_file(root / "ten.txt"), "HEAD", file_limit=1)
    assert large.fields["content-length"] == "10"
    assert ten(root, "HEAD", if_none_match=TAG).status == 304


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": TAG}, 304),
        ({"if_none_match": "W/" + TAG}, 304),
        ({"if_none_match": f'"x", {TAG} ,"y"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": TAG.strip('"')}, 200),
        ({"if_none_match": '"' * 8000}, 200),
        ({"if_none_match": '"x"', "if_modified_since": DATE}, 200),  # RFC 9110 section 13.2.2
        ({"if_modified_since": DATE}, 304),
        ({"if_modified_since": formatdate(MODIFIED + 1, usegmt=True)}, 304),
        ({"if_modified_since": formatdate(MODIFIED - 1, usegmt=True)}, 200),
        ({"if_modified_since": "Sunday, 06-Nov-94 08:49:37 GMT"}, 304),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_modified_since": "Sun, 06 Nov 99999999999 08:49:37 GMT"}, 200),
        ({"if_modified_since": "9" * 8000}, 200),
        ({"if_match": TAG}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": "W/" + TAG}, 412),
        ({"if_match": '"x"'}, 412),
        ({"if_unmodified_since": DATE}, 200),
        ({"if_unmodified_since": formatdate(MODIFIED - 1, usegmt=True)}, 412),
        ({"if_match": TAG, "if_unmodified_since": formatdate(MODIFIED - 1, usegmt=True)}, 200),
        ({"if_match": TAG, "if_none_match": TAG}, 304),
        ({"if_none_match": TAG, "range": "bytes=0-1"}, 304),
    ],
)
def test_conditions(root: Path, headers: dict[str, str], status: int) -> None:
    answer = ten(root, **headers)
    assert answer.status == status
    assert answer.body == (TEN if status == 200 else b"")
    assert answer.fields["etag"] == TAG
    if status == 304:
        assert "content-length" not in answer.fields
        assert "content-type" not in answer.fields


def test_a_changed_file_has_another_tag(root: Path) -> None:
    (root / "ten.txt").write_bytes(b"9876543210")
    os.utime(root / "ten.txt", ns=(0, MODIFIED * 10**9 + 1))
    assert ten(root, if_none_match=TAG).status == 200


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=0-", 206, TEN),
        ("Bytes=0-9", 206, TEN),
        ("bytes=9-9999", 206, b"9"),
        ("bytes=-9999", 206, TEN),
        ("bytes=0-18446744073709551615", 206, TEN),
        ("bytes=0-" + "9" * 8000, 206, TEN),
        ("bytes=" + "0" * 8000 + "-1", 206, b"01"),
        ("bytes=-" + "9" * 8000, 206, TEN),
        ("bytes=10-", 416, b""),
        ("bytes=10-20", 416, b""),
        ("bytes=" + "9" * 8000 + "-", 416, b""),
        ("bytes=18446744073709551616-18446744073709551617", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=5-1", 200, TEN),
        ("bytes=-", 200, TEN),
        ("bytes=", 200, TEN),
        ("bytes", 200, TEN),
        ("bytes=--1", 200, TEN),
        ("bytes=1--1", 200, TEN),
        ("bytes=+1-2", 200, TEN),
        ("bytes= 1-2", 200, TEN),
        ("bytes=1-2\u00b2", 200, TEN),
        ("bytes=0x1-2", 200, TEN),
        ("lines=0-1", 200, TEN),
        ("bytes=0-1,3-4", 200, TEN),
        ("bytes=0-1,", 206, b"01"),
        ("bytes=, ,2-4 , ", 206, b"234"),
        ("bytes=" + ", " * 4000 + "2-4" + " ," * 4000, 206, b"234"),
        ("bytes=" + ", " * 4000 + "x", 200, TEN),
        ("bytes=,", 200, TEN),
        ("bytes=" + ",".join(["0-"] * 1000), 200, TEN),
        ("bytes=" + ",".join(f"{n}-{n + 5}" for n in range(1000)), 200, TEN),
    ],
)
def test_ranges(root: Path, wanted: str, status: int, body: bytes) -> None:
    start = time.process_time()
    answer = ten(root, range=wanted)
    assert time.process_time() - start < 0.05
    assert (answer.status, answer.body) == (status, body)
    assert answer.fields["content-length"] == str(len(body))
    if status == 206:
        first = TEN.index(body)
        assert answer.fields["content-range"] == f"bytes {first}-{first + len(body) - 1}/10"
        assert answer.fields["etag"] == TAG
    elif status == 416:
        assert answer.fields["content-range"] == "bytes */10"
    else:
        assert "content-range" not in answer.fields


@pytest.mark.parametrize(
    ("condition", "status"),
    [(TAG, 206), ("W/" + TAG, 200), ('"x"', 200), (DATE, 200), ("", 200)],
)
def test_if_range(root: Path, condition: str, status: int) -> None:
    assert ten(root, range="bytes=0-1", if_range=condition).status == status


@pytest.mark.parametrize(("wanted", "status"), [("bytes=0-", 416), ("bytes=-5", 200), ("bytes=-0", 416), ("", 200)])
def test_an_empty_file(root: Path, wanted: str, status: int) -> None:
    answer = Answer(lambda r: r.send_file(root / "empty.txt"), headers={"range": wanted})
    assert (answer.status, answer.body, answer.fields["content-length"]) == (status, b"", "0")


def test_a_range_and_a_condition_are_for_get_and_a_good_answer(root: Path) -> None:
    assert ten(root, "POST", range="bytes=0-1", if_none_match=TAG).body == TEN
    answer = Answer(lambda r: (r.status(404), r.send_file(root / "ten.txt")), headers={"range": "bytes=0-1"})
    assert (answer.status, answer.body) == (404, TEN)
    assert "etag" not in answer.fields


def test_what_the_handler_has_set_stays(root: Path) -> None:
    def act(r: Response) -> None:
        r.header("Cache-Control", "max-age=60")
        r.header("etag", '"mine"')
        r.send_file(root / "ten.txt", content_type="text/x-mine", download_as='h"é\r\n/..\\100%.txt')

    answer = Answer(act)
    assert answer.fields["cache-control"] == "max-age=60"
    assert answer.fields["etag"] == '"mine"'
    assert answer.fields["content-type"] == "text/x-mine"
    assert answer.fields["content-disposition"] == (
        "attachment; filename=\"h_?___.._100_.txt\"; filename*=UTF-8''h%22%C3%A9%0D%0A%2F..%5C100%25.txt"
    )


def test_a_file_in_many_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "CHUNK", 3)
    assert ten(root).body == TEN
    assert ten(root, range="bytes=1-8").body == TEN[1:9]


def test_the_limit(root: Path) -> None:
    def send(r: Response) -> None:
        r.send_file(root / "ten.txt")

    assert Answer(send, file_limit=10).body == TEN
    assert Answer(send, headers={"range": "bytes=5-"}, file_limit=5).body == b"56789"
    for large in (Answer(send, file_limit=9), Answer(send, headers={"range": "bytes=1-9"}, file_limit=8)):
        assert large.body == b""
        assert large.response._has_rest
        assert not large.response.ended
        with pytest.raises(StateError):
            large.response.end()
        asyncio.run(large.response._send_rest())
        assert large.response.ended
        assert large.raw.partition(b"\r\n\r\n")[2] == TEN[-int(large.fields["content-length"]) :]


def test_a_file_that_shrinks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    monkeypatch.setattr(static.os, "pread", lambda fd, count, at: real(fd, min(count, 4), at) if at < 8 else b"")
    with pytest.raises(HttpError, match="changed") as caught:
        ten(root)
    assert caught.value.status == 503


# ------------------------------------------------------------------ send_file


@pytest.mark.parametrize("target", [t for t in OUTSIDE if not t.startswith("?")])
def test_nothing_outside_the_root_is_sent(root: Path, target: str) -> None:
    for path in {target, target.lstrip("/"), target.replace("%2e", ".").replace("%2f", "/").replace("%00", "\0")}:
        if path.removeprefix("/") in ("index.html", "sub/index.html", "%41.txt", "é.txt"):
            continue  # here they are what they look like
        with pytest.raises(HttpError) as caught:
            Answer(lambda r, path=path: r.send_file(path, root=root))
        assert caught.value.status == 404


def test_below_a_root(root: Path) -> None:
    for path in ("sub/deep/x.css", "/sub/deep/x.css", "./sub/./deep/x.css", "/./%41.txt", "%41.txt", "é.txt"):
        assert Answer(lambda r, path=path: r.send_file(path, root=root)).body == b"public"


def test_a_path_of_the_application(root: Path, tmp_path: Path) -> None:
    assert Answer(lambda r: r.send_file(tmp_path / "secret.txt")).body == b"SECRET"
    assert Answer(lambda r: r.send_file(str(root / ".env"))).body == b"SECRET"
    assert Answer(lambda r: r.send_file(root / "linked" / "secret.txt")).body == b"SECRET"
    with pytest.raises(ValueError, match="root"):
        Answer(lambda r: r.send_file(str(root) + "/../secret.txt"))
    for path in ("link.txt", "fifo", "socket", "sub", "missing", "ten.txt/x", "loop"):
        with pytest.raises(HttpError) as caught:
            Answer(lambda r, path=path: r.send_file(root / path))
        assert caught.value.status == 404


def test_no_descriptor_is_left_by_send_file(root: Path) -> None:
    before = open_descriptors()
    ten(root)
    ten(root, if_none_match=TAG)
    for act in (
        lambda r: r.send_file("missing", root=root),
        lambda r: r.send_file("ten.txt", root=root, content_type="a\n"),
        lambda r: r.send_file("ten.txt", root=root, download_as="\ud800"),
        lambda r: (r.end(), r.send_file("ten.txt", root=root)),
    ):
        with pytest.raises((HttpError, ValueError, StateError)):
            Answer(act)
    asyncio.run(Answer(lambda r: r.send_file(root / "ten.txt"), file_limit=1).response._send_rest())
    large = Answer(lambda r: r.send_file(root / "ten.txt"), file_limit=1)
    (root / "ten.txt").write_bytes(b"")
    with pytest.raises(OSError, match="shorter"):
        asyncio.run(large.response._send_rest())
    large.response._fail("1")
    assert large.response._broken
    assert open_descriptors() == before
