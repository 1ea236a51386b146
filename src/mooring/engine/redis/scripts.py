"""The scripts that run in the server. Their texts are files of the package: append.lua, read.lua, beat.lua, and
common.lua, which stands before the first two."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

__all__ = ["APPEND", "BEAT", "READ", "Script"]


class Script(NamedTuple):
    """Servers know it by the hash of its text, once they were told it."""

    text: bytes
    sha: str


def _load(*names: str) -> Script:
    text = b"".join(files(__package__).joinpath(name).read_bytes() for name in names)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


APPEND = _load("common.lua", "append.lua")
READ = _load("common.lua", "read.lua")
BEAT = _load("beat.lua")
