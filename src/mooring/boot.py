"""What a process is told when it starts, and how a spare is told the rest later.

The one who starts a process writes a `Boot` into a memory file, as msgpack, and the process inherits the
descriptors that are named in it, and no others. It does not pass them on: what the application starts must not hold a
channel or a listener open when this process has ended. A spare does not know yet what it will be: it loads the
application and waits, and then everything is as if it had been told so from the beginning.
"""

import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec
import setproctitle

from mooring.app.launched import launched
from mooring.app.loader import Application
from mooring.app.shared import Declared
from mooring.journal import own_logger
from mooring.net import messages
from mooring.net.child_socket import ChildSocket, MessageRefused
from mooring.net.log import log_as, reopen_logs
from mooring.roles import SUPERVISOR

log = own_logger("mooring.runtime")

#: Not by -m: what is in the current directory, such as a mooring.py, is not meant, and -P would be inherited.
#: The application may have found this package in a folder of its own, which no other interpreter looks into.
ENTER = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); "
    "{0!r} in sys.path or sys.path.append({0!r}); from mooring.__main__ import main; main()"
)
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class LinkEnd(msgspec.Struct):
    """Descriptors of a link to a process that serves already; see mooring.supervisor.links."""

    worker: int | None  # None: a gateway without one
    gateway: int | None  # None: a service of the server
    peer_generation: int
    channel: int
    reply: int = -1
    page: int = -1
    number: int = 0  # the supervisor's, of the link
    service: str = "dispatcher"  # the role of who takes it


class Boot(msgspec.Struct):
    """What a process is told when it starts. The numbers of `gateway` and `worker` say what is in it."""

    role: str
    application: Application | None  # None: it has begun already
    settings: dict[str, Any]
    parent: int = 0
    number: int = 0
    gateway: int | None = None
    worker: int | None = None
    generation: int = 1
    incarnation: int = 1
    clock: int = 0  # clock_offset() when the server started
    control: int = -1
    pulse: int = -1
    listeners: list[int] = []
    desk: list[int] = []  # of worker 0: the socket on which other programs ask
    order: int = -1  # of a gateway that is one of several: memory for the order of publishes
    rooms: int = -1  # likewise: memory in which they say how many clients each can take
    scoreboard: int = -1  # memory in which every process writes what it counts, if /metrics shall be served
    place_of_report: int = -1  # in there, its own
    metrics: int = -1  # of the monitor: the socket on which it answers
    tables: dict[int, int] = {}
    links: list[LinkEnd] = []
    link_num: int = 0  # of a process with a gateway: those it has when everybody serves, and no reload runs
    dispatcher: bool = False  # for the supervisor: there shall be one
    engine: bool = False  # the server has one, which was settled by its start
    processes: int = 0  # of the application's own; for the supervisor
    place: str = ""  # the directory that paths of the settings are relative to, if it is not where Python begins
    notes: list[str] = []  # for the supervisor, to be logged
    terminal: str = ""  # that the server was started at
    shared: Declared = msgspec.field(default_factory=Declared)

    def descriptors(self) -> list[int]:
        """All that are named here. Those of the lock of shared memory are the supervisor's alone."""
        own = [self.control, self.pulse, self.order, self.rooms, *self.listeners, *self.desk, *self.tables.values()]
        own += [self.scoreboard, self.metrics]
        own += [fd for end in self.links for fd in (end.channel, end.reply, end.page)]
        own += [self.shared.lock] if self.role == SUPERVISOR else []
        return [fd for fd in own if fd >= 0]

    def attach(self, message: messages.Attach, fds: Sequence[int]) -> LinkEnd:
        """A link to a process that serves since later. Raises ValueError when the descriptors are not those of one."""
        has_table = message.gateway is not None and message.gateway != self.gateway
        wanted = 1 if message.gateway is None else 3 + has_table
        if len(fds) != wanted:
            raise ValueError(f"a link has {wanted} descriptors, not {len(fds)}")
        if message.gateway is not None and has_table:
            self.tables[message.gateway] = fds[3]
        channel, reply, page = (*fds[:3], -1, -1)[:3]
        return LinkEnd(
            message.worker, message.gateway, message.generation, channel, reply, page, message.link, message.service
        )

    def keep_descriptors(self) -> None:
        """Whatever came over an exec shall not go over another: what is named here, locks, the supervisor's sockets,
        and what nobody knows of."""
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # that of the list itself is closed by now
                if int(name) > 2:
                    os.set_inheritable(int(name), False)

    def give_back(self) -> None:
        """In a child that is forked before anybody has taken the descriptors over."""
        for fd in self.descriptors():
            with suppress(OSError):
                os.close(fd)

    @property
    def name(self) -> str:
        """What it is called in the log and in the list of processes."""
        return self.role if self.role == SUPERVISOR else f"{self.role} {self.number}"


def wait_for_place(told: Boot) -> None:
    """A spare has loaded the application. It blocks here until it is told which process to be, and writes that into
    `told`, as if it had been told so at its start. Ends the process when the supervisor has gone."""
    with closing(ChildSocket(os.dup(told.control), messages.to_child)) as control:
        control.send(messages.Warm())
        readable = select.poll()
        readable.register(control, select.POLLIN)
        while told.worker is None:
            readable.poll()
            try:
                received = control.receive()
            except MessageRefused as problem:
                log.error("%s", problem)
                continue
            if received is None:
                log.error("the supervisor is gone: ending")
                sys.exit(1)
            message, fds = received
            match message:
                case messages.Attach():
                    told.links.append(told.attach(message, fds))
                case messages.Place():
                    told.role, told.number, told.worker = message.role, message.number, message.worker
                    told.generation, told.incarnation = message.generation, message.incarnation
                    told.desk = fds
                case messages.Reopen():
                    reopen_logs()
                case _:
                    log.error("the child message %r is for processes that serve", messages.op_of(message))
    setproctitle.setproctitle(f"mooring: {told.name}")
    log_as(told.name)


def loaded() -> None:
    """What is loaded now stays: garbage is looked for among what comes from now on, and not among this when the
    interpreter ends. In a process that lives for a test or for a reload, a sixth of the CPU of its life."""
    gc.freeze()
    gc.enable()


def command() -> list[str]:
    """The command line of a process that is started with a `Boot`, whose file comes behind it."""
    flags = launched.command.options
    if flags is None:  # the standard library's way to start a child with the flags of its parent
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [launched.executable, *flags, "-c", ENTER.format(HOME), "_process"]


def clock_offset() -> int:
    """Milliseconds from the clock that nobody sets to the wall clock, at this moment."""
    return (time.time_ns() - time.monotonic_ns()) // 1_000_000
