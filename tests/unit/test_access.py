"""The access log: one line for each answer, whatever the client wrote."""

import logging
import re
from typing import Any

import pytest

from mooring.app.request import Request
from mooring.app.request_record import RequestRecord
from mooring.app.response import Response
from mooring.worker import access
from mooring.worker.access import LONGEST, quoted

AWFUL = ["a\nb", "a\rb", "\x1b[2Jx", "\x00", "\x9b31m", "\x7f", '" 200 0 "', "\\", "é😀\u2028\u202e", "\udcff"]


def line(caplog: pytest.LogCaptureFixture, act: Any, *, taken: bool = True, **changes: Any) -> str:
    fields = {
        "method": "GET",
        "target": "/a?b",
        "minor": 1,
        "headers": [("user-agent", "curl/8"), ("referer", "https://example.org/")],
        "remote_ip": "::1",
    }
    fields |= {"remote_port": 1, "server_port": 2, "scheme": "http", "received": 0.0, "number": 1} | changes
    request = Request(1, RequestRecord(**fields))
    response = Response(request, lambda *_: True)
    act(response)
    caplog.clear()
    with caplog.at_level(logging.INFO, "mooring.access"):
        access.write(request, response, response._body_size, 0.00207, taken=taken)
    (record,) = caplog.records
    return record.getMessage()


def test_a_line(caplog: pytest.LogCaptureFixture) -> None:
    expected = '::1 "GET /a?b HTTP/1.1" 200 3 0.0021 "https://example.org/" "curl/8"'
    assert line(caplog, lambda r: r.end("abc")) == expected
    assert line(caplog, lambda r: r.end("abc"), taken=False) == expected + " cut"


def test_what_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    assert " 200 5 " in line(caplog, lambda r: (r.write("ab"), r.write(b"c"), r.end("de")))
    assert " 404 0 " in line(caplog, lambda r: (r.status(404), r.end("abc")), method="HEAD")
    assert " 304 0 " in line(caplog, lambda r: (r.status(304), r.end("abc")))
    broken = line(caplog, lambda r: (r.write("ab"), r._fail("x")))
    assert " 200 2 " in broken
    assert broken.endswith(" cut")


def test_without_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    assert line(caplog, lambda r: r.end(), headers=[], remote_ip="", minor=0) == (
        '- "GET /a?b HTTP/1.0" 200 0 0.0021 "-" "-"'
    )


@pytest.mark.parametrize("text", AWFUL)
def test_nothing_awful_gets_into_the_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    for changes in ({"target": "/" + text}, {"headers": [("user-agent", text), ("referer", text)]}, {"method": text}):
        got = line(caplog, lambda r: r.end(), **changes)
        assert got.isascii()
        assert got.isprintable()
        assert re.fullmatch(r'::1( "([^"\\]|\\.)*"| [0-9.]+){6}', got), got


def test_fields_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    headers = [("user-agent", "u" * 10**6), ("referer", "😀" * 10**6)]
    got = line(caplog, lambda r: r.end(), target="/" + "t" * 10**6, headers=headers)
    assert len(got) < 14 * LONGEST
    assert 'ttt... HTTP/1.1" ' in got
    assert quoted("a" * LONGEST) == f'"{"a" * LONGEST}"'
    assert quoted("a" * (LONGEST + 1)) == f'"{"a" * LONGEST}..."'
