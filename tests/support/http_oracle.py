"""Two other readers of HTTP/1.1, h11 and llhttp, and what may differ from ours: we may be stricter, never laxer."""

from collections.abc import Iterable, Iterator

import h11
import httptools

from mooring._core.http import CONTINUE, HttpCodec
from mooring._core.http_request import HttpError, ParsedRequest

Reading = tuple[str, str, list[tuple[str, str]], bytes]
"""Method, target, fields, body."""


def read(
    pieces: Iterable[bytes], codec: HttpCodec | None = None
) -> tuple[list[ParsedRequest], HttpError | None, bytes]:
    """The requests up to an upgrade, the error that ended them or None, the unread bytes."""
    codec = codec or HttpCodec()
    requests: list[ParsedRequest] = []
    pieces = iter(pieces)
    for piece in pieces:
        codec.receive(piece)
        while True:
            try:
                event = codec.next_event()
            except HttpError as error:
                return requests, error, b""
            if event is None:
                break
            if event == CONTINUE:  # depends on timing, rightly
                continue
            assert isinstance(event, ParsedRequest)
            requests.append(event)
            if event.upgrade:
                return requests, None, codec.take_rest() + b"".join(pieces)
    return requests, None, codec.take_rest()


def ours(pieces: Iterable[bytes]) -> tuple[list[ParsedRequest], tuple[int, str] | None, bytes]:
    """The same, with the error as what can be compared."""
    requests, error, rest = read(pieces)
    return requests, error and (error.status, error.reason), rest


def reading(request: ParsedRequest) -> Reading:
    return request.method, request.target, request.headers, request.body


def by_h11(data: bytes) -> Iterator[Reading]:
    """Every request h11 reads, up to its first error. Each by a fresh h11, which gets what the one before
    left: h11 itself would stop at HTTP/1.0, where it knows no persistence. One empty line before a request is
    taken away, which h11 refuses, against RFC 9112 section 2.2."""
    while True:
        data = data.removeprefix(b"\r\n")
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        body = b""
        try:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                return
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError:
            return
        if not isinstance(event, h11.EndOfMessage):
            return
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        yield request.method.decode(), request.target.decode("latin-1"), fields, body
        data = connection.trailing_data[0]


class Collector:
    """What llhttp reads of a stream, bodies and all; here nobody delimits for it."""

    def __init__(self) -> None:
        self.requests: list[Reading] = []

    def on_message_begin(self) -> None:
        self.target = self.body = b""
        self.fields: list[tuple[str, str]] = []
        self.head_done = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # behind it there are only trailers
            self.fields.append((name.lower().decode("latin-1"), value.strip(b" \t").decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        method = self.parser.get_method().decode()
        self.requests.append((method, self.target.decode("latin-1"), self.fields, self.body))


def by_llhttp(data: bytes, our_count: int) -> tuple[list[Reading], int]:
    """What llhttp reads, and for how many of our requests it can be asked: it stops, without looking for a
    body, at an upgrade to anything, where we go on unless it is a WebSocket."""
    collector = Collector()
    collector.parser = httptools.HttpRequestParser(collector)
    try:
        collector.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        our_count = min(our_count, len(collector.requests) - 1)
    except httptools.HttpParserError:
        pass
    return collector.requests, our_count


def same_target(our: str, their: str) -> bool:
    """The oracles leave the absolute form as it is."""
    if our == their:
        return True
    scheme, separator, rest = their.partition("://")
    path = rest[len(rest.split("/")[0].split("?")[0]) :]
    return bool(separator) and scheme.lower() in ("http", "https") and our in (path, "/" + path, path or "*")


def comparable(field: tuple[str, str]) -> tuple[str, str]:
    """h11 lower-cases the name of the transfer coding."""
    name, value = field
    return name, value.lower() if name == "transfer-encoding" else value


def assert_not_laxer(requests: list[ParsedRequest], theirs: list[Reading], data: bytes) -> None:
    for number, request in enumerate(requests):
        assert number < len(theirs), ("laxer", number, data)
        method, target, fields, body = theirs[number]
        assert (request.method, request.body) == (method, body), (number, data)
        assert list(map(comparable, request.headers)) == list(map(comparable, fields)), (number, data)
        assert same_target(request.target, target), (number, data)


def up_to_close(requests: list[ParsedRequest]) -> list[ParsedRequest]:
    """The server reads nothing behind a request that ends the connection; neither do the oracles."""
    for number, request in enumerate(requests):
        if not request.keep_alive:
            return requests[: number + 1]
    return requests
