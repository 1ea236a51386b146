"""Children of a worker, for the application's expressions. Every wait has a limit."""

import contextlib
import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

LIMIT = 15.0  # seconds
fork = multiprocessing.get_context("fork")


def ends(pid: int) -> int:
    """How a child ends: its exit code, or the signal with a minus."""
    return ends_when_told(pid, ())


def ends_when_told(pid: int, numbers: tuple[int, ...]) -> int:
    """The same of one that is sent these signals, from time to time: Python 3.13.0 sees none until the next system call
    that is interrupted, in a child that a thread has forked."""
    end = time.monotonic() + LIMIT
    pidfd = os.pidfd_open(pid)
    try:
        while True:
            for number in numbers:
                signal.pidfd_send_signal(pidfd, number)
            if select.select([pidfd], [], [], 1.0 if numbers else LIMIT)[0]:
                break
            if time.monotonic() > end:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ends_of(number: int) -> int:
    """How a forked child ends that is sent a signal while it waits."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(there, b"x")
            time.sleep(2 * LIMIT)
        finally:
            os._exit(99)
    os.read(here, 1)
    os.close(here)
    os.close(there)
    return ends_when_told(pid, (number,))


def ends_at_once(times: int) -> set[int | None]:
    """The same of processes that are told to end at the moment at which they begin."""
    found = set()
    for _ in range(times):
        process = fork.Process(target=time.sleep, args=(2 * LIMIT,), daemon=True)
        process.start()
        process.terminate()
        process.join(LIMIT)
        found.add(process.exitcode)
        process.kill()
    return found


def pooled() -> list[int]:
    """What a pool gives; its exit terminates the processes."""
    with fork.Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def tries(action: Callable[[], Any]) -> str:
    """What an action raises in a forked child, or gives."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = repr(action())
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(there, said.encode())
        os._exit(0)
    os.close(there)
    with open(here) as file:
        found = file.read()
    assert ends(pid) == 0
    return found


class Staying:
    """A forked child that does nothing for as long as it is left alone."""

    def __init__(self) -> None:
        here, there = os.pipe()

        def stay() -> None:
            os.write(there, b"x")
            time.sleep(2 * LIMIT)

        self.process = fork.Process(target=stay, daemon=True)
        self.process.start()
        os.read(here, 1)
        os.close(here)
        os.close(there)

    def descriptors(self) -> list[str]:
        """Its sockets, and whether it has the epoll instance."""
        assert self.process.pid is not None
        folder = f"/proc/{self.process.pid}/fd"
        found = []
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if int(name) > 2:
                    found.append(os.readlink(f"{folder}/{name}"))
        return [one for one in found if one.startswith(("socket:", "anon_inode:[eventpoll]"))]

    def end(self) -> int | None:
        self.process.terminate()
        self.process.join(LIMIT)
        return self.process.exitcode
