"""What somebody may have meant: a name that is not there, and those that are.

Beside names that look alike there are words that other servers have for the same thing. They are what people write
first.
"""

import re
from collections.abc import Collection, Mapping
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
    "post": "request.form",
    "session": "server.session(request.fd)",
    "user": "server.session(request.fd), where a handler of 'handshake' has put it",
}
_MISSING: Final = re.compile(
    r"'(?:mooring\._core\.ws\.(?P<frame>Frame)|(?P<request>Request)|(?P<session>Session))' object has no attribute "
    r"'(?P<name>\w+)'.*"
)


def attribute_meant(text: str) -> str:
    """For the text of an AttributeError: what was meant of a frame, a request or a session; empty if nobody could tell.
    A class of the application's own, or of a library, may have the same name: so of a Request only words are looked up,
    and of a Session it is said whose is meant."""
    found = _MISSING.fullmatch(text)
    if found is None:
        return ""
    name = found["name"]
    if found["session"]:
        return f"if that is server.session(fd): it is a mapping, write session[{name!r}]"
    meant = (FRAMES if found["frame"] else REQUESTS).get(name.lower())
    return f"did you mean {meant}?" if meant else ""


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
    offered = [one for one in dir(type(holder)) if not one.startswith("_")]
    meant = None if name.startswith("_") else nearest(name, offered, words)
    return f"a {type(holder).__name__} has no {name!r:.100}" + (f": did you mean {meant}?" if meant else "")
