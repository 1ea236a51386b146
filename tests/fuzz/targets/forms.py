"""What a handler reads of a request: content type, query and cookie in a line each, and a body."""

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import parse_qsl

from fuzz.harness import lines, outcome, pieces
from mooring.app.cookies import set_cookie
from mooring.app.forms import FormLimits, MultipartReader, UploadedFile, close_files
from mooring.app.request import decode_request
from mooring.app.request_record import RequestRecord, encode_request
from mooring.errors import BadRequest

LIMITS = FormLimits(form_field_limit=20, multipart_part_limit=5, form_memory=500, upload_spool_size=200)
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\nContent-Type: text/plain\r\n\r\n'
    b"%b\r\n--b--\r\n"
)


def seeds() -> Iterator[bytes]:
    yield b'multipart/form-data; boundary=b\nq=1&r=%20&r\na=b; c="d"; a=2\n' + MULTIPART % b"content"
    yield b'multipart/form-data; boundary="b"\n\n\n' + MULTIPART % (b"long" * 100)
    yield b"multipart/form-data; boundary=b\n\n\npreamble\r\n" + MULTIPART % b"\r\n--bb\r\n--b" + b"epilogue"
    padded = MULTIPART.replace(b"--b\r", b"--b \t\r").replace(b'x.txt"', b"x.txt\"; filename*=UTF-8''%%C3%%A9")
    yield b"multipart/form-data; boundary=b\n\n\n\r\n" + padded % b"\xff"
    latin = b"\r\nContent-Type: text/plain; charset=latin-1\r\n\r\n\xe9"
    more = MULTIPART.replace(b"\r\n\r\n1", latin).replace(b'"f"; filename="x.txt"', b'"_charset_"')
    yield b"multipart/form-data; boundary=b\n\n\n" + more % b"ascii"
    yield b"application/x-www-form-urlencoded\na=1;b=2\nx\na=1&b=%C3%A4&c=%zz&d=a+b&&e"
    yield b'application/x-www-form-urlencoded; charset="latin-1"\n%ff=%fe\n=;a\n' + b"a=1&" * 30
    yield b"application/json; charset=utf-8\n\n\n{}"


def read(content_type: str, parts: list[bytes]) -> object:
    """What a reader makes of a body that comes in these parts; files as their contents."""
    with MultipartReader(content_type, LIMITS) as reader:
        for part in parts:
            reader.feed(part)
        form = reader.finish()
    try:
        return form.fields, contents(form.files)
    finally:
        close_files(form)


def contents(files: dict[str, list[UploadedFile]]) -> dict[str, list[tuple[str, str, bytes]]]:
    for some in files.values():
        for file in some:
            assert len(file.data) == file.size
    return {name: [(file.filename, file.content_type, file.data) for file in some] for name, some in files.items()}


def one(data: bytes) -> None:
    kind, query, cookie, body = lines(data, 3)
    fields = [("content-type", kind.decode("latin-1")), ("cookie", cookie.decode("latin-1"))]
    target = "/?" + query.decode("latin-1")
    record = RequestRecord("POST", target, 1, fields, "127.0.0.1", 1, 80, "http", 0.0, 1)
    request = decode_request(7, encode_request(record, body), LIMITS)
    assert request.body == body
    assert request.target == target
    assert outcome(lambda: request.query, BadRequest) is not None
    for name, value in request.cookies.items():
        with suppress(ValueError):
            assert set_cookie(name, value).startswith(f"{name}={value}; ")
    outcome(request.text, BadRequest)
    outcome(request.json, BadRequest)
    try:
        form = outcome(lambda: (request.form_list, contents(request.file_list)), BadRequest)
    finally:
        request._close()
    multipart = request.headers["content-type"].partition(";")[0].strip(" \t").lower() == "multipart/form-data"
    if multipart:
        whole = outcome(lambda: read(record.headers[0][1], [body]), BadRequest)
        cut = outcome(lambda: read(record.headers[0][1], pieces(body)), BadRequest)
        assert form == whole
        assert cut == whole
        return
    if form and not is_refusal(form) and form[0]:
        fields = {}
        text = "".join(chr(byte) if byte < 128 else f"%{byte:02x}" for byte in body)
        for name, value in parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="strict"):
            fields.setdefault(name, []).append(value)
        assert form[0] == fields


def is_refusal(said: object) -> bool:
    return isinstance(said, tuple) and said[0] == "BadRequest"
