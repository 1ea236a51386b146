"""The watcher follows paths, whatever is at them, and what the server writes is no change."""

import contextlib
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mooring.supervisor.watcher import Watcher
from support.serving import LIMIT, eventually

QUIET = 0.4  # seconds: some looks


@pytest.fixture(autouse=True)
def quicker(monkeypatch):
    monkeypatch.setattr("mooring.supervisor.watcher.PERIOD", 50)


@contextlib.contextmanager
def watching(*paths, own=()):
    watcher = Watcher(paths, [str(path) for path in own])
    try:
        yield watcher
    finally:
        watcher.close()


def changed(watcher):
    """What is told until nothing more is, as paths."""
    assert select.select([watcher.fileno()], [], [], LIMIT)[0], "nothing was noticed"
    found = set()
    while select.select([watcher.fileno()], [], [], QUIET)[0]:
        found.update(watcher.take())
    return {Path(path) for path in found}


def armed(watcher, folder):
    """Until what is in a watched folder is noticed: the thread may not have begun."""
    probe = folder / "probe"

    def noticed():
        probe.write_text(str(os.urandom(4)))
        return select.select([watcher.fileno()], [], [], 0.5)[0]

    eventually(noticed)
    changed(watcher)


def save_by_renaming(path, text):
    """As vim and others do."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


def save_with_backup(path, text):
    """As vim does with `backupcopy=no`: the old one is renamed away, and a new one is written."""
    path.rename(path.with_name(f"{path.name}~"))
    path.write_text(text)


def save_in_place(path, text):
    path.write_text(text)


def delete_and_create(path, text):
    path.unlink()
    path.write_text(text)


def replace_the_folder(path, text):
    old, new = path.parent.with_name("old"), path.parent.with_name("new")
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(path.parent, new)
    (new / path.name).write_text(text)
    path.parent.rename(old)
    new.rename(path.parent)


SAVES = [save_by_renaming, save_with_backup, save_in_place, delete_and_create, replace_the_folder]


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_a_single_file_is_seen_however_it_is_saved_and_each_time(tmp_path, monkeypatch, relative):
    path = tmp_path / "config" / "settings.py"
    path.parent.mkdir()
    path.write_text("0")
    monkeypatch.chdir(tmp_path)
    with watching(path.relative_to(tmp_path) if relative else path) as watcher:
        monkeypatch.chdir("/")
        for number, save in enumerate([*SAVES, save_by_renaming, save_by_renaming], 1):
            save(path, str(number))
            assert changed(watcher) == {path}, save
        path.unlink()
        assert changed(watcher) == {path}
        path.write_text("back")
        assert changed(watcher) == {path}


@pytest.mark.parametrize("what", ["a file", "a folder"])
def test_where_a_link_leads_is_watched(tmp_path, what):
    """As Kubernetes swaps a ConfigMap: `..data` is replaced by renaming another link over it."""
    for version in ("one", "two", "three"):
        (tmp_path / "config" / version).mkdir(parents=True)
        (tmp_path / "config" / version / "app.yaml").write_text(version)
    data = tmp_path / "config" / "..data"
    data.symlink_to("one")
    (tmp_path / "config" / "app.yaml").symlink_to("..data/app.yaml")
    watched = tmp_path / "config" / "app.yaml" if what == "a file" else data
    with watching(watched) as watcher:
        for version in ("two", "three", "two"):
            new = tmp_path / "config" / "new"
            new.symlink_to(version)
            new.rename(data)
            assert watched in changed(watcher)
            (tmp_path / "config" / version / "app.yaml").write_text("edited")
            assert changed(watcher)


@pytest.mark.parametrize("save", [save_by_renaming, delete_and_create, replace_the_folder])
def test_a_folder_is_followed_however_often_it_is_replaced(tmp_path, save):
    folder = tmp_path / "code"
    folder.mkdir()
    path = folder / "app.py"
    path.write_text("0")
    with watching(folder) as watcher:
        armed(watcher, folder)
        for number in range(2):
            save(path, str(number))
            assert changed(watcher) & {folder, path}, number
        shutil.rmtree(folder)
        assert changed(watcher)
        folder.mkdir()
        assert folder in changed(watcher)
        path.write_text("new")
        assert path in changed(watcher)
        (folder / "package").mkdir()
        changed(watcher)
        (folder / "package" / "module.py").write_text("")
        assert changed(watcher) == {folder / "package" / "module.py"}


def test_a_link_in_a_folder_is_followed_to_where_it_leads_now(tmp_path):
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "current").symlink_to("../one")
    with watching(folder) as watcher:
        armed(watcher, folder)
        (folder / "new").symlink_to("../two")
        (folder / "new").rename(folder / "current")
        assert folder / "current" in changed(watcher)
        (tmp_path / "two" / "app.py").write_text("")
        assert changed(watcher)


def test_what_the_server_writes_is_no_change(tmp_path, monkeypatch):
    """Also rotated, by a link, by a relative path, or what its output goes to; but nothing that only looks like it."""
    logs = tmp_path / "logs"
    logs.mkdir()
    real = tmp_path / "day.log"
    real.touch()
    (tmp_path / "current.log").symlink_to(real)
    (tmp_path / "by-link").symlink_to("logs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    own = ["chat", tmp_path / "by-link" / "access.log", "run.pid", "control", "current.log", "shared"]
    with watching(".", own=own) as watcher, open("out.txt", "w") as output:
        armed(watcher, tmp_path)
        before = os.dup(1)
        os.dup2(output.fileno(), 1)
        try:
            os.write(1, b"printed\n")
            for name in ("chat", "chat.1", "chat.2.gz", "chat-20261130", "chat.old", "chat-2026-11-30.zst"):
                (tmp_path / name).write_text("line")
            for name in ("access.log", "access.log.1"):
                (logs / name).write_text("line")
            real.write_text("line")
            for name in ("run.pid", "control", ".mooring-1a2b", "tmpabcd_123", "#1234"):
                (tmp_path / name).write_text("x")
            (tmp_path / "run.pid").unlink()
            for folder in ("__pycache__", "cache", "shared"):
                (tmp_path / folder).mkdir(exist_ok=True)  # an import may have made `cache`
                (tmp_path / folder / "app.cpython-311.pyc").write_text("x")
            (tmp_path / "shared" / "data.mdb").write_text("x")
            assert not select.select([watcher.fileno()], [], [], 2 * QUIET)[0], watcher.take()
        finally:
            os.dup2(before, 1)
            os.close(before)
        for name in ("chat.py", "chat.1.py", "access.log", "temporary.py"):
            (tmp_path / name).write_text("x")
            assert changed(watcher) == {tmp_path / name}


WRITES = """
import os, sys
log = open("app.log", "w+")
if len(sys.argv) > 1:
    if os.fork():
        os.wait()  # what is written by a child of a child counts, too
        sys.exit()
print("open", flush=True)
for line in sys.stdin:
    log.write(line)
    log.flush()
    print("written", flush=True)
"""


@pytest.mark.parametrize("deep", [(), ("deep",)])
def test_what_a_process_of_the_server_has_open_is_no_change(tmp_path, deep):
    """A log file or database of the application: each reload would write to it, and cause the next."""
    command = [sys.executable, "-c", WRITES, *deep]
    with (
        subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer,
        watching(tmp_path) as watcher,
    ):
        assert writer.stdout.readline() == "open\n"
        armed(watcher, tmp_path)
        for name in ("app.log.1", "app.log-journal"):
            (tmp_path / name).touch()
        writer.stdin.write("line\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "written\n"
        assert not select.select([watcher.fileno()], [], [], 2 * QUIET)[0], watcher.take()
        (tmp_path / "app.log.py").touch()
        assert changed(watcher) == {tmp_path / "app.log.py"}
        writer.stdin.close()
        writer.wait(LIMIT)
        (tmp_path / "app.log").write_text("by hand")
        assert changed(watcher) == {tmp_path / "app.log"}


def test_a_file_that_the_server_writes_can_be_named_without_harm(tmp_path):
    log, app = tmp_path / "log", tmp_path / "app.py"
    log.touch()
    app.touch()
    with watching(log, app, own=[log]) as watcher:
        log.write_text("line")
        assert not select.select([watcher.fileno()], [], [], QUIET)[0]
        app.write_text("x")
        assert changed(watcher) == {app}
