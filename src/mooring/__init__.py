"""A WebSocket and HTTP server whose connections outlive your code."""

from mooring._core.ws import CloseFrame, Frame
from mooring.admin.aio import AsyncControlClient, connect_async
from mooring.admin.client import ControlClient, connect
from mooring.app.events import EventStream
from mooring.app.forms import UploadedFile
from mooring.app.handshake import Accept, Reject
from mooring.app.listener import Listener
from mooring.app.request import Request
from mooring.app.response import Response
from mooring.app.shared import Atomic, Table
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
    ConnectionState,
    Failure,
    Guarantees,
    Headers,
    Opcode,
)
from mooring.worker.session import Session
from mooring.worker.tasks import Outcome, Task

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
    "Outcome",
    "PipeFull",
    "Reject",
    "Request",
    "Response",
    "Server",
    "ServerUnreachable",
    "Session",
    "SpawnFull",
    "StateError",
    "Table",
    "TableFull",
    "Task",
    "TaskError",
    "TaskFailed",
    "TaskLost",
    "TaskQueueFull",
    "TaskTimeout",
    "UploadedFile",
    "WorkLost",
    "connect",
    "connect_async",
]
