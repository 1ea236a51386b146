"""Who may say by the PROXY protocol whose connection it is, and what becomes of the others."""

import time

from mooring.config.listen import Listen
from mooring.gateway.forwarded import TrustedProxies
from mooring.journal import own_logger
from mooring.net.proxy_protocol import Header, parse

log = own_logger("mooring.gateway")

QUIET = 1.0  # seconds; at most one log line in this time


class ProxyPreface:
    """What the transport asks about connections of a listener with `proxy_protocol`, before anything else is read."""

    def __init__(self, listen: Listen) -> None:
        self._versions = listen.proxy_protocol
        self._proxies = TrustedProxies(listen.proxy_protocol_from)
        self._logged = -QUIET
        self._silent = 0

    def admits(self, peer: str) -> bool:
        """Whether this address may connect here."""
        if self._proxies.trusts(peer):
            return True
        self.refused(peer, "it is none of proxy_protocol_from")
        return False

    def parse(self, data: bytes) -> Header | None:
        """The header that `data` begins with; None when more is needed. Raises ValueError."""
        return parse(data, self._versions)

    def refused(self, peer: str, why: str) -> None:
        """Tells the log, but not more often than once in a while."""
        now = time.monotonic()
        if now - self._logged < QUIET:
            self._silent += 1
            return
        more = f" (and {self._silent} more since the last such line)" if self._silent else ""
        log.warning("a connection of %s was closed, PROXY protocol: %s%s", peer or "a Unix socket", why, more)
        self._logged, self._silent = now, 0
