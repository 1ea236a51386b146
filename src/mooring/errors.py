"""Every exception the package raises on purpose.

    MooringError
    ├── ConfigError   (also ValueError)    an option, handler or origin that can't be meant
    ├── StateError    (also RuntimeError)  a call at the wrong time
    ├── ClientGone    (also ConnectionError)  nobody is left to read the answer
    ├── BootError                          an application that can't be loaded
    ├── AdminError                         what a control socket was asked is refused, or can't be asked
    │   └── ServerUnreachable (also ConnectionError)  no server answers there
    ├── TableFull                          a shared table has no room
    ├── TaskError                          a task that has no result
    │   ├── TaskFailed                     its handler has raised
    │   ├── TaskLost                       the process that was at it, or that kept it, has ended
    │   ├── TaskTimeout (also TimeoutError)
    │   └── TaskQueueFull                  it was not taken: too many, or too large
    ├── SpawnFull                          a connection owns too much work already
    ├── WorkLost                           work that a connection owned has not come to its end
    ├── PipeFull                           a message to another worker, and too many wait already
    ├── PublishError                       a publication in a topic with a history is not acknowledged
    │   ├── PublishRefused                 nothing was published
    │   └── PublishUncertain               it may have been published or not
    └── HttpError                          an answer to a request that is an error, 4xx or 5xx
        ├── NoThread (also RuntimeError)   what was to run in a thread will not
        └── BadRequest (also ValueError)   the client's fault, found in what it sent
            ├── BadText (also UnicodeDecodeError)  it is no text in its charset
            └── BadMessage                 a message is not what the application takes

Each message names the thing, what was given and what to do about it.
"""

import re
from collections.abc import Iterable, Mapping


class MooringError(Exception):
    """The root: `except MooringError` catches whatever this package raises on purpose."""


class ConfigError(MooringError, ValueError):
    """A setting or a handler that can't be used as given; raised while the server is being set up."""


class StateError(MooringError, RuntimeError):
    """A call at the wrong time, such as a push before the server runs or a second `response.end()`."""


class ClientGone(MooringError, ConnectionError):
    """The client has left before its answer was complete, or its event stream was ended because the server reloads or
    stops. A `request` handler may let it pass: that is no failure."""


class BootError(MooringError):
    """The application can't be loaded: no such module, no such attribute, or the attribute is no server."""


class AdminError(MooringError):
    """A request on the control socket that the server refuses, or that can't be sent; the text says why."""


class ServerUnreachable(AdminError, ConnectionError):
    """No server answers on the control socket, or not in time. What was asked may have been done nevertheless when the
    text says so."""


class TableFull(MooringError):
    """A shared table has as many rows as it was declared with, or no memory for more; nothing was changed."""


class TaskError(MooringError):
    """A task has no result; its kinds say why."""


class TaskFailed(TaskError):
    """The `task` handler has raised. `kind` is the name of the exception, `text` what it said; the traceback is in the
    task worker's log."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class TaskLost(TaskError):
    """The task worker ended while it was at the task, or the process that keeps the queue did. Whether the task had an
    effect, nobody knows; it is not run again."""


class TaskTimeout(TaskError, TimeoutError):
    """There was no result in time. A task that had not begun is taken back; one that had goes on, and nobody hears of
    its result."""


class TaskQueueFull(TaskError):
    """The task was not taken: this worker has too many unfinished ones (`task_queue_limit`, `task_queue_bytes`)."""


class SpawnFull(MooringError):
    """`spawn`: the connection owns as much work as it may (`max_spawned`); this was not begun."""


class WorkLost(MooringError):
    """What a connection owned by `spawn` has not come to its end: its worker ended, and nobody knows how far it had
    come, or had to leave and could not wait any longer. Not raised; the `error` handler finds it in
    `failure.exception`."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


class PipeFull(MooringError):
    """A message to another worker was not sent: too many bytes wait to be handed over. The text says where."""


class PublishError(MooringError):
    """A publication in a topic with a history has not been acknowledged."""


class PublishRefused(PublishError):
    """Nothing was published; the text says why."""


class PublishUncertain(PublishError):
    """Whether it was published, nobody can say: what keeps the topic has ended meanwhile."""


class HttpError(MooringError):
    """Raised in a `request` or `handshake` handler, it is the answer: that status and that reason as text, without a
    traceback in the log. What the handler has set in the response so far is left out.

    `headers` go with it, a mapping or pairs, such as `{"Allow": "GET"}` with 405. Raises ValueError for a status
    outside 400 to 599, and for a header that can't be sent or is the server's (those that delimit an answer); TypeError
    for what is no header.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status {status!r:.200}: an error has a number from 400 to 599")
        if not 400 <= status <= 599:
            raise ValueError(f"status {status}: an error has a status from 400 to 599")
        super().__init__(status, reason)
        self.status = int(status)
        self.reason = reason
        fields = headers.items() if isinstance(headers, Mapping) else headers
        if isinstance(headers, str | bytes) or not isinstance(fields, Iterable):
            raise TypeError(f"headers {headers!r:.200}: write a mapping, or pairs of name and value, of texts")
        self.headers = tuple([_field(pair) for pair in fields])

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 sections 5.1 and 5.5
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_DELIMITING = frozenset({"connection", "content-length", "transfer-encoding"})


def _field(pair: object) -> tuple[str, str]:
    """A header field, checked where the traceback still names the line at fault."""
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise TypeError(f"header {pair!r:.200}: write a mapping, or pairs of name and value, of texts")
    name, value = pair
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"header {name!r}: {value!r:.200} can't be sent: a token, and text without control characters")
    if name.lower() in _DELIMITING and (name.lower(), value.lower()) != ("connection", "close"):
        raise ValueError(f"header {name}: {value!r:.200}: the server sets it; only Connection: close is taken")
    return str.__str__(name), str.__str__(value)  # of a StrEnum, say, no more than its text


class NoThread(HttpError, RuntimeError):
    """`asyncio.to_thread` or `loop.run_in_executor` could not start a thread, and there is none yet to do it. What was
    to run in it never will; a client whose request needed it is answered 503, if the handler lets it pass."""


class BadRequest(HttpError, ValueError):
    """What the client sent can't be used; raised where it is looked at (`request.form`), answered with its status."""


class BadText(BadRequest, UnicodeDecodeError):
    """A body that is no text in the charset that it names: 400."""

    def __init__(self, reason: str, error: UnicodeDecodeError) -> None:
        UnicodeDecodeError.__init__(self, error.encoding, error.object, error.start, error.end, reason)
        self.status = 400
        self.headers = ()


class BadMessage(BadRequest):
    """A message is not JSON, or not of the type that is asked for. Raised by `Frame.json()`; raise it yourself for what
    else a message must be: `raise BadMessage("there is no such room", "$.room")`.

    A `message` handler may let it pass: that is no failure. The client is told `reason` and `path`, a JSONPath such as
    "$.x" ("$": all of it), and stays, unless the setting on_invalid says otherwise. `data` is what it has sent: str or
    bytes; None unless `Frame.json()` has raised it.
    """

    def __init__(self, reason: str, path: str = "$", data: str | bytes | None = None) -> None:
        super().__init__(400, reason)
        self.path = path
        self.data = data

    def __str__(self) -> str:
        return self.reason if self.path == "$" else f"{self.reason}, at {self.path}"
