"""Settings: what each option means, what it may be, and what it is by default.

One frozen dataclass per section, each in the module of its name; `Settings` holds the sections and is built from
flat names, which is how users write them (`Server(worker_num=4)`). An option is documented and bounded at its
field and nowhere else: the checks, the error messages and the settings page are made from there (option.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from mooring.errors import ConfigError
from mooring.near import SETTINGS as OTHER_WORDS
from mooring.near import nearest

from .flow import Flow
from .http import Http
from .listen import Listen
from .operation import Operation
from .option import Section, allowed, number, type_name
from .process import Process
from .tasks import Tasks
from .tls import Tls
from .topics import Topics
from .websocket import WebSocket


class Option(NamedTuple):
    """One row of the settings page."""

    section: str
    name: str
    type: str
    default: str
    unit: str
    doc: str
    allowed: str


@dataclass(frozen=True)
class Settings:
    """Every option of a server, by section: `settings.listen.port`."""

    process: Process = field(default_factory=Process)
    operation: Operation = field(default_factory=Operation)
    listen: Listen = field(default_factory=Listen)
    tls: Tls = field(default_factory=Tls)
    http: Http = field(default_factory=Http)
    websocket: WebSocket = field(default_factory=WebSocket)
    flow: Flow = field(default_factory=Flow)
    tasks: Tasks = field(default_factory=Tasks)
    topics: Topics = field(default_factory=Topics)

    listeners: tuple["Settings", ...] = ()
    """Of the further listeners, each its own, whole: what a listener does not say is as with the server."""

    @property
    def per_listener(self) -> tuple["Settings", ...]:
        """Those that count for the connections of each listener, by its index; 0 is the server's own."""
        return (self, *self.listeners)

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "Settings":
        """Settings from flat names. Raises ConfigError for an unknown name or a value that is not allowed."""
        chosen: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        listeners: Any = ()
        for name, value in options.items():
            if name == LISTENERS:
                listeners = value
                continue
            if name not in HOME:
                near = nearest(name, HOME, OTHER_WORDS)
                hint = f"did you mean {near!r}?" if near else "`mooring settings` lists the options"
                raise ConfigError(f"unknown option {name!r}: {hint}")
            chosen[HOME[name]][name] = value
        made: dict[str, Any] = {section: kind(**chosen[section]) for section, kind in SECTIONS.items()}
        return cls(**made, listeners=tuple([cls.from_options(one) for one in listeners]))

    def to_dict(self) -> dict[str, object]:
        """Flat names again, of types msgpack knows; `from_options` takes it back."""
        flat: dict[str, object] = {LISTENERS: [one.to_dict() for one in self.listeners]} if self.listeners else {}
        return flat | {
            spec.name: list(value) if isinstance(value, tuple) else value
            for section in SECTIONS
            for spec in fields(SECTIONS[section])
            for value in [getattr(getattr(self, section), spec.name)]
        }


SECTIONS: dict[str, type[Section]] = {
    "process": Process,
    "operation": Operation,
    "listen": Listen,
    "tls": Tls,
    "http": Http,
    "websocket": WebSocket,
    "flow": Flow,
    "tasks": Tasks,
    "topics": Topics,
}
LISTENERS = "listeners"  # the one name among the flat ones that stands for several options
LISTENER_SECTIONS = frozenset({"listen", "tls", "http", "websocket", "flow"})
#: What cannot differ from listener to listener, of these sections.
SERVER_WIDE = frozenset(
    {
        "max_topics",
        "session_limit",
        "in_flight_messages",
        "in_flight_bytes",
        "worker_messages",
        "worker_bytes",
        "gateway_bytes",
        "upload_file_limit",
        "max_connections_per_address",
        "max_unfinished_per_address",
        "max_connections",
        "buffer_limit",
    }
)
HOME = {spec.name: section for section, kind in SECTIONS.items() for spec in fields(kind)}


def listener_options(server: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """All options of a further listener: its own, and the server's where it has none, but for the section `listen`.

    Raises ConfigError for an option that only the server can have. Unknown names pass: from_options() finds them.
    """
    for name in own:
        if name == LISTENERS or (name in HOME and (HOME[name] not in LISTENER_SECTIONS or name in SERVER_WIDE)):
            raise ConfigError(f"{name} is an option of the whole server: give it to Server() or set(), not to listen()")
    if not own.keys() & {"port", "unix_socket", "inherited"}:
        raise ConfigError("listen() needs a port, a unix_socket or an inherited socket")
    return {name: value for name, value in server.items() if HOME.get(name) != "listen"} | dict(own)


def describe() -> Iterator[Option]:
    """Every option in the order of the settings page."""
    for section, kind in SECTIONS.items():
        for spec in fields(kind):
            meta = spec.metadata
            default = meta["shown"] or shown(spec.default)
            yield Option(section, spec.name, type_name(spec), default, meta["unit"], meta["doc"], allowed(spec))


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return number(value)
    return repr(value) if isinstance(value, str) else "none"
