"""A further listener of a server, as `Server.listen` returns it: its options and its handlers."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, overload

from mooring.app.handlers import Handlers
from mooring.app.typed import OfType
from mooring.errors import StateError

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
T = TypeVar("T")


class Listener:
    """One of several listeners of a server.

    Handlers registered here are those of the connections that come from here; for events without one, those of the
    server are called. `number` is what `get_client_info(fd).listener` says.
    """

    def __init__(
        self, number: int, options: Mapping[str, object], fallback: Handlers, runs: Callable[[], bool]
    ) -> None:
        self.number = number
        self._options = dict(options)
        self._handlers = Handlers(fallback)
        self._runs = runs

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F) -> F: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self, event: Literal["message"], *, type: type[T]
    ) -> Callable[[OfType[T, R]], OfType[T, R]]: ...
    @overload
    def on(self, event: Literal["message"], handler: OfType[T, R], *, type: type[T]) -> OfType[T, R]: ...
    @overload
    def on(self, event: Literal["message"], *, type: object) -> Callable[[F], F]: ...
    def on(self, event: str, handler: Any = None, *, type: object = None) -> Any:
        """Registers the handler of an event for connections of this listener; also as a decorator; with `type` as
        `Server.on` has it.

        Raises ConfigError like `Server.on`, and for an event that concerns no connection; StateError once it runs.
        """
        if self._runs():
            raise StateError("on() has no effect on a server that runs: call it before start()")
        return self._handlers.on(event, handler, type)
