"""What the supervisor and its children say to each other: the one table of it, both ways.

A message is a msgpack map whose `op` is the type's name in small letters; descriptors may come beside it, see
child_socket.py. A new message is one type here, its name in the union of its direction, and a case at the end that
hears it (supervisor/supervisor.py or supervised.py). What is no message of that direction, or has other fields than its
type, is refused where it is decoded, with a line in the log; nothing of it has any effect.
"""

from typing import Any, TypeAlias

import msgspec


class _Message(msgspec.Struct, tag_field="op", tag=str.lower, forbid_unknown_fields=True):
    """The `op` is the type's tag."""


# ---------------------------------------------------------------------------------------------- to a child


class Attach(_Message):
    """Open your end of this link; its descriptors come beside it, see supervisor/links.py."""

    worker: int | None  # None: a gateway without one
    gateway: int | None  # None: a service of the server
    generation: int  # of the process at the other end, as its pid
    pid: int
    link: int
    service: str = "dispatcher"  # the role of who takes it


class Gone(_Message):
    """The process at the other end of that link has ended."""

    link: int


class Serve(_Message, omit_defaults=True):
    """Your peers are there: serve. `started`: the server does so for the first time, and the application is told."""

    started: bool = False


class Retire(_Message):
    """That worker has a successor, which serves. It may be you; whoever has anything of it in flight says `retired`
    when that is over."""

    worker: int
    generation: int


class Drain(_Message):
    """Take nothing new, send your clients away with this close code, and say `drained`, in so many seconds."""

    timeout: float
    code: int


class Stop(_Message):
    """End, in order; `reason` is for the application. `last`: nobody else of the application runs any more."""

    reason: str
    last: bool


class Reopen(_Message):
    """Open your log files again."""


class Event(_Message):
    """Call the application's handler of this event of the tree, and say `handled` with `answer`."""

    name: str
    arguments: list[Any]
    answer: int


class State(_Message):
    """What is wanted and runs, for `Server.stats()`."""

    state: dict[str, Any]


class Degraded(_Message):
    """Whether all workers end again and again."""

    degraded: bool


class Processes(_Message):
    """How each process is doing: the answer to `vitals`."""

    processes: list[dict[str, Any]]


class Place(_Message):
    """To a spare: you are this process from now on. The control socket comes beside it, if that is its worker's."""

    role: str
    number: int
    worker: int
    generation: int
    incarnation: int


ToChild: TypeAlias = (
    Attach | Gone | Serve | Retire | Drain | Stop | Reopen | Event | State | Degraded | Processes | Place
)


# ---------------------------------------------------------------------------------------------- to the supervisor


class Warm(_Message):
    """A spare has loaded the application, and waits."""


class Ready(_Message):
    """This process can be announced to its peers."""


class Retired(_Message, omit_defaults=True):
    """Nothing of that worker, which retires, is in flight here; its pid is 0 if it has never greeted."""

    worker: int
    generation: int
    pid: int = 0


class Drained(_Message):
    """The clients are gone, or the time is over; what became of their messages."""

    counts: dict[str, int | dict[str, int]]


class Broken(_Message):
    """That worker speaks nonsense, and its end shall settle what it was at."""

    worker: int
    generation: int
    pid: int
    why: str


class Terminated(_Message):
    """Somebody has sent SIGTERM to this process."""


class Replace(_Message):
    """This worker shall have a successor."""

    why: str


class Handled(_Message):
    """The handler of that event has ended."""

    answer: int


class Reload(_Message):
    """The application wants the server reloaded."""


class Shutdown(_Message):
    """The application wants the server stopped."""


class Vitals(_Message):
    """Somebody asks how each process is doing."""


ToSupervisor: TypeAlias = (
    Warm | Ready | Retired | Drained | Broken | Terminated | Replace | Handled | Reload | Shutdown | Vitals
)

to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
to_supervisor: msgspec.msgpack.Decoder[ToSupervisor] = msgspec.msgpack.Decoder(ToSupervisor)


def op_of(message: ToChild | ToSupervisor) -> str:
    """What it is called."""
    return type(message).__name__.lower()
