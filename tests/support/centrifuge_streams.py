"""The host of `centrifuge_host.py` for clients without WebSocket: HTTP streaming, server-sent events, and the requests
by which their commands come. By aiohttp."""

import asyncio
import contextlib
import secrets
from typing import Any

from aiohttp import web

from mooring.centrifuge.actions import Send
from mooring.centrifuge.codes import Violation
from mooring.centrifuge.json import JsonCodec
from mooring.centrifuge.protobuf import ProtobufCodec
from mooring.centrifuge.streams import CONNECT_PARAMETER, HEADERS, event_stream, http_stream
from support.centrifuge_host import Connection, Host


class StreamConnection(Connection):
    """Its client reads a response."""

    def __init__(self, host: Host, binary: bool) -> None:
        self.key = secrets.token_urlsafe()
        super().__init__(host, ProtobufCodec() if binary else JsonCodec(), session=self.key, node="n1")

    def cut(self) -> None:
        self.transport.abort()


class StreamHost(Host):
    """`url` is the folder in which `http_stream`, `sse` and `emulation` are."""

    async def __aenter__(self) -> "StreamHost":
        self._streams: dict[str, StreamConnection] = {}
        application = web.Application()
        application.add_routes(
            [
                web.post("/http_stream", self._http_stream),
                web.get("/sse", self._sse),
                web.post("/emulation", self._emulation),
            ]
        )
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _http_stream(self, request: web.Request) -> web.StreamResponse:
        connection = StreamConnection(self, request.content_type == "application/octet-stream")
        return await self._carry(request, connection, http_stream(connection.codec), await request.read())

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        first = request.query[CONNECT_PARAMETER].encode()
        return await self._carry(request, StreamConnection(self, False), event_stream(), first)

    async def _carry(self, request: web.Request, connection: StreamConnection, stream: Any, first: bytes) -> Any:
        response = web.StreamResponse(headers={"Content-Type": stream.content_type, **dict(HEADERS)})
        await response.prepare(request)
        connection.transport = request.transport
        self.clients.append(connection)
        self._streams[connection.key] = connection
        try:
            connection.receive(first)
            while isinstance(action := await connection.outgoing.get(), Send):
                await response.write(stream.chunk(action.frame))
            with contextlib.suppress(TimeoutError):  # the client leaves; ended here, it might not have read why
                async with asyncio.timeout(1):
                    await asyncio.Event().wait()
        except ConnectionError:
            pass
        finally:
            connection.lost()
            self.clients.remove(connection)
            del self._streams[connection.key]
        return response

    async def _emulation(self, request: web.Request) -> web.Response:
        codec = ProtobufCodec() if request.content_type == "application/octet-stream" else JsonCodec()
        try:
            found = codec.emulation(await request.read())
        except Violation as violation:
            return web.Response(status=400, text=violation.disconnect.reason)
        connection = self._streams.get(found.session)
        if connection is None or found.node != "n1":
            return web.Response(status=404)
        connection.receive(found.data)
        return web.Response(status=204)
