"""A WebSocket and HTTP server whose connections outlive your code."""

from mooring._core.ws import CloseFrame, Frame
from mooring.app.forms import UploadedFile
from mooring.app.handshake import Accept, Reject
from mooring.app.request import Request
from mooring.app.response import Response
from mooring.errors import BadRequest, BootError, ConfigError, HttpError, MooringError, StateError
from mooring.server import Server
from mooring.types import ClientInfo, CloseCode, ConnectionState, Headers, Opcode
from mooring.worker.session import Session

__all__ = [
    "Accept",
    "BadRequest",
    "BootError",
    "ClientInfo",
    "CloseCode",
    "CloseFrame",
    "ConfigError",
    "ConnectionState",
    "Frame",
    "Headers",
    "HttpError",
    "MooringError",
    "Opcode",
    "Reject",
    "Request",
    "Response",
    "Server",
    "Session",
    "StateError",
    "UploadedFile",
]
