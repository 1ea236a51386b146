"""The roles that processes of a server have: the one table of them.

A role is what a process is there for. Its row says what such a process is made of, how many there are, and what the
supervisor does with them; nobody else asks for the name of a role. A new role is a row here, and its part in
mooring.parts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mooring.config import Settings

SUPERVISOR = "supervisor"  # the parent, which is in no row: it has no parts, and nobody starts it again


class Needs(NamedTuple):
    """What decides about the number of processes beside the settings."""

    dispatcher: bool = False  # there are tasks, or messages between workers
    engine: bool = False  # there are topics with a history
    processes: int = 0  # of the application's own


@dataclass(frozen=True, slots=True)
class Role:
    """One row. Where a process has a gateway or a worker inside, it has a number among those of all roles, too."""

    name: str
    parts: tuple[str, ...]
    """MODULE:CLASS, in the order in which they are made; see mooring.parts."""
    number: Callable[[Settings, Needs], int]
    """How many there are."""
    gateway: bool = False
    """It owns connections: it has the listeners and a table, and closes its clients before it ends."""
    worker: bool = False
    """It runs the application."""
    takes_links: bool = False
    """Every worker has a link to it; it is drained at a stop."""
    links_gateways: bool = False
    """And every gateway."""
    counts_as: tuple[str, ...] = ()
    """What it is in `stats()["tree"]`."""
    hears_of_tree: bool = False
    """It may be the one that calls the handlers of the tree's events; `shutdown` among them, as the last one."""
    watched: bool = False
    """A loop of it that stands still is ended: nothing that may block runs there."""
    watches: bool = False
    """It answers those who watch the server."""
    outlives: bool = False
    """What others do up to their end needs it: it ends when nobody else is there any more."""
    single: bool = False
    """There is one at most: it is shown without its number."""
    together: bool = False
    """Those that are worn are replaced together: while one waits for its turn, it does nothing."""


def _in_process_mode(number: Callable[[Settings], int]) -> Callable[[Settings, Needs], int]:
    return lambda settings, _: number(settings) if settings.process.mode == "process" else 0


_WORKER = "mooring.parts.worker:WorkerPart"
_GATEWAY = "mooring.parts.gateway:GatewayPart"
_DESK = "mooring.parts.desk:DeskPart"

_TABLE = (
    Role(
        "gateway",
        (_GATEWAY,),
        _in_process_mode(lambda settings: settings.process.gateway_num),
        gateway=True,
        takes_links=True,
        counts_as=("gateway",),
        watched=True,
    ),
    Role(
        "server",
        (_GATEWAY, _WORKER, _DESK),
        lambda settings, _: settings.process.worker_num if settings.process.mode == "base" else 0,
        gateway=True,
        worker=True,
        takes_links=True,
        counts_as=("gateway", "worker"),
        hears_of_tree=True,
        watched=True,
    ),
    Role(
        "worker",
        (_WORKER, _DESK),
        _in_process_mode(lambda settings: settings.process.worker_num),
        worker=True,
        counts_as=("worker",),
        hears_of_tree=True,
        watched=True,
    ),
    Role(
        "dispatcher",
        ("mooring.parts.dispatcher:DispatcherPart",),
        lambda _, needs: int(needs.dispatcher),
        takes_links=True,
        single=True,
    ),
    Role(
        "engine",
        ("mooring.parts.engine:EnginePart",),
        lambda _, needs: int(needs.engine),
        takes_links=True,
        links_gateways=True,
        outlives=True,
        single=True,
        watched=True,
    ),
    Role(
        "monitor",
        ("mooring.parts.monitor:MonitorPart",),
        lambda settings, _: int(bool(settings.operation.metrics_listen)),
        watched=True,
        watches=True,
        outlives=True,
        single=True,
    ),
    Role("task worker", (_WORKER,), lambda settings, _: settings.tasks.task_worker_num, worker=True, together=True),
    Role("process", (_WORKER,), lambda _, needs: needs.processes, worker=True),
    # it takes the place, and the role, of another one; they are started when the others serve
    Role("spare", (), lambda _settings, _needs: 0, counts_as=("spare",)),
)
ROLES = {role.name: role for role in _TABLE}
SPARE = ROLES["spare"]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process that is wanted: its role, its number in that role, and what it carries.

    `gateway` and `worker` are the numbers of the gateway and of the worker inside it; None: it has none. Those of
    workers are counted through the rows of the table.
    """

    role: str
    number: int
    gateway: int | None = None
    worker: int | None = None

    def __post_init__(self) -> None:
        row = ROLES.get(self.role)
        if row is None or (row.gateway, row.worker) != (self.gateway is not None, self.worker is not None):
            raise ValueError(f"a {self.role} can't have gateway={self.gateway} and worker={self.worker}")

    @property
    def row(self) -> Role:
        """The role's."""
        return ROLES[self.role]

    @property
    def fits_spare(self) -> bool:
        """Whether a process that has loaded the application, and nothing else, can become it."""
        return self.worker is not None and self.gateway is None

    def __str__(self) -> str:
        return f"{self.role} {self.number}"


def shown(role: str, number: int) -> str:
    """The name of a process as people see it."""
    row = ROLES.get(role)
    return role if role == SUPERVISOR or (row is not None and row.single) else f"{role} {number}"


def gateways(settings: Settings) -> int:
    """How many processes of a server own connections."""
    return sum(row.number(settings, Needs()) for row in _TABLE if row.gateway)


def specs(settings: Settings, needs: Needs) -> Iterator[ProcessSpec]:
    """The processes of a server with these settings."""
    workers = 0
    for row in _TABLE:
        for number in range(row.number(settings, needs)):
            yield ProcessSpec(row.name, number, number if row.gateway else None, workers if row.worker else None)
            workers += row.worker
