"""The temporary files of forms that a process has open: a descriptor each, and room on a disk.

Both are everybody's, and clients decide how many files a form has and how slowly it comes. So there is a number that
they have together; a form that needs one more is refused with 503, and so is one for which the system has no descriptor
or no room. Whoever has begun to upload goes on.
"""

import resource
import time
from tempfile import TemporaryFile
from typing import BinaryIO
from weakref import WeakSet

from mooring.errors import HttpError
from mooring.journal import own_logger

log = own_logger("mooring.worker")

MOST = 4096  # however many descriptors there are
SAY_EVERY = 1.0  # seconds between two log lines


def soft_limit() -> int:
    """Descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


class Spools:
    """Those of one process, `limit` at most."""

    def __init__(self, limit: int = MOST) -> None:
        self.limit = limit
        self.refused = 0
        self._files: WeakSet[BinaryIO] = WeakSet()
        self._said = 0.0

    @property
    def open(self) -> int:
        """How many there are now."""
        return sum(not file.closed for file in self._files)

    def new(self) -> BinaryIO:
        """A file that goes when it is closed. Raises HttpError when there is none."""
        if len(self._files) >= self.limit and self.open >= self.limit:
            raise self.refuse(f"{self.limit} files of forms are open already (upload_file_limit)")
        try:
            file = TemporaryFile()  # noqa: SIM115 - it is closed with the form
        except OSError as problem:
            raise self.refuse(f"no temporary file can be made: {problem}") from None
        self._files.add(file)
        return file

    def refuse(self, why: str) -> HttpError:
        """The error that ends a form, counted and logged."""
        self.refused += 1
        now = time.monotonic()
        if now >= self._said + SAY_EVERY:
            self._said = now
            log.error("a form was refused with 503, the %d. one: %s", self.refused, why)
        return HttpError(503, "there is no room for the files of this form now, try again", [("Retry-After", "5")])
