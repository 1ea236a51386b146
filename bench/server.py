"""mooring under test: `/` echoes, `/fanout` sends to everybody there, `GET /hello` answers "hello".

    python bench/server.py PORT [--mode base|process] [--workers N] [--gateways G] [--tls CERT KEY] [--coroutines]

Limits are raised only as far as Autobahn's group 9 needs: messages of 16 MiB, in up to 65,536 fragments.
Everything else is as users get it. The handlers are plain functions, which is the shortest way through; with
--coroutines those of messages and requests are `async def`, as most people write them, and never suspend.
"""

import argparse

from mooring import Frame, Request, Response, Server

# ruff: noqa: ARG001 (handlers have the parameters of their event)

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--mode", default="process")
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--gateways", type=int, default=1)
parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), default=("", ""))
parser.add_argument("--compression", action="store_true", help="permessage-deflate with whoever offers it")
parser.add_argument("--takeover", action="store_true", help="... and with context takeover")
parser.add_argument("--coroutines", action="store_true", help="handlers are async def")
options = parser.parse_args()

server = Server(
    "127.0.0.1",
    options.port,
    mode=options.mode,
    worker_num=options.workers,
    gateway_num=options.gateways,
    ssl_cert_file=options.tls[0],
    ssl_key_file=options.tls[1],
    max_message_size=16 << 20,
    max_fragments=70_000,
    websocket_compression=options.compression,
    server_context_takeover=options.takeover,
    client_context_takeover=options.takeover,
    # kept windows cost memory on each connection: compared on the terms that websockets has by default
    compression_window_bits=12 if options.takeover else 15,
    compression_memory=5 if options.takeover else 8,
)
fanout: set[int] = set()  # connections of /fanout that this process serves


@server.on("open")
def opened(server: Server, request: Request) -> None:
    if request.path == "/fanout":
        fanout.add(request.fd)
        server.subscribe(request.fd, "fanout")


def message(server: Server, frame: Frame) -> None:
    if frame.fd in fanout:
        server.publish("fanout", frame.data, frame.opcode)
    else:
        server.push(frame.fd, frame.data, frame.opcode)


async def message_later(server: Server, frame: Frame) -> None:
    if frame.fd in fanout:
        server.publish("fanout", frame.data, frame.opcode)
    else:
        server.push(frame.fd, frame.data, frame.opcode)


@server.on("close")
def closed(server: Server, fd: int, code: int, reason: str) -> None:
    fanout.discard(fd)


def hello(request: Request, response: Response) -> None:
    response.end("hello")


async def hello_later(request: Request, response: Response) -> None:
    response.end("hello")


server.on("message")(message_later if options.coroutines else message)
server.on("request")(hello_later if options.coroutines else hello)

server.start()
