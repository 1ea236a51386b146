"""How much room gateways say they have."""

import contextlib
import os
import time

import pytest

from mooring._core.room import EXPECTED_MS, ROOMS_BYTES, STALE_MS, Rooms


@pytest.fixture
def file():
    fd = os.memfd_create("rooms")
    os.ftruncate(fd, ROOMS_BYTES)
    yield fd
    os.close(fd)


def test_room_is_that_of_others(file):
    ours, theirs = Rooms(file), Rooms(file)
    assert not ours.has(0)
    theirs.expect(1)
    assert ours.has(0)
    assert not ours.has(1)
    ours.expect(255)
    assert theirs.has(1)


def test_what_was_said_long_ago_does_not_count(file):
    rooms = Rooms(file)
    rooms.expect(1)
    now = int(time.monotonic() * 1000)
    until = int.from_bytes(os.pread(file, 8, 16), "little") + STALE_MS
    assert now < until <= now + EXPECTED_MS
    os.pwrite(file, (now - STALE_MS - 1).to_bytes(8, "little"), 16)
    assert not rooms.has(0)
    # nor does what nobody can have said
    os.pwrite(file, bytes(8), 16)
    assert not rooms.has(0)


@pytest.mark.parametrize("number", [-1, 256, 1 << 30])
def test_a_number_of_no_gateway_is_nobody(file, number):
    rooms = Rooms(file)
    rooms.expect(number)
    assert os.pread(file, ROOMS_BYTES, 0) == bytes(ROOMS_BYTES)
    rooms.expect(0)
    assert rooms.has(number)


@pytest.mark.parametrize("size", [0, 1, ROOMS_BYTES - 1, ROOMS_BYTES + 1])
def test_a_file_of_another_size_is_refused(size):
    fd = os.memfd_create("rooms")
    with contextlib.closing(os.fdopen(fd, "wb", closefd=True)):
        os.ftruncate(fd, size)
        with pytest.raises(ValueError, match="rooms of"):
            Rooms(fd)


def test_whatever_stands_there_is_no_length(file):
    os.pwrite(file, b"\xff" * ROOMS_BYTES, 0)
    assert Rooms(file).has(0) in (True, False)
