"""What is said on a control socket: one line of JSON each way, then the server closes.

    {"command": "push", "fd": 7, "text": "hello"}            ->  {"ok": true, "result": true}
    {"command": "push", "fd": 7, "text": "a", "extra": 1}    ->  {"ok": false, "error": "Object contains unknown ..."}

One connection, one request: nobody keeps a place there that others need, and a client does not notice that the worker
which answers was replaced between two requests. Only `tail` is answered with line after line. A request that does not
fit one of the types here is refused with what is wrong in it; nothing of it is carried out.
"""

from typing import Any, TypeAlias

import msgspec

from mooring.app.search import Search
from mooring.errors import AdminError
from mooring.near import nearest
from mooring.types import CAUSES, CloseRecord

LINE_LIMIT = 2 << 20  # bytes of a request; 1.5 MiB of binary data, which travels as base64


class _Request(msgspec.Struct, tag_field="command", forbid_unknown_fields=True, omit_defaults=True):
    """The command is the type's tag."""


class Stats(_Request, tag="stats"):
    """`Server.stats()`."""


class ListConnections(Search, tag_field="command", tag="connections", forbid_unknown_fields=True, omit_defaults=True):
    """What is known of each connection that is wanted."""


class Processes(_Request, tag="processes"):
    """How each process is doing."""


class Inspect(_Request, tag="inspect"):
    """What is known of one connection."""

    fd: int


class Push(_Request, tag="push"):
    """A message to exactly one of `fd`, `user`, `topic`; exactly one of `text` and `binary`."""

    fd: int | None = None
    user: str | None = None
    topic: str | None = None
    text: str | None = None
    binary: bytes | None = None

    @property
    def data(self) -> str | bytes:
        if (self.text is None) == (self.binary is None):
            raise ValueError("give either text or binary")
        return self.text if self.text is not None else self.binary or b""


class Kick(_Request, tag="kick"):
    """Closes the connection `fd`, or all of `user`."""

    fd: int | None = None
    user: str | None = None
    code: int = 1000
    reason: str = ""


class Tail(_Request, tag="tail"):
    """Close records as they come, until the client leaves: the one answer that has many lines."""

    cause: list[str] = []
    """Any of these."""
    user: str | None = None
    path: str | None = None
    """Without the query; with a `*` at its end, what begins so."""
    listener: int | None = None
    code: int | None = None

    def check(self) -> None:
        """Raises ValueError for what can't be meant."""
        unknown = next((cause for cause in self.cause if cause not in CAUSES), None)
        if unknown is not None:
            near = nearest(unknown, CAUSES, {})
            raise ValueError(f"cause={unknown!r}: {f'did you mean {near!r}?' if near else 'there is no such cause'}")

    def fits(self, record: CloseRecord) -> bool:
        """Whether it is wanted."""
        return (
            (not self.cause or record.cause in self.cause)
            and self.user in (None, record.user)
            and self.listener in (None, record.listener)
            and self.code in (None, record.code)
            and (
                self.path is None
                or record.path == self.path
                or (self.path.endswith("*") and record.path.startswith(self.path[:-1]))
            )
        )


class Reload(_Request, tag="reload"):
    """`Server.reload()`."""


class Stop(_Request, tag="stop"):
    """`Server.shutdown()`."""


Request: TypeAlias = Stats | ListConnections | Processes | Inspect | Push | Kick | Tail | Reload | Stop


class Answer(msgspec.Struct, omit_defaults=True):
    """`result` if it is ok, else `error`, for a person to read."""

    ok: bool
    result: Any = None
    error: str = ""


_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()


def decode_request(line: bytes) -> Request:
    """Raises AdminError that says what is wrong with it."""
    try:
        request: Request = _requests.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise AdminError(f"that is no request: {problem}; a request is one line of JSON, see docs/control.md") from None
    return request


def decode_answer(line: bytes) -> Answer:
    """Raises AdminError when it is none."""
    try:
        return _answers.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise AdminError(
            f"the answer can't be read: {problem}; is that the control socket of a mooring server?"
        ) from None


def encode_rows(rows: list[Any]) -> bytes:
    """What stands between the brackets of a list."""
    return _encoder.encode(rows)[1:-1]


def encode(said: Request | Answer) -> bytes:
    """One line."""
    return _encoder.encode(said) + b"\n"
