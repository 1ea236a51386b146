"""A WebSocket and HTTP server whose connections outlive your code.

A name is loaded when it is first asked for (PEP 562): every process of a server passes here, and none needs all.
"""

from importlib import import_module
from typing import TYPE_CHECKING
from warnings import warn

if TYPE_CHECKING:  # for those that read and do not run it
    from mooring._core.ws import CloseFrame, Frame
    from mooring.admin.aio import AsyncControlClient, connect_async
    from mooring.admin.client import ControlClient, connect
    from mooring.app.events import EventStream
    from mooring.app.forms import UploadedFile
    from mooring.app.handshake import Accept, Reject
    from mooring.app.listener import Listener
    from mooring.app.request import Request
    from mooring.app.response import Response
    from mooring.app.shared import Atomic, SharedTable
    from mooring.errors import (
        AdminError,
        BadMessage,
        BadRequest,
        BootError,
        ClientGone,
        ConfigError,
        HttpError,
        MooringError,
        NoThread,
        PipeFull,
        PublishError,
        PublishRefused,
        PublishUncertain,
        ServerUnreachable,
        SpawnFull,
        StateError,
        TableFull,
        TaskError,
        TaskFailed,
        TaskLost,
        TaskQueueFull,
        TaskTimeout,
        WorkLost,
    )
    from mooring.server import Server
    from mooring.types import (
        ClientCertificate,
        ClientInfo,
        CloseCode,
        ClosedBy,
        CloseReason,
        CloseRecord,
        ConnectionState,
        Failure,
        Guarantees,
        Headers,
        Opcode,
        Past,
        Position,
        Publication,
        Recovery,
        Verdict,
    )
    from mooring.worker.session import Session
    from mooring.worker.tasks import Task, TaskOutcome

__all__ = [
    "Accept",
    "AdminError",
    "AsyncControlClient",
    "Atomic",
    "BadMessage",
    "BadRequest",
    "BootError",
    "ClientCertificate",
    "ClientGone",
    "ClientInfo",
    "CloseCode",
    "CloseFrame",
    "CloseReason",
    "CloseRecord",
    "ClosedBy",
    "ConfigError",
    "ConnectionState",
    "ControlClient",
    "EventStream",
    "Failure",
    "Frame",
    "Guarantees",
    "Headers",
    "HttpError",
    "Listener",
    "MooringError",
    "NoThread",
    "Opcode",
    "Past",
    "PipeFull",
    "Position",
    "Publication",
    "PublishError",
    "PublishRefused",
    "PublishUncertain",
    "Recovery",
    "Reject",
    "Request",
    "Response",
    "Server",
    "ServerUnreachable",
    "Session",
    "SharedTable",
    "SpawnFull",
    "StateError",
    "TableFull",
    "Task",
    "TaskError",
    "TaskFailed",
    "TaskLost",
    "TaskOutcome",
    "TaskQueueFull",
    "TaskTimeout",
    "UploadedFile",
    "Verdict",
    "WorkLost",
    "connect",
    "connect_async",
]

_HOMES = {
    "mooring._core.ws": "CloseFrame Frame",
    "mooring.admin.aio": "AsyncControlClient connect_async",
    "mooring.admin.client": "ControlClient connect",
    "mooring.app.events": "EventStream",
    "mooring.app.forms": "UploadedFile",
    "mooring.app.handshake": "Accept Reject",
    "mooring.app.listener": "Listener",
    "mooring.app.request": "Request",
    "mooring.app.response": "Response",
    "mooring.app.shared": "Atomic SharedTable",
    "mooring.errors": (
        "AdminError BadMessage BadRequest BootError ClientGone ConfigError HttpError MooringError NoThread "
        "PipeFull PublishError PublishRefused PublishUncertain ServerUnreachable SpawnFull StateError TableFull "
        "TaskError TaskFailed TaskLost TaskQueueFull TaskTimeout WorkLost"
    ),
    "mooring.server": "Server",
    "mooring.types": (
        "ClientCertificate ClientInfo CloseCode CloseReason CloseRecord ClosedBy ConnectionState Failure Guarantees "
        "Headers Opcode Past Position Publication Recovery Verdict"
    ),
    "mooring.worker.session": "Session",
    "mooring.worker.tasks": "Task TaskOutcome",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
_RENAMED = {"Outcome": "TaskOutcome", "Table": "SharedTable"}  # names of 0.1.0, which 0.3.0 will not know


def __getattr__(name: str) -> object:
    if name in ("errors", "types"):  # as modules they are known of old
        return import_module(f"mooring.{name}")
    if name in _RENAMED:
        warn(f"mooring.{name} is called {_RENAMED[name]}; 0.3.0 will not know the old name", DeprecationWarning, 2)
        return __getattr__(_RENAMED[name])
    if name not in _HOME:
        raise AttributeError(f"module 'mooring' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "import_module", "warn"})
