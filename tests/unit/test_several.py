"""Settings and handlers of further listeners: what they have of their own, what they have of the server."""

import re

import msgspec
import pytest

from mooring import ConfigError, Listener, Server
from mooring.app.handlers import CONNECTION_EVENTS
from mooring.config import HOME, SERVER_WIDE, Settings
from support.serving import ROOT


def noop(*_):
    """Any handler."""


def test_what_a_listener_does_not_say_is_as_with_the_server():
    server = Server("0.0.0.0", 1, max_message_size=5, body_limit=6, backlog=7, ipv6_only=True, unix_socket="/x")
    server.listen("127.0.0.2", 2, body_limit=60)
    server.listen(unix_socket="/y")
    server.set(max_message_size=50, worker_num=2)  # later, as the command line does
    own, tcp, local = server.settings.per_listener
    assert own is server.settings
    assert (tcp.listen.host, tcp.listen.port, tcp.listen.backlog, tcp.listen.ipv6_only) == ("127.0.0.2", 2, 2048, False)
    assert (tcp.listen.unix_socket, local.listen.unix_socket) == ("", "/y")
    assert [one.http.body_limit for one in (own, tcp, local)] == [6, 60, 6]
    assert [one.websocket.max_message_size for one in (own, tcp, local)] == [50, 50, 50]


def test_they_travel_with_the_settings():
    server = Server(worker_num=2)
    server.listen(port=2, subprotocols=["a"])
    server.listen(inherited="systemd:b", unix_socket_mode=0o660)
    packed = msgspec.msgpack.encode(server.settings.to_dict())
    assert Settings.from_options(msgspec.msgpack.decode(packed)) == server.settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 2, "worker_num": 2}, "worker_num is an option of the whole server"),
        ({"port": 2, "max_topics": 2}, "max_topics is an option of the whole server"),
        ({"port": 2, "listeners": []}, "listeners is an option of the whole server"),
        ({"port": 2, "body_limt": 2}, "did you mean 'body_limit'"),
        ({"port": 65536}, "port=65536"),
        ({"port": 2, "write_high_water": 1 << 21}, "must not be above write_limit"),
        ({}, "listen() needs a port, a unix_socket or an inherited socket"),
        ({"host": "::"}, "listen() needs a port"),
        ({"unix_socket": "/x", "inherited": "systemd"}, "a listener is one of them"),
    ],
)
def test_a_listener_that_cannot_be_meant(options, words):
    server = Server()
    with pytest.raises(ConfigError) as caught:
        server.listen(**options)
    assert words in str(caught.value)
    assert server._listeners == []
    assert server.settings.listeners == ()


def test_listeners_are_no_option():
    with pytest.raises(ConfigError, match=r"call listen\(\)"):
        Server(listeners=[{"port": 1}])


def test_a_setting_that_a_listener_forbids_is_not_taken():
    server = Server()
    server.listen(port=2, write_limit=1 << 17)
    with pytest.raises(ConfigError, match="must not be above write_limit"):
        server.set(write_high_water=1 << 18)
    assert server.settings == Server().settings.__class__.from_options(server.settings.to_dict())
    assert server.settings.flow.write_high_water == 65536


def test_what_is_server_wide_exists():
    assert set(HOME) >= SERVER_WIDE


def test_the_manual_lists_what_is_server_wide():
    text = (ROOT / "docs" / "listeners.md").read_text()
    listed = re.search(r"refuses settings of the whole\s+server: (.*?)\.\n", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == SERVER_WIDE


def test_the_manual_lists_what_listeners_have_handlers_for():
    text = (ROOT / "docs" / "listeners.md").read_text()
    listed = re.search(r"takes the events of a connection: (.*?)\. For", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == CONNECTION_EVENTS


def test_handlers_of_a_listener():
    server = Server()
    listener = server.listen(port=2)
    assert isinstance(listener, Listener)
    assert listener.number == 1

    @server.on("message")
    def one(server, frame):
        """The server's."""

    @server.on("open")
    async def opened(server, request):
        """The server's."""

    assert listener._handlers.get("message") is one, "registered after listen()"
    assert listener._handlers.get("close") is None

    @listener.on("open")
    def two(server, request):
        """The listener's."""

    assert listener.on("message", noop) is noop
    assert (listener._handlers.get("open"), server._handlers.get("open")) == (two, opened)
    assert server._handlers.get("message") is one


@pytest.mark.parametrize("event", ["start", "worker_start", "shutdown"])
def test_events_of_the_server_are_not_those_of_a_listener(event):
    with pytest.raises(ConfigError, match="an event of the whole server"):
        Server().listen(port=2).on(event, noop)


def test_a_handler_of_a_listener_is_looked_at_when_it_is_registered():
    listener = Server().listen(port=2)
    with pytest.raises(ConfigError, match="did you mean 'message'"):
        listener.on("mesage", noop)
    with pytest.raises(ConfigError, match=r"message\(server, frame\)"):
        listener.on("message", lambda frame: None)
