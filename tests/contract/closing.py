"""An application that tells of its connections' ends, and how its close records are read."""

import json
from typing import Any

from mooring import CloseRecord
from mooring.types import CAUSES
from support.serving import Serving

APP = """
import asyncio, dataclasses

async def seen(path):
    while not os.path.exists(path):
        await asyncio.sleep(0.002)

@server.on("handshake")
async def may(server, request):
    if request.path == "/no":
        return False
    if request.path == "/late":
        await asyncio.sleep(1)

@server.on("open")
def opened(server, request):
    if "user" in request.query:
        server.bind(request.fd, request.query["user"])
    server.push(request.fd, json.dumps({"fd": request.fd}))

def flood(fd):
    for _ in range(500):
        server.push(fd, bytes(60_000))

def refuse():
    raise BadRequest(400, "not that")

@server.on("message")
async def said(server, frame):
    result = eval(frame.data)
    if asyncio.iscoroutine(result):
        await result

@server.on("close")
async def left(server, fd, code, reason):
    await asyncio.sleep(0.01)
    report("close", fd)

@server.on("disconnect")
async def gone(server, fd, reason):
    await asyncio.sleep(0.01)
    report("disconnect", fd)

@server.on("ended")
def ended(server, record):
    report("ended", json.dumps(dataclasses.asdict(record)))
    if record.path == "/fails":
        1 / 0

@server.on("error")
def failed(server, fd, failure):
    report("error", failure.event, fd)

@server.on("request")
async def asked(request, response):
    report("request", request.fd)
    if "file" in request.query:
        return response.send_file(request.query["file"])
    result = eval(request.query.get("do", "None"))
    if asyncio.iscoroutine(result):
        result = await result
    response.json([request.fd, result])
"""
QUICK = {
    "header_timeout": 0.8,
    "keepalive_timeout": 1.0,
    "close_timeout": 0.4,
    "handshake_timeout": 0.5,
    "max_message_size": 1000,
    "control_frame_limit": 5,
    "allowed_hosts": ["localhost", "127.0.0.1", "x"],
    "close_records": "log",
    "log_format": "json",
}


def logged(server: Serving, since: int = 0) -> list[dict[str, Any]]:
    """The records in the log."""
    lines = [json.loads(line) for line in server.lines[since:] if '"logger":"mooring.closed"' in line]
    return [{name: line[name] for name in CloseRecord.__dataclass_fields__} for line in lines]


def told(server: Serving, since: int = 0) -> list[dict[str, Any]]:
    """Those that the handler of `ended` was given."""
    return [json.loads(line.split(" ", 1)[1]) for line in server.reports("", since) if line.startswith("ended ")]


def the_record(server: Serving, since: int) -> dict[str, Any]:
    """Of the one connection that has ended since, as both have it."""
    server.wait_log('"logger":"mooring.closed"', since=since)
    server.wait_log("^report ended ", since=since)
    (record,), (same,) = logged(server, since), told(server, since)
    assert record == same
    before = [
        line.split()[0] for line in server.reports("", since) if line.startswith(("close ", "disconnect ", "ended "))
    ]
    assert before == ["close" if record["protocol"] == "websocket" else "disconnect", "ended"]
    assert record["by"] == CAUSES[record["cause"]][0]
    assert record["cause"] != "unknown"
    return record
