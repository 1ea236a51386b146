"""What is left of a large file: the gateway sends it, or it is sent in pieces. Its descriptor is closed in the end."""

import asyncio
import os
from pathlib import Path

import pytest

from mooring import ClientGone, HttpError
from mooring._core.wire import FileNote
from mooring.app.file_rest import FileRest
from mooring.app.static import PIECE

CONTENT = bytes(range(256)) * (PIECE // 128)  # two pieces


@pytest.fixture
def file(tmp_path: Path, descriptors: None) -> int:
    (tmp_path / "file").write_bytes(CONTENT)
    return os.open(tmp_path / "file", os.O_RDONLY)


def rest_of(file: int, first: int = 0, count: int | None = None) -> FileRest:
    return FileRest(file, first, len(CONTENT) - first if count is None else count, os.fstat(file).st_mtime_ns)


class Gateway:
    """Takes what it is asked for, and says later what becomes of it."""

    def __init__(self, note: FileNote | None) -> None:
        self.note = note  # None: it can't be asked
        self.asked: list[tuple[bytes, int, int, int, bool]] = []

    def transfer(self, head: bytes, fd: int, first: int, length: int, close: bool) -> "asyncio.Future[FileNote] | None":
        self.asked.append((head, fd, first, length, close))
        if self.note is None:
            return None
        said = asyncio.get_running_loop().create_future()
        said.set_result(self.note)
        return said


def hand_over(rest: FileRest, note: FileNote | None) -> tuple[bool, bool]:
    """Whether the gateway could be asked, and whether it sends the file."""

    async def run() -> tuple[bool, bool]:
        gateway = Gateway(note)
        could = rest.hand_over(gateway.transfer, b"the head", close=True)
        assert [(head, close) for head, _, _, _, close in gateway.asked] == [(b"the head", True)]
        return could, await rest.is_taken()

    return asyncio.run(run())


def test_the_gateway_sends_the_part_that_is_asked_for(file: int):
    async def run() -> None:
        gateway, rest = Gateway(FileNote.TAKEN), rest_of(file, 10, 20)
        assert rest.hand_over(gateway.transfer, b"the head", close=False)
        assert gateway.asked == [(b"the head", file, 10, 20, False)]
        assert await rest.is_taken()
        rest.close()

    asyncio.run(run())


def test_a_file_that_the_gateway_can_not_have_is_sent_from_here_with_its_head(file: int):
    rest = rest_of(file, 10)
    assert hand_over(rest, FileNote.LEFT) == (True, False)
    assert rest.head == b"the head"
    assert b"".join(rest.pieces()) == CONTENT[10:]
    assert rest.count == 0
    rest.close()


def test_where_no_gateway_can_be_asked_the_head_is_not_this_one_s(file: int):
    rest = rest_of(file)
    assert hand_over(rest, None) == (False, False)
    assert rest.head == b""
    rest.close()


def test_the_pieces_are_small_and_say_how_much_is_left(file: int):
    rest = rest_of(file, 1, PIECE + 5)
    pieces = rest.pieces()
    assert (next(pieces), rest.count) == (CONTENT[1 : 1 + PIECE], 5)
    assert (next(pieces), rest.count) == (CONTENT[1 + PIECE : 6 + PIECE], 0)
    assert list(pieces) == []
    rest.close()


def test_a_client_that_has_left(file: int):
    rest = rest_of(file)
    with pytest.raises(ClientGone):
        hand_over(rest, FileNote.LATE)
    rest.close()


def test_a_file_that_was_changed_before_anything_was_sent(file: int, tmp_path: Path):
    """Its head tells the length and the tag of what is not there any more."""
    rest = rest_of(file)
    (tmp_path / "file").write_bytes(CONTENT[::-1])
    os.utime(tmp_path / "file", ns=(0, 1))  # however coarse the clock of the file system
    with pytest.raises(HttpError) as told:
        hand_over(rest, FileNote.LEFT)
    assert (told.value.status, dict(told.value.headers)["Retry-After"]) == (503, "1")
    rest.close()


def test_one_that_the_gateway_has_is_its_matter(file: int, tmp_path: Path):
    rest = rest_of(file)
    os.utime(tmp_path / "file", ns=(0, 1))
    assert hand_over(rest, FileNote.TAKEN) == (True, True)
    rest.close()


def test_a_file_that_becomes_shorter_while_it_is_sent(file: int, tmp_path: Path):
    rest = rest_of(file)
    pieces = rest.pieces()
    next(pieces)
    os.truncate(tmp_path / "file", PIECE + 10)
    assert next(pieces) == CONTENT[PIECE : PIECE + 10]
    with pytest.raises(OSError, match=rf"{PIECE - 10} bytes are missing"):
        next(pieces)
    rest.close()
