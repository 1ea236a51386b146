"""Values a user sees."""

from collections.abc import Mapping
from dataclasses import FrozenInstanceError

import pytest

from mooring.errors import BootError, ConfigError, MooringError, StateError
from mooring.types import ClientInfo, CloseCode, ConnectionState, Headers, Opcode


def test_opcodes_are_those_of_rfc6455_5_2():
    assert {code.name: int(code) for code in Opcode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_close_codes_are_those_of_rfc6455_7_4_1():
    from websockets.frames import CloseCode as Oracle

    for code in CloseCode:
        assert code in Oracle._value2member_map_, code


@pytest.mark.parametrize(
    ("error", "builtin"), [(ConfigError, ValueError), (StateError, RuntimeError), (BootError, Exception)]
)
def test_every_error_has_one_root(error, builtin):
    assert issubclass(error, MooringError)
    assert issubclass(error, builtin)


def test_client_info_is_a_snapshot():
    info = ClientInfo(7, ConnectionState.OPEN, "127.0.0.1", 5000, 9501, None, 1.0, 2.0, 3, 4, 5, 6, 0)
    assert info.messages_received == 3
    with pytest.raises(FrozenInstanceError):
        info.fd = 8  # type: ignore[misc]


class TestHeaders:
    headers = Headers([("Host", "a.example"), ("accept", "text/html"), ("Accept", "*/*"), ("X-Empty", "")])

    def test_is_a_mapping_that_ignores_case(self):
        assert isinstance(self.headers, Mapping)
        assert self.headers["HOST"] == "a.example"
        assert "hOsT" in self.headers
        assert self.headers.get("missing") is None
        assert 1 not in self.headers

    def test_repeated_names_are_joined_in_order(self):
        assert self.headers["Accept"] == "text/html, */*"
        assert self.headers.getlist("ACCEPT") == ["text/html", "*/*"]
        assert list(self.headers.items()) == [
            ("host", "a.example"),
            ("accept", "text/html, */*"),
            ("x-empty", ""),
        ]
        assert len(self.headers) == 3

    def test_cookies_are_joined_so_that_they_can_be_parsed(self):
        assert Headers([("Cookie", "a=1"), ("cookie", "b=2,3")])["cookie"] == "a=1; b=2,3"

    def test_missing_name(self):
        with pytest.raises(KeyError):
            self.headers["missing"]
        assert self.headers.getlist("missing") == []

    def test_raw_is_what_came(self):
        assert self.headers.raw[1:3] == [("accept", "text/html"), ("Accept", "*/*")]

    def test_cannot_be_changed(self):
        self.headers.raw.append(("a", "b"))
        self.headers.getlist("host").append("evil")
        assert self.headers.getlist("host") == ["a.example"]
        assert len(self.headers.raw) == 4
        with pytest.raises(TypeError):
            self.headers["host"] = "b"  # type: ignore[index]

    def test_equals_a_mapping_of_the_same_items(self):
        assert Headers([("A", "1")]) == Headers([("a", "1")]) == {"a": "1"}

    def test_repr_can_be_read_back(self):
        assert eval(repr(self.headers)) == self.headers
