"""The temporary files of forms, when there is no room for them."""

import errno

import pytest

from mooring.app import spools
from mooring.app.forms import FormLimits, MultipartReader
from mooring.errors import BadRequest, HttpError


def test_a_disk_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever that is found: while a file is made, is written, or has its end written."""
    limits = FormLimits(upload_spool_size=10)
    kind = "multipart/form-data; boundary=X"

    def read(size: int) -> None:
        with MultipartReader(kind, limits) as reader:
            reader.feed(multipart_body(b"x" * size))
            reader.finish()

    def refused_with(size: int) -> None:
        before = limits.spools.refused
        with pytest.raises(HttpError) as error:
            read(size)
        assert (error.value.status, error.value.headers) == (503, (("Retry-After", "5"),))
        assert not isinstance(error.value, BadRequest)
        assert limits.spools.refused == before + 1
        assert limits.spools.open == 0

    def no_file() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spools, "TemporaryFile", no_file)
    refused_with(50)
    monkeypatch.setattr(spools, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    refused_with(50)
    refused_with(100_000)


def multipart_body(content: bytes) -> bytes:
    head = b'--X\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    return head + content + b"\r\n--X--\r\n"
