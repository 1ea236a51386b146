"""Form bodies: what a handler gets of them, and what is refused with which status."""

import asyncio
import time
from contextlib import suppress
from email.parser import BytesParser
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.app.forms import STRAYS, Form, FormLimits, MultipartReader
from mooring.app.multipart import PART_HEADER_SIZE, PART_HEADERS
from mooring.app.request import Request
from mooring.app.request_record import RequestRecord
from mooring.errors import BadRequest

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
DISPOSITION = b'Content-Disposition: form-data; name="a"'


def request(body: bytes, *types: str, **limits: int) -> Request:
    headers = [("content-type", kind) for kind in types]
    record = RequestRecord("POST", "/", 1, headers, "::1", 1, 2, "http", 0.0, 1)
    return Request(7, record, body, FormLimits(**limits))


def urlencoded(body: bytes, **limits: int) -> Request:
    return request(body, URLENCODED, **limits)


def part(content: bytes, *headers: bytes) -> bytes:
    return b"--b\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + content + b"\r\n"


def named(name: bytes, content: bytes = b"x") -> bytes:
    return part(content, b'Content-Disposition: form-data; name="%b"' % name)


def multipart(*parts: bytes, **limits: int) -> Request:
    return request(b"".join(parts) + b"--b--\r\n", MULTIPART, **limits)


def refused(made: Request) -> tuple[int, str]:
    with pytest.raises(BadRequest) as caught:
        _ = made.form
    assert isinstance(caught.value, ValueError)
    with pytest.raises(BadRequest):
        _ = made.files
    return caught.value.status, caught.value.reason


# ------------------------------------------------------------------ urlencoded


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"a=1", {"a": ["1"]}),
        (b"a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
        (b"a=&b&=c", {"a": [""], "b": [""], "": ["c"]}),
        (b"a=1+2%2B3&%26=%3D", {"a": ["1 2+3"], "&": ["="]}),
        (b"n=h%C3%A9&m=h\xc3\xa9", {"n": ["hé"], "m": ["hé"]}),
        (b"a=1;b=2", {"a": ["1;b=2"]}),
        (b"a=%zz%4", {"a": ["%zz%4"]}),
        (b"a=%00%0d%0a", {"a": ["\0\r\n"]}),
    ],
)
def test_urlencoded(body: bytes, fields: dict[str, list[str]]) -> None:
    made = urlencoded(body)
    assert made.form_list == fields
    assert made.form == {name: values[-1] for name, values in fields.items()}
    assert made.files == made.file_list == {}


@pytest.mark.parametrize("kind", ["Application/X-WWW-Form-Urlencoded", URLENCODED + " ; charset=utf-16"])
def test_the_type_of_a_form(kind: str) -> None:
    assert request(b"a=1", kind).form == {"a": "1"}


@pytest.mark.parametrize("types", [(), ("",), ("text/plain",), ("application/json",), ("multipart/mixed; boundary=b",)])
def test_no_form(types: tuple[str, ...]) -> None:
    made = request(b"a=1", *types)
    assert made.form == made.files == {}


@pytest.mark.parametrize("body", [b"a=\xff", b"a=%ff", b"%C3=a", b"\xc3"])
def test_urlencoded_but_not_utf_8(body: bytes) -> None:
    assert refused(urlencoded(body)) == (400, "the form is not UTF-8")


@given(st.lists(st.sampled_from([b"%", b"%4", b"%41", b"%C3%A9", b"\\", b"x41", b"n", b"&", b"=", b"+", b"a", b"\n"])))
def test_urlencoded_is_read_as_urllib_reads_it(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    expected: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(body.decode(), keep_blank_values=True, errors="strict"):
            expected.setdefault(name, []).append(value)
    except UnicodeDecodeError:
        assert refused(urlencoded(body))[0] == 400
    else:
        assert urlencoded(body).form_list == expected


def test_stray_percent_signs() -> None:
    assert urlencoded(b"a=100%&b=%zz&c=%").form == {"a": "100%", "b": "%zz", "c": "%"}
    assert urlencoded(b"%" * STRAYS).form == {"%" * STRAYS: ""}
    assert refused(urlencoded(b"%" * (STRAYS + 1)))[0] == 400


def test_number_of_fields() -> None:
    assert urlencoded(b"a=1&b=2", form_field_limit=2).form == {"a": "1", "b": "2"}
    assert refused(urlencoded(b"a=1&b=2&", form_field_limit=2))[0] == 413
    assert len(urlencoded(b"&".join(b"f%d=" % n for n in range(1000))).form) == 1000
    assert refused(urlencoded(b"&" * 1000))[0] == 413


def test_two_content_types() -> None:
    assert refused(request(b"a=1", URLENCODED, MULTIPART))[0] == 400


# ------------------------------------------------------------------ multipart


def test_multipart_as_a_client_from_elsewhere_sends_it() -> None:
    async def written() -> tuple[str, bytes]:
        data = aiohttp.FormData()
        data.add_field("note", "héllo\r\n--b\r\n")
        data.add_field("note", "two")
        data.add_field("file", bytes(range(256)) * 10, filename="a-b.bin", content_type="image/png")
        payload = data()
        collected = bytearray()

        class Writer:
            async def write(self, chunk: bytes) -> None:
                collected.extend(chunk)

        await payload.write(Writer())  # type: ignore[arg-type]
        return payload.headers["Content-Type"], bytes(collected)

    kind, body = asyncio.run(written())
    made = request(body, kind)
    assert made.form_list == {"note": ["héllo\r\n--b\r\n", "two"]}
    assert made.form == {"note": "two"}
    file = made.files["file"]
    assert (file.name, file.content_type, file.size) == ("file", "image/png", 2560)
    assert file.filename == "a-b.bin"
    assert file.read() == file.data == bytes(range(256)) * 10


def test_files(tmp_path: Any) -> None:
    disposition = b'Content-Disposition: form-data; name="f"; filename="%b"'
    made = multipart(
        part(b"one", disposition % b"../../etc/passwd", b"Content-Type: text/plain; charset=x"),
        part(b"", disposition % b"empty.txt"),
        part(b"no name", disposition % b""),
        part(b"", b'Content-Disposition: form-data; name="unchosen"; filename=""', b"Content-Type: a/b"),
        named(b"field", b"1"),
    )
    assert made.form == {"field": "1"}
    assert [(f.filename, f.content_type, f.read()) for f in made.file_list["f"]] == [
        ("../../etc/passwd", "text/plain", b"one"),
        ("empty.txt", "application/octet-stream", b""),
        ("", "application/octet-stream", b"no name"),
    ]
    assert "unchosen" not in made.files
    assert made.files["f"].read() == b"no name"
    made.file_list["f"][0].save(tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"one"
    assert repr(made.file_list["f"][0]) == "<UploadedFile 'f' '../../etc/passwd' 3 bytes>"


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        (b'filename="a %22b%22.txt"', 'a "b".txt'),  # browsers
        (b'filename="a \\"b\\".txt"', 'a "b".txt'),  # others
        (b"filename=a.txt", "a.txt"),
        ('filename="h\u00e9.txt"'.encode(), "h\u00e9.txt"),
        (b"filename=\"a.txt\"; filename*=UTF-8''b.txt", "a.txt"),  # RFC 7578 section 4.2 forbids the second
        (b"filename=\"=?utf-8?B?w6kudHh0?=\"; filename*=utf-8''%c3%a9.txt", "é.txt"),  # .NET
        (b'filename="=?utf-8?B?w6kudHh0?="', "=?utf-8?B?w6kudHh0?="),
        (b"filename*=utf-8''%E9%9B%AA%20%22.txt", '雪 ".txt'),  # urllib3 before 2
        (b"filename*=ISO-8859-1'en'%e9.txt", "é.txt"),
        (b"filename*=\"UTF-8''a%20b.txt\"", "a b.txt"),
        (b"filename*=UTF-8''%ff", "UTF-8''%ff"),
        (b"filename*=UTF-8''%zz", "UTF-8''%zz"),
        (b"filename*=gbk''%c3", "gbk''%c3"),
        (b"filename*=x", "x"),
        (b'filename="h\xe9.txt"', "hé.txt"),  # of a system in latin-1
        (b'filename="a%41%2e%0D%0Ab"', "a%41%2e\r\nb"),
        (b'filename="a\\b"', "a\\b"),
        (b'filename="C:\\dir\\a.txt"', "a.txt"),  # Internet Explorer
        (b'filename="C:\\dir\\"', ""),
        (b'filename="\\\\host\\a.txt"', "a.txt"),
        (b'filename="a\\"', "a\\"),
        (b'filename = "a.txt" ;', "a.txt"),
        (b'x=y;; filename="a;b.txt"', "a;b.txt"),
    ],
)
def test_file_names(sent: bytes, filename: str) -> None:
    assert multipart(part(b"x", DISPOSITION + b"; " + sent)).files["a"].filename == filename


def test_a_form_without_parts() -> None:
    assert multipart().form == {}


def test_a_part_without_even_an_empty_content() -> None:
    assert request(b"--b\r\n" + DISPOSITION + b"\r\n\r\n--b--", MULTIPART).form == {"a": ""}


@pytest.mark.parametrize(
    ("kind", "content", "value"),
    [
        (b"text/plain; charset=ISO-8859-1", b"caf\xe9", "café"),
        (b'text/plain; charset="windows-1252"', b"\x80", "€"),
        (b"text/plain;charset=UTF-8", "é".encode(), "é"),
        (b"text/plain; charset=us-ascii", "é".encode(), "é"),
        (b"application/json", b'{"a": 1}', '{"a": 1}'),
        (b"application/octet-stream", b"text", "text"),
        (b"", b"text", "text"),
        (b";;=nonsense", b"text", "text"),
    ],
)
def test_the_charset_of_a_field(kind: bytes, content: bytes, value: str) -> None:
    """RFC 7578 section 4.5."""
    made = multipart(part(content, DISPOSITION, b"Content-Type: " + kind), named(b"b", "ü".encode()))
    assert made.form == {"a": value, "b": "ü"}
    assert not made.files


@pytest.mark.parametrize(
    ("kind", "content", "charset"),
    [
        (None, b"\xff\xfe\0", None),
        (b"application/octet-stream", b"\xff\xfe\0", None),
        (b"text/plain; charset=utf-8", b"caf\xe9", "utf-8"),
        (b"text/plain; charset=GBK", b"\xc4\xe3", "gbk"),
        (b"text/plain; charset=utf-16", b"a\0", "utf-16"),
        (b"text/plain; charset=idna", b"xn--a", "idna"),
        (b"text/plain; charset=unicode_escape", b"\\x41", "unicode_escape"),
    ],
)
def test_a_field_that_is_no_text_is_given_in_bytes(kind: bytes | None, content: bytes, charset: str | None) -> None:
    """And does not cost the other parts."""
    head = [DISPOSITION] if kind is None else [DISPOSITION, b"Content-Type: " + kind]
    made = multipart(named(b"b", b"1"), part(content, *head), named(b"c", b"2"))
    assert made.form == {"b": "1", "c": "2"}
    file = made.files["a"]
    expected = "application/octet-stream" if kind is None else kind.decode().partition(";")[0]
    assert (file.name, file.filename, file.content_type, file.charset) == ("a", "", expected, charset)
    assert (file.read(), file.size) == (content, len(content))


@pytest.mark.parametrize(
    ("named_charset", "value"), [(b"iso-8859-1", "é"), (b" Windows-1252\r\n", "é"), (b"utf-8", None), (b"utf-7", None)]
)
def test_a_field_may_say_the_charset_of_the_others(named_charset: bytes, value: str | None) -> None:
    """RFC 7578 section 4.6."""
    utf8 = part("ü".encode(), DISPOSITION, b"Content-Type: text/plain; charset=utf-8")
    made = multipart(named(b"b", b"\xe9"), utf8, named(b"_charset_", named_charset))
    assert made.form["a"] == "ü"
    assert made.form.get("b") == value
    assert made.form["_charset_"] == named_charset.decode()
    assert ("b" in made.files) == (value is None)


@pytest.mark.parametrize(
    "line",
    [
        b"X-Other: y",
        b"Content-Disposition: form-data",
        b"Content-Disposition: form-data; name",
        b'Content-Disposition: form-data; name="',
        b'Content-Disposition: form-data; name="x"y',
        b'Content-Disposition: form-data; name="x"; name="y"',
        b'Content-Disposition: form-data; name="x"; NAME="x"',
        b'Content-Disposition: form-data, name="x"',
        b'Content-Disposition: attachment; name="x"',
        b"Content-Disposition: form-data; name=a b",
        b"Content-Disposition: form-data; name=\xff",
        b"Content-Disposition: form-data" + b"; a%d=b" * 17 % tuple(range(17)) + b"; name=x",
        b"Content-Disposition:",
    ],
)
def test_a_part_that_does_not_say_which_field_it_is(line: bytes) -> None:
    """It has no name, and costs nobody anything; what could be read as two names is none."""
    made = multipart(named(b"b", b"1"), part(b"what?", line), named(b"c", b"2"))
    assert made.form == {"b": "1", "": "what?", "c": "2"}
    made = multipart(part(b"what?", line + b'; filename="f' if b"Disp" in line else line), named(b"c", b"2"))
    assert made.form["c"] == "2"
    assert "" in made.files or b"Disp" not in line


def test_what_a_part_may_say_twice() -> None:
    assert multipart(part(b"x", DISPOSITION, b"X: 1", b"x: 2", b"Content-Transfer-Encoding: 8bit")).form == {"a": "x"}
    assert refused(multipart(part(b"x", DISPOSITION, b"Content-Transfer-Encoding: a", b"content-transfer-encoding: a")))


def test_the_encoding_of_a_part_is_not_undone() -> None:
    """RFC 7578 section 4.7 has none, and others don't undo it either."""
    assert multipart(part(b"eA==", DISPOSITION, b"Content-Transfer-Encoding: base64")).form == {"a": "eA=="}


def test_nested_multipart_is_a_field_like_any_other() -> None:
    inner = b"--c\r\nContent-Disposition: attachment\r\n\r\nx\r\n--c--"
    line = b"Content-Type: multipart/mixed; boundary=c"
    assert multipart(part(inner, b'Content-Disposition: form-data; name="n"', line)).form == {"n": inner.decode()}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b--"[:-1],
        b"--b\r\n",
        b"no boundary at all",
        b"--c\r\n" + DISPOSITION + b"\r\n\r\nx\r\n--c--",
        named(b"a"),  # no last boundary
        named(b"a")[:-2],
        b"--b\r\n" + DISPOSITION + b"\r\n",
        b"--b\n" + DISPOSITION + b"\n\nx\n--b--",
        b"--b\r\n" + DISPOSITION + b"\n\r\nx\r\n--b--",
        b"--bx\r\n" + DISPOSITION + b"\r\n\r\nx\r\n--b--",
        b"--bx: y\r\n" + DISPOSITION + b"\r\n\r\nx\r\n--b--",  # as a header line it would be well formed
        b"x--b\r\n" + DISPOSITION + b"\r\n\r\nx\r\n--b--",
        part(b"x", b"no colon") + b"--b--",
        part(b"x", b": a", DISPOSITION) + b"--b--",
        part(b"x", b"a b: c", DISPOSITION) + b"--b--",
        part(b"x", DISPOSITION, b" folded") + b"--b--",
        part(b"x", DISPOSITION, b"X: a\nb") + b"--b--",
        part(b"x", DISPOSITION, b"X\n: a") + b"--b--",
        part(b"x", DISPOSITION, b"X: a\rb") + b"--b--",
        part(b"x", DISPOSITION, b"X: a\0b") + b"--b--",
        part(b"x", DISPOSITION, DISPOSITION) + b"--b--",
        part(b"x", DISPOSITION, b"Content-Type: a/b", b"content-type: c/d") + b"--b--",
        part(b"x", DISPOSITION, b"Content-Length: 2") + b"--b--",
        part(b"x", DISPOSITION, b"Content-Type : a/b") + b"--b--",
        b"--b" + b" " * 257 + b"\r\n" + named(b"a")[5:] + b"--b--",
        b"--b \n" + named(b"a")[5:] + b"--b--",
        b"--b \rx" + named(b"a")[5:] + b"--b--",
        b"--b --",
        b"--b -\r\n",
        named(b"a") + b"--b -- ",
        named(b"a", b"x\r\n--bc") + b"--b--",  # a boundary or not, whom one asks
        b"a text, and no part\r\n--b--",
        b"\r" * 100_000,
        b"\r\n" * 100_000,
    ],
)
def test_malformed(body: bytes) -> None:
    assert refused(request(body, MULTIPART))[0] == 400


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        ";",
        "; boundary",
        "; boundary=",
        '; boundary=""',
        "; boundary=b; boundary=c",
        "; boundary=b; BOUNDARY=b",
        '; boundary="b',
        '; boundary="b"c',
        "; boundary=b c",
        "; boundary=b, multipart/form-data; boundary=c",
        '; boundary="b "',
        '; boundary="b\u00e9"',
        '; boundary="b@"',
        "; boundary=" + "b" * 71,
        "; boundary = b",
    ],
)
def test_boundary(parameters: str) -> None:
    assert refused(request(named(b"a") + b"--b--", "multipart/form-data" + parameters))[0] == 400


@pytest.mark.parametrize(
    ("parameters", "boundary"),
    [
        ("; boundary=" + "b" * 70, "b" * 70),
        ('; boundary="b c"', "b c"),
        (r'; boundary="b\c"', "bc"),
        (";boundary=b;", "b"),
        ("; charset=utf-8; Boundary=b", "b"),
        ("; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW", "----WebKitFormBoundary7MA4YWxkTrZu0gW"),
    ],
)
def test_boundaries_that_are_allowed(parameters: str, boundary: str) -> None:
    body = (named(b"a") + b"--b--").replace(b"--b", b"--" + boundary.encode())
    assert request(body, "multipart/form-data" + parameters).form == {"a": "x"}


def read(*pieces: bytes) -> Form:
    """The form in a body that comes in these pieces; its boundary is b."""
    with MultipartReader("multipart/form-data; boundary=b", FormLimits()) as reader:
        for piece in pieces:
            reader.feed(piece)
        return reader.finish()


FIELD = b'--b%b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--'


@pytest.mark.parametrize(
    "before", [b"text\r\n", b"\r\n\r\n", b"\r\n", b"-\r\n", b"--\r\n--c\r\n", b" --b\r\n\r\n", b"x--b--\r\n"]
)
@pytest.mark.parametrize("padding", [b"", b" ", b"\t  \t", b" " * 256])
def test_a_preamble_and_padding_wherever_they_are_cut(before: bytes, padding: bytes) -> None:
    """RFC 2046 section 5.1.1 has them ignored."""
    body = before + FIELD % padding
    for at in range(1, len(body)):
        assert read(body[:at], body[at:]).fields == {"a": ["1"]}, at


@pytest.mark.parametrize("before", [b"\r", b"-", b"x", b"\n", b"\r\n\r"])
def test_a_boundary_begins_a_line_wherever_it_is_cut(before: bytes) -> None:
    body = before + FIELD % b""
    for at in range(1, len(body)):
        with pytest.raises(BadRequest, match="it has a text, and no part"):
            read(body[:at], body[at:])


@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\r\nwhatever\r\n--b--"])
def test_a_form_cut_anywhere_is_the_same(behind: bytes) -> None:
    """Also behind the last boundary, where nothing counts any more (RFC 2046 section 5.1.1)."""
    body = b'\r\n--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--' + behind
    for at in range(len(body) + 1):
        assert read(body[:at], body[at : at + 1], body[at + 1 :]).fields == {"a": ["1"]}, at


def outcome(*pieces: bytes) -> object:
    try:
        form = read(*pieces)
    except BadRequest as error:
        return error.status, error.reason
    return form.fields, {
        name: [(f.filename, f.content_type, f.data) for f in some] for name, some in form.files.items()
    }


PIECES = [
    b"\r\n",
    b"--b",
    b"--",
    b"\r",
    b"\n",
    b" ",
    b"-",
    b"b",
    b"x",
    b":",
    b"\r\n--b\r\n",
    b"\r\n--b--",
    DISPOSITION,
    b"\r\n\r\n",
    b"; filename*=a",
    b'"',
    b"Content-Length: 1",
    b"\xe9",
    b"y" * 8180,
    b"\r\n--b \r\n" + DISPOSITION + b"\r\n\r\n",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=16).map(b"".join), st.lists(st.integers(0, 1 << 14), max_size=6))
def test_how_a_body_is_cut_makes_no_difference(body: bytes, cuts: list[int]) -> None:
    """Nor does it to what is refused, and with which words."""
    whole = outcome(body)
    edges = sorted({0, len(body), *[at % (len(body) + 1) for at in cuts]})
    assert outcome(*[body[a:b] for a, b in pairwise(edges)]) == whole
    if len(body) < 500:
        assert outcome(*[body[at : at + 1] for at in range(len(body))]) == whole


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\%', exclude_categories=["C", "Z"]), min_size=1, max_size=5
)
CONTENTS = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"-", b"b", b"\r\n", b"--", b"\xe9", b" "]), max_size=6).map(
    b"".join
)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(NAMES, st.none() | NAMES, CONTENTS, st.sampled_from([b"", b" ", b"\t "])), min_size=1, max_size=4
    ),
    st.sampled_from([b"", b"\r\n", b"a preamble\r\n", b"-b\r\n--\r\n"]),
    st.sampled_from([b"", b"\r\n", b"\r\nan epilogue --b"]),
)
def test_it_is_read_as_the_email_package_reads_it(parts: Any, before: bytes, behind: bytes) -> None:
    body = before
    for name, filename, content, padding in parts:
        line = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
        body += b"--b" + padding + b"\r\nContent-Disposition: " + line.encode() + b"\r\n\r\n" + content + b"\r\n"
    body += b"--b--" + behind
    if any(b"\r--b" in part[2] or b"\n--b" in part[2] or part[2].startswith(b"--b") for part in parts):
        return  # others take a bare CR or LF for a line end
    theirs = BytesParser().parsebytes(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body)
    ours = read(body)
    found = [(name, "field") for name, values in ours.fields.items() for _ in values]
    found += [(name, "file") for name, files in ours.files.items() for _ in files]
    assert len(found) == len(theirs.get_payload())
    read_by_us = [value.encode() for values in ours.fields.values() for value in values]
    read_by_us += [file.data for files in ours.files.values() for file in files]
    # that package makes every line end of a text one of its own kind, and so does this comparison
    assert sorted(map(lines_of, read_by_us)) == sorted(
        lines_of(message.get_payload(decode=True)) for message in theirs.get_payload()
    )
    assert {name for name, _ in found} == {name for name, *_ in parts}


def lines_of(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def test_number_of_parts() -> None:
    assert len(multipart(*[named(b"f%d" % n) for n in range(100)]).form) == 100
    assert refused(multipart(*[named(b"f%d" % n) for n in range(101)]))[0] == 413
    assert refused(multipart(named(b"a"), named(b"b"), multipart_part_limit=1))[0] == 413


def test_memory_of_fields() -> None:
    """What fields hold counts together, however many parts it is in; files are on the disk and do not count."""
    file = part(b"x" * 5000, b'Content-Disposition: form-data; name="f"; filename="f"')
    assert multipart(named(b"a", b"x" * 600), named(b"b", b"x" * 400), file, form_memory=1000).form["b"] == "x" * 400
    made = multipart(named(b"a", b"x" * 600), named(b"b", b"x" * 401), form_memory=1000)
    assert refused(made) == (413, "the fields of the form have more than 1000 bytes")


def test_a_header_line_of_a_part_may_be_cut_where_it_is_as_long_as_allowed() -> None:
    line = b"X: " + b"x" * (PART_HEADER_SIZE - 3)
    body = part(b"1", DISPOSITION, line) + b"--b--"
    end = body.index(line) + len(line)
    for at in (end - 1, end, end + 1, end + 2):
        assert read(body[:at], body[at:]).fields == {"a": ["1"]}, at
    body = part(b"1", DISPOSITION, line + b"x") + b"--b--"
    for at in (end, end + 1, end + 2, end + 3):
        with pytest.raises(BadRequest, match="longer one than"):
            read(body[:at], body[at:])


def test_headers_of_a_part() -> None:
    more = [b"X-%d: x" % n for n in range(PART_HEADERS - 1)]
    assert multipart(part(b"x", DISPOSITION, *more)).form == {"a": "x"}
    assert refused(multipart(part(b"x", DISPOSITION, *more, b"X: x")))[0] == 413
    assert multipart(part(b"x", DISPOSITION, b"X: " + b"x" * (PART_HEADER_SIZE - 3))).form == {"a": "x"}
    assert refused(multipart(part(b"x", DISPOSITION, b"X: " + b"x" * (PART_HEADER_SIZE - 2))))[0] == 413
    assert refused(request(b"--b\r\n" + b"x" * 1_000_000, MULTIPART))[0] == 413


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: request(b"\r" + b"x" * n, MULTIPART), id="CR first"),
        pytest.param(lambda n: request(b"--b\r\n" + DISPOSITION + b"\r\n\r\n" + b"\r" * n, MULTIPART), id="CR only"),
        pytest.param(lambda n: multipart(named(b"a", b"\r\n--" * (n // 4))), id="nearly the boundary"),
        pytest.param(lambda n: request(named(b"a") * (n // 50), MULTIPART), id="many parts"),
        pytest.param(lambda n: urlencoded(b"&" * n), id="ampersands"),
        pytest.param(lambda n: urlencoded(b"a=" + b"%41" * n), id="percents"),
        pytest.param(lambda n: urlencoded(b"=" * n), id="equals"),
        pytest.param(lambda n: urlencoded(b"%" * n), id="stray percents"),
        pytest.param(lambda n: urlencoded(b"\\" * n), id="backslashes in a value"),
        pytest.param(lambda n: request(b"", "multipart/form-data" + ";" * n), id="semicolons"),
        pytest.param(lambda n: request(b"", "multipart/form-data;" + " " * n), id="spaces"),
        pytest.param(lambda n: request(b"", 'multipart/form-data; a="' + "\\" * n), id="backslashes"),
        pytest.param(lambda n: request(b"", "multipart/form-data" + '; a="' * n), id="quotes"),
        pytest.param(
            lambda n: multipart(part(b"", b"Content-Disposition: x" + b'; a="' * (n // 40))), id="part quotes"
        ),
    ],
)
def test_linear_time(make: Any) -> None:
    """Quadratic work would grow 16-fold, linear work 4-fold."""

    def seconds(n: int) -> float:
        best = float("inf")
        for _ in range(3):
            made = make(n)
            start = time.process_time()
            with suppress(BadRequest):
                _ = made.form
            best = min(best, time.process_time() - start)
        return best

    assert seconds(200_000) < 9 * seconds(50_000) + 0.02
