"""What a response is written with: nothing that is given ends a line early."""

from typing import Any

import pytest

from mooring._core.http_response import LAST_CHUNK, REASONS, chunk, response_head


def test_response_head() -> None:
    assert response_head(200, []) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert (
        response_head(404, [("A", "b"), ("a", "é\tc"), ("Empty", "")], "Gone fishing")
        == b"HTTP/1.1 404 Gone fishing\r\nA: b\r\na: \xe9\tc\r\nEmpty: \r\n\r\n"
    )
    assert response_head(299, ()) == b"HTTP/1.1 299 \r\n\r\n"  # RFC 9112 section 4: the reason may be empty
    assert REASONS[418] == "I'm a Teapot"


BAD_CHARACTERS = ["\r", "\n", "\0", "\r\nX: y", "\x0b", "\x1b", "\x7f", "\u0100", "\u2028", "😀", "\udcff"]


@pytest.mark.parametrize("bad", BAD_CHARACTERS)
@pytest.mark.parametrize("place", ["{}", "a{}", "{}b", "a{}b"])
def test_response_head_refuses(bad: str, place: str) -> None:
    text = place.format(bad)
    with pytest.raises(ValueError):
        response_head(200, [("X", text)])
    with pytest.raises(ValueError):
        response_head(200, [(text, "x")])
    with pytest.raises(ValueError):
        response_head(200, [], text)


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a:b", "a\t", "é", "(", '"', "a,b", "a/b"])
def test_response_head_refuses_names(name: str) -> None:
    with pytest.raises(ValueError, match="token"):
        response_head(200, [(name, "x")])


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1000])
def test_response_head_refuses_status(status: int) -> None:
    with pytest.raises(ValueError, match="status"):
        response_head(status, [])


@pytest.mark.parametrize("pair", [("a", None), (None, "a"), (b"a", "a"), ("a", b"a"), ("a", 1)])
def test_response_head_refuses_types(pair: Any) -> None:
    with pytest.raises(TypeError):
        response_head(200, [pair])


def test_every_token_character_and_no_other() -> None:
    """RFC 9110 section 5.6.2, counted out."""
    token = set("!#$%&'*+-.^_`|~" + "0123456789" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for code in range(0x180):
        try:
            response_head(200, [(chr(code), "x")])
            accepted = True
        except ValueError:
            accepted = False
        assert accepted == (chr(code) in token), code


def test_chunk() -> None:
    assert chunk(b"") == b""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert LAST_CHUNK == b"0\r\n\r\n"
    with pytest.raises(TypeError):
        chunk(None)  # type: ignore[arg-type]
