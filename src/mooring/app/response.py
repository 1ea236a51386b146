"""The answer to one HTTP request.

    headers may be set ── write() ──> streaming ── end() ──> ended
            └──────────── end() ─────────────────────────────┘

What a handler sets is checked at once, where the traceback still names the line at fault, so that nothing
a client could read as a second answer reaches the wire. How the body is delimited is not the handler's
business: one `end` gives Content-Length, a `write` before it gives chunks (RFC 9112 section 6).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Generator
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import quote

import msgspec

from mooring._core.http_response import LAST_CHUNK, REASONS, chunk, response_head
from mooring.app import fields
from mooring.app.compress import Compressor, is_text
from mooring.app.cookies import SameSite, set_cookie
from mooring.app.dates import http_date
from mooring.app.events import COMMENT, EventStream, event
from mooring.app.file_rest import FileRest, Transfer
from mooring.app.foreign import is_a
from mooring.app.request import Request
from mooring.app.static import CHEAP, Opened, conditional, content_type_of, open_for_sending, whole
from mooring.errors import ClientGone, HttpError, StateError

Send = Callable[[bytes, bool, bool], bool]
"""send(data, last, close): hand raw bytes towards the connection. `last`: the answer is complete.
`close`: close the connection once they are sent. False: the connection is gone."""
Room = Callable[[], Awaitable[bool]]
"""room(): waits until the client has read most of what was sent before. False: it has left."""


class Watch(Protocol):
    """Have `end` called when the client leaves, or when this worker is to go, at once if the answer is endless; `probe`
    when the client may have left."""

    def __call__(self, end: Callable[[], None], probe: Callable[[], None], *, endless: bool) -> None: ...


# RFC 9110 sections 15.3.5, 15.3.6, 15.4.5: answers without a body, whatever the method.
_BODILESS = frozenset({204, 205, 304})
_NOT_COMPRESSED = _BODILESS | {206}  # a part is one of the bytes as they are
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_NOT_IN_A_NAME = dict.fromkeys((*range(32), 34, 37, 47, 92, 127), "_")  # RFC 6266 appendix D


class Written:
    """What `response.write` gives: true or false at once, and something to wait for."""

    __slots__ = ("_response", "_taken")

    def __init__(self, response: "Response", taken: bool) -> None:
        self._response = response
        self._taken = taken

    def __bool__(self) -> bool:
        """False when the connection is gone: there is no use in going on."""
        return self._taken

    def __await__(self) -> Generator[Any, None, None]:
        """Wait while the client doesn't read. Raises ClientGone when it has left."""
        return self._response._make_room(self._taken).__await__()


class Response:
    """The answer to one request. Given to the `request` handler; never made by the application.

    A wrong value raises ValueError, a call after its time StateError; then nothing has been sent by it.
    Bodies of answers that can't have one (to HEAD; status 204, 205, 304) are left out without complaint.
    """

    __slots__ = (
        "_body_size",
        "_broken",
        "_chunked",
        "_compressor",
        "_event_source",
        "_file_limit",
        "_flow",
        "_headers",
        "_keep_alive",
        "_length",
        "_pending",
        "_reason",
        "_request",
        "_rest",
        "_send",
        "_server_header",
        "_status",
        "_transfer",
        "_window",
        "ended",
        "started",
    )

    def __init__(
        self,
        request: Request,
        send: Send,
        *,
        server_header: bool = True,
        keepalive_requests: int = 1000,
        file_limit: int = 1 << 20,
        compressor: Compressor | None = None,
        flow: tuple[Room, Watch] | None = None,
        transfer: Transfer | None = None,
        window: int = 64 << 10,
    ) -> None:
        """`keepalive_requests`: after that many requests the connection is closed (see `Request.number`).
        `file_limit`: the largest body that `send_file` sends at once. `compressor`: None leaves every body as it is.
        `flow`: how to wait for the client; None: nothing ever waits. `transfer`: how to leave a file to the gateway.
        `window`: bytes sent without asking for room."""
        self._request = request
        self._send = send
        self._server_header = server_header
        self._status = 200
        self._reason: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._chunked = False
        self._compressor = compressor
        self._file_limit = file_limit
        self._flow = flow
        self._transfer = transfer
        self._window = window
        self._pending = 0  # bytes sent since the client was last known to read
        self._rest: FileRest | None = None
        self._length: int | None = None  # of a body that is left out unread; -1: nobody knows
        self._keep_alive = _wants_keep_alive(request) and request.number < keepalive_requests
        self.started = False
        """The head has been sent; status and headers are fixed."""
        self.ended = False
        """The answer is complete, or was broken off."""
        self._broken = False
        """It was broken off."""
        self._body_size = 0
        """Bytes of the body sent so far."""
        self._event_source: EventStream | None = None
        """What `event_stream` has made."""

    @property
    def status_code(self) -> int:
        """The status, as it is set at the moment."""
        return self._status

    if not TYPE_CHECKING:

        @status_code.setter
        def status_code(self, code: int) -> NoReturn:
            raise AttributeError(f"call response.status({code!r}): it also checks the code")

    def status(self, code: int, reason: str | None = None) -> None:
        """Set the status, 200 to 599, and the reason phrase if the standard one will not do."""
        self._must_not_have_started("status")
        if not 200 <= code <= 599:
            raise ValueError(f"status {code}: a final answer has a status from 200 to 599")
        response_head(code, (), reason)
        self._status, self._reason = int(code), reason

    def header(self, name: str, value: str) -> None:
        """Set a header field; earlier values of that name are replaced.

        Connection: close closes the connection after this answer; the other fields that delimit an answer
        (Connection, Content-Length, Transfer-Encoding) are the server's: ValueError."""
        if self._check_header(name, value):
            fields.replace(self._headers, name, value)

    def add_header(self, name: str, value: str) -> None:
        """Add a header field beside those of the same name."""
        if self._check_header(name, value):
            self._headers.append((name, value))

    def cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        expires: datetime | float | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        http_only: bool = True,
        same_site: SameSite | None = "Lax",
    ) -> None:
        """Add a Set-Cookie field (RFC 6265 section 4.1).

        `max_age` in seconds; `expires` in unix seconds, or a datetime with a time zone. A value with
        other characters than RFC 6265 allows (space, quote, comma, semicolon, backslash, non-ASCII) raises
        ValueError: encode it, with urllib.parse.quote for example.
        """
        field = set_cookie(
            name,
            value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            http_only=http_only,
            same_site=same_site,
        )
        self.add_header("Set-Cookie", field)

    def write(self, data: str | bytes) -> Written:
        """Send a part of the body; the first call sends the head too. str is sent as UTF-8.

        `await response.write(data)` waits then while the client doesn't read, so that an answer of any length takes
        little memory, and raises ClientGone when the client has left. Without `await` nothing waits: the result is
        false when the connection is gone, and a client that leaves more than `write_limit` bytes unread is cut.
        """
        self._must_not_have_ended("write")
        body = _bytes(data)  # first: data that can't be sent must not leave a head behind that was not sent
        head = b"" if self.started else self._start(data)
        self._body_size += len(body) if self._may_have_body else 0
        self._pending += len(body)
        return Written(self, self._send(head + self._frame(body), False, False))

    async def _make_room(self, taken: bool) -> None:
        if taken and self._pending > self._window and self._flow is not None:
            self._pending = 0
            taken = await self._flow[0]()
        if not taken:
            raise ClientGone("the client has left before the answer was complete")

    def event_stream(
        self, *, keep_alive: float = 15.0, keep_alive_event: str | None = None, endless: bool = True
    ) -> EventStream:
        """Begin an answer of server-sent events, and give what to send them with; only in an `async def` handler.

        `keep_alive`: after so many seconds without an event a comment is sent; 0: never. `keep_alive_event`: for
        clients that make an empty event of a comment, an event of this name instead. The answer ends when the
        handler returns. When the client leaves, or the server reloads or stops, the handler is cancelled where it
        waits, and `send` raises ClientGone. With `endless=False` a reload or stop lets it come to its end, for at most
        `graceful_timeout`. What the client saw last is in `last_event_id`.
        """
        self._must_not_have_started("event_stream")
        if not 0 <= keep_alive <= 3600:
            raise ValueError(f"keep_alive={keep_alive}: seconds, 0 to 3600")
        words = COMMENT if keep_alive_event is None else event("", keep_alive_event, None, None)
        task = None if self._flow is None else asyncio.current_task()
        if task is None or self._flow is None:
            raise StateError("event_stream: the handler must be `async def`, as a stream has to wait")
        for name, value in (
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),  # nginx would wait for more
        ):
            if not fields.has(self._headers, name.lower()):
                self.header(name, value)
        if self._may_have_body:
            self.write(b"")
        else:
            self.end()

        async def write(data: bytes) -> None:
            await self.write(data)

        identity = self._request.last_event_id
        self._event_source = EventStream(write, keep_alive, words, task, identity, over=self.ended)
        if not self.ended:
            self._flow[1](self._event_source._end, self._event_source._probe, endless=endless)
        return self._event_source

    def end(self, data: str | bytes = b"") -> bool:
        """Send the rest of the body and complete the answer. False when the connection is gone."""
        self._must_not_have_ended("end")
        body = _bytes(data)
        if self.started:
            rest = self._frame(body) + (LAST_CHUNK if self._chunked else b"")
        else:
            if self._compressor is not None and self._status not in _NOT_COMPRESSED:
                kind = "text/plain" if isinstance(data, str) else ""
                accepted = self._request.headers.get("accept-encoding", "")
                body, self._length = self._compressor.encode(self._headers, kind, accepted, body, self._length)
            length = None if self._status in (204, 304) else 0 if self._status == 205 else len(body)
            if length is not None and self._length is not None:
                length = self._length if self._length >= 0 else None
            elif length == 0 and self._request.method == "HEAD" and self._status != 205:
                length = None  # the handler may have left out what GET would get (RFC 9110 section 8.6)
            rest = self._head(data, length) + (body if self._may_have_body else b"")
            self.started = True
        self.ended = True
        self._body_size += len(body) if self._may_have_body else 0
        return self._send(rest, True, not self._keep_alive)

    def json(self, value: Any, status: int | None = None) -> bool:
        """End with the value as JSON. Raises TypeError for a value that JSON does not know."""
        self._must_not_have_started("json")
        body = msgspec.json.encode(value)
        if status is not None:
            self.status(status)
        if not fields.has(self._headers, "content-type"):
            self.header("Content-Type", "application/json")
        return self.end(body)

    def redirect(self, url: str, status: int = 302) -> bool:
        """End by sending the client to another URL, which must be percent-encoded."""
        self._must_not_have_started("redirect")
        if status not in _REDIRECTS:
            raise ValueError(f"status {status} does not redirect; use one of {sorted(_REDIRECTS)}")
        if not url or not all("!" <= character <= "~" for character in url):
            raise ValueError(f"redirect to {url!r}: empty, or not percent-encoded")
        self.header("Location", url)
        self.status(status)
        return self.end()

    def send_file(
        self,
        path: str | PathLike[str],
        *,
        root: str | PathLike[str] | None = None,
        content_type: str | None = None,
        download_as: str | None = None,
    ) -> bool:
        """End with the content of a regular file. False when the connection is gone.

        With `root`, `path` may come from a client: it is a path below that directory, and nothing outside it is sent,
        whatever `path` is; hidden files and symbolic links are not either. Without `root` the path must be yours;
        one with ".." in it raises ValueError, and a symbolic link is not followed if it is the last name.

        Conditional requests (ETag, Last-Modified) and requests for one range are answered as they should be (304, 412,
        206, 416), unless another status than 200 was set. The type goes by the name, `download_as` makes the client
        save it under that name. Raises HttpError, which the worker answers if the handler does not catch it: 404
        when there is no such file.

        Up to 64 KiB, or `static_file_limit` if it is to be compressed, is read and sent at once. More is sent by the
        gateway, as fast as the client reads; or, if that can't have the file, in pieces once the handler has returned.
        The file must not be changed meanwhile; it may be replaced or unlinked.
        """
        self._must_not_have_started("send_file")
        if content_type is not None:
            self.header("Content-Type", content_type)
        if download_as is not None:
            plain = download_as.encode("ascii", "replace").decode().translate(_NOT_IN_A_NAME)
            encoded = quote(download_as, safe="")  # RFC 8187
            self.header("Content-Disposition", f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
        return self._send_opened(open_for_sending(path, root))

    def _send_opened(self, opened: Opened) -> bool:
        """For the worker: like `send_file`, for a file that is open. It is closed in the end."""
        request = self._request
        found = None
        limit = self._most_at_once(opened.name)
        try:
            if self._status == 200 and request.method in ("GET", "HEAD"):
                found = conditional(opened.fd, request.method, request.headers, limit)
            else:
                found = whole(opened.fd, limit, head_only=request.method == "HEAD")
        finally:
            if found is None or found.body is not None:
                os.close(opened.fd)
        if found.body is None:
            self._rest = FileRest(opened.fd, found.first, found.length, found.modified)
        more = [*found.headers, ("X-Content-Type-Options", "nosniff")]
        if found.status in (200, 206):
            more.append(("Content-Type", content_type_of(opened.name)))
        for name, value in more:
            if not fields.has(self._headers, name.lower()):
                self.header(name, value)
        if found.status == 304 and self._compressor is not None and is_text(content_type_of(opened.name)):
            fields.vary(self._headers)  # RFC 9110 section 15.4.5: as in the 200 that is not sent
        if found.status != 200:
            self._status, self._reason = found.status, None
        if request.method == "HEAD":
            self._length = found.length
        if self._rest is None:
            assert found.body is not None
            return self.end(found.body)
        self.started = True
        head = self._head(b"", found.length)
        if self._transfer is not None and self._rest.hand_over(self._transfer, head, close=not self._keep_alive):
            return True
        return self._send(head, False, False)

    def _most_at_once(self, name: str) -> int:
        """How much of a file is read and sent here. The gateway sends larger ones, unless they may be compressed."""
        kinds = [value for field, value in self._headers if field.lower() == "content-type"]
        compressed = self._compressor is not None and is_text(kinds[0] if kinds else content_type_of(name))
        return self._file_limit if compressed or self._transfer is None else min(self._file_limit, CHEAP)

    @property
    def _has_rest(self) -> bool:
        """For the worker: a large file is still to be sent."""
        return self._rest is not None

    async def _send_rest(self) -> None:
        """For the worker: sends the rest of a large file, as fast as the client reads, unless the gateway does.
        Raises ClientGone, OSError."""
        rest = self._rest
        if rest is None:
            return
        try:
            if await rest.is_taken():
                self.ended = True
                self._body_size = rest.count
                return
            if rest.head:
                self._send(rest.head, False, False)
            for data in rest.pieces():
                self._body_size += len(data)
                self._pending += len(data)
                if rest.count:
                    await self._make_room(self._send(data, False, False))
                else:
                    self.ended = True
                    self._send(data, True, not self._keep_alive)
        except HttpError:
            self.started = False  # no byte of that answer has left
            raise
        finally:
            self._rest = None
            rest.close()

    # For the worker, when the handler is done.

    def _is_over_by(self, error: BaseException) -> bool:
        """Whether the handler has ended by this because its client has left, or the server has ended its stream."""
        ended = self._event_source is not None and self._event_source.over
        return is_a(error, ClientGone) or (ended and is_a(error, asyncio.CancelledError))

    def _finish_unanswered(self) -> bool:
        """The handler returned: complete what it left open. True when it gave no answer at all, and the
        client got a 500 instead."""
        if self.ended or self._has_rest:
            return False
        if self.started:
            self.end()
            return False
        self._replace_by_500("the handler gave no answer")
        return True

    def _fail(self, error_id: str) -> None:
        """The handler raised: a 500 that names the id in the log. When a part is sent already, close the
        connection without the final chunk, so that the client can tell that the body is cut."""
        if self.ended or self._has_rest:
            return
        if self.started:
            self.ended = self._broken = True
            self._send(b"", True, True)
        else:
            self._replace_by_500(f"the handler failed, error {error_id}")

    def _abandon(self) -> None:
        """Nobody is left to read the answer; an event stream that the server ends is complete."""
        if self.ended or self._has_rest:
            return
        if self._event_source is not None:
            self._keep_alive = False  # the next stream is for another worker
            self.end()
        else:
            self.ended = self._broken = True
            self._send(b"", True, True)

    def _refuse(self, error: HttpError) -> None:
        """The handler raised the answer. Only for a response that has not started.

        Raises ValueError or TypeError for headers of the error that can't be sent."""
        self._headers.clear()
        for name, value in error.headers:
            self.add_header(name, value)
        self._status, self._reason = error.status, None
        self.end(f"{error.status} {REASONS.get(error.status, '')}: {error.reason}\n")

    # Inside.

    def _replace_by_500(self, text: str) -> None:
        self._headers.clear()  # they belong to the answer that is not given
        self._status, self._reason = 500, None
        self.end(text + "\n")

    @property
    def _may_have_body(self) -> bool:
        return self._request.method != "HEAD" and self._status not in _BODILESS

    def _start(self, data: str | bytes) -> bytes:
        """The head of an answer whose length is not known yet."""
        bodiless = self._status in _BODILESS
        chunked = self._request.http_version != "1.0" and not bodiless
        if not chunked and self._may_have_body:
            self._keep_alive = False  # RFC 9112 section 6.3: in HTTP/1.0 the end of the connection ends it
        head = self._head(data, 0 if self._status == 205 else None, chunked=chunked)
        self._chunked = chunked and self._may_have_body
        self.started = True
        return head

    def _frame(self, body: bytes) -> bytes:
        if not self._may_have_body:
            return b""
        return chunk(body) if self._chunked else body

    def _head(self, data: str | bytes, length: int | None, *, chunked: bool = False) -> bytes:
        own = self._headers
        headers = own.copy()
        if data and self._status not in _BODILESS and not fields.has(own, "content-type"):
            kind = "text/plain; charset=utf-8" if isinstance(data, str) else "application/octet-stream"
            headers.append(("Content-Type", kind))
        if length is not None:
            headers.append(("Content-Length", str(length)))
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        if not fields.has(own, "date"):
            headers.append(("Date", http_date()))
        if self._server_header and not fields.has(own, "server"):
            headers.append(("Server", "mooring"))
        if self._request._unread:
            self._keep_alive = False  # the rest of the body would have to be read first
        # RFC 9110 section 7.8: who sends Upgrade lists it in Connection.
        options = ["Upgrade"] if fields.has(own, "upgrade") else []
        if not self._keep_alive:
            options.append("close")
        elif self._request.http_version == "1.0":
            options.append("keep-alive")
        if options:
            headers.append(("Connection", ", ".join(options)))
        return response_head(self._status, headers, self._reason)

    def _check_header(self, name: str, value: str) -> bool:
        """Whether the field is to be kept. Those that delimit the answer are the server's."""
        self._must_not_have_started("header")
        response_head(200, [(name, value)])
        if name.lower() == "connection" and value.lower() == "close":
            self._keep_alive = False
            return False
        if name.lower() in ("connection", "content-length", "transfer-encoding"):
            raise ValueError(f"header {name}: {value!r}: the server sets it; only Connection: close is taken")
        return True

    def _must_not_have_started(self, call: str) -> None:
        if self.started:
            raise StateError(f"{call} after the head of the answer was sent; call it before write() and end()")

    def _must_not_have_ended(self, call: str) -> None:
        if self.ended or self._has_rest:
            raise StateError(f"{call} after the answer was ended; a request has one answer")


def _bytes(data: str | bytes) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))  # of an int bytes() would make zeros
    except TypeError:
        raise TypeError(
            f"an answer is made of str or bytes, not of {type(data).__name__}; json() takes others"
        ) from None


def _wants_keep_alive(request: Request) -> bool:
    """RFC 9112 section 9.3."""
    options = [option.strip() for option in request.headers.get("connection", "").lower().split(",")]
    return "close" not in options and (request.http_version != "1.0" or "keep-alive" in options)
