"""What an application can say of a handshake: `Accept` or `Reject`.

Both are checked when they are made, where the traceback still names the line at fault. Fields that make the answer a
handshake, or delimit it, are the server's.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from mooring._core.http_response import REASONS, response_head
from mooring.app.cookies import CookieOptions, set_cookie
from mooring.app.values import check_entry

HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]

_OWNED = frozenset({"upgrade", "connection", "content-length", "transfer-encoding"})


class Accept:
    """Returned by a `handshake` handler: the client becomes a WebSocket.

    subprotocol: one of those that the client offers (`request.subprotocols`), "" for none; None leaves the choice to
        the handler of `subprotocol` or to the setting `subprotocols`.
    headers: fields of the 101, a mapping or pairs.
    cookies: names and values, sent with the defaults of `cookie`; or call that, which takes more.
    session: first entries of the session, there when `open` is called.

    Raises ValueError for fields and cookies that can't be sent, and for fields that are the server's (Upgrade,
    Connection, Sec-WebSocket-..., Content-Length, Transfer-Encoding); TypeError for what a session can't keep.
    """

    __slots__ = ("headers", "session", "subprotocol")

    def __init__(
        self,
        subprotocol: str | None = None,
        headers: HeaderFields = (),
        cookies: Mapping[str, str] | None = None,
        session: Mapping[str, Any] | None = None,
    ) -> None:
        self.subprotocol = subprotocol
        self.headers = checked_fields(headers, 101)
        self.session = dict(session or {})
        for key, value in self.session.items():
            check_entry(key, value)
        for name, value in (cookies or {}).items():
            self.cookie(name, value)

    def cookie(self, name: str, value: str, **options: Unpack[CookieOptions]) -> "Accept":
        """Adds a cookie, and returns this object; the parameters are those of `Response.cookie`."""
        self.headers.append(("Set-Cookie", set_cookie(name, value, **options)))
        return self

    def __repr__(self) -> str:
        return f"<Accept subprotocol={self.subprotocol!r} headers={[name for name, _ in self.headers]}>"


class Reject:
    """Returned by a `handshake` handler: the client gets this answer, and the connection ends.

    body: text, or bytes with a Content-Type among the headers; None makes a line of the status.
    headers: a mapping or pairs, such as {"WWW-Authenticate": "Bearer"} with 401.

    Raises ValueError for a status outside of 400 to 599, and like `Accept` for fields.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 403, body: str | bytes | None = None, headers: HeaderFields = ()) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"status {status}: a handshake is refused with 400 to 599; to accept it, return Accept()")
        self.status = int(status)
        self.headers = checked_fields(headers, self.status)
        self.body = f"{self.status} {REASONS.get(self.status, '')}: not accepted\n" if body is None else body

    def __repr__(self) -> str:
        return f"<Reject {self.status}>"


def checked_fields(headers: HeaderFields, status: int) -> list[tuple[str, str]]:
    """The fields as pairs. Raises ValueError or TypeError for what can't be sent or is the server's."""
    pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    response_head(status, pairs)
    pairs = [
        (str.__str__(name), str.__str__(value)) for name, value in pairs
    ]  # of a StrEnum, say, no more than its text
    for name, _ in pairs:
        if name.lower() in _OWNED or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"header {name}: in the answer to a handshake the server sets it; leave it out")
    return pairs
