"""Messages that are JSON of a type: their handler is called with the value.

What a client sends that is not of that type never reaches the handler: `value_of` raises BadMessage in its place, which
is what a handler may raise itself (see mooring.worker.failures).
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec

from mooring._core.ws import Frame, value_of
from mooring.errors import ConfigError

R = TypeVar("R")
T = TypeVar("T")
OfType: TypeAlias = Callable[[Any, Frame, T], R]
"""A handler of messages that are JSON of a type."""


def decoder_for(event: str, type: object) -> msgspec.json.Decoder[Any]:
    """Raises ConfigError for an event that has no value, and for a type that msgspec can't decode into."""
    if event != "message":
        raise ConfigError(f"on({event!r}, type=...): only a 'message' is JSON of a type")
    try:
        return msgspec.json.Decoder(type)
    except (TypeError, ValueError, NameError) as problem:
        raise ConfigError(f"on('message', type={type!r:.200}): no JSON can be decoded into that: {problem}") from None


def typed(handler: Callable[..., Any], decoder: msgspec.json.Decoder[Any]) -> Callable[[Any, Frame], Any]:
    """A handler of messages that calls `handler(server, frame, value)`."""

    @functools.wraps(handler)
    def of_frame(server: Any, frame: Frame) -> Any:
        return handler(server, frame, value_of(frame, decoder))

    return of_frame
