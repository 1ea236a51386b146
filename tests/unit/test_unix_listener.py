"""Unix listeners: their permissions, what may be replaced, and what is taken away at the end."""

import errno
import fcntl
import os
import socket
import stat
import threading

import pytest

from mooring.net import guard, unix
from mooring.net.listener import ListenError, address_text
from mooring.net.unix import bind_unix

pytestmark = pytest.mark.usefixtures("descriptors")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.sock")


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def reaches(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        return client.connect_ex(path) == 0


def refused(path, **options):
    before = os.listdir(os.path.dirname(path)) if os.path.isdir(os.path.dirname(path)) else []
    with pytest.raises(ListenError) as caught:
        bind_unix(path, **options)
    assert caught.value.__cause__ is None
    if before:
        assert os.listdir(os.path.dirname(path)) == before, "nothing was left behind, and nothing removed"
    assert str(caught.value).startswith(f"cannot listen on unix:{path}: ")
    return caught.value


def leave_behind(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)


def test_it_listens_and_goes_with_its_file(path):
    with bind_unix(path) as listener:
        assert listener.getsockname() == path
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        assert reaches(path)
        assert os.listdir(os.path.dirname(path)) == ["x.sock"]
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0])
@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_its_mode_is_the_one_asked_for(path, mode, umask):
    before = os.umask(umask)
    try:
        listener = bind_unix(path, mode)
    finally:
        os.umask(before)
    with listener:
        assert mode_of(path) == mode


def test_f20_it_is_never_wider_than_asked(path, monkeypatch):
    """At each step: either it is not in its place yet, in a directory of mode 0700, or it has its mode."""
    seen = []

    def look(*_, **__):
        folder = os.path.dirname(path)
        for name in os.listdir(folder):
            found = os.lstat(os.path.join(folder, name))
            seen.append(name[:9])
            assert stat.S_IMODE(found.st_mode) == (0o700 if stat.S_ISDIR(found.st_mode) else 0o600)

    for module, name in [(os, "chmod"), (os, "chown"), (os, "link"), (socket.socket, "listen"), (os, "unlink")]:
        real = getattr(module, name)

        def step(*args, real=real, **kwargs):
            look()
            result = real(*args, **kwargs)
            look()
            return result

        monkeypatch.setattr(module, name, step)
    before = os.umask(0)
    try:
        with bind_unix(path, 0o600, f"{os.getuid()}:{os.getgid()}"):
            assert mode_of(path) == 0o600
    finally:
        os.umask(before)
    assert {".mooring-", "x.sock"} <= set(seen)


def test_its_owner(path):
    with bind_unix(path, 0o660, f"{os.getuid()}:{os.getgid()}"):
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    if os.getuid() == 0:
        with bind_unix(path, owner="nobody"):
            assert os.lstat(path).st_uid != 0
        with bind_unix(path, owner=":12345"):
            assert (os.lstat(path).st_uid, os.lstat(path).st_gid) == (0, 12345)


@pytest.mark.parametrize("owner", ["no such user", ":no such group", "a:b:c", "9" * 30])
def test_an_owner_that_is_none(path, owner):
    assert "unix_socket_owner=" in str(refused(path, owner=owner))


def test_an_owner_that_may_not_be_given(path, monkeypatch):
    def chown(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", chown)
    assert "no permission to give the socket to '0:0'" in str(refused(path, owner="0:0"))
    assert os.listdir(os.path.dirname(path)) == []


def test_f20_what_a_dead_server_has_left_is_replaced(path):
    leave_behind(path)
    os.chmod(path, 0o777)
    with bind_unix(path):
        assert reaches(path)
        assert mode_of(path) == 0o600
        assert os.listdir(os.path.dirname(path)) == ["x.sock"]


@pytest.mark.parametrize("backlog", [1, 5])
def test_f20_a_live_server_is_left_alone(path, backlog):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(backlog)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(backlog + 1)]
        try:
            for client in clients:  # with a queue that is full it lives, too
                client.setblocking(False)
                client.connect_ex(path)
            error = refused(path)
        finally:
            for client in clients:
                client.close()
        assert error.errno == errno.EADDRINUSE
        assert "another server listens there" in str(error)
        assert os.path.exists(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "link to a dead socket", "datagram"])
def test_f20_what_is_foreign_is_left_alone(path, tmp_path, kind):
    if kind == "file":
        open(path, "w").close()
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "link":
        os.symlink("/etc/hostname", path)
    elif kind == "dangling link":
        os.symlink("nowhere", path)
    elif kind == "link to a dead socket":
        leave_behind(str(tmp_path / "other"))
        os.symlink(tmp_path / "other", path)
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(path)
            assert "does not tell" in str(refused(path))
        return
    assert "something that is no socket is there, and is left alone" in str(refused(path))


def test_one_that_came_meanwhile_is_left_alone(path, monkeypatch):
    """Somebody without our lock is faster."""
    link = os.link

    def late(*args, **kwargs):
        open(path, "w").close()
        return link(*args, **kwargs)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ListenError, match="something has appeared there meanwhile"):
        bind_unix(path)
    assert os.listdir(os.path.dirname(path)) == ["x.sock"]
    assert os.path.isfile(path)


def test_a_stale_one_that_is_another_by_now_is_left_alone(path, monkeypatch):
    leave_behind(path)
    probed = unix._left_behind

    def slow(*args):
        found = probed(*args)
        os.unlink(path)
        open(path, "w").close()
        return found

    monkeypatch.setattr(unix, "_left_behind", slow)
    with pytest.raises(ListenError, match="meanwhile"):
        bind_unix(path)
    assert os.path.isfile(path)


def test_of_two_that_start_together_one_wins(path):
    """Both find the same stale socket. However they interleave, one listens at the path, and the other says why not."""
    leave_behind(path)
    made, failed = [], []
    gate = threading.Barrier(4)

    def start():
        gate.wait(10)
        try:
            made.append(bind_unix(path))
        except ListenError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    try:
        assert len(made) == 1
        assert len(failed) == 3
        assert all("another server listens there" in error for error in failed)
        assert reaches(path)
    finally:
        for listener in made:
            listener.close()
    assert os.listdir(os.path.dirname(path)) == []


def test_a_lock_that_is_not_given_back(path, monkeypatch):
    monkeypatch.setattr(guard, "LIMIT", 0.1)
    with guard.guard(path):
        assert "another server that starts keeps" in str(refused(path))
    with bind_unix(path):
        pass


def test_a_lock_of_who_may_only_read_means_nothing(path):
    """flock(2) asks for no permission to write: any user may have the folder locked."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with bind_unix(path):
            assert reaches(path)
    finally:
        os.close(folder)


def test_at_the_end_only_its_own_file_is_removed(path):
    first = bind_unix(path)
    os.unlink(path)
    with bind_unix(path):
        first.close()
        assert reaches(path), "that of the successor"
    assert not os.path.exists(path)
    with bind_unix(path):
        os.chmod(path, 0o666)  # an administrator may; it is the same file
    assert not os.path.exists(path)
    listener = bind_unix(path)
    os.rename(path, path + "2")
    open(path, "w").close()
    listener.close()
    assert os.path.isfile(path)


def test_a_child_does_not_remove_it(path):
    with bind_unix(path) as listener:
        pid = os.fork()
        if not pid:
            listener.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert reaches(path)


def test_a_folder_that_is_not_there(path):
    assert "there is no directory" in str(refused(path + "/deeper/x.sock"))
    open(path, "w").close()
    assert "is no directory" in str(refused(path + "/x.sock"))


def test_a_folder_without_permission(path, monkeypatch):
    def mkdir(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert "no permission to make files in" in str(refused(path))


def test_a_path_that_is_too_long(tmp_path):
    longest = str(tmp_path) + "/" + "x" * (106 - len(str(tmp_path)))
    assert len(longest) == 107
    with bind_unix(longest):
        assert reaches(longest)
    assert "at most 107 bytes" in str(refused(longest + "x"))


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with bind_unix("y.sock") as listener:
        assert listener.getsockname() == str(tmp_path / "y.sock")
        monkeypatch.chdir("/")
    assert not (tmp_path / "y.sock").exists()


def test_its_text(path):
    with bind_unix(path) as listener:
        assert address_text(listener.getsockname()) == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0mooring-test-\udcff")
        assert address_text(abstract.getsockname()).startswith("unix:@mooring-test-")
