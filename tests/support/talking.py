"""A client that is asked in words: it sends a text, and waits for the answer that looks like a pattern."""

import re
import time

from websockets.sync.client import ClientConnection, connect

from support.serving import LIMIT, Serving


def dial(server: Serving) -> ClientConnection:
    return connect(server.url, proxy=None)


def hear(client: ClientConnection, pattern: str) -> re.Match[str]:
    """The first message that matches as a whole; others are passed over, for so long: they may come for ever."""
    end = time.monotonic() + LIMIT
    while not (found := re.fullmatch(pattern, str(client.recv(max(0.0, end - time.monotonic()))))):
        pass
    return found


def ask(client: ClientConnection, text: str, pattern: str) -> re.Match[str]:
    client.send(text)
    return hear(client, pattern)
