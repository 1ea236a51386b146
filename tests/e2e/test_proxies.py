"""Real proxies in front of the server, each with what the manual says of it; see support/proxies.py."""

import asyncio
import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect

from e2e.peers import in_loop
from support.proxies import NODE_MODULES, PROXIES, Front
from support.serving import LIMIT, Serving

APP = """
import asyncio

streams = {}

@server.on("open")
def opened(server, request):
    server.push(request.fd, f"{request.scheme} {request.remote_ip}")

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame)

@server.on("request")
async def page(request, response):
    if request.path == "/events":
        name = request.query["name"]
        go = streams[name] = asyncio.Event()
        stream = response.event_stream(keep_alive=0)
        try:
            await stream.send("first")
            await go.wait()
            await stream.send("second")
            await asyncio.Event().wait()
        finally:
            report("left", name)
    elif request.path == "/go":
        streams[request.query["name"]].set()
        response.end("gone")
    else:
        response.header("Cache-Control", "no-store")
        response.json([request.scheme, request.remote_ip, request.path])
"""
CLIENT, PROXY, FORGED = "127.0.0.2", "127.0.0.1", "6.6.6.6"
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[..., Serving]]:
    """One for each of the settings that the proxies need."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Serving] = {}

        def server(**settings: Any) -> Serving:
            key = json.dumps(settings)
            if key not in running:
                running[key] = stack.enter_context(Serving(APP, worker_num=1, **settings))
            return running[key]

        yield server
        for one in running.values():
            assert one.stop() == 0


@pytest.fixture(scope="module", params=PROXIES)
def front(request: pytest.FixtureRequest, servers: Callable[..., Serving]) -> Iterator[tuple[Front, Serving]]:
    proxy = PROXIES[request.param]
    if proxy.find() is None:
        pytest.skip(f"{proxy.program} is not installed")
    if request.param == "javascript" and not (NODE_MODULES / "http-proxy").is_dir():
        pytest.skip("http-proxy is not installed; in tests/node: npm install")
    if proxy.protocol:  # the manual: what speaks TLS for the server needs its site to be allowed
        settings = {"proxy_protocol": proxy.protocol, "proxy_protocol_from": [PROXY], "allowed_origins": ["*"]}
    else:
        settings = {"trusted_proxies": [PROXY] if proxy.forwards else []}
    server = servers(**settings)
    running = Front(request.param, server.port, AUTHORITY)
    try:
        yield running, server
    finally:
        running.stop()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def expected(front: Front, scheme: str) -> tuple[str, str]:
    """What the server shall know of the client."""
    return "http" if front.proxy.protocol else scheme, CLIENT if front.proxy.forwards or front.proxy.protocol else PROXY


@contextlib.contextmanager
def asking(front: Front, scheme: str, path: str) -> Iterator[http.client.HTTPResponse]:
    """The answer to a client that says that it is somebody else, and came another way."""
    other = "http" if scheme == "https" else "https"
    options: dict[str, Any] = {"timeout": LIMIT, "source_address": (CLIENT, 0)}
    if scheme == "https":
        client = http.client.HTTPSConnection(PROXY, front.ports[scheme], context=trusting(), **options)
    else:
        client = http.client.HTTPConnection(PROXY, front.ports[scheme], **options)
    with contextlib.closing(client):
        forged = {"X-Forwarded-For": FORGED, "X-Forwarded-Proto": other} if front.proxy.forwards else {}
        client.request("GET", path, headers=forged)
        yield client.getresponse()


def test_the_client_is_who_it_is(front: tuple[Front, Serving]):
    proxy, _ = front
    for scheme in proxy.ports:
        for _ in range(2):  # the second one on a connection that the proxy has kept
            with asking(proxy, scheme, "/who") as answer:
                assert answer.status == 200, proxy.output()
                assert json.loads(answer.read()) == [*expected(proxy, scheme), "/who"]


@in_loop()
async def test_a_websocket_of_a_page_of_the_site(front: tuple[Front, Serving]):
    proxy, _ = front
    for scheme, port in proxy.ports.items():
        async with connect(
            f"{scheme.replace('http', 'ws')}://{PROXY}:{port}/chat",
            origin=f"{scheme}://{PROXY}:{port}",  # type: ignore[arg-type]
            ssl=trusting() if scheme == "https" else None,
            additional_headers={"X-Forwarded-For": FORGED} if proxy.proxy.forwards else {},
            local_addr=(CLIENT, 0),
            proxy=None,
            open_timeout=LIMIT,
        ) as ws:
            assert await ws.recv() == " ".join(expected(proxy, scheme))
            for message in ("hello", b"\0\xff" * 50_000, ""):
                await ws.send(message)
                assert await ws.recv() == message
            await asyncio.wait_for(await ws.ping(), LIMIT)
            await ws.close(4000, "bye")
            assert ws.close_code == 4000


def test_events_come_when_they_are_sent(front: tuple[Front, Serving]):
    """The second one is sent when the first one is there: who waits for more, or for the end, waits for ever."""
    proxy, server = front
    for scheme in proxy.ports:
        since = server.mark()
        name = f"{proxy.name}-{scheme}"
        with asking(proxy, scheme, f"/events?name={name}") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.read(13) == b"data: first\n\n"
            with asking(proxy, scheme, f"/go?name={name}") as other:
                assert other.read() == b"gone"
            assert answer.read(14) == b"data: second\n\n"
        if proxy.proxy.tells:
            server.wait_log(f"^report left {name}$", since=since)
