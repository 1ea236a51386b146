"""Those that start at the same time take turns, and nobody else's file keeps them from it."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from mooring.net import guard as module
from mooring.net.guard import GuardError, guard, is_at, owner_of

pytestmark = pytest.mark.usefixtures("descriptors")


def test_the_file_is_there_for_its_owner_alone_and_gone_afterwards(tmp_path: Path):
    path = str(tmp_path / "server.pid")
    own = tmp_path / ".server.pid.lock"
    with guard(path):
        assert own.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []


def test_it_is_given_back_when_what_is_done_meanwhile_fails(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), guard(str(tmp_path / "a")):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LIMIT", 0.05)
    with guard(str(tmp_path / "a")), guard(str(tmp_path / "b")):
        with pytest.raises(GuardError, match="another server that starts keeps"), guard(str(tmp_path / "a")):
            raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_it_when_it_is_given_back(tmp_path: Path):
    order: list[str] = []

    def start() -> None:
        with guard(str(tmp_path / "a")):
            order.append("second")

    with guard(str(tmp_path / "a")):
        other = threading.Thread(target=start)
        other.start()
        order.append("first")
    other.join(20)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_too_long_hears_of_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LIMIT", 0.05)
    own = tmp_path / ".a.lock"
    with own.open("w") as held:
        own.chmod(0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(GuardError, match=r"another server that starts keeps .*/.a.lock locked; try again"):
            with guard(str(tmp_path / "a")):
                raise AssertionError
    assert own.exists()


@pytest.mark.parametrize("what", ["folder", "pipe", "link"])
def test_what_is_no_file_is_left_alone_and_named(tmp_path: Path, what: str):
    own = tmp_path / ".a.lock"
    match what:
        case "folder":
            own.mkdir()
        case "pipe":
            os.mkfifo(own)
        case _:
            own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GuardError, match=f"is in the way, a file of user {owner_of(own.lstat())}; have it removed"):
        with guard(str(tmp_path / "a")):
            raise AssertionError
    assert own.is_symlink() or own.exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_was_left_behind_keeps_nobody(tmp_path: Path):
    (tmp_path / ".a.lock").touch(0o600)
    with guard(str(tmp_path / "a")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_the_systems_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        with guard(str(tmp_path / "none" / "a")):
            raise AssertionError


def test_which_file_stands_at_a_path(tmp_path: Path):
    path = tmp_path / "a"
    path.touch()
    with path.open() as file:
        assert is_at(file.fileno(), str(path))
        path.unlink()
        assert not is_at(file.fileno(), str(path))
        path.touch()
        assert not is_at(file.fileno(), str(path))
