"""What a handler that returned something is told to do instead."""

import re
from typing import Any

import pytest

from mooring.worker import advice


class Text(str):
    pass


class Disguised:
    """Says that it is a dict; who asks it for its class would believe it."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return dict


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "call response.end\\(\\) or response.json\\(\\)"),
        (True, "call response.end\\(\\) or response.json\\(\\)"),
        ("hello", "it returned a str, .* call response.end\\(\\) with it"),
        (7, "it returned a int, .* call response.end\\(\\) with it"),
        ({"a": 1}, "it returned a dict, .* call response.json\\(\\) with it"),
        ((1, 2), "it returned a tuple, .* call response.json\\(\\) with it"),
        (Disguised(), "it returned a Disguised, .* call response.end\\(\\) with it"),
    ],
)
def test_for_a_request_without_an_answer(result: Any, said: str):
    assert re.fullmatch(said, advice.of_request(result))


@pytest.mark.parametrize("result", ["a", Text("a"), b"a", bytearray(b"a"), {}, [], ()])
def test_for_what_was_meant_for_the_client_of_a_websocket(result: Any):
    said = advice.of_event(result)
    assert said.startswith(f"returned a {type(result).__name__}, ")
    assert said.endswith("push it, server.push(fd, ...)")


@pytest.mark.parametrize("result", [None, True, 7, 1.5, object(), Disguised()])
def test_nothing_is_said_of_what_nobody_would_send(result: Any):
    assert advice.of_event(result) == ""
