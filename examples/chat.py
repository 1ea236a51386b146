"""A chat whose connections outlive its code: `make demo`, then open http://127.0.0.1:9502 in two windows.

Names, rooms and subscriptions live in the gateway, in sessions and topics; this file keeps nothing.
"""

import json
from pathlib import Path

from mooring import Frame, Request, Response, Server

MOTTO = "Edit this line in examples/chat.py and save it: nobody is disconnected."
PAGE = Path(__file__).with_name("chat.html").read_text("utf-8")
server = Server("127.0.0.1", 9502, worker_num=2)


def note(kind: str, **details: object) -> str:
    return json.dumps({"type": kind, "pid": server.worker_pid, **details})


@server.on("open")
def joined(server: Server, request: Request) -> None:
    name = request.query.get("name", "").strip()[:32] or "anonymous"
    room = request.query.get("room", "").strip()[:32] or "lobby"
    server.session(request.fd).update(name=name, room=room)
    server.bind(request.fd, name)  # so that notify.py finds them
    server.subscribe(request.fd, room)
    server.publish(room, note("joined", name=name))


@server.on("message")
def said(server: Server, frame: Frame) -> None:
    me, text = server.session(frame.fd), str(frame.data)[:2000]
    if text.strip():
        server.publish(me["room"], note("said", id=str(frame.fd), name=me["name"], text=text))
    else:  # an empty message asks who is here
        all_sessions = [server.session(fd) for fd in server.connections if server.is_established(fd)]
        people = sorted(str(s.get("name")) for s in all_sessions if s.get("room") == me["room"])
        server.push(frame.fd, note("here", id=str(frame.fd), people=people, motto=MOTTO))


@server.on("close")
def left(server: Server, fd: int, code: int, reason: str) -> None:
    server.publish(server.session(fd)["room"], note("left", name=server.session(fd)["name"]))


@server.on("uncertain")
def interrupted(server: Server, frame: Frame, reason: str) -> None:
    server.push(frame.fd, note("uncertain", text=str(frame.data)[:2000]))


@server.on("request")
def page(request: Request, response: Response) -> None:
    if request.path != "/":
        return response.redirect("/")
    response.header("Content-Type", "text/html; charset=utf-8")
    response.header("Content-Security-Policy", "default-src 'self' 'unsafe-inline' data: ws: wss:")
    return response.end(PAGE)


if __name__ == "__main__":
    server.start()
