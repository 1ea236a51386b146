"""Inherited sockets: which one is meant, whether it can be used, and that all listeners are bound or none."""

import os
import socket

import pytest

from mooring.config.listen import Listen
from mooring.net.bind import bind_all
from mooring.net.inherited import adopt, find, systemd_sockets
from mooring.net.listener import ListenError

pytestmark = pytest.mark.usefixtures("descriptors")


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def passed_by_systemd(monkeypatch, count, names=None, pid=None):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
    monkeypatch.setenv("LISTEN_FDS", str(count))
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


def none_left():
    return not any(name.startswith("LISTEN_") for name in os.environ)


def test_what_systemd_passes(monkeypatch):
    passed_by_systemd(monkeypatch, 2, "web:admin")
    assert systemd_sockets() == [(3, "web"), (4, "admin")]
    assert none_left(), "a child must not think that they are its own"
    assert systemd_sockets() == []


def test_without_names(monkeypatch):
    passed_by_systemd(monkeypatch, 1)
    assert systemd_sockets() == [(3, "unknown")]  # as systemd itself would say


def test_those_of_another_process(monkeypatch):
    passed_by_systemd(monkeypatch, 1, "web", pid=1)
    assert systemd_sockets() == []
    assert none_left()


@pytest.mark.parametrize("count", ["", "x", "-1", "99999999999", "1025", "²"])
def test_a_number_that_is_none(monkeypatch, count):
    passed_by_systemd(monkeypatch, count)
    with pytest.raises(ListenError, match="LISTEN_FDS="):
        systemd_sockets()
    assert none_left()


def test_which_is_meant():
    passed = [(3, "web"), (4, "admin"), (5, "admin")]
    assert find("systemd:web", passed) == 3
    assert find("systemd", passed[:1]) == 3
    assert find("fd://17", []) == 17
    for wanted, given, words in [
        ("systemd", [], "no socket to this process"),
        ("systemd:web", [], "no socket to this process"),
        ("systemd", passed, "has passed 3 sockets; say which: systemd:NAME, with one of web, admin, admin"),
        ("systemd:other", passed, "none of that name, but web, admin, admin"),
        ("systemd:admin", passed, "2 of that name"),
    ]:
        with pytest.raises(ListenError) as caught:
            find(wanted, given)
        assert str(caught.value).startswith(f"cannot listen on {wanted}: ")
        assert words in str(caught.value)


def test_one_that_listens(listening):
    fd = os.dup(listening.fileno())
    with adopt(fd, f"fd://{fd}") as adopted:
        assert adopted.fileno() == fd
        assert not adopted.getblocking()
        assert not adopted.get_inheritable()
        assert adopted.getsockname() == listening.getsockname()


def unusable(kind):
    if kind == "a file":
        return os.open("/dev/null", os.O_RDONLY)
    if kind == "a datagram socket":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
    if kind == "a socket that does not listen":
        return socket.socket().detach()
    if kind == "a connection":
        one, other = socket.socketpair()
        other.close()
        return one.detach()
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    return fd


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nothing", "is not open"),
        ("a file", "is no socket"),
        ("a datagram socket", "is no TCP or Unix stream socket"),
        ("a socket that does not listen", "does not listen"),
        ("a connection", "does not listen"),
    ],
)
def test_what_is_none_is_left_open(kind, words):
    fd = unusable(kind)
    with pytest.raises(ListenError) as caught:
        adopt(fd, f"fd://{fd}")
    assert f"descriptor {fd} {words}" in str(caught.value)
    if kind != "nothing":
        os.close(fd)  # it still was


def test_all_or_none(tmp_path, listening):
    """The last one fails; the ones before are closed again and leave nothing behind."""
    port = listening.getsockname()[1]
    path = tmp_path / "x.sock"
    first = Listen(port=0), Listen(unix_socket=str(path))
    with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the port is in use"):
        bind_all([*first, Listen(port=port)])
    assert not path.exists()
    made = bind_all(first)
    assert path.exists()
    assert [listener.family for listener in made] == [socket.AF_INET, socket.AF_UNIX]
    for listener in made:
        listener.close()


def test_one_descriptor_is_one_listener(listening):
    fd = os.dup(listening.fileno())
    with pytest.raises(ListenError, match=f"descriptor {fd} is that of fd://{fd} already"):
        bind_all([Listen(inherited=f"fd://{fd}")] * 2)


def test_a_socket_that_nobody_uses_is_told(monkeypatch, caplog):
    passed_by_systemd(monkeypatch, 1, "web")
    for listener in bind_all([Listen(port=0)]):
        listener.close()
    assert "systemd has passed the socket 'web', and no listener uses it" in caplog.text
    assert none_left()


def test_reuse_port_is_asked_for_by_both():
    made = bind_all([Listen(port=0, reuse_port=True)])
    port = made[0].getsockname()[1]
    made += bind_all([Listen(port=port, reuse_port=True)])
    try:
        with pytest.raises(ListenError, match="in use"):
            bind_all([Listen(port=port)])
    finally:
        for listener in made:
            listener.close()
    made = bind_all([Listen(port=0)])
    try:
        with pytest.raises(ListenError, match="in use"):
            bind_all([Listen(port=made[0].getsockname()[1], reuse_port=True)])
    finally:
        made[0].close()


def test_ipv6_only_leaves_the_port_to_ipv4():
    made = bind_all([Listen(host="::", port=0, ipv6_only=True)])
    port = made[0].getsockname()[1]
    made += bind_all([Listen(host="0.0.0.0", port=port)])
    assert made[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    for listener in made:
        listener.close()
