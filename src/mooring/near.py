"""What somebody may have meant: a name that is not there, and those that are.

Beside names that look alike there are words that other servers have for the same thing. They are what people write
first.
"""

import re
from abc import ABCMeta
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Final

SETTINGS: Final[Mapping[str, str]] = {
    "address": "host",
    "bind": "host",
    "certfile": "ssl_cert_file",
    "client_max_size": "body_limit",
    "compression": "websocket_compression",
    "cors_origins": "allowed_origins",
    "gateways": "gateway_num",
    "heartbeat": "ping_interval",
    "keepalive": "keepalive_timeout",
    "keyfile": "ssl_key_file",
    "limit_concurrency": "max_connections",
    "max_size": "max_message_size",
    "num_workers": "worker_num",
    "origins": "allowed_origins",
    "package_max_length": "max_message_size",
    "permessage_deflate": "websocket_compression",
    "ping_timeout": "pong_timeout",
    "processes": "worker_num",
    "reload": "watch",
    "shutdown_timeout": "graceful_timeout",
    "ssl_certfile": "ssl_cert_file",
    "ssl_keyfile": "ssl_key_file",
    "static": "document_root",
    "static_dir": "document_root",
    "stop_timeout": "graceful_timeout",
    "task_workers": "task_worker_num",
    "threads": "worker_num",
    "uds": "unix_socket",
    "unix": "unix_socket",
    "unix_path": "unix_socket",
    "worker": "worker_num",
    "worker_count": "worker_num",
    "workers": "worker_num",
    "ws_max_size": "max_message_size",
    "ws_ping_interval": "ping_interval",
    "ws_ping_timeout": "pong_timeout",
}
EVENTS: Final[Mapping[str, str]] = {
    "auth": "handshake",
    "authenticate": "handshake",
    "connect": "open",
    "connected": "open",
    "connection": "open",
    "data": "message",
    "disconnected": "close",
    "exception": "error",
    "exit": "worker_stop",
    "get": "request",
    "http": "request",
    "job": "task",
    "pipe": "pipe_message",
    "post": "request",
    "ready": "start",
    "receive": "message",
    "recv": "message",
    "started": "start",
    "startup": "worker_start",
    "stop": "shutdown",
    "text": "message",
    "upgrade": "handshake",
    "websocket": "open",
}
METHODS: Final[Mapping[str, str]] = {
    "add_timer": "tick(seconds, function)",
    "broadcast": "publish(topic, data)",
    "call_later": "after(seconds, function)",
    "emit": "push(fd, data) or publish(topic, data)",
    "join": "subscribe(fd, topic)",
    "kick": "disconnect(fd)",
    "listen_forever": "start()",
    "run": "start()",
    "run_forever": "start()",
    "send": "push(fd, data)",
    "send_json": "push_json(fd, value)",
    "send_text": "push(fd, data)",
    "send_to": "push(fd, data)",
    "serve": "start()",
    "serve_forever": "start()",
    "stop": "shutdown()",
    **dict.fromkeys(("delete", "get", "patch", "post", "put", "route"), 'on("request") for all paths and methods'),
}
ANSWERS: Final[Mapping[str, str]] = {
    "headers": "header(name, value)",
    "html": "end(text), behind header('Content-Type', 'text/html')",
    "render": "end(text)",
    "send": "end(data)",
    "send_header": "header(name, value)",
    "send_json": "json(value)",
    "set_cookie": "cookie(name, value)",
    "set_header": "header(name, value)",
    "set_status": "status(code)",
    "text": "end(text)",
}

FRAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("answer", "push", "reply", "respond", "send", "send_text"), "server.push(frame.fd, data)"),
    "send_json": "server.push_json(frame.fd, value)",
    **dict.fromkeys(("body", "content", "message", "msg", "payload", "text", "value"), "frame.data"),
    **dict.fromkeys(("client", "connection", "id", "sid"), "frame.fd"),
    "session": "server.session(frame.fd)",
    "user": "server.session(frame.fd), where a handler of 'open' or 'handshake' has put it",
}
REQUESTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("args", "get", "params", "query_params", "query_string"), "request.query"),
    **dict.fromkeys(("content", "data"), "request.body or request.text()"),
    **dict.fromkeys(("client", "client_ip", "ip", "peer", "remote", "remote_addr"), "request.remote_ip"),
    **dict.fromkeys(("uri", "url"), "request.path and request.query"),
    "get_json": "request.json()",
    "post": "request.form",
    "session": "server.session(request.fd)",
    "user": "server.session(request.fd), where a handler of 'handshake' has put it",
}
PARAMETERS: Final[Mapping[str, str]] = {
    "detail": "reason",
    "httponly": "http_only",
    "include_self": "exclude=frame.fd",
    "maxage": "max_age",
    "samesite": "same_site",
    "skip": "exclude",
    "skip_sid": "exclude",
    "status_code": "status",
}
_TAKING: Final = ("Accept", "HttpError", "Reject", "Response", "Server")  # whose parameters these are

TASKS: Final[Mapping[str, str]] = dict.fromkeys(
    ("args", "arguments", "body", "message", "params", "payload", "value"), "task.data"
)
_OF: Final[Mapping[str, Mapping[str, str]]] = {
    "Frame": FRAMES,
    "Request": REQUESTS,
    "Response": ANSWERS,
    "Server": METHODS,
    "Session": {},
    "Task": TASKS,
}
_SET: Final = re.compile(
    r"'Session' object has no attribute '(\w{1,100})'"
)  # until Python 3.12 it does not say of what

_READ_ONLY: Final = re.compile(r"'Response' object attribute '(\w{1,100})' is read-only")
_UNKNOWN: Final = re.compile(r"(\w+)\.\w+\(\) got an unexpected keyword argument '(\w{1,100})'")
_NOT_CALLED: Final = re.compile(r"'\w*method\w*' object is not subscriptable")
_OF_TABLE: Final = re.compile(
    r"'SharedTable' object (?:is not subscriptable|does not support item (?:assignment|deletion))"
)
_OF_ATOMIC: Final = re.compile(
    r"unsupported operand type\(s\) for \S+ (?:'\w+' and )?'Atomic'"
    r"|'[<>]=?' not supported between instances of 'Atomic'"
)
_AWAITED: Final = re.compile(r"object \w+ can't be used in 'await' expression|'\w+' object can't be awaited")


def call_meant(text: str) -> str:
    """What was meant by a call that Python has refused with an error of that text; empty if nobody could tell."""
    if _AWAITED.fullmatch(text):
        return (
            "push, publish and most other methods do their work at once and return a plain value: call them without "
            "`await`"
        )
    if text == "exceptions must derive from BaseException":
        return "if that is a Reject: return it, as it is no exception; HttpError can be raised"
    if text == "asyncio.run() cannot be called from a running event loop":
        return "handlers run in one already: make it an `async def`, and await there what asyncio.run() was given"
    if _OF_TABLE.fullmatch(text):
        return "write table.get(key), table.set(key, column=value), table.delete(key)"
    if _OF_ATOMIC.match(text):
        return "write atomic.get(), atomic.add(1), atomic.set(value)"
    if _NOT_CALLED.fullmatch(text):
        return "a method is called first, as in request.json()['name']"
    if (found := _UNKNOWN.fullmatch(text)) and found[1] in _TAKING and found[2] in PARAMETERS:
        return f"did you mean {PARAMETERS[found[2]]}?"
    return ""


def attribute_meant(error: AttributeError, text: str) -> str:
    """What was meant of a frame, a request or another object of ours; empty if it is none, or nobody could tell."""
    name = error.name
    holder = type(error.obj)
    if error.obj is None and (found := _SET.match(text)):
        return f"if that is server.session(fd): it is a mapping, write session['{found[1]}'] = ..."
    if error.obj is None and (found := _READ_ONLY.fullmatch(text)):
        return f"it is a method: call it, as in response.{found[1]}(...)"
    kind = next((one for one in _kinds(holder) if one.__name__ in _OF and one.__module__.startswith("mooring.")), None)
    if kind is None or not isinstance(name, str) or name in dir(holder):
        return ""  # one that is there has raised the error itself
    words = _OF[kind.__name__]
    if kind.__name__ == "Session":
        return f"if that is server.session(fd): it is a mapping, write session[{name!r:.100}]"
    offered = [one for one in dir(kind) if not one.startswith("_")]
    meant = nearest(name, offered, words) if not name.startswith("_") else None
    return f"did you mean {meant}?" if meant else ""


def _kinds(holder: type) -> Iterator[type]:
    """Its classes whose attributes run no code of the application's when they are read."""
    return (one for one in type.__dict__["__mro__"].__get__(holder) if type(one) in (type, ABCMeta))


def nearest(name: object, names: Collection[str], words: Mapping[str, str], cutoff: float = 0.6) -> str | None:
    """The name that was meant, None when nobody could tell."""
    text = str(name).lower().replace("-", "_").replace(".", "_")
    text = text.removeprefix("on_")
    squeezed = {one.replace("_", ""): one for one in names}
    for form in (text, text.removeprefix("on")):
        found = words.get(form) or squeezed.get(form.replace("_", ""))
        if found is not None:
            return found
    return next(iter(get_close_matches(text, names, n=1, cutoff=cutoff)), None)


def no_attribute(holder: object, name: str, words: Mapping[str, str]) -> str:
    """For the AttributeError of one that is not there.

    One that is there has raised an AttributeError itself, as a property does whose code has a mistake in it, and Python
    asks again for the name. That error is the one to see: it is raised again."""
    if hasattr(type(holder), name):
        object.__getattribute__(holder, name)
    if name.startswith("on_"):
        return f"a {type(holder).__name__} has no {name!r:.100}: write @server.on({name[3:]!r:.100}) above the handler"
    offered = [one for one in dir(type(holder)) if not one.startswith("_")]
    meant = None if name.startswith("_") else nearest(name, offered, words)
    return f"a {type(holder).__name__} has no {name!r:.100}" + (f": did you mean {meant}?" if meant else "")
