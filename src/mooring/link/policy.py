"""Which worker gets a connection. It keeps that worker until it leaves or dies, so its messages stay in order.

A policy is asked when a connection comes, when its worker is gone or leaves, and, where users decide, when a connection
is bound to one. By key (an address, a user, what a function of the application says) the choice is that of rendezvous
hashing: each worker has a score for each key, the highest wins. So the keys spread evenly, and when a worker comes or
goes only those move that it gains or had. One that stands still has gone, as far as new connections are concerned.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from mooring._core.worker_end import WorkerEnd
from mooring.app.loader import load_function
from mooring.journal import own_logger

log = own_logger("mooring.gateway")

SLOW = 1000  # milliseconds without an answer after which a busy worker gets no new connections if another can
STILL = 2500  # milliseconds without a turn of its loop, which shows itself each second, after which one is stopped
GONE = 5000  # the same, after which keys are not its own any more: until it turns again, others have them
Key = str | bytes | int | None
Policy = Callable[[list[WorkerEnd], int], WorkerEnd]


class Client(NamedTuple):
    """What a dispatch function is given: a connection, as far as it is known when its worker is chosen."""

    fd: int
    remote_ip: str
    """Empty for a Unix socket, and for a connection that has ended."""
    server_port: int
    user: str
    """The id it is bound to; empty for none."""


_OWN: dict[str, Callable[[Client], Key]] = {
    "address": lambda client: client.remote_ip or None,
    "user": lambda client: client.user or None,
}


def least_loaded(worker_ends: Sequence[WorkerEnd]) -> WorkerEnd:
    """The worker with the fewest messages in flight, then with the fewest connections; a stopped or stuck one last."""
    return min(worker_ends, key=lambda one: (one.silent > SLOW or one.still > STILL, one.in_flight // 16, one.bound))


def by_key(worker_ends: Sequence[WorkerEnd], key: str | bytes | int) -> WorkerEnd:
    """The same worker for the same key, as long as there is that worker and its loop turns. TypeError for what is no
    key."""
    if not isinstance(key, str | bytes | int):
        raise TypeError(f"a key is a str, bytes or int, not {type(key).__name__}")
    name = key if isinstance(key, bytes) else str(key).encode()

    def score(worker_end: WorkerEnd) -> bytes:
        return blake2b(name, digest_size=8, salt=worker_end.worker.to_bytes(2, "big")).digest()

    best = max([one for one in worker_ends if one.still <= GONE] or worker_ends, key=score)
    # the same worker number can be there twice: the new generation's is meant, and of retiring ones none is among them
    return max((one for one in worker_ends if one.worker == best.worker), key=lambda one: one.generation)


def new_policy(dispatch: str, about: Callable[[int], Client]) -> Policy:
    """The policy that the setting names: connection, address, user, or MODULE:FUNCTION. Raises BootError when there is
    no such function."""
    if dispatch == "connection":
        return lambda worker_ends, _fd: least_loaded(worker_ends)
    key_of: Callable[[Client], Key] = _OWN.get(dispatch) or load_function(dispatch)
    failures = 0

    def choose(worker_ends: list[WorkerEnd], fd: int) -> WorkerEnd:
        nonlocal failures
        client = about(fd)
        try:
            key = key_of(client)
            return least_loaded(worker_ends) if key is None else by_key(worker_ends, key)
        except Exception:
            failures += 1
            if failures & (failures - 1) == 0:  # not a traceback for each client
                text = "dispatch=%r failed on connection %d, the %d. failure: it goes to the least loaded worker"
                log.exception(text, dispatch, fd, failures)
            return least_loaded(worker_ends)

    return choose
