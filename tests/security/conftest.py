"""Attacks on real servers. Each test is named after a check of a catalogue of known attacks (C1, C2, ...)."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.serving import Serving

APP = """
import asyncio
paths = {}

@server.on("open")
def opened(server, request):
    paths[request.fd] = request.path

@server.on("message")
def said(server, frame):
    if paths[frame.fd] != "/canary":
        report("message", len(frame.data))
    server.push(frame.fd, frame.data, frame.opcode)

@server.on("close")
def left(server, fd, code, reason):
    if paths.pop(fd) != "/canary":
        report("close", code, reason)

@server.on("request")
def asked(request, response):
    if request.path == "/stats":
        return response.end(json.dumps(server.stats()))
    report("request", request.method, request.path)
    response.end("hello")
"""
MODES: dict[str, dict[str, Any]] = {
    "process": {"mode": "process", "worker_num": 1},
    "base": {"mode": "base", "worker_num": 1},
}


@pytest.fixture(scope="session", params=MODES)
def server(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """The server of most tests, with the defaults. It must end well, and its counts add up."""
    with Serving(APP, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])
