from collections.abc import Callable
from typing import Self

from typing_extensions import disjoint_base

from mooring._core.http_exchange import Sink
from mooring._core.http_request import HttpError, ParsedRequest
from mooring._core.websocket import WebSockets

@disjoint_base
class Answering(Sink):
    def __new__(
        cls,
        connections: WebSockets,
        on_page: Callable[[int, ParsedRequest], None],
        on_bad: Callable[[int, HttpError], None],
    ) -> Self: ...
