"""A WebSocket and HTTP server whose connections outlive your code."""

from mooring._core.ws import CloseFrame, Frame
from mooring.app.request import Request
from mooring.app.response import Response
from mooring.errors import BootError, ConfigError, MooringError, StateError
from mooring.server import Server
from mooring.types import ClientInfo, CloseCode, ConnectionState, Headers, Opcode
from mooring.worker.session import Session

__all__ = [
    "BootError",
    "ClientInfo",
    "CloseCode",
    "CloseFrame",
    "ConfigError",
    "ConnectionState",
    "Frame",
    "Headers",
    "MooringError",
    "Opcode",
    "Request",
    "Response",
    "Server",
    "Session",
    "StateError",
]
