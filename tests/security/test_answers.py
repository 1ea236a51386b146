"""C10, C11, C15 to C17: what an application may answer, what gets into the log, files, ranges, forms."""

import os
import re
import time
from collections.abc import Iterator

import pytest

from contract.clients import Raw, get
from security.conftest import APP, MODES
from security.watch import MIB, watched
from support.serving import Serving

ANSWERING = APP.replace('@server.on("request")\ndef asked', "def unused") + (
    """
BAD = {"cr": "a\\rInjected: yes", "lf": "a\\nInjected: yes", "crlf": "a\\r\\nInjected: yes\\r\\n\\r\\nbody",
       "nul": "a\\0Injected: yes", "wide": "a\\u2028Injected: yes", "del": "a\\x7fInjected: yes"}

@server.on("request")
def asked(request, response):
    _, what, kind = request.path.split("/")
    bad = BAD[kind]
    {
        "reason": lambda: response.status(200, bad),
        "name": lambda: response.header(bad, "x"),
        "value": lambda: response.header("X", bad),
        "added": lambda: response.add_header("X", bad),
        "redirect": lambda: response.redirect(bad),
        "cookie-name": lambda: response.cookie(bad, "x"),
        "cookie-value": lambda: response.cookie("x", bad),
        "cookie-path": lambda: response.cookie("x", "x", path=bad),
        "cookie-domain": lambda: response.cookie("x", "x", domain=bad),
    }[what]()
    response.end("not refused")

@server.on("handshake")
def judge(server, request):
    if "bad" in request.query:
        return Accept(subprotocol=BAD[request.query["bad"]]) if "sub" in request.query else \\
            Accept(headers={"X": BAD[request.query["bad"]]})
"""
)


@pytest.fixture(scope="module", params=MODES)
def answering(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with Serving(ANSWERING, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


KINDS = ["cr", "lf", "crlf", "nul", "wide", "del"]


@pytest.mark.parametrize(
    "what",
    ["reason", "name", "value", "added", "redirect", "cookie-name", "cookie-value", "cookie-path", "cookie-domain"],
)
def test_c10_what_would_split_an_answer(answering: Serving, what: str):
    """An error in the handler, which is answered with 500, and nothing of it on the wire."""
    with watched(answering):
        for kind in KINDS:
            with Raw(answering, get(f"/{what}/{kind}", "Connection: close")) as raw:
                answer = raw.rest()
                assert answer.startswith(b"HTTP/1.1 500 "), (what, kind, answer)
                assert b"njected" not in answer
                assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("more", ["", "&sub=1"], ids=["header", "subprotocol"])
def test_c10_what_would_split_the_answer_to_a_handshake(answering: Serving, more: str):
    with watched(answering):
        for kind in KINDS:
            with Raw(answering) as raw:
                assert raw.upgrade(f"/attack?bad={kind}{more}").status == 500, kind
                assert b"njected" not in raw.rest()


# ---------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module", params=MODES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    top = tmp_path_factory.mktemp("files")
    root = top / "static"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("inside " * 100)
    (root / "sub" / "b.txt").write_text("inside")
    (top / "secret.txt").write_text("SECRET")
    (top / "static-secret").mkdir()
    (top / "static-secret" / "s.txt").write_text("SECRET")
    (root / "link.txt").symlink_to(top / "secret.txt")
    (root / "out").symlink_to(top)
    (root / "a.txt.gz").symlink_to(top / "secret.txt")
    (root / ".hidden").write_text("SECRET")
    os.mkfifo(root / "fifo")
    app = APP.replace('    response.end("hello")', '    response.status(404)\n    response.end("nothing here")')
    with Serving(app, document_root=str(root), **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


UP = ["..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..%00", "..;", "....", ". .", "%c0%ae%c0%ae", "..%5c", "%u002e."]
PATHS = [
    *[f"/{up}/secret.txt" for up in UP],
    *[f"/sub/{up}/{up}/secret.txt" for up in UP],
    *[f"/{up}%2fsecret.txt" for up in UP],
    *[f"/{up}%5csecret.txt" for up in UP],
    *[f"/{up}\\secret.txt" for up in UP],
    *[f"/{up}/static-secret/s.txt" for up in UP],
    "/link.txt",
    "/out/secret.txt",
    "/a.txt.gz",
    "/.hidden",
    "/./.hidden",
    "/%2e/%2ehidden",
    "/./../secret.txt",
    "/sub/./.%2e/../secret.txt",
    "/fifo",
    "//etc/passwd",
    "/%2fetc%2fpasswd",
    "///etc/passwd",
    "/a.txt%00.html",
    "/a.txt/",
    "/a.txt/../../secret.txt",
    "/sub",
    "/sub%2f..%2f..%2fsecret.txt",
    "/proc/self/environ",
    "/" + "a" * 5000,
    "/" + "a/" * 4000,
    "/" + "../" * 2000 + "etc/passwd",
    "/%",
    "/%zz",
    "http://x/../secret.txt",
]


def test_c15_no_byte_from_outside_of_the_folder(files: Serving):
    with watched(files):
        with Raw(files, get("/a.txt")) as raw:
            assert raw.answer().body == b"inside " * 100
        for path in PATHS:
            for coding in ("identity", "gzip"):
                with Raw(files, get(path, f"Accept-Encoding: {coding}", "Connection: close")) as raw:
                    start = time.monotonic()
                    answer = raw.rest()
                    assert time.monotonic() - start < 1.0, path
                    assert re.match(rb"HTTP/1.1 (404|403|400|301|308|414) ", answer), (path, answer[:200])
                    assert b"SECRET" not in answer, path
                    assert b"root:" not in answer, path


RANGES = [
    "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)),
    "bytes=0-10,5-15,0-",
    "bytes=-0",
    "bytes=0-18446744073709551615",
    "bytes=18446744073709551615-",
    "bytes=5-1",
    "bytes=700-",
    "bytes=100000-200000",
    "bytes=-100000",
    "bytes=--1",
    "bytes=" + "9" * 8000 + "-",
    "bytes=0-" + "9" * 8000,
    "bytes=-" + "9" * 8000,
    "lines=1-2",
    "bytes=",
    "bytes=0x10-0x20",
    "bytes=\xb2-",
]


def test_c16_ranges(files: Serving):
    """The whole file, a part of it, or 416: never more than the file has."""
    with watched(files):
        for value in RANGES:
            with Raw(files, get("/a.txt", f"Range: {value}")) as raw:
                start = time.monotonic()
                answer = raw.answer()
                assert time.monotonic() - start < 1.0
                assert answer.status in (200, 206, 416), (value[:50], answer.status)
                assert len(answer.body) <= 700


# ---------------------------------------------------------------------------------------------- forms

FORMS = APP.replace('@server.on("request")\ndef asked', "def unused") + (
    """
@server.on("request")
def asked(request, response):
    response.end(f"{len(request.form)} {len(request.files)}")
"""
)


@pytest.fixture(scope="module", params=MODES)
def forms(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with Serving(FORMS, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


def part(name: str, content: bytes = b"x", more: bytes = b"") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n'.encode()
    return head + more + b"\r\n" + content + b"\r\n"


MULTIPART = {
    "100,000 parts": (b"--b\r\n\r\n\r\n" * 100_000, "b"),
    "101 parts": (b"".join(part(f"n{n}") for n in range(101)) + b"--b--\r\n", "b"),
    "parts without an end": (part("a") * 50, "b"),
    "a header of 900 KB": (part("a", more=b"X: " + b"x" * 900_000 + b"\r\n") + b"--b--\r\n", "b"),
    "10,000 headers": (part("a", more=b"X: x\r\n" * 10_000) + b"--b--\r\n", "b"),
    "CR and megabytes": (b"--b\r\n\r\n" + b"\r" + b"x" * 900_000, "b"),
    "nothing but CR": (b"--b\r\n\r\n" + b"\r" * 900_000, "b"),
    "half boundaries": (b"--b\r\n\r\n" + b"\r\n--" * 200_000, "b"),
    "a boundary of 5,000": (b"--" + b"b" * 5000 + b"\r\n\r\n", "b" * 5000),
    "no boundary": (part("a"), ""),
    "a header line without a name": (b"--b\r\n: x\r\n\r\nx\r\n--b--\r\n", "b"),
    "a name of 900 KB": (part("n" * 900_000) + b"--b--\r\n", "b"),
}


@pytest.mark.parametrize("name", MULTIPART)
def test_c17_multipart(forms: Serving, name: str):
    body, boundary = MULTIPART[name]
    kind = f"Content-Type: multipart/form-data; boundary={boundary}"
    request = get("/", kind, f"Content-Length: {len(body)}", method="POST", body=body)
    with watched(forms, 32 * MIB), Raw(forms, request) as raw:
        start = time.monotonic()
        assert raw.answer().status in (400, 413)
        assert time.monotonic() - start < 2.0


def test_c17_a_file_of_a_gib(forms: Serving):
    """Refused by its announced length, before it is sent; and by its real one."""
    head = get("/", "Content-Type: multipart/form-data; boundary=b", f"Content-Length: {1 << 30}", method="POST")
    with watched(forms, 8 * MIB), Raw(forms, head) as raw:
        assert raw.answer().status == 413
    chunked = get("/", "Content-Type: multipart/form-data; boundary=b", "Transfer-Encoding: chunked", method="POST")
    with watched(forms, 8 * MIB), Raw(forms, chunked) as raw:
        for _ in range(20):
            try:
                raw.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            except (BrokenPipeError, ConnectionResetError):
                return
        assert raw.answer().status == 413
