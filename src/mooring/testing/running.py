"""What a test does with a running server, wherever it runs: clients, requests, its log, its counters."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from mooring.config import Settings
from mooring.errors import StateError
from mooring.testing.clients import Connecting, Events, Visitor
from mooring.testing.log import Log

if TYPE_CHECKING:
    import httpx

LIMIT = 10.0  # seconds; for each wait, where nothing else is said

# TLS is off, whatever the application says: its keys may not be where tests run, and who tests it has no certificate.
PLAIN: dict[str, object] = {
    name: value
    for name, value in Settings().to_dict().items()
    if name in ("ssl_cert_file", "ssl_key_file", "ssl_sni", "ssl_client_ca_file", "ssl_verify_client")
}

alive: "WeakSet[RunningServer]" = WeakSet()
"""Those that run now; for the plugin, which shows their logs."""


class RunningServer:
    """A server that runs, with its clients and its log. `limit` in seconds is for each wait."""

    def __init__(self, name: str, limit: float) -> None:
        if limit <= 0:
            raise ValueError(f"limit={limit}: must be more than 0 seconds")
        self.name = name
        """Of the application."""
        self.limit = limit
        self.host = "127.0.0.1"
        self.ports: list[int] = []
        """On which it listens: that of the server, then those of further listeners."""
        self._log = Log()
        self._plain: Visitor | None = None

    # ------------------------------------------------------------------ clients

    @property
    def port(self) -> int:
        """On which it listens. Raises StateError when there is none."""
        if not self.ports:
            raise StateError(
                f"{self.name} has no port: it was not started, as `with serve(...) as running:` or "
                "`with in_process(...) as running:` does, or it listens on a Unix socket only"
            )
        return self.ports[0]

    @property
    def url(self) -> str:
        """Of WebSockets, without a path."""
        return f"ws://{self._address}"

    @property
    def http_url(self) -> str:
        """Of HTTP, without a path."""
        return f"http://{self._address}"

    @property
    def _address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

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
        """A WebSocket: `with running.connect("/?name=ada") as client:`, or `async with`. See Visitor.connect."""
        return self._anybody().connect(
            path, params=params, headers=headers, subprotocols=subprotocols, limit=limit, **options
        )

    def request(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """One request, without cookies of those before. See Visitor.request."""
        visitor = self._anybody()
        visitor.http.cookies.clear()
        return visitor.request(method, path, **options)

    def get(self, path: str = "/", **options: Any) -> "httpx.Response":
        """A GET request, without cookies of those before."""
        return self.request("GET", path, **options)

    def post(self, path: str = "/", **options: Any) -> "httpx.Response":
        """A POST request, without cookies of those before."""
        return self.request("POST", path, **options)

    def events(self, path: str = "/", **options: Any) -> AbstractContextManager[Events]:
        """The server-sent events of an answer: `with running.events("/clock") as events: events.receive()`."""
        return self._anybody().events(path, **options)

    def visitor(self, headers: Mapping[str, str] | None = None) -> Visitor:
        """Somebody with cookies of their own, as a browser has: `with running.visitor() as ada: ada.post("/login")`,
        and `ada.connect()` sends what that has set."""
        return Visitor(self, headers)

    def _anybody(self) -> Visitor:
        if self._plain is None:
            self._plain = Visitor(self, cookies=False)
        return self._plain

    def fd_at(self, port: int) -> int:
        """The fd of the connection whose client has this port."""
        raise NotImplementedError

    # ------------------------------------------------------------------ its log

    @property
    def lines(self) -> list[str]:
        """Of its log, so far."""
        return list(self._log.lines)

    @property
    def log(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    @property
    def error_lines(self) -> list[str]:
        """Those that say ERROR: what handlers have raised, above all; `assert not running.error_lines`."""
        return [line for line in self.lines if re.search(r"\bERROR\b", line)]

    def mark(self) -> int:
        """The number of the next line of the log, for `wait_log(..., since=)`."""
        return self._log.mark()

    def wait_log(self, pattern: str, *, since: int = 0, limit: float | None = None) -> re.Match[str]:
        """Waits for a line of the log in which the regular expression is found, from line `since` on.

        Raises NotInTime, or ServerFailed when the server ends before.
        """
        return self._log.wait(pattern, since, self.limit if limit is None else limit, f"no line with {pattern!r}")

    def why(self) -> str:
        """For errors: whether the server has ended, and the tail of its log."""
        ended = f"\n{self._log.ended}" if self._log.ended else ""
        return ended + self._log.tail()

    def _end_clients(self) -> None:
        if self._plain is not None:
            self._plain.close()
            self._plain = None
