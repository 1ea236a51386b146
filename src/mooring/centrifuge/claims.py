"""What a token says, and what a session wants of whoever can read one: `tokens.py`, or one of the application's own."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Raw, Struct

from mooring.centrifuge.commands import EMPTY
from mooring.errors import MooringError


class TokenError(MooringError):
    """A token that is not taken; the text says why, for a log. It never has the token."""


class TokenExpired(TokenError):
    """It was good until its time was over."""


class ConnectionClaims(Struct, frozen=True):
    """What a connection's token says. `ttl` in s, None: it does not expire. `subs` are channels to subscribe it to."""

    user: str = ""
    ttl: float | None = None
    info: Raw = EMPTY
    meta: Raw = EMPTY
    subs: Mapping[str, Raw] = {}


class SubscriptionClaims(Struct, frozen=True):
    """What a subscription's token says. `ttl` in s, None: it does not expire. `override` is JSON, if anything."""

    user: str = ""
    channel: str = ""
    client: str = ""
    ttl: float | None = None
    info: Raw = EMPTY
    override: Raw = EMPTY


Claims = ConnectionClaims | SubscriptionClaims


class Verifier(Protocol):
    """Reads tokens. Both raise `TokenExpired` for one whose time is over, and `TokenError` for any other fault."""

    def connection(self, token: str) -> ConnectionClaims:
        """What a connection's token says."""

    def subscription(self, token: str) -> SubscriptionClaims:
        """What a subscription's token says."""
