"""C7 to C9, C13, C14: requests that are too long, ambiguous, too many, or cost more work than they should."""

import time

import pytest

from contract.clients import KEY, Raw, get, handshake
from security.conftest import APP, MODES
from security.watch import MIB, in_threads, watched
from support.serving import Serving

SLOW = 1.0  # seconds; no answer to a single request may take so long


def refused(server: Serving, octets: bytes, *statuses: int) -> int:
    """The status of the one answer, and that the connection ends behind it."""
    with Raw(server) as raw:
        start = time.monotonic()
        raw.send(octets)
        answer = raw.answer()
        assert time.monotonic() - start < SLOW
        assert answer.status in statuses, (answer.status, answer.body, octets[:80])
        assert answer.headers.get("connection", "").lower() == "close", octets[:80]
        assert raw.rest() == b"", octets[:80]
        return answer.status


FILLINGS = {"a;": b"a;", "open quotes": b'"\\x', "commas": b",", "spaces": b" ", "parameters": b"a;b=c,"}
FIELDS = ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Cookie", "Accept", "Connection", "Upgrade", "Origin"]


@pytest.mark.parametrize("filling", FILLINGS)
def test_c07_fields_of_8_kib(server: Serving, filling: str):
    """Answered at once, whatever the answer is."""
    with watched(server):
        for name in FIELDS:
            value = (FILLINGS[filling] * 8000)[: 8192 - len(name) - 2]
            if name in ("Cookie", "Accept", "Origin") or name.startswith("Sec"):
                request = handshake("/attack", f"{name}: {value.decode()}")
            else:
                request = get("/attack", f"{name}: {value.decode()}")
            with Raw(server) as raw:
                start = time.monotonic()
                raw.send(request)
                status = int(raw.until(b"\r\n").split()[1])
                assert time.monotonic() - start < SLOW, (name, filling)
                assert status in (101, 200, 400, 403), (name, filling, status)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([f"X-{n}: x" for n in range(98)], 200),  # with Host it is 99
        ([f"X-{n}: x" for n in range(99)], 200),
        ([f"X-{n}: x" for n in range(100)], 431),
        ([f"X{n}:" for n in range(10_000)], 431),
        (["X: x"] * 10_000, 431),
        (["N" * 256 + ": x"], 200),
        (["N" * 257 + ": x"], 431),
        (["N" * 8000 + ": x"], 431),
        (["X: " + "x" * 8189], 200),
        (["X: " + "x" * 8190], 431),
        (["X: " + "x" * 8000, "Y: " + "y" * 8000, "Z: " + "z" * 400], 431),
        (["X: " + "x" * (16 * MIB)], 431),
    ],
)
def test_c07_fields_too_many_and_too_long(server: Serving, fields: list[str], status: int):
    with watched(server, 4 * MIB):
        if status == 200:
            with Raw(server, get("/", *fields)) as raw:
                assert raw.answer().status == 200
            return
        with Raw(server) as raw:
            try:
                raw.send(get("/", *fields))
            except (BrokenPipeError, ConnectionResetError):
                return  # it is refused long before its end, and the server does not wait for more
            assert raw.answer().status == status


def test_c07_a_head_without_an_end(server: Serving):
    """It is answered at its limit; what comes behind is thrown away for a moment, so that the answer arrives."""
    with watched(server, 4 * MIB), Raw(server) as raw:
        raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(16 * 1024):
            raw.send(b"X: y\r\n" * 170)
        assert raw.answer().status == 431


@pytest.mark.parametrize(
    "drop", ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"]
)
@pytest.mark.parametrize("twice", [False, True], ids=["missing", "twice"])
def test_c07_handshakes_without_a_field_or_with_two(server: Serving, drop: str, twice: bool):
    """No half of a handshake makes a WebSocket; a list may stand in two lines (RFC 9110 section 5.3)."""
    line = f"{drop}\r\n".encode()
    request = handshake("/attack").replace(line, line * 2 if twice else b"")
    with watched(server), Raw(server, request) as raw:
        status = int(raw.until(b"\r\n").split()[1])
        if drop.startswith("Sec"):
            assert status == 400
        elif twice:
            assert status == 101
        else:
            assert status == (200 if drop.startswith("Upgrade") else 400)


def test_c07_hosts_that_are_none(server: Serving):
    with watched(server):
        for host in ("a b", "a,b", "a@b", "a/b", "a:99999", "[::1", "a:b", "x" * 300):
            refused(server, get("/").replace(b"Host: x", f"Host: {host}".encode()), 400)
        refused(server, get("/").replace(b"Host: x\r\n", b"Host: x\r\nHost: x\r\n"), 400)
        refused(server, get("/").replace(b"Host: x\r\n", b""), 400)


OURS = "http://good.example:9501"
ORIGINS = {
    None: 101,
    "http://good.example:9501": 101,
    "http://GOOD.example:9501": 101,
    "http://other.example:9501": 403,
    "https://good.example:9501": 403,
    "http://good.example": 403,
    "http://good.example:9502": 403,
    "http://sub.good.example:9501": 403,
    "http://good.example.evil:9501": 403,
    "http://good.example:9501.evil": 403,
    "http://evil-good.example:9501": 403,
    "http://good.example:9501/path": 403,
    "http://user@good.example:9501": 403,
    "http://good.example:9501 http://evil": 403,
    "ws://good.example:9501": 101,  # the URL of the WebSocket, as some libraries send it; no page has such an origin
    "ws://good.example:9501/path": 101,
    "wss://good.example:9501": 403,
    "ws://good.example": 403,
    "ws://good.example.evil:9501": 403,
    "ws://user@good.example:9501": 403,
    "ws://evil/good.example:9501": 403,
    "ws://": 403,
    "null": 403,
    "": 403,
    "file://": 403,
    "http://good.example:9501\r\nOrigin: http://good.example:9501": 403,
}


def test_c08_origins(server: Serving):
    """The rule of the manual: ours (scheme, host and port), or none at all."""
    mark = server.mark()
    with watched(server):
        for origin, wanted in ORIGINS.items():
            fields = [] if origin is None else [f"Origin: {origin}"]
            request = handshake("/origin", *fields).replace(b"Host: x", b"Host: good.example:9501")
            with Raw(server, request) as raw:
                status = int(raw.until(b"\r\n").split()[1])
                assert status == wanted, (origin, status)
    assert server.reports("request", mark) == []


SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"POST / HTTP/" + version, b"Host: x", *fields, b"", body])


SMUGGLING = {
    "CL and TE": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "TE and CL": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "two CL": post(b"Content-Length: 5", b"Content-Length: 6", body=b"12345"),
    "the same CL twice": post(b"Content-Length: 5", b"Content-Length: 5", body=b"12345"),
    **{
        f"CL {value!r}": post(b"Content-Length: " + value, body=b"12345")
        for value in (b"+5", b"-5", b"5,5", b"0x5", b"5 5", b"5;", b"", b"5.0", b"9" * 5000, b"\xb2", b"5\x0b")
    },
    **{
        f"TE {value!r}": post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
        for value in (
            b"chunked, identity",
            b"identity",
            b"xchunked",
            b"chunked\x0b",
            b"gzip, chunked",
            b"chunked, chunked",
            b"chunked;q=1",
            b'"chunked"',
            b"",
        )
    },
    "TE twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "TE in HTTP/1.0": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"),
    "a folded field": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "LF alone": b"GET / HTTP/1.1\nHost: x\n\n",
    "one LF alone": b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "CR alone": b"GET / HTTP/1.1\rHost: x\r\r",
    "a CR in a value": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n",
    "a name of nothing": b"GET / HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
    "a line without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nx\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the first field": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces in the request line": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
    "another host in the target": b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: x\r\n\r\n",
    **{
        f"chunk size {size!r}": CHUNKED + size + b"\r\n12345\r\n0\r\n\r\n"
        for size in (
            b"0x5",
            b"-1",
            b"+5",
            b" 5",
            b"5 ",
            b"",
            b"g",
            b"5_0",
            b"0" * 17 + b"5",
            b"F" * 16,
            b"5;ext\r",
            b"5\n",
        )
    },
    "a chunk without its end": CHUNKED + b"5\r\n123456\r\n0\r\n\r\n",
    "an LF behind a chunk": CHUNKED + b"5\r\n12345\n0\r\n\r\n",
    "Content-Length in the trailers": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "Transfer-Encoding in the trailers": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a chunk extension of 300 bytes": CHUNKED + b"5;a=" + b"x" * 300 + b"\r\n12345\r\n0\r\n\r\n",
    "trailers of 9 KiB": CHUNKED + b"0\r\n" + b"X: " + b"x" * 4500 + b"\r\n" + b"Y: " + b"y" * 4500 + b"\r\n\r\n",
    "a body with an upgrade": handshake("/attack", "Content-Length: 5") + b"12345",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_c09_a_second_request_is_never_found(server: Serving, name: str):
    """What can be read in two ways is refused, and the request behind it is not executed. The status does not depend on
    how the network cuts it; tests/vectors/http has each of them cut everywhere."""
    mark = server.mark()
    request = SMUGGLING[name]
    with watched(server):
        whole = refused(server, request + SECOND, 400, 413, 414, 431, 501, 505)
        with Raw(server) as raw:
            step = 1 + len(request) // 200
            for at in range(0, len(request) + len(SECOND), step):
                try:
                    raw.send((request + SECOND)[at : at + step])
                except (BrokenPipeError, ConnectionResetError):
                    break
            assert raw.answer().status == whole
    assert not [line for line in server.reports("request", mark) if "/second" in line]


def test_c09_a_body_of_get_is_no_request(server: Serving):
    """It is read as a body, so the second request is the one behind it."""
    mark = server.mark()
    with watched(server), Raw(server) as raw:
        raw.send(get("/first", f"Content-Length: {len(SECOND)}", body=SECOND) + get("/third"))
        assert raw.answer().status == raw.answer().status == 200
    assert server.reports("request", mark) == ["GET /first", "GET /third"]


@pytest.mark.parametrize("mode", MODES)
def test_c13_ten_thousand_pipelined_requests(mode: str):
    """One is handled, none is read ahead of it, and the client's socket fills up."""
    app = APP.replace(
        'response.end("hello")',
        """pass

@server.on("request")
async def asked(request, response):
    if request.path == "/stats":
        return response.end(json.dumps(server.stats()))
    report("request", request.path)
    if request.path == "/0":
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
    response.end(request.path)
""",
    ).replace('@server.on("request")\ndef asked', "def unused")
    with Serving(app, keepalive_requests=1 << 20, **MODES[mode]) as server:
        with watched(server, 8 * MIB) as canary, Raw(server) as raw:
            raw.socket.settimeout(30)

            def send(_: int) -> None:
                for n in range(0, 10_000, 100):
                    raw.send(b"".join(get(f"/{number}") for number in range(n, n + 100)))

            def read(_: int) -> None:
                server.wait_log("^report request /0$")
                canary.beat(5)
                assert server.reports("request") == ["/0"]
                with Raw(server, get("/stats")) as other:
                    assert other.answer().json()["requests"] == 3  # with the canary's
                (server_folder(server) / "go on").touch()
                for number in range(10_000):
                    answer = raw.answer()
                    assert answer.body == f"/{number}".encode()

            in_threads(2, lambda number: (send, read)[number](number))


def server_folder(server: Serving):
    from pathlib import Path

    return Path(f"/proc/{server.pid}/cwd").resolve()


PARSING = """
@server.on("request")
def asked(request, response):
    found = {
        "/query": lambda: len(request.query),
        "/form": lambda: len(request.form),
        "/cookies": lambda: len(request.cookies),
        "/json": lambda: str(type(request.json())),
    }[request.path]()
    response.end(str(found))
"""


@pytest.fixture(scope="module", params=MODES)
def parsing(request: pytest.FixtureRequest):
    app = APP.replace('@server.on("request")\ndef asked', "def unused") + PARSING
    with Serving(app, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


def posted(path: str, body: bytes, kind: str) -> bytes:
    return get(path, f"Content-Type: {kind}", f"Content-Length: {len(body)}", method="POST", body=body)


FORM = "application/x-www-form-urlencoded"
NAMES = b"&".join(b"%x=" % n for n in range(100_000))
WORK = {
    "a query of 1,000 fields": (get("/query?" + "&".join(f"{n:x}=" for n in range(1000))), {200}),
    "a query of 1,600 fields": (get("/query?" + "&".join(f"{n:x}=" for n in range(1600))), {400}),
    "a query of separators": (get("/query?" + "&" * 8000), {400}),
    "a form of 100,000 fields": (posted("/form", NAMES, FORM), {413}),
    "a form of separators": (posted("/form", b"&" * MIB, FORM), {200, 413}),
    "a form of escapes": (posted("/form", b"a=" + b"%41" * 300_000, FORM), {200}),
    "a form of broken escapes": (posted("/form", b"%" * MIB, FORM), {200, 400}),
    "cookies of backslashes": (get("/cookies", 'Cookie: a="' + "\\" * 8000 + '"'), {200, 400}),
    "cookies of open quotes": (get("/cookies", "Cookie: " + 'a="' * 2700), {200, 400}),
    "cookies of semicolons": (get("/cookies", "Cookie: " + ";" * 8000), {200, 400}),
    "a number of 5,000 digits": (posted("/json", b"9" * 5000, "application/json"), {200, 400, 500}),
    "a number of a million digits": (posted("/json", b"9" * 1_000_000, "application/json"), {200, 400, 500}),
    "lists in lists": (posted("/json", b"[" * 500_000 + b"]" * 500_000, "application/json"), {400, 500}),
}


@pytest.mark.parametrize("name", WORK)
def test_c14_work_grows_no_faster_than_the_request(parsing: Serving, name: str):
    request, statuses = WORK[name]
    with watched(parsing, 32 * MIB), Raw(parsing, request) as raw:
        start = time.monotonic()
        status = raw.answer().status
        assert status in statuses
        assert time.monotonic() - start < 2 * SLOW
