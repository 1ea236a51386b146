"""Those that start at the same time take turns, by a lock that nobody else can hold.

flock(2) asks for no permission to write: whoever may read a file or a folder can lock it, for ever. So what decides is
a file beside the one in question that only its owner can open. It is there while somebody looks and decides.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Iterator

LIMIT = 5.0  # seconds that another one that starts may take
LOOK = 0.02


class GuardError(Exception):
    """Something that is not ours is in the way; the text says what, and whose."""


def owner_of(found: os.stat_result) -> str:
    """The name of the user whose file it is, or the number of one that has no name."""
    try:
        return pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        return str(found.st_uid)


@contextlib.contextmanager
def guard(path: str) -> Iterator[None]:
    """Nobody else who asks for the guard of this path has it meanwhile. Raises GuardError, and OSError."""
    folder, name = os.path.split(path)
    own = os.path.join(folder, f".{name}.lock")
    end = time.monotonic() + LIMIT
    while True:
        file = _open(own)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(file, own):
                break
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(file)
                raise GuardError(f"another server that starts keeps {own} locked; try again") from None
            time.sleep(LOOK)
        os.close(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(own)
        os.close(file)


def _open(own: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(own, flags, 0o600)
    except OSError as problem:
        try:
            found = os.lstat(own)
        except OSError:
            raise problem from None
        if problem.errno in (errno.EACCES, errno.EPERM, errno.ELOOP) or not stat.S_ISREG(found.st_mode):
            raise GuardError(f"{own} is in the way, a file of user {owner_of(found)}; have it removed") from None
        raise
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(file)
        raise GuardError(f"{own} is in the way, a file of user {owner_of(found)}; have it removed")
    return file


def is_at(file: int, path: str) -> bool:
    """Whether that open file is the one which stands at this path."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False
