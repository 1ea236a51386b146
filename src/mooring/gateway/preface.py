"""Who may say by the PROXY protocol whose connection it is, and what becomes of the others."""

import logging

from mooring.config.listen import Listen
from mooring.gateway.forwarded import TrustedProxies
from mooring.net.proxy_protocol import Header, parse
from mooring.net.refusals import RefusalLog


class ProxyPreface:
    """What the transport asks about connections of a listener with `proxy_protocol`, before anything else is read."""

    def __init__(self, listen: Listen, refusals: RefusalLog) -> None:
        self._refusals = refusals
        self._versions = listen.proxy_protocol
        self._proxies = TrustedProxies(listen.proxy_protocol_from)

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
        """Tells the log."""
        message = "a connection of %s was closed, PROXY protocol: %s"
        self._refusals.say(logging.WARNING, message, peer or "a Unix socket", why)
