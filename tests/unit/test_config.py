"""Settings: names, bounds, messages, and the round trip through msgpack."""

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring import Response, Server, near
from mooring.app.handlers import EVENTS
from mooring.config import HOME, SECTIONS, Settings, describe
from mooring.config.option import split_address
from mooring.config.origin import normal_origin, problem_of
from mooring.errors import ConfigError
from mooring.gateway.handshake import Policy


def refused(**options) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.from_options(options)
    return str(caught.value)


def test_defaults_are_the_documented_ones():
    settings = Settings()
    assert settings.process.mode == "process"
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 9501)
    assert settings.websocket.max_message_size == settings.http.body_limit == settings.flow.write_limit == 1 << 20
    assert settings.websocket.check_origin is True
    assert settings.flow.max_connections == 0
    assert settings.process.worker_num >= 1


def test_options_reach_their_section():
    settings = Settings.from_options({"port": 0, "worker_num": 3, "mode": "base", "body_limit": 5})
    assert settings.listen.port == 0
    assert settings.process.worker_num == 3
    assert settings.process.mode == "base"
    assert settings.http.body_limit == 5


def test_no_two_sections_share_a_name():
    assert len(HOME) == sum(len(dataclasses.fields(kind)) for kind in SECTIONS.values())


def test_unknown_option_names_the_nearest():
    assert refused(worker_nums=2) == "unknown option 'worker_nums': did you mean 'worker_num'?"
    assert "mooring settings" in refused(zzz=2)
    assert refused(workers=2) == "unknown option 'workers': did you mean 'worker_num'?"
    assert refused(WorkerNum=2) == "unknown option 'WorkerNum': did you mean 'worker_num'?"
    assert refused(ssl_certfile="x") == "unknown option 'ssl_certfile': did you mean 'ssl_cert_file'?"
    assert refused(max_mesage_size=1).endswith("did you mean 'max_message_size'?")


def test_words_of_other_servers_lead_to_what_there_is():
    for words, names in ((near.SETTINGS, HOME), (near.EVENTS, EVENTS)):
        assert set(words.values()) <= set(names)
        assert not set(words) & set(names), "it is the name of something else"
    for words, kind in ((near.METHODS, Server), (near.ANSWERS, Response)):
        for word, meant in words.items():
            assert word not in dir(kind)
            assert re.split(r"\W", meant)[0] in dir(kind)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1:9501", "write host='127.0.0.1', port=9501"),
        ("localhost:80", "write host='localhost', port=80"),
        ("[::1]:9501", "write host='::1', port=9501"),
        (":9501", "write host='0.0.0.0', port=9501"),
        ("ws://chat.example.org:9501/", "write host='chat.example.org', port=9501"),
        ("http://localhost", "a URL or a path"),
        ("/run/chat.sock", "unix_socket"),
        ("[::1]", "without brackets: '::1'"),
        ("", "it is empty"),
    ],
)
def test_a_host_is_a_host_alone(host, words):
    assert words in refused(host=host)


@pytest.mark.parametrize("host", ["::", "::1", "fe80::1%eth0", "0.0.0.0", "chat.example.org", "localhost"])
def test_hosts(host):
    assert Settings.from_options({"host": host}).listen.host == host


def test_a_number_is_no_host():
    number: Any = 9501
    for call in (Server, Server().listen):
        with pytest.raises(ConfigError, match="write port=9501, or the host first"):
            call(number)


def test_methods_of_other_servers():
    server: Any = Server()
    for name, words in (
        ("broadcast", "a Server has no 'broadcast': did you mean publish(topic, data)?"),
        ("pussh", "did you mean push?"),
        ("run", "did you mean start()?"),
        ("quite_something", "a Server has no 'quite_something'"),
    ):
        with pytest.raises(AttributeError) as error:
            getattr(server, name)
        assert words in str(error.value)
        assert error.value.obj is None  # else Python goes on: "... and methods?. Did you mean: 'set'?"
    assert not hasattr(server, "_nothing")
    with pytest.raises(AttributeError) as error:
        getattr(server, "x" * 1_000_000)
    assert len(str(error.value)) < 200
    assert copy.copy(server) is not server


def test_a_property_that_fails_is_not_missing():
    """Else the error of its code would be hidden behind "did you mean", with its own name."""

    class Own(Server):
        @property
        def database(self) -> Any:
            return None.connection  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'connection'"):
        _ = Own().database


def test_a_subclass_that_forgets_to_be_one():
    class Own(Server):
        def __init__(self) -> None:
            self.on("message", lambda server, frame: None)

    with pytest.raises(AttributeError, match=r"calls super\(\).__init__\(\) first"):
        Own()


@pytest.mark.parametrize("name", [None, 5, ["message"], "x" * 1_000_000])
def test_what_names_no_event(name: Any):
    with pytest.raises(ConfigError, match=r"no event is called .*; there are start") as error:
        Server().on(name, lambda server, frame: None)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 65536}, ["port=65536", "0 to 65535"]),
        ({"port": -1}, ["port=-1"]),
        ({"port": "9501"}, ["port='9501'", "an integer"]),
        ({"port": True}, ["port=True", "an integer"]),
        ({"port": 1.0}, ["an integer"]),
        ({"worker_num": 0}, ["1 to 256 processes"]),
        ({"worker_num": 257}, ["1 to 256"]),
        ({"gateway_num": 33}, ["1 to 32"]),
        ({"worker_messages": 4097}, ["4096"]),
        ({"mode": "threads"}, ["process or base"]),
        ({"unix_socket_mode": 0o1777}, ["0 to 0o777"]),
        ({"unix_socket_mode": "660"}, ["an integer"]),
        ({"unix_socket": "a\0b"}, ["NUL"]),
        ({"metrics_listen": "9600"}, ["HOST:PORT", "unix:PATH"]),
        ({"metrics_listen": "127.0.0.1:99999"}, ["HOST:PORT"]),
        ({"metrics_listen": "127.0.0.1:http"}, ["HOST:PORT"]),
        ({"metrics_listen": ":9600"}, ["it is empty"]),
        ({"metrics_listen": "::1:9600"}, ["brackets", "[::1]:9600"]),
        ({"metrics_listen": "http://127.0.0.1:9600"}, ["it is a URL", "HOST:PORT"]),
        ({"metrics_listen": "unix:"}, ["no path"]),
        ({"inherited": "fd://2"}, ["fd://N", "3 to 65535"]),
        ({"inherited": "3"}, ["fd://N"]),
        ({"inherited": "systemd:"}, ["systemd:NAME"]),
        ({"inherited": "systemd:a:b"}, ["systemd:NAME"]),
        ({"inherited": "fd://3", "unix_socket": "x"}, ["a listener is one of them"]),
        ({"proxy_protocol": "v3"}, ["off or v1 or v2 or any"]),
        ({"proxy_protocol": "any"}, ["needs proxy_protocol_from"]),
        ({"proxy_protocol_from": ["unix:"]}, ["10.0.0.0/8", "unix"]),
        ({"mode": 1}, ["mode=1", "process or base"]),
        ({"close_timeout": float("nan")}, ["close_timeout=nan"]),
        ({"close_timeout": float("inf")}, ["close_timeout=inf"]),
        ({"close_timeout": 10**400}, ["close_timeout=inf"]),
        ({"port": 10**400}, ["0 to 65535"]),
        ({"close_timeout": "5"}, ["a number"]),
        ({"server_header": 1}, ["True or False"]),
        ({"host": ""}, ["empty"]),
        ({"watch": "chat.py"}, ["a list of texts: write watch=['chat.py']"]),
        ({"watch": Path("chat.py")}, ["a list of texts: write watch=['chat.py']"]),
        ({"max_message_size": "1MB"}, ["an integer, 1 to 1073741824 bytes"]),
        ({"watch": [1]}, ["a list of texts"]),
        ({"subprotocols": ["a b"]}, ["'a b'", "token"]),
        ({"subprotocols": ["a", "a"]}, ["twice"]),
        ({"allowed_origins": ["example.org"]}, ["not an origin"]),
        ({"allowed_origins": ["https://example.org/"]}, ["not an origin", "write 'https://example.org'"]),
        ({"allowed_origins": ["https://example.org/path"]}, ["not an origin", "write 'https://example.org'"]),
        ({"allowed_origins": ["https://Example.org"]}, ["not an origin", "write 'https://example.org'"]),
        ({"allowed_origins": ["file:///"]}, ["not an origin", "write 'file://'"]),
        ({"allowed_origins": ["file:"]}, ["not an origin", "file://"]),
        ({"allowed_origins": ["Null"]}, ["not an origin", '"null"']),
        ({"allowed_origins": ["https://a\n"]}, ["not an origin"]),
        ({"allowed_origins": ["ws://a", "https://b c"]}, ["'https://b c' is not an origin"]),
        ({"allowed_origins": ["https://u@example.org"]}, ["not an origin"]),
        ({"allowed_origins": ["https://example.org:port"]}, ["origin"]),
        ({"allowed_origins": ["https://example.org:65536"]}, ["not an origin"]),
        ({"allowed_origins": ["https://example.org:"]}, ["not an origin"]),
        ({"allowed_origins": ["https://exämple.org"]}, ["not an origin", "'https://xn--exmple-cua.org'"]),
        ({"allowed_origins": ["https://ex" + "ä" * 80]}, ["not an origin"]),
        # Python has the name of 2003 for it, "fass.de", which is somebody else's
        ({"allowed_origins": ["https://faß.de"]}, ["not an origin: write", "other alphabets as xn--..."]),
        ({"allowed_origins": ["https://[fe80::1%25eth0]"]}, ["not an origin"]),
        ({"allowed_origins": [""]}, ["not an origin"]),
        ({"trusted_proxies": ["10.0.0.1/8"]}, ["host bits"]),
        ({"trusted_proxies": ["proxy.example.org"]}, ["'proxy.example.org'", "10.0.0.0/8"]),
        ({"trusted_proxies": [""]}, ["network"]),
        ({"trusted_proxies": "10.0.0.0/8"}, ["a list of texts"]),
        ({"log_level": "loud"}, ["warning"]),
        ({"write_limit": 4095}, ["4096 to"]),
        ({"write_high_water": 8192, "write_limit": 4096}, ["write_high_water=8192", "write_limit=4096"]),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(options, words):
    message = refused(**options)
    for word in [*options][:1] + words:
        assert word in message


def test_a_path_is_a_text() -> None:
    made = Settings.from_options({"document_root": Path("public"), "watch": [Path("src")]})
    assert (made.http.document_root, made.process.watch) == ("public", ("src",))


@pytest.mark.parametrize(
    "origins",
    [
        ["*"],
        ["https://example.org", "http://localhost:8000"],
        ["http://[::1]:9501", "http://[::1]"],
        ["app://x", "app://.", "file://", "null", "http://", "wss://example.org:8443"],
    ],
)
def test_origins_that_are_allowed(origins):
    chosen = Settings.from_options({"allowed_origins": origins}).websocket.allowed_origins
    assert chosen == tuple(origins)
    Policy(allowed_origins=chosen)  # what is allowed here must be understood there


@given(st.from_regex(r"[a-z]{1,5}://[a-z0-9.\[\]:~_-]*/?") | st.text())
def test_an_origin_that_is_allowed_is_one_that_the_gateway_understands(origin):
    if problem_of(origin) is None:
        Policy(allowed_origins=(origin,))


@given(st.from_regex(r"[a-zA-Z]{1,5}://[a-zA-Z0-9.\[\]:~_-]*/?") | st.text())
def test_an_origin_has_one_form(origin):
    form = normal_origin(origin)
    assert form is None or (normal_origin(form) == form and problem_of(form) is None)


def test_values_are_brought_to_their_exact_type(tmp_path):
    settings = Settings.from_options({"close_timeout": 3, "watch": [tmp_path, "chat.py"]})
    assert type(settings.websocket.close_timeout) is float
    assert settings.process.watch == (str(tmp_path), "chat.py")


def test_sections_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().listen.port = 1  # type: ignore[misc]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "port": st.integers(0, 65535),
            "close_timeout": st.floats(0, 3600),
            "mode": st.sampled_from(["process", "base"]),
            "subprotocols": st.lists(st.from_regex(r"[a-z0-9.]+", fullmatch=True), unique=True, max_size=3),
            "server_header": st.booleans(),
        },
    )
)
def test_settings_survive_msgpack(options):
    settings = Settings.from_options(options)
    packed = msgspec.msgpack.encode(settings.to_dict())
    assert Settings.from_options(msgspec.msgpack.decode(packed)) == settings


def test_every_option_is_described():
    rows = list(describe())
    assert {row.name for row in rows} == set(HOME) == set(Settings().to_dict())
    for row in rows:
        assert row.section in SECTIONS
        assert row.doc.endswith(".")
        assert row.type
        assert row.default


def test_addresses_of_metrics():
    assert split_address("127.0.0.1:9600") == ("127.0.0.1", 9600)
    assert split_address("[::1]:0") == ("::1", 0)
    assert split_address("localhost:80") == ("localhost", 80)
    assert split_address("unix:/run/a:b") == ("/run/a:b", None)
    assert Settings.from_options({"metrics_listen": ""}).operation.metrics_listen == ""
