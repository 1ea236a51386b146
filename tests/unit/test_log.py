"""A stream of log lines, where writing fails in the middle of one."""

import logging
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mooring.config import Settings
from mooring.errors import ConfigError
from mooring.net.log import LogStream, _Handler, check_log_files


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may become larger: what is beyond fails as on a full disk, after what still fits.

    Over before the test is, since the output of the tests may be a file, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_do_not_fit_are_counted_and_told_of(tmp_path):
    path = tmp_path / "log"
    stream = LogStream(str(path))
    stream.write("one")
    with limited(4):
        for _ in range(3):
            stream.write("lost")
    assert stream.dropped == 3
    stream.write("two")
    stream.write("three")
    assert path.read_text() == "one\n3 log lines were dropped: File too large\ntwo\nthree\n"
    assert stream.dropped == 3
    os.close(stream.fd)


def test_a_line_that_cannot_be_made_is_counted_and_told_of(tmp_path, monkeypatch):
    """As when there is no memory for a traceback, and none for what is said instead: whoever logs goes on."""
    path = tmp_path / "log"
    stream = LogStream(str(path))
    log = logging.Logger("of the test")
    log.addHandler(_Handler(stream))

    def fails(record):
        raise MemoryError

    with monkeypatch.context() as poor:
        poor.setattr(stream.form, "line", fails)
        log.error("lost")
    assert stream.dropped == 1
    log.error("kept")
    told, kept = path.read_text().splitlines()
    assert told == "1 log lines were dropped: there was no memory for them, or they have no text"
    assert kept.endswith("of the test: kept")
    os.close(stream.fd)


def test_a_line_that_was_cut_ends_before_the_next(tmp_path):
    path = tmp_path / "log"
    stream = LogStream(str(path))
    with limited(4):
        stream.write("too long")
    stream.write("two")
    assert path.read_text() == "too \n1 log lines were dropped: File too large\ntwo\n"
    os.close(stream.fd)


def test_a_pipe_that_nobody_reads_is_waited_for_once():
    """Then lines are dropped, until somebody reads again."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    stream = LogStream()
    stream.fd = writer
    done = threading.Event()

    def write():
        for _ in range(2000):
            stream.write("x" * 99)
        done.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert done.wait(10), "lines that are not waited for, and one that is"
    assert 1300 < stream.dropped < 1500, "a pipe takes 64 KiB, less what its pages waste"
    os.read(reader, 1 << 20)
    stream.write("again")
    text = os.read(reader, 1 << 20).decode()
    assert text.endswith(f"{stream.dropped} log lines were dropped: whoever reads them is too slow\nagain\n")
    os.close(reader)
    os.close(writer)


def test_a_reader_that_is_gone(tmp_path):
    reader, writer = os.pipe()
    stream = LogStream()
    stream.fd = writer
    os.close(reader)
    stream.write("lost")
    assert stream.dropped == 1
    os.close(writer)


def test_reopening_keeps_the_descriptor(tmp_path):
    path = tmp_path / "log"
    stream = LogStream(str(path))
    before = stream.fd
    stream.write("old")
    path.rename(tmp_path / "log.1")
    stream.write("old, too")
    stream.reopen()
    stream.write("new")
    assert stream.fd == before
    assert (tmp_path / "log.1").read_text() == "old\nold, too\n"
    assert path.read_text() == "new\n"
    assert not os.get_inheritable(stream.fd)
    assert path.stat().st_mode & 0o777 == 0o640
    os.close(stream.fd)


def test_reopening_what_can_not_be_opened_goes_on_with_the_old(tmp_path):
    path = tmp_path / "log"
    stream = LogStream(str(path))
    path.rename(tmp_path / "log.1")
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        stream.reopen()
    stream.write("still here")
    assert (tmp_path / "log.1").read_text() == "still here\n"
    os.close(stream.fd)


@pytest.mark.parametrize("setting", ["log_file", "access_log_file"])
def test_a_file_that_can_not_be_opened_is_said_before_the_start(tmp_path, setting):
    settings = Settings.from_options({setting: str(tmp_path / "nowhere" / "log")})
    with pytest.raises(ConfigError, match=rf"^{setting}=.*: log lines can't be written there: No such file"):
        check_log_files(settings)
