"""What HTTP applications need, on real servers in both modes: forms, errors, files, compression, log, proxies."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.serving import HOME, LIMIT, Serving

APP = """
@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    if request.path == "/form":
        files = [[f.name, f.filename, f.content_type, len(f.read())] for fs in request.file_list.values() for f in fs]
        response.json({"form": request.form_list, "files": files})
    elif request.path == "/caught":
        try:
            request.form
        except ValueError as error:
            response.end(f"caught {error.status}")
    elif request.path == "/raise":
        response.header("X-Of-The-Other-Answer", "1")
        raise HttpError(int(request.query["status"]), request.query["reason"], {"Allow": "GET"})
    elif request.path == "/late":
        response.write("part")
        raise HttpError(404, "too late")
    elif request.path == "/download":
        response.send_file(request.query["path"], root=request.query["root"], download_as="x")
    elif request.path == "/who":
        response.end(f"{request.scheme} {request.remote_ip} {request.remote_port > 0}")
    elif request.path == "/text":
        response.end("compressible " * 1000)
    elif request.path == "/handled":
        response.end("by the handler")
    elif request.path == "/bad-headers":
        raise HttpError(404, "x", [("a b", "c")])
"""


BIG = bytes(range(256)) * (4 << 12)  # 4 MiB: four times write_limit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served lies in `public`, and SECRET beside it."""
    folder = tmp_path_factory.mktemp("files")
    public = folder / "public"
    (public / "sub").mkdir(parents=True)
    (folder / "public-secret").mkdir()
    (public / "index.html").write_text("<h1>index</h1>")
    (public / "sub" / "index.html").write_text("<h1>sub</h1>")
    (public / "sub" / "a.txt").write_text("a")
    (public / "big.bin").write_bytes(BIG)
    (public / "huge.bin").touch()
    os.truncate(public / "huge.bin", (8 << 20) + 1)
    (public / "handled").symlink_to("index.html")
    for path in ("secret.txt", "public-secret/secret.txt", "public/.env"):
        (folder / path).write_text("SECRET")
    (public / "out").symlink_to("..")
    (public / "secret.txt").symlink_to("../secret.txt")
    os.mkfifo(public / "fifo")
    return folder


@pytest.fixture(scope="module", params=["base", "process"])
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Serving]:
    settings = {"worker_num": 1, "body_limit": 1 << 20, "document_root": str(folder / "public"), "compress": True}
    with Serving(APP, mode=request.param, **settings) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def ask(
    server: Serving, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as client:
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def raw(server: Serving, data: bytes) -> bytes:
    """Everything that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall(data)
        received = bytearray()
        while got := client.recv(65536):
            received += got
        return bytes(received)


# ------------------------------------------------------------------ forms


def form(parts: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head.encode(), data) for head, data in parts
    )
    return body + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_forms(server: Serving) -> None:
    urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = ask(server, "POST", "/form", b"a=1&a=%C3%A9", urlencoded)
    assert (status, json.loads(body)) == (200, {"form": {"a": ["1", "é"]}, "files": []})
    status, _, body = ask(
        server, "POST", "/form", *form([('name="a"', b"1"), ('name="f"; filename="x"', b"\r\n-" * 300_000)])
    )
    assert status == 200
    assert json.loads(body) == {"form": {"a": ["1"]}, "files": [["f", "x", "application/octet-stream", 900_000]]}


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        (form([('name="a"', b"x")] * 101), 413, "more than 100 parts"),
        (form([('name="a"', b"x")] * 15_000), 413, "more than 100 parts"),
        ((b"--x\r\n" + b"h" * 1_000_000, form([])[1]), 413, "header line"),
        ((form([('name="a"', b"x")])[0][:-5], form([])[1]), 400, "malformed"),
        ((b"\r" + b"x" * 1_000_000, form([])[1]), 400, "malformed"),
        ((b"a=%ff", {"Content-Type": "application/x-www-form-urlencoded"}), 400, "UTF-8"),
    ],
)
def test_what_is_no_form_is_answered(
    server: Serving, what: tuple[bytes, dict[str, str]], status: int, reason: str
) -> None:
    since = server.mark()
    got, headers, text = ask(server, "POST", "/form", *what)
    assert got == status
    assert text.startswith(f"{status} ".encode())
    assert reason.encode() in text
    assert headers["content-type"] == "text/plain; charset=utf-8"
    server.wait_refusal(f"refused with {status}", since=since)
    assert not any("Traceback" in line for line in server.lines[since:])
    assert ask(server, "POST", "/caught", *what)[::2] == (200, b"caught %d" % status)


# ------------------------------------------------------------------ errors that are answers


def test_a_handler_may_raise_the_answer(server: Serving) -> None:
    since = server.mark()
    status, headers, text = ask(server, "GET", "/raise?status=405&reason=not%0d%0athis%1b")
    assert (status, text) == (405, b"405 Method Not Allowed: not\r\nthis\x1b\n")
    assert headers["allow"] == "GET"
    assert "x-of-the-other-answer" not in headers
    server.wait_refusal(r"refused with 405: 'not\\r\\nthis\\x1b'", since=since)
    assert ask(server, "GET", "/raise?status=503&reason=x")[0] == 503
    assert ask(server, "HEAD", "/raise?status=404&reason=x")[::2] == (404, b"")


def test_an_error_that_is_no_answer_is_a_fault(server: Serving) -> None:
    """A status that is none, headers that can't be sent, an answer that has begun already."""
    for path in ("/raise?status=200&reason=x", "/bad-headers"):
        since = server.mark()
        assert ask(server, "GET", path)[0] == 500
        server.wait_log("'request' handler failed", since=since)
    since = server.mark()
    answer = raw(server, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n4\r\npart\r\n"), "it must be seen to be cut"
    server.wait_log("'request' handler failed", since=since)


# ------------------------------------------------------------------ files


def test_files(server: Serving) -> None:
    status, fields, body = ask(server, "GET", "/")
    assert (status, body, fields["content-type"]) == (200, b"<h1>index</h1>", "text/html; charset=utf-8")
    assert ask(server, "GET", "/", headers={"If-None-Match": fields["etag"]})[::2] == (304, b"")
    assert ask(server, "HEAD", "/")[1]["content-length"] == "14"
    status, fields, _ = ask(server, "GET", "/sub?x")
    assert (status, fields["location"]) == (301, "/sub/?x")
    for path in ("/sub/", "/./sub/", "/sub/./", "/%2e/sub/.", "/sub/./index.html"):  # of a flat repository apt asks so
        assert ask(server, "GET", path)[2] == b"<h1>sub</h1>"
    assert ask(server, "GET", "/handled")[2] == b"by the handler", "a link is no file"
    assert ask(server, "POST", "/sub/a.txt")[0] == 500, "only GET and HEAD are for files: the handler has to answer"


def test_a_large_file(server: Serving) -> None:
    assert ask(server, "GET", "/big.bin")[2] == BIG
    status, fields, body = ask(server, "GET", "/big.bin", headers={"Range": "bytes=1000000-3000000"})
    assert (status, fields["content-range"]) == (206, f"bytes 1000000-3000000/{len(BIG)}")
    assert body == BIG[1_000_000:3_000_001]
    assert ask(server, "GET", "/big.bin", headers={"Range": f"bytes={len(BIG)}-"})[0] == 416
    assert ask(server, "GET", "/big.bin", headers={"Range": "bytes=" + "0-," * 1000 + "0-"})[2] == BIG


def test_a_large_file_for_a_slow_reader(server: Serving) -> None:
    """Read in small pieces, with another request behind it."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /sub/a.txt HTTP/1.1\r\nHost: a\r\n")
        client.sendall(b"Connection: close\r\n\r\n")
        received = bytearray()
        while got := client.recv(30_000):
            received += got
    head, _, rest = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert rest[: len(BIG)] == BIG
    assert rest[len(BIG) :].startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"\r\n\r\na")


def test_a_file_that_is_sent_in_pieces(server: Serving) -> None:
    assert ask(server, "GET", "/huge.bin")[2] == bytes((8 << 20) + 1)
    assert ask(server, "HEAD", "/huge.bin")[1]["content-length"] == str((8 << 20) + 1)
    assert ask(server, "GET", "/huge.bin", headers={"Range": "bytes=-5"})[2] == bytes(5)


ATTACKS = [
    "/../secret.txt",
    "/sub/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
    "/..%252fsecret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/../public-secret/secret.txt",
    "//secret.txt",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/out/secret.txt",
    "/out/",
    "/secret.txt",
    "/secret.txt%00.html",
    "/.env",
    "/%2eenv",
    "/fifo",
    "/" + "../" * 1000 + "etc/passwd",
    "/" + "a/" * 3000,
    "/" + "a" * 8000,
]


@pytest.mark.parametrize("target", ATTACKS)
def test_nothing_from_outside_is_sent(server: Serving, target: str) -> None:
    answer = raw(server, f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 400 ")), "no file; the handler leaves it unanswered"
    assert b"SECRET" not in answer
    assert b"root:" not in answer


def test_send_file(server: Serving, folder: Path) -> None:
    status, fields, body = ask(server, "GET", f"/download?root={folder}&path=public/sub/a.txt")
    assert (status, body) == (200, b"a")
    assert fields["content-disposition"].startswith("attachment")
    for path in (
        "../secret.txt",
        "%2e%2e/secret.txt",
        "/etc/passwd",
        "secret.txt",
        "out/secret.txt",
        "a%00",
        "fifo",
        "",
    ):
        status, fields, body = ask(server, "GET", f"/download?root={folder}/public&path={path}")
        assert (status, b"SECRET" in body) == (404, False)
        assert "content-disposition" not in fields


def test_a_server_of_files_only(folder: Path) -> None:
    app = '@server.on("message")\ndef message(server, frame): ...'
    with Serving(app, mode="base", worker_num=1, document_root=str(folder / "public")) as server:
        assert ask(server, "GET", "/")[0] == 200
        assert ask(server, "GET", "/missing")[0] == 404
        status, fields, _ = ask(server, "DELETE", "/")
        assert (status, fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_document_root_that_is_missing(mode: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "from mooring import Server\n"
        f"s = Server('127.0.0.1', 0, document_root='/nonexistent', mode={mode!r})\n"
        "s.on('message', lambda server, frame: None)\n"
        "s.start()"
    )
    done = subprocess.run(
        [sys.executable, str(app)],
        env={**os.environ, "PYTHONPATH": HOME},
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        text=True,
    )
    assert done.returncode == 1
    assert "ConfigError: document_root='/nonexistent': No such file or directory" in done.stderr


# ------------------------------------------------------------------ compression


def test_compression(server: Serving) -> None:
    for accepted in ("gzip", "br;q=0, zstd;q=0, *"):
        status, fields, body = ask(server, "GET", "/text", headers={"Accept-Encoding": accepted})
        assert (status, fields["content-encoding"], fields["vary"]) == (200, "gzip", "Accept-Encoding")
        assert zlib.decompress(body, wbits=31) == b"compressible " * 1000
        assert fields["content-length"] == str(len(body))
    _, fields, body = ask(server, "GET", "/text", headers={"Accept-Encoding": "identity"})
    assert (body, "content-encoding" in fields) == (b"compressible " * 1000, False)


# ------------------------------------------------------------------ the access log


@pytest.mark.parametrize("mode", ["base", "process"])
def test_access_log(mode: str, folder: Path) -> None:
    settings = {"worker_num": 1, "document_root": str(folder / "public"), "access_log": True}
    with Serving(APP, mode=mode, **settings) as server:
        since = server.mark()
        ask(server, "GET", "/text", headers={"User-Agent": "a\x9b[31m b"})
        ask(server, "GET", "/sub/a.txt?x")
        ask(server, "GET", "/raise?status=404&reason=x")
        ask(server, "GET", "/nothing")
        raw(server, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        raw(server, b"BAD\r\n\r\n")
        server.wait_log(r'127.0.0.1 "GET /late HTTP/1.1" 200 4 \d\.\d{4} "-" "-" cut$', since=since)
        assert server.stop() == 0
    lines = [line.split("] ", 1)[1] for line in server.lines[since:] if " HTTP/1." in line]
    for line, pattern in zip(
        lines,
        [
            r'127\.0\.0\.1 "GET /text HTTP/1\.1" 200 13000 0\.\d{4} "-" "a\\x9b\[31m b"',
            r'127\.0\.0\.1 "GET /sub/a\.txt\?x HTTP/1\.1" 200 1 0\.\d{4} "-" "-"',
            r'127\.0\.0\.1 "GET /raise\?status=404&reason=x HTTP/1\.1" 404 17 0\.\d{4} "-" "-"',
            r'127\.0\.0\.1 "GET /nothing HTTP/1\.1" 500 \d+ 0\.\d{4} "-" "-"',
            r'127\.0\.0\.1 "GET /late HTTP/1\.1" 200 4 0\.\d{4} "-" "-" cut',
        ],
        strict=True,
    ):
        assert re.fullmatch(pattern, line), line


def test_no_access_log_unless_asked_for(server: Serving) -> None:
    since = server.mark()
    ask(server, "GET", "/raise?status=404&reason=seen")
    server.wait_refusal("seen", since=since)  # which is behind the place of the other
    assert not any(" HTTP/1." in line for line in server.lines[since:])


# ------------------------------------------------------------------ proxies


HANDSHAKE = (
    "GET /chat HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: https://example.org\r\n"
)


def handshake(server: Serving, more: str) -> int:
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall((HANDSHAKE + more + "\r\n").encode())
        return int(client.recv(65536).split()[1])


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_trusted_proxy(mode: str) -> None:
    with Serving(APP, mode=mode, worker_num=1, trusted_proxies=["127.0.0.0/8"], access_log=True) as server:
        since = server.mark()
        fields = {"X-Forwarded-For": "6.6.6.6, 192.0.2.1, 127.0.0.9", "X-Forwarded-Proto": "https"}
        assert ask(server, "GET", "/who", headers=fields)[2] == b"https 192.0.2.1 False"
        server.wait_log(r'192\.0\.2\.1 "GET /who', since=since)
        assert ask(server, "GET", "/who")[2] == b"http 127.0.0.1 True"
        assert ask(server, "GET", "/who", headers={"X-Forwarded-For": "garbage"})[2] == b"http 127.0.0.1 True"
        assert handshake(server, "X-Forwarded-Proto: https\r\n") == 101
        assert handshake(server, "X-Forwarded-Proto: http\r\n") == 403
        assert handshake(server, "") == 403


def test_a_proxy_that_is_not_trusted(server: Serving) -> None:
    fields = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
    assert ask(server, "GET", "/who", headers=fields)[2] == b"http 127.0.0.1 True"
    assert handshake(server, "X-Forwarded-Proto: https\r\n") == 403
