"""Clients whose every wait has a limit, and whose errors show the server's log.

WebSockets are those of `websockets`, HTTP is that of `httpx`: peers that know nothing of this server.
"""

import asyncio
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Protocol, Self, TypeVar

from mooring._core.ws import Frame
from mooring.testing.errors import Closed, NotInTime, Refused

if TYPE_CHECKING:
    import httpx
    from websockets.asyncio.client import ClientConnection as AsyncConnection
    from websockets.sync.client import ClientConnection

EXTRA = "pip install 'mooring-server[testing]'"
HTTP_ONLY = {"accept", "accept-encoding", "connection", "user-agent"}  # httpx sends them; a handshake has its own

S = TypeVar("S", bound="ClientConnection | AsyncConnection")


class Host(Protocol):
    """The server, as its clients know it."""

    limit: float

    @property
    def url(self) -> str: ...
    @property
    def http_url(self) -> str: ...
    def why(self) -> str:
        """What stands behind an error: whether the server has ended, and its log."""

    def fd_at(self, port: int) -> int:
        """The fd of the connection whose client has this port."""


def websockets_module() -> Any:
    """Raises ImportError that says what to install."""
    try:
        import websockets
        import websockets.asyncio.client
        import websockets.exceptions
        import websockets.sync.client
    except ImportError as error:
        raise ImportError(f"mooring.testing opens WebSockets with the package websockets: {EXTRA}") from error
    return websockets


def httpx_module() -> Any:
    """Raises ImportError that says what to install."""
    try:
        import httpx
    except ImportError as error:
        raise ImportError(f"mooring.testing makes requests with the package httpx: {EXTRA}") from error
    return httpx


# ---------------------------------------------------------------------------------------------- WebSockets


class Connecting(AbstractContextManager["Client"], AbstractAsyncContextManager["AsyncClient"]):
    """What `connect()` gives: a Client for `with`, an AsyncClient for `async with`.

    Entering raises Refused when the server answers the handshake with anything else than 101.
    """

    def __init__(
        self,
        host: Host,
        path: str,
        headers: Mapping[str, str],
        subprotocols: list[str],
        limit: float,
        options: dict[str, Any],
        keep: "Callable[[Any], None] | None" = None,
    ) -> None:
        self._entered = False
        self._websockets = websockets_module()
        self._host = host
        self._path = path
        self._limit = limit
        self._keep = keep
        self._options = {
            "additional_headers": dict(headers),
            "subprotocols": subprotocols or None,
            "open_timeout": limit,
            "close_timeout": limit,
            "ping_interval": None,
            "compression": None,
            "proxy": None,
            "max_size": None,
            **options,
        }
        self._opened: Any = None
        self._client: Client | None = None
        self._async_client: AsyncClient | None = None

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"no connection yet: write `with running.connect(...) as client:`, then client.{name}")

    def __del__(self) -> None:
        if vars(self).get("_entered") is False:
            text = f"connect({self._path!r}) was never opened: write `with running.connect({self._path!r}) as client:`"
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def __enter__(self) -> "Client":
        self._entered = True
        connect = self._websockets.sync.client.connect
        try:
            self._opened = connect(self._host.url + self._path, **self._options)
            socket = self._opened.__enter__()
        except Exception as error:
            self._failed(error)
        self._kept(socket)
        self._client = Client(self._host, self._path, self._limit, socket)
        return self._client

    def __exit__(self, *failure: object) -> None:
        assert self._client is not None
        self._client.close()
        self._opened.__exit__(None, None, None)

    async def __aenter__(self) -> "AsyncClient":
        self._entered = True
        connect = self._websockets.asyncio.client.connect
        try:
            self._opened = connect(self._host.url + self._path, **self._options)
            socket = await self._opened.__aenter__()
        except Exception as error:
            self._failed(error)
        self._kept(socket)
        self._async_client = AsyncClient(self._host, self._path, self._limit, socket)
        return self._async_client

    async def __aexit__(self, *failure: object) -> None:
        assert self._async_client is not None
        await self._async_client.close()
        await self._opened.__aexit__(None, None, None)

    def _kept(self, socket: Any) -> None:
        if self._keep is not None:
            self._keep(socket.response.headers)

    def _failed(self, error: Exception) -> NoReturn:
        if isinstance(error, self._websockets.exceptions.InvalidStatus):
            answer = error.response
            body = bytes(answer.body or b"").decode("utf-8", "replace")
            headers = {name.lower(): value for name, value in answer.headers.raw_items()}
            text = f"connect({self._path!r}) was refused with {answer.status_code}: {body.strip()}"
            raise Refused(text, answer.status_code, body, headers) from None
        if isinstance(error, TimeoutError):
            text = f"connect({self._path!r}): no handshake within {self._limit:g} s{self._host.why()}"
            raise NotInTime(text) from None
        error.add_note(f"connect({self._path!r}){self._host.why()}")
        raise error


class _Client(Generic[S]):
    """What both kinds of client have."""

    def __init__(self, host: Host, path: str, limit: float, socket: S) -> None:
        self._host = host
        self.path = path
        """What it was opened with."""
        self.limit = limit
        """Seconds for each wait."""
        self.socket: S = socket
        """The connection of `websockets.sync` or `websockets.asyncio`, for what has no method here."""

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on."""
        return self.socket.subprotocol

    @property
    def fd(self) -> int:
        """Its id in the server, as `push` takes it."""
        return self._host.fd_at(self.socket.local_address[1])

    def frame(self, data: str | bytes, attempt: int = 1) -> Frame:
        """The Frame that a `message` handler would be given if this client sent `data`, to call one directly."""
        return Frame(data, fd=self.fd, attempt=attempt)

    def _late(self, what: str, limit: float, skipped: list[object] | None = None) -> NotInTime:
        between = f"; meanwhile came {skipped}" if skipped else ""
        return NotInTime(f"{self.path!r}: {what} within {limit:g} s{between}{self._host.why()}")

    def _ended(self, what: str) -> Closed:
        code, reason = self._code, self.socket.close_reason or ""
        text = f"{self.path!r}: {what}: the connection has ended with {code} {reason}".rstrip()
        return Closed(text + self._host.why(), code, reason)

    @property
    def _code(self) -> int:
        return 1006 if self.socket.close_code is None else self.socket.close_code


def _check_message(message: object) -> None:
    if isinstance(message, dict):
        raise TypeError("send() takes a str, or bytes, and not a dict: send_json() sends it as JSON")


def _json(message: str | bytes) -> Any:
    try:
        return json.loads(message)
    except ValueError:
        raise AssertionError(f"a message that is no JSON: {message!r}") from None


def _fits(value: object, fields: Mapping[str, object]) -> bool:
    missing = object()
    return isinstance(value, dict) and all(value.get(name, missing) == wanted for name, wanted in fields.items())


def _fields(fields: Mapping[str, object]) -> str:
    return f"no message with {', '.join(f'{name}={value!r}' for name, value in fields.items())}"


class Client(_Client["ClientConnection"]):
    """An open WebSocket. Pings are answered also while the test does other things."""

    def send(self, message: str | bytes) -> None:
        """Sends text, or bytes as a binary message. Raises Closed when the connection has ended."""
        from websockets.exceptions import ConnectionClosed

        _check_message(message)
        try:
            self.socket.send(message)
        except ConnectionClosed:
            raise self._ended(f"send({message!r})") from None

    def send_json(self, value: object) -> None:
        """Sends a value as JSON, in a text message."""
        self.send(json.dumps(value))

    def receive(self, limit: float | None = None) -> str | bytes:
        """The next message. Raises NotInTime after `limit` seconds (None: those of the client), Closed when the
        connection has ended."""
        from websockets.exceptions import ConnectionClosed

        limit = self.limit if limit is None else limit
        try:
            return self.socket.recv(limit)
        except TimeoutError:
            raise self._late("no message", limit) from None
        except ConnectionClosed:
            raise self._ended("no message") from None

    def receive_json(self, limit: float | None = None) -> Any:
        """The next message, which must be JSON."""
        return _json(self.receive(limit))

    def skip_to(self, limit: float | None = None, **fields: object) -> dict[str, Any]:
        """The next JSON object that has these fields, with these values; others that come before it are skipped:
        `client.skip_to(type="said", name="ada")`."""
        limit = self.limit if limit is None else limit
        end = time.monotonic() + limit
        skipped: list[object] = []
        while True:
            try:
                found = self.receive_json(max(0.0, end - time.monotonic()))
            except NotInTime:
                raise self._late(_fields(fields), limit, skipped) from None
            if _fits(found, fields):
                value: dict[str, Any] = found
                return value
            skipped.append(found)

    def wait_closed(self, limit: float | None = None) -> int:
        """The code with which the connection ends, awaited; 1006 without a close frame. Messages that come before
        are skipped."""
        limit = self.limit if limit is None else limit
        end = time.monotonic() + limit
        with suppress(Closed):
            while True:
                try:
                    self.receive(max(0.0, end - time.monotonic()))
                except NotInTime:
                    raise self._late("the connection did not end", limit) from None
        return self._code

    @property
    def close_code(self) -> int:
        """The same, as an attribute: it waits for the end."""
        return self.wait_closed()

    @property
    def close_reason(self) -> str:
        """The reason with which the connection ends; it waits for the end."""
        self.wait_closed()
        return self.socket.close_reason or ""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes; nothing when it is closed already."""
        self.socket.close(code, reason)


class AsyncClient(_Client["AsyncConnection"]):
    """The same in coroutines."""

    async def send(self, message: str | bytes) -> None:
        """Sends text, or bytes as a binary message. Raises Closed when the connection has ended."""
        from websockets.exceptions import ConnectionClosed

        _check_message(message)
        try:
            await self.socket.send(message)
        except ConnectionClosed:
            raise self._ended(f"send({message!r})") from None

    async def send_json(self, value: object) -> None:
        """Sends a value as JSON, in a text message."""
        await self.send(json.dumps(value))

    async def receive(self, limit: float | None = None) -> str | bytes:
        """The next message. Raises NotInTime after `limit` seconds (None: those of the client), Closed when the
        connection has ended."""
        from websockets.exceptions import ConnectionClosed

        limit = self.limit if limit is None else limit
        try:
            async with asyncio.timeout(limit):
                return await self.socket.recv()
        except TimeoutError:
            raise self._late("no message", limit) from None
        except ConnectionClosed:
            raise self._ended("no message") from None

    async def receive_json(self, limit: float | None = None) -> Any:
        """The next message, which must be JSON."""
        return _json(await self.receive(limit))

    async def skip_to(self, limit: float | None = None, **fields: object) -> dict[str, Any]:
        """The next JSON object that has these fields, with these values; others that come before it are skipped."""
        limit = self.limit if limit is None else limit
        end = time.monotonic() + limit
        skipped: list[object] = []
        while True:
            try:
                found = await self.receive_json(max(0.0, end - time.monotonic()))
            except NotInTime:
                raise self._late(_fields(fields), limit, skipped) from None
            if _fits(found, fields):
                value: dict[str, Any] = found
                return value
            skipped.append(found)

    async def wait_closed(self, limit: float | None = None) -> int:
        """The code with which the connection ends, awaited; 1006 without a close frame. Messages that come before
        are skipped."""
        limit = self.limit if limit is None else limit
        end = time.monotonic() + limit
        with suppress(Closed):
            while True:
                try:
                    await self.receive(max(0.0, end - time.monotonic()))
                except NotInTime:
                    raise self._late("the connection did not end", limit) from None
        return self._code

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes; nothing when it is closed already."""
        await self.socket.close(code, reason)


# ---------------------------------------------------------------------------------------------- HTTP


class Event(NamedTuple):
    """A server-sent event."""

    data: str
    event: str = "message"
    id: str = ""

    def json(self) -> Any:
        """The data, which must be JSON."""
        return _json(self.data)


class Events:
    """The server-sent events of one answer, in the order in which they come."""

    def __init__(self, path: str, response: "httpx.Response", why: Callable[[], str]) -> None:
        self.response = response
        self._path = path
        self._why = why
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Event]:
        """Up to the end of the answer."""
        with suppress(Closed):
            while True:
                yield self.receive()

    def receive(self) -> Event:
        """The next event. Raises NotInTime when nothing comes within the limit, Closed at the end of the answer."""
        fields: dict[str, str] = {}
        try:
            for line in self._lines:  # the format is that of the HTML standard, section 9.2.6
                if not line:
                    if "data" in fields:
                        return Event(fields["data"], fields.get("event", "message"), fields.get("id", ""))
                    fields = {}
                    continue
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        except httpx_module().TimeoutException:
            raise NotInTime(f"{self._path!r}: no event in time{self._why()}") from None
        raise Closed(f"{self._path!r}: no event: the answer has ended{self._why()}", 0, "the answer has ended")


class Visitor:
    """A browser as far as it matters to a server: it keeps cookies, and sends them and its Origin."""

    def __init__(self, host: Host, headers: Mapping[str, str] | None = None, *, cookies: bool = True) -> None:
        self._host = host
        self._cookies = cookies
        self._stack = ExitStack()
        self.http: httpx.Client = self._stack.enter_context(
            httpx_module().Client(base_url=host.http_url, headers=headers or {}, timeout=host.limit, trust_env=False)
        )
        """The client of `httpx`, for what has no method here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends its HTTP connections; its WebSockets end with their own `with`."""
        self._stack.close()

    def request(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """One request; `options` are those of `httpx.Client.request`. Raises NotInTime when no answer comes within
        the limit."""
        httpx = httpx_module()
        try:
            return self.http.request(method, path, **options)
        except httpx.TimeoutException:
            raise NotInTime(f"{method} {path}: no answer within {self._host.limit:g} s{self._host.why()}") from None
        except httpx.TransportError as error:
            error.add_note(f"{method} {path}{self._host.why()}")
            raise

    def get(self, path: str = "/", **options: Any) -> "httpx.Response":
        """A GET request."""
        return self.request("GET", path, **options)

    def post(self, path: str = "/", **options: Any) -> "httpx.Response":
        """A POST request; `data=` a form, `json=` a value, `content=` bytes."""
        return self.request("POST", path, **options)

    @contextmanager
    def events(self, path: str = "/", **options: Any) -> Iterator[Events]:
        """The server-sent events of an answer, for `with`; at its end the client leaves."""
        options["headers"] = {"Accept": "text/event-stream", **options.get("headers", {})}
        with self.http.stream(options.pop("method", "GET"), path, **options) as response:
            kind = response.headers.get("content-type", "none")
            if not kind.startswith("text/event-stream"):
                response.read()
                raise AssertionError(f"{path!r}: no event stream, but {response.status_code}, {kind}: {response.text}")
            yield Events(path, response, self._host.why)

    def connect(
        self,
        path: str = "/",
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        subprotocols: list[str] | None = None,
        limit: float | None = None,
        **options: Any,
    ) -> Connecting:
        """A WebSocket: a Client for `with`, an AsyncClient for `async with`.

        `params` are the query, if it is not in the path; `headers` go with the handshake. `limit` in seconds is for
        each wait, None: that of the server. `options` are those of `websockets.sync.client.connect`, or of its
        asyncio sibling.
        """
        sent = {**self.http.headers, "Origin": self._host.http_url} if self._cookies else {}
        sent = {name: value for name, value in sent.items() if name.lower() not in HTTP_ONLY}
        request = self.http.build_request("GET", path, params=params)
        path = request.url.raw_path.decode()  # other characters than a target may have are escaped
        cookie = request.headers.get("cookie")
        if cookie:
            sent["Cookie"] = cookie
        sent.update(headers or {})
        limit = self._host.limit if limit is None else limit
        return Connecting(self._host, path, sent, subprotocols or [], limit, options, self._take_cookies)

    def _take_cookies(self, headers: Any) -> None:
        if self._cookies:
            httpx = httpx_module()
            request = self.http.build_request("GET", "/")
            answer = httpx.Response(101, headers=list(headers.raw_items()), request=request)
            self.http.cookies.extract_cookies(answer)
