"""Which descriptors a process has open."""

import contextlib
import gc
import os
import warnings


def open_descriptors() -> int:
    """How many this process has, without those that other tests have left to the garbage collector.

    It would close them at any time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it would blame the test that asks
        gc.collect()
    return len(os.listdir("/proc/self/fd"))


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process are of; one that is closed meanwhile is left out."""
    found = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found
