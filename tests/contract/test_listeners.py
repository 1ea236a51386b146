"""Where a server listens: Unix sockets, inherited ones, those of systemd; and starts that can't have their address."""

import collections
import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect, unix_connect

from contract.clients import dial, gateways_of
from contract.modes import only
from mooring.net.holder import program
from support.serving import LIMIT, PREAMBLE, Serving, eventually

ECHO = """
@server.on("message")
def said(server, frame):
    info = server.get_client_info(frame.fd)
    environment = sorted(name for name in os.environ if name.startswith("LISTEN_"))
    server.push(frame.fd, json.dumps([frame.data, info.remote_ip, info.server_port, environment]))

@server.on("request")
def page(request, response):
    response.end(json.dumps([request.remote_ip, request.server_port]))
"""


def echoed(ws: Any, text: str = "hello") -> list[Any]:
    with ws:
        ws.send(text)
        answer: list[Any] = json.loads(ws.recv(LIMIT))
        assert answer.pop(0) == text
        return answer


def failed(server: Serving, code: int = 1) -> str:
    """The one line that says why a start came to nothing."""
    assert server.ended() == code
    assert "Traceback" not in "\n".join(server.lines)
    [line] = [line for line in server.lines if " ERROR " in line]
    return line


# ---------------------------------------------------------------------------------------------- IPv6


@only("base", "process")
@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        ({"host": "::"}, {"[::1]": "::1", "127.0.0.1": "127.0.0.1"}),
        ({"host": "::", "ipv6_only": True}, {"[::1]": "::1", "127.0.0.1": None}),
        ({"host": "::1"}, {"[::1]": "::1", "127.0.0.1": None}),
    ],
    ids=["both", "ipv6_only", "one address"],
)
def test_ipv6(mode: dict[str, Any], options: dict[str, Any], addresses: dict[str, str | None]):
    """An IPv4 client of a socket for both has an IPv4 address."""
    app = f"server.set(**{options!r})\n" + ECHO
    with Serving(app, **mode) as server:
        port = int(server.wait_log(r"listening on \[\S+\]:(\d+)")[1])
        for host, seen in addresses.items():
            if seen is None:
                with socket.socket() as client:
                    assert client.connect_ex((host, port)) != 0
            else:
                assert echoed(connect(f"ws://{host}:{port}/", proxy=None)) == [seen, port, []]
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------- Unix sockets


def test_f20_a_unix_socket(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "x.sock"
    options = {"unix_socket": str(path), "unix_socket_mode": 0o660}
    with Serving(ECHO, **options, **mode) as server:
        server.wait_log(f"listening on unix:{path}$")
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        assert echoed(unix_connect(str(path), "ws://localhost/")) == ["", 0, []]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").read().endswith(b'["", 0]')
        with Serving(ECHO, ready=False, **options, **mode) as second:
            assert f"another server listens there, {program(server.pid)}" in failed(second, errno.EADDRINUSE)
        assert echoed(unix_connect(str(path), "ws://localhost/")) == ["", 0, []]
        assert server.stop() == 0
    assert not path.exists()


@only("base", "process")
def test_f20_a_unix_socket_of_a_server_that_was_killed(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "x.sock"
    with Serving(ECHO, unix_socket=str(path), **mode) as server:
        children = server.pids()
        os.kill(server.pid, 9)
        server.ended()
        assert path.exists()
        eventually(lambda: not any(Path(f"/proc/{pid}/root").exists() for pid in children))
    with Serving(ECHO, unix_socket=str(path), **mode) as server:
        assert echoed(unix_connect(str(path), "ws://localhost/")) == ["", 0, []]
        assert server.stop() == 0
    assert not path.exists()


@only("base", "process")
def test_a_start_that_fails_leaves_no_unix_socket(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "x.sock"
    app = '@server.on("worker_start")\ndef up(server, worker_id):\n    raise RuntimeError("on purpose")\n'
    with Serving(app + ECHO, ready=False, unix_socket=str(path), **mode) as server:
        assert server.ended() == 1
    assert not path.exists()


# ---------------------------------------------------------------------------------------------- inherited ones

PASS = """
import json, os, sys
fds, names, argv = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
for n, fd in enumerate(fds):
    os.dup2(fd, 3 + n, inheritable=True)
if names:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
os.execv(sys.executable, [sys.executable, *argv])
"""


@contextlib.contextmanager
def activated(folder: Path, sockets: list[socket.socket], names: str = "", **settings: Any) -> Iterator[Serving]:
    """A server that is started with these sockets as its descriptors from 3 on, as systemd does it."""
    (folder / "app.py").write_text(PREAMBLE + ECHO + "server.start()\n")
    fds = [fcntl.fcntl(one, fcntl.F_DUPFD, 100) for one in sockets]
    try:
        argv = (sys.executable, "-c", PASS, json.dumps(fds), names, str(folder / "app.py"))
        with Serving(Path("unused"), argv=argv, pass_fds=tuple(fds), ready=False, **settings) as server:
            yield server
    finally:
        for fd in fds:
            os.close(fd)


def test_systemd(mode: dict[str, Any], tmp_path: Path):
    """The socket of that name is used, no child finds LISTEN_* in its environment, and what is not used is told."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port = two.getsockname()[1]
        with activated(tmp_path, [one, two], "admin:web", inherited="systemd:web", **mode) as server:
            server.wait_log(r"\bready\b")
            server.wait_log("systemd has passed the socket 'admin', and no listener uses it")
            assert server.port == port
            assert echoed(connect(server.url, proxy=None)) == ["127.0.0.1", port, []]
            assert server.stop() == 0
        with pytest.raises(BlockingIOError):
            two.accept()
        assert two.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "it is systemd's, and listens on"


@only("base", "process")
def test_a_unix_socket_of_systemd(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        with activated(tmp_path, [one], "web", inherited="systemd", **mode) as server:
            server.wait_log(rf"listening on unix:{path}$")
            server.wait_log(r"\bready\b")
            assert echoed(unix_connect(str(path), "ws://localhost/")) == ["", 0, []]
            assert server.stop() == 0
    assert path.exists(), "who made it removes it"


@only("base", "process")
def test_a_descriptor(mode: dict[str, Any], tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as one:
        with activated(tmp_path, [one], inherited="fd://3", **mode) as server:
            server.wait_log(r"\bready\b")
            assert echoed(connect(server.url, proxy=None)) == ["127.0.0.1", one.getsockname()[1], []]
            assert server.stop() == 0


@only("base", "process")
@pytest.mark.parametrize(
    ("inherited", "words"),
    [
        ("fd://3", "descriptor 3 is no TCP or Unix stream socket"),
        ("fd://77", "descriptor 77 is not open"),
        ("systemd:web", "none of that name, but admin"),
    ],
)
def test_a_descriptor_that_is_none(mode: dict[str, Any], tmp_path: Path, inherited: str, words: str):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with activated(tmp_path, [one], "admin", inherited=inherited, **mode) as server:
            assert words in failed(server)


@only("base-2", "process-2")
async def test_new_clients_are_spread_over_those_who_accept(server: Serving, mode: dict[str, Any]):
    """Also when they come so slowly that one process could take them all: their connections stay."""
    async with contextlib.AsyncExitStack() as stack:
        found = collections.Counter([(await stack.enter_async_context(dial(server))).gateway for _ in range(40)])
    assert min(found[number] for number in range(gateways_of(mode))) >= 10, found
