"""HttpError: its status and its headers are checked where it is made."""

from enum import StrEnum
from typing import Any

import pytest

from mooring.errors import HttpError


@pytest.mark.parametrize("status", [0, 200, 302, 399, 600])
def test_an_error_is_an_error(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        HttpError(status, "x")


@pytest.mark.parametrize("status", ["400", 404.0, None])
def test_the_status_of_an_error_is_a_number(status: Any) -> None:
    with pytest.raises(TypeError, match="a number from 400 to 599"):
        HttpError(status, "x")


def test_an_error_tells_what_it_is() -> None:
    error = HttpError(405, "no", [("Allow", "GET")])
    assert (str(error), error.status, error.reason, error.headers) == ("405: no", 405, "no", (("Allow", "GET"),))


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "9"}, [("Retry-After", "9")], (["Retry-After", "9"],), iter([("Retry-After", "9")])]
)
def test_headers_of_an_error_are_a_mapping_or_pairs(headers: Any) -> None:
    assert HttpError(503, "later", headers).headers == (("Retry-After", "9"),)


def test_names_of_headers_may_be_of_an_enum() -> None:
    name = StrEnum("Name", [("AFTER", "Retry-After")]).AFTER
    ((found, value),) = HttpError(503, "later", {name: type("Text", (str,), {"__str__": None})("9")}).headers
    assert (found, type(found), value, type(value)) == ("Retry-After", str, "9", str)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Retry-After": 9}, TypeError),
        ({b"Retry-After": "9"}, TypeError),
        (["Retry-After"], TypeError),
        ("ab", TypeError),
        ([("a", "b", "c")], TypeError),
        (5, TypeError),
        ({"a b": "c"}, ValueError),
        ({"": "c"}, ValueError),
        ({"a": "b\r\nc: d"}, ValueError),
        ({"a": "b\n"}, ValueError),
        ({"a\n": "b"}, ValueError),
        ({"a": "\u20ac"}, ValueError),
        ({"Content-Length": "5"}, ValueError),
        ({"transfer-encoding": "chunked"}, ValueError),
        ({"Connection": "upgrade"}, ValueError),
    ],
)
def test_headers_of_an_error_are_checked_where_it_is_made(headers: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="header"):
        HttpError(503, "later", headers)
