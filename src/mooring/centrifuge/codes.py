"""The codes of the protocol: of errors in replies, of ends of a connection, of ends of a subscription.

A code says what the client does next. An end of a connection below 3500, or from 4000 to 4499, has it connect again;
one from 3500 to 3999, or from 4500 to 4999, does not. An error in a reply has it ask again only if it is `temporary`,
whatever its code. An end of a subscription from 2500 on has it subscribe again at once. Applications have 400 to 1999
for errors and 4000 to 4999 for ends.

The reason of an end also stands in the close frame (RFC 6455 section 5.5.1), which has traps: a client's library reads
a reason that parses as JSON as something else, and takes an empty one for a passing fault. `as_reason` sees to both.
"""

import msgspec

from mooring.centrifuge.commands import Disconnect, Error, Unsubscribe
from mooring.errors import MooringError

# ------------------------------------------------------------------------------------------------ errors in replies

INTERNAL = Error(100, "the server has failed, try again", True)
UNAUTHORIZED = Error(101, "a valid token is needed")
UNKNOWN_CHANNEL = Error(102, "there is no such channel")
PERMISSION_DENIED = Error(103, "this is not allowed")
METHOD_NOT_FOUND = Error(104, "there is no such method")
ALREADY_SUBSCRIBED = Error(105, "this client is subscribed already")
LIMIT_EXCEEDED = Error(106, "a limit is exceeded")
BAD_REQUEST = Error(107, "the request lacks something, or is not as it should be")
NOT_AVAILABLE = Error(108, "this is not available here")
TOKEN_EXPIRED = Error(109, "the token has expired")
EXPIRED = Error(110, "this has expired")
TOO_MANY_REQUESTS = Error(111, "too many requests, try again later", True)
UNRECOVERABLE = Error(112, "what was missed can't be recovered")

# ------------------------------------------------------------------------------------------------ ends of a connection

SHUTDOWN = Disconnect(3001, "the server stops")
SERVER_ERROR = Disconnect(3004, "the server has failed")
CONNECTION_EXPIRED = Disconnect(3005, "the connection has expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "a subscription has expired")
SLOW = Disconnect(3008, "the client does not take what it is sent")
INSUFFICIENT_STATE = Disconnect(3010, "publications are missing, connect again to recover them")
NO_PONG = Disconnect(3012, "no pong in time")
TOO_MANY_COMMANDS = Disconnect(3013, "too many commands at once")
INVALID_TOKEN = Disconnect(3500, "the token is not valid")
BAD_COMMAND = 3501  # its reason says what is wrong
STALE = Disconnect(3502, "no connect command in time")
FORCED = Disconnect(3503, "disconnected by the application")
CHANNEL_LIMIT = Disconnect(3505, "too many channels")
NOT_JSON = Disconnect(3506, "this channel has data that is not JSON, connect with protobuf")

# ------------------------------------------------------------------------------------------------ ends of subscriptions

UNSUBSCRIBED = Unsubscribe(2000, "unsubscribed by the server")
POSITION_LOST = Unsubscribe(2500, "publications are missing, subscribe again to recover them")
UNSUBSCRIBED_EXPIRED = Unsubscribe(2501, "the subscription has expired")

LONGEST_REASON = 123  # bytes, RFC 6455 section 5.5


class Violation(MooringError):
    """What a client has sent breaks the protocol; `disconnect` is what its connection ends with."""

    def __init__(self, reason: str, code: int = BAD_COMMAND) -> None:
        super().__init__(reason)
        self.disconnect = Disconnect(code, as_reason(reason))


class NotJson(MooringError):
    """Data that a client of JSON can't be sent, because it is none, or nested too deeply."""


def as_reason(text: str) -> str:
    """The text as a close frame can have it: something, no JSON, and not too long."""
    text = _cut(text) or "no reason given"
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return _cut(f"reason: {text}")


def _cut(text: str) -> str:
    return text.strip().encode("utf-8", "replace")[:LONGEST_REASON].decode("utf-8", "ignore").strip()


def ends_for_good(code: int) -> bool:
    """Whether a client does not connect again after this code."""
    return 3500 <= code < 4000 or 4500 <= code < 5000
