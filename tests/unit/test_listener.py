"""Listeners: what they accept, how they are set, and what is said when an address can't be had."""

import errno
import os
import socket

import pytest

from mooring.errors import MooringError
from mooring.net.listener import ListenError, address_text, bind_listener

pytestmark = pytest.mark.usefixtures("descriptors")


def ipv6_works():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6_works(), reason="this machine has no IPv6")


def reaches(listener, host, family=socket.AF_INET):
    """Whether a client at that address gets through to the listener."""
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect((host, listener.getsockname()[1]))
        except OSError:
            return False
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"hello")
            return client.recv(5) == b"hello"


def refused(host, port):
    with pytest.raises(ListenError) as caught:
        bind_listener(host, port)
    assert caught.value.__cause__ is None
    return caught.value


def test_it_listens_and_is_inherited_and_does_not_block():
    with bind_listener("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0, "the kernel chose a port"
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert reaches(listener, "127.0.0.1")


def test_every_ipv4_address():
    with bind_listener("0.0.0.0", 0) as listener:
        assert reaches(listener, "127.0.0.1")
        assert reaches(listener, "127.0.0.2")


def test_one_address_is_one_address():
    with bind_listener("127.0.0.2", 0) as listener:
        assert not reaches(listener, "127.0.0.1")


def test_a_name():
    with bind_listener("localhost", 0) as listener:
        host, *_ = listener.getsockname()
        assert reaches(listener, host, listener.family)


@needs_ipv6
def test_every_address_of_both_families():
    with bind_listener("::", 0) as listener:
        assert reaches(listener, "::1", socket.AF_INET6)
        assert reaches(listener, "127.0.0.1")


@needs_ipv6
def test_an_ipv6_address_is_not_an_ipv4_address_too():
    with bind_listener("::1", 0) as listener:
        assert reaches(listener, "::1", socket.AF_INET6)
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        # The same port is free for the other family.
        with bind_listener("127.0.0.1", listener.getsockname()[1]):
            pass


def test_the_port_of_a_server_that_has_just_ended_can_be_had_again():
    """Its side closed first, so its address is in TIME_WAIT; without SO_REUSEADDR that is EADDRINUSE."""
    listener = bind_listener("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        server, _ = listener.accept()
        server.close()
        listener.close()
        assert client.recv(1) == b""
    with bind_listener("127.0.0.1", port) as again:
        assert reaches(again, "127.0.0.1")


def test_the_backlog_is_handed_on():
    """With a queue of 1 (the kernel lets one more in) the clients behind it are left waiting."""
    with bind_listener("127.0.0.1", 0, backlog=1) as listener:
        clients = []
        try:
            for _ in range(4):
                client = socket.socket()
                clients.append(client)
                client.settimeout(0.2)
                try:
                    client.connect(listener.getsockname())
                except TimeoutError:
                    break
            assert len(clients) == 3
        finally:
            for client in clients:
                client.close()


def test_a_port_in_use_is_named_with_its_holder():
    with bind_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        error = refused("127.0.0.1", port)
    assert error.errno == errno.EADDRINUSE
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in str(error)
    assert f"(pid {os.getpid()})" in str(error)
    assert isinstance(error, MooringError)


def test_an_address_of_another_machine():
    error = refused("192.0.2.1", 0)  # RFC 5737: nobody's
    assert error.errno == errno.EADDRNOTAVAIL
    assert "this machine has no such address" in str(error)


@pytest.mark.parametrize("host", ["no such name", "a" * 300, "127.0.0.1.5", "\x00", "é" * 70])
def test_a_host_that_is_none(host):
    error = refused(host, 0)
    assert error.errno == 0
    assert "neither an IP address nor a name that resolves" in str(error)


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_a_port_that_is_none(port):
    assert "a port is a number from 0 to 65535" in str(refused("127.0.0.1", port))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "no permission; choose a port from 1024 up"),
        (errno.EPERM, "CAP_NET_BIND_SERVICE"),
        (errno.EAFNOSUPPORT, "does not speak that address family"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_what_the_system_refuses_is_explained(monkeypatch, number, words):
    def bind(self, address):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", bind)
    error = refused("127.0.0.1", 80)
    assert error.errno == number
    assert words in str(error)
    assert str(error).startswith("cannot listen on 127.0.0.1:80: ")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1%eth0]:80"),
        (("localhost", 0), "localhost:0"),
    ],
)
def test_address_text(address, text):
    assert address_text(address) == text
