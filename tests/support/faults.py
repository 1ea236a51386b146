"""Makes system calls and allocations of a server fail, in any of its processes, while it runs.

faults = Faults(tmp_path)
with Serving(APP, env=faults.env) as server:
    faults.set("send", every=3, error=errno.EINTR)
    ...
    assert faults.hits("send") > 0
"""

import mmap
import os
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
KINDS = ("accept", "send", "recv", "wait", "watch", "allocate", "fork", "thread", "memfd", "notifier", "notify")
FIELDS = ("pid", "domain", "most", "everywhere", "step", "row", "longest_row")
EVERY, ERROR, LEFT, CALLS, HITS = range(5)  # of each kind


class Faults:
    """Compiled and set up in `folder`. At first nothing fails; the fields are explained in faults.c."""

    def __init__(self, folder: Path) -> None:
        library, page = folder / "faults.so", folder / "faults.page"
        command = ["cc", "-O1", "-Wall", "-Werror", "-fno-builtin", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        page.write_bytes(bytes(mmap.PAGESIZE))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        before = os.environ.get("LD_PRELOAD")
        self.env = {
            "LD_PRELOAD": f"{before}:{library}" if before else str(library),
            "MOORING_TEST_FAULTS": str(page),
        }

    def _put(self, at: int, value: int) -> None:
        struct.pack_into("=q", self._page, at * 8, value)

    def _at(self, kind: str, field: int) -> int:
        return len(FIELDS) + KINDS.index(kind) * 5 + field

    def only(self, **fields: int) -> None:
        """Where faults happen, and what is wrong all the time: `pid=`, `domain=`, `most=`, `everywhere=`, `step=`."""
        for name, value in fields.items():
            self._put(FIELDS.index(name), value)

    def set(self, kind: str, *, every: int, error: int = 0, times: int = -1) -> None:
        """Each `every`-th call of this kind fails with `error`, at most so many times (-1: any number)."""
        self._put(self._at(kind, ERROR), error)
        self._put(self._at(kind, LEFT), times)
        self._put(self._at(kind, EVERY), every)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("=q", self._page, at * 8)[0])

    def hits(self, kind: str) -> int:
        """How many have failed."""
        return self._get(self._at(kind, HITS))

    @property
    def longest_row(self) -> int:
        """The most clients that were accepted in one turn of a loop."""
        return self._get(FIELDS.index("longest_row"))

    def stop(self) -> None:
        """Nothing fails any more; the clock stays where it is."""
        for kind in KINDS:
            self._put(self._at(kind, EVERY), 0)
        self.only(most=0)
