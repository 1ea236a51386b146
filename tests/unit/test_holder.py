"""Who has an address: sockets of this process and of a child, of both families."""

import os
import socket
import subprocess
import sys

import pytest

from mooring.net import holder
from mooring.net.holder import holder_of, program
from mooring.net.listener import ListenError, bind_listener


def me() -> str:
    """As it is called now; where tests run side by side it is renamed for each of them."""
    return program(os.getpid())


@pytest.mark.parametrize(
    ("has", "wants", "named"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.1", "::", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("::1", "0.0.0.0", False),
    ],
)
def test_addresses(has: str, wants: str, named: bool) -> None:
    family = socket.AF_INET6 if ":" in has else socket.AF_INET
    with socket.create_server((has, 0), family=family) as taken:
        found = holder_of(wants, taken.getsockname()[1])
        # on the other address a neighbour may have the same port
        assert found == me() if named else found != me()


def test_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert holder_of("127.0.0.1", port) == ""


def test_another_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[taken.fileno()])
    try:
        assert holder_of("127.0.0.1", port) == f"cat (pid {child.pid})"
        with pytest.raises(ListenError, match=rf"in use by cat \(pid {child.pid}\); stop that process") as caught:
            bind_listener("127.0.0.1", port)
        assert caught.value.exit_code == 98
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait(20)


def test_a_connection_that_is_in_the_way() -> None:
    """It does not listen, and holds the port all the same."""
    with socket.create_server(("127.0.0.1", 0)) as far, socket.create_connection(far.getsockname()) as near:
        port = near.getsockname()[1]
        with pytest.raises(ListenError, match="in use by ") as caught:
            bind_listener("127.0.0.1", port)
        assert me() in str(caught.value)


def test_looking_takes_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "LIMIT", -1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert holder_of("127.0.0.1", taken.getsockname()[1]) == ""
        with pytest.raises(ListenError, match=r"`ss -ltnp"):
            bind_listener("127.0.0.1", taken.getsockname()[1])


def test_one_that_is_gone() -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, timeout=20)
    assert program(int(child.stdout)) == f"pid {int(child.stdout)}"


def test_exit_codes() -> None:
    assert [ListenError("", number).exit_code for number in (98, 13, 1, 99, 2, 0)] == [98, 13, 13, 1, 1, 1]
