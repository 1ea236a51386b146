"""picows on uvloop, as fast as its documentation shows: a listener per connection, `send` from the frame's
memory without a copy, the exception guard off, no ping timers.
"""

import argparse
import asyncio
import ssl

import uvloop
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

LARGEST = 16 << 20
parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
options = parser.parse_args()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        else:  # a fragment goes back as the fragment it is
            transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)


everybody: set[WSTransport] = set()


class Fanout(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        everybody.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        payload = frame.get_payload_as_bytes()
        for other in everybody:
            other.send(frame.msg_type, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        everybody.discard(transport)


def route(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
    if request.path == b"/hello":  # picows closes the connection after any answer that is no upgrade
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"hello"), None)
    return Fanout() if request.path == b"/fanout" else Echo()


async def main() -> None:
    context = None
    if options.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*options.tls)
    server = await ws_create_server(
        route,
        "127.0.0.1",
        options.port,
        ssl=context,
        disconnect_on_exception=False,
        max_frame_size=LARGEST,
        backlog=2048,
    )
    await server.serve_forever()


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
