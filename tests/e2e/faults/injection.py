"""Faults that the kernel is made to have."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator

from support.serving import LIMIT, eventually


@contextlib.contextmanager
def no_new_processes(pid: int, error: str = "EAGAIN") -> Iterator[None]:
    """Whenever this process forks, the kernel says EAGAIN, or ENOMEM.

    EAGAIN by its limit of processes; that binds no process of root, whose system calls are therefore made to fail by
    strace, as those of everybody are for ENOMEM.
    """
    if os.geteuid() != 0 and error == "EAGAIN":
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
        resource.prlimit(pid, resource.RLIMIT_NPROC, (0, hard))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NPROC, (soft, hard))
        return
    with failing(pid, "fork,vfork,clone,clone3", error):
        yield


@contextlib.contextmanager
def failing(pid: int, calls: str, error: str) -> Iterator[None]:
    """These system calls of a process fail, by strace."""
    rules = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-p", str(pid), *rules])
    try:
        eventually(lambda: tracer.poll() is not None or traced_by(pid) == tracer.pid, what="strace has attached")
        assert tracer.poll() is None, f"strace ended with {tracer.returncode}"
        yield
    finally:
        tracer.terminate()  # it detaches
        tracer.wait(LIMIT)


def traced_by(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return int(next(line for line in status if line.startswith("TracerPid:")).split()[1])
