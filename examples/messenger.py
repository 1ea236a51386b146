"""A chat with rooms, typed messages, private ones, several tabs of one user, and a limit on how fast one may write.

mooring run examples.messenger:server --control-socket /tmp/messenger.sock    and open http://127.0.0.1:9507
mooring kick --user eve --reason "be kind" --socket /tmp/messenger.sock
"""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from mooring import Accept, BadMessage, Reject, Server

PAGE = Path(__file__).with_name("messenger.html")
Name = Annotated[str, Meta(min_length=1, max_length=32)]
Text = Annotated[str, Meta(min_length=1, max_length=2000)]
server = Server("127.0.0.1", 9507, worker_num=2, message_rate=2, message_burst=10)  # faster ones wait, none is lost


class Enter(Struct, tag="enter"):  # {"type": "enter", "room": "lobby"}
    room: Name


class Say(Struct, tag="say"):  # to everybody in the room, or to one user
    text: Text
    to: Name | None = None


@server.on("handshake")
def admit(server, request):
    name = request.query.get("name", "").strip()
    return Accept(session={"name": name}) if 0 < len(name) <= 32 else Reject(400, "?name= has 1 to 32 characters")


@server.on("open")
def opened(server, request):
    server.bind(request.fd, server.session(request.fd)["name"])  # all tabs with one name are one user
    enter(server, request.fd, "lobby")


def enter(server, fd, room):
    server.session(fd)["room"] = room
    server.subscribe(fd, room)
    tell_who(server, room)


def tell_who(server, room):  # who has two tabs is there once
    people = {server.session(fd).get("name") for fd in server.subscribers(room)} - {None}
    server.publish_json(room, {"type": "here", "room": room, "people": sorted(people)})


@server.on("message", type=Enter | Say)
def said(server, frame, message):
    me = dict(server.session(frame.fd))
    match message:
        case Enter(room=room):
            server.unsubscribe(frame.fd, me["room"])
            tell_who(server, me["room"])
            enter(server, frame.fd, room)
        case Say(text=text, to=None):
            server.publish_json(me["room"], {"type": "said", "name": me["name"], "text": text})
        case Say(text=text, to=to):
            if not server.connections_of(to):
                raise BadMessage(f"{to} is not here")
            for user in {to, me["name"]}:  # one's own other tabs show it, too
                server.push_user_json(user, {"type": "whisper", "name": me["name"], "to": to, "text": text})


@server.on("close")
def left(server, fd, code, reason):
    tell_who(server, server.session(fd)["room"])


@server.on("request")
def page(request, response):
    response.send_file(PAGE)


if __name__ == "__main__":
    server.start()
