"""What to do instead, for handlers that return what nobody will look at."""

from mooring.app.foreign import class_name, is_a

_SENT = (str, bytes, bytearray, dict, list, tuple)


def of_request(result: object) -> str:
    """For a `request` handler that has answered nothing and returned that."""
    if result is None or is_a(result, bool):
        return "call response.end() or response.json()"
    instead = "response.json()" if is_a(result, dict, list, tuple) else "response.end()"
    return f"it returned a {class_name(result)}, and what a handler returns is sent to nobody: call {instead} with it"


def of_event(result: object) -> str:
    """For a handler of WebSockets that has returned that; empty for what can't be meant for the client."""
    if not is_a(result, *_SENT):
        return ""
    return (
        f"returned a {class_name(result)}, and what a handler returns is sent to nobody: push it, server.push(fd, ...)"
    )
