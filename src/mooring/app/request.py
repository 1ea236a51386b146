"""An HTTP request, as it travels from gateway to worker and as a handler sees it.

Payload: u32 little-endian length of the head | the head (msgpack) | the body.

The body is not part of the msgpack value, so it is copied once and not escaped. Everything a handler may
never look at is decoded on first use. All of it takes time linear in the size of the request: what a
client sends must not buy more work than its bytes (http.cookies, for one, unquotes in quadratic time).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, overload
from urllib.parse import parse_qsl, unquote

import msgspec

from mooring._core.ws import decoder_of
from mooring.app.forms import (
    CHARSETS,
    Form,
    FormLimits,
    MultipartReader,
    UploadedFile,
    close_files,
    declared_charset,
    form_type,
    parse_form,
)
from mooring.app.request_record import RequestRecord, split_payload
from mooring.errors import BadRequest, BadText, ClientGone, StateError
from mooring.types import ClientCertificate, Headers

QUERY_FIELD_LIMIT = 1000
"""A request target may have 8,192 bytes, hence thousands of fields; no honest one has that many."""

T = TypeVar("T")
_NO_LIMITS_GIVEN = FormLimits()


def decode_request(fd: int, payload: bytes, limits: FormLimits = _NO_LIMITS_GIVEN) -> "Request":
    """Undo `encode_request`. Raises ValueError for anything that it can't have made."""
    record, body = split_payload(payload)
    return Request(fd, record, body, limits)


class Request:
    """One HTTP request; in `open`, the one that became a WebSocket. It is not changed after it was made."""

    __slots__ = (
        "_body",
        "_cookies",
        "_form",
        "_gathered",
        "_headers",
        "_limits",
        "_path",
        "_query",
        "_record",
        "_source",
        "_unread",
        "fd",
    )

    def __init__(
        self, fd: int, record: RequestRecord, body: bytes = b"", limits: FormLimits = _NO_LIMITS_GIVEN
    ) -> None:
        self.fd = fd
        """The connection, as `push` and the others take it."""
        self._body: bytes | None = None if record.streamed else body
        self._unread = "all" if record.streamed else ""
        """What of a streamed body is to be read: "all", "some" when stream() has given a part, "" nothing more."""
        self._gathered: list[bytes] | None = None
        """What read() has so far."""
        self._source: Callable[[], Awaitable[bytes | None]] | None = None
        """For the worker: where the parts of a streamed body come from; None: the client has left."""
        self._record = record
        self._headers: Headers | None = None
        self._path: str | None = None
        self._query: dict[str, list[str]] | None = None
        self._cookies: dict[str, str] | None = None
        self._limits = limits
        self._form: Form | None = None

    @property
    def body(self) -> bytes:
        """The decoded body; empty when there was none. Raises StateError for one that is sent in parts, which is one of
        more than `stream_body_above` bytes if `stream_request_body` is on: see `stream` and `read`."""
        if self._body is None:
            raise StateError(
                "this body comes in parts: use `async for part in request.stream()` or `await request.read()`"
            )
        return self._body

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in parts, as the client sends them; the client is slowed down to the speed at which they are taken.

        A body that is here already is one part. Raises ClientGone when the client leaves, or sends what is no body, or
        sends it too slowly."""
        if self._body is not None:
            if self._body:
                yield self._body
            return
        while self._gathered:  # by a read() that was cancelled
            self._unread = "some"
            yield self._gathered.pop(0)
        while part := await self._next_part():
            self._unread = "some"
            yield part

    async def _next_part(self) -> bytes:
        """Of a body that comes in parts; empty behind the last one."""
        if not self._unread or self._source is None:
            raise StateError("the body of this request was read already; it can be read once")
        part = await self._source()
        if part is None:
            raise ClientGone("the client has left before its request was complete")
        if not part:
            self._unread = ""
        return part

    def _must_be_whole(self, call: str) -> None:
        if self._unread == "some":
            raise StateError(f"{call}: stream() has given a part of this body already: read the rest by stream(), too")

    async def read(self, limit: int = 1 << 20) -> bytes:
        """The whole body, which is then in `body` too. One that was cancelled can be called again: nothing is lost.
        Raises BadRequest (413) if it has more than `limit` bytes, StateError behind a part of `stream`, else like
        `stream`."""
        if self._body is None:
            self._must_be_whole("read()")
            gathered = self._gathered = [] if self._gathered is None else self._gathered
            size = sum(map(len, gathered))
            while size <= limit and (part := await self._next_part()):
                gathered.append(part)
                size += len(part)
            if size > limit:
                raise BadRequest(413, f"the body is longer than {limit} bytes")
            self._body = b"".join(gathered)
            self._gathered = None
        return self._body

    async def read_form(self) -> None:
        """Read a form whose body comes in parts; then `form` and `files` work. Files larger than `upload_spool_size`
        go to the disk, so it may have any length. Raises like `form` and `stream`."""
        if self._body is not None or form_type(self.headers) != "multipart/form-data":
            await self.read()
            return
        if self._form is None:
            self._must_be_whole("read_form()")
            with MultipartReader(self.headers["content-type"], self._limits) as reader:
                async for part in self.stream():
                    reader.feed(part)
                self._form = reader.finish()

    def _close(self) -> None:
        """For the worker: the handler is done."""
        if self._form is not None:
            close_files(self._form)

    @property
    def method(self) -> str:
        """As sent, upper-case: "GET"."""
        return self._record.method

    @property
    def target(self) -> str:
        """Path and query as they came, percent-encoded; "*" for OPTIONS of the whole server."""
        return self._record.target

    @property
    def path(self) -> str:
        """The path without the query, percent-decoded as UTF-8; what is not UTF-8 becomes U+FFFD.

        It is not normalised: ".." and "//" are still there.
        """
        if self._path is None:
            self._path = unquote(self._record.target.partition("?")[0])
        return self._path

    @property
    def query_string(self) -> str:
        """What follows the "?", percent-encoded; "" without one."""
        return self._record.target.partition("?")[2]

    @property
    def query_list(self) -> dict[str, list[str]]:
        """Every value of each query field, in order. Raises BadRequest, which is answered with 400 unless it is
        caught, beyond QUERY_FIELD_LIMIT fields; `query_string` has them all."""
        if self._query is None:
            text = self.query_string
            if text.count("&") >= QUERY_FIELD_LIMIT:
                raise BadRequest(400, f"the query has more than {QUERY_FIELD_LIMIT} fields")
            fields: dict[str, list[str]] = {}
            for name, value in parse_qsl(text, keep_blank_values=True):
                fields.setdefault(name, []).append(value)
            self._query = fields
        return self._query

    @property
    def query(self) -> dict[str, str]:
        """The query fields; of several with one name the last. Raises like `query_list`."""
        return {name: values[-1] for name, values in self.query_list.items()}

    @property
    def headers(self) -> Headers:
        """The header fields; names ignore case."""
        if self._headers is None:
            self._headers = Headers(self._record.headers)
        return self._headers

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies; of several with one name the first, which has the more specific path
        (RFC 6265 section 5.4). Values are as they came, less one pair of quotes around them."""
        if self._cookies is None:
            cookies: dict[str, str] = {}
            for field in self.headers.getlist("cookie"):
                for pair in field.split(";"):
                    name, equals, value = pair.partition("=")
                    name, value = name.strip(" \t"), value.strip(" \t")
                    if len(value) >= 2 and value[0] == value[-1] == '"':
                        value = value[1:-1]
                    if equals and name:
                        cookies.setdefault(name, value)
            self._cookies = cookies
        return self._cookies

    def text(self) -> str:
        """The body as text, in the charset of Content-Type or else UTF-8.

        Raises BadRequest, a ValueError, when it is not text in that charset (400; then it is a UnicodeDecodeError too),
        or when the charset is none of those in use on the web (415); `body` has the bytes. A handler that lets it pass
        answers with it.
        """
        charset = declared_charset(self.headers.get("content-type", "")) or "utf-8"
        if charset not in CHARSETS:
            # RFC 9110 section 15.5.16
            raise BadRequest(415, f"the charset {charset!r:.60} is not decoded here")
        body = self.body
        try:
            return body.decode(charset)
        except UnicodeDecodeError as error:
            raise BadText(f"the body is not text in {charset}", error) from None

    @overload
    def json(self, type: None = None) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    @overload
    def json(self, type: object) -> Any: ...
    def json(self, type: object = None) -> Any:
        """The value of a JSON body, whatever Content-Type says; with `type` one that msgspec knows, checked and made to
        it, as with `Frame.json`. Raises BadRequest (400), a ValueError, when the body is not JSON, or not of that type,
        or is nested more deeply than Python can follow; a handler that lets it pass answers with it."""
        body = self.body
        decoder = decoder_of(type)
        try:
            return decoder.decode(body)
        except RecursionError:
            raise BadRequest(400, "the body is JSON that is nested too deeply") from None
        except (ValueError, ArithmeticError) as error:
            typed = type is not None and isinstance(error, msgspec.ValidationError)
            what = "the body is not what it should be" if typed else "the body is not JSON"
            raise BadRequest(400, f"{what}: {str(error).removeprefix('JSON is malformed: ')}") from None

    @property
    def form_list(self) -> dict[str, list[str]]:
        """Every value of each field of a form, in order; empty when the body is no form.

        A form is a body of the type application/x-www-form-urlencoded or multipart/form-data; `files` has the
        files of the latter. Raises BadRequest, a ValueError, when it is malformed (400) or beyond a limit (413);
        a handler that lets it pass answers with it.
        """
        return self._parsed_form().fields

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form; of several with one name the last. Raises like `form_list`."""
        return {name: values[-1] for name, values in self.form_list.items()}

    @property
    def file_list(self) -> dict[str, list[UploadedFile]]:
        """The files of a form under the names of their fields, in order. Raises like `form_list`."""
        return self._parsed_form().files

    @property
    def files(self) -> dict[str, UploadedFile]:
        """The files of a form; of several with one name the last. Raises like `form_list`."""
        return {name: files[-1] for name, files in self.file_list.items()}

    def _parsed_form(self) -> Form:
        if self._form is None:
            self._form = parse_form(self.headers, self.body, self._limits)
        return self._form

    @property
    def last_event_id(self) -> str:
        """Of a client that lost its event stream: the id of the last event that it saw; else ""."""
        # the HTML standard sends UTF-8, section 9.2.4
        return self.headers.get("last-event-id", "").encode("latin-1").decode(errors="replace")

    @property
    def remote_ip(self) -> str:
        """The client's address; behind one of the `trusted_proxies` the one that the proxy tells."""
        return self._record.remote_ip

    @property
    def remote_port(self) -> int:
        """The client's port; 0 when a proxy told the address."""
        return self._record.remote_port

    @property
    def server_port(self) -> int:
        """The port the client connected to."""
        return self._record.server_port

    @property
    def scheme(self) -> str:
        """ "http" or "https": whether the client's connection is encrypted, to this server or to a trusted proxy."""
        return self._record.scheme

    @property
    def client_certificate(self) -> ClientCertificate | None:
        """The certificate that the client has shown, which has been checked; None: it has none, or `ssl_verify_client`
        is off. What a proxy may say about certificates in a header is not looked at."""
        return self._record.certificate

    @property
    def http_version(self) -> str:
        """ "1.1" or "1.0"."""
        return f"1.{self._record.minor}"

    @property
    def received(self) -> float:
        """When the head was complete, in unix seconds."""
        return self._record.received

    @property
    def number(self) -> int:
        """Which request of its connection it is, from 1."""
        return self._record.number

    @property
    def subprotocols(self) -> list[str]:
        """The WebSocket sub-protocols the client offers, in its order."""
        values = self.headers.getlist("sec-websocket-protocol")
        return [name for value in values for part in value.split(",") if (name := part.strip(" \t"))]

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} fd={self.fd}>"
