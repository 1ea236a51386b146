"""The access log: one line for each answered request, in the order in which the answers are complete.

    127.0.0.1 "GET /a?b HTTP/1.1" 200 1234 0.0021 "https://example.org/" "curl/8.5.0"
    address   request             status bytes seconds  referrer          user agent

Bytes are those of the body, seconds run from when the worker had the request until the answer was handed on. For a
file that the gateway sends they run until its last byte was out or the client had left; a dash stands for bytes whose
end this worker did not see. What a client wrote is cut and escaped, so that it can neither end a line nor steer a
terminal.
"""

import time
from collections.abc import Callable

from mooring.app.request import Request
from mooring.app.response import Response, Send
from mooring.journal import own_logger
from mooring.worker.streams import Over

log = own_logger("mooring.access")

LONGEST = 256  # characters of a field, before they are escaped

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {0x22: '\\"', 0x5C: "\\\\"}


def write(request: Request, response: Response, size: int | None, seconds: float, *, taken: bool) -> None:
    """A line for an answer that is complete. `size`: of the body; None: nobody knows. `taken`: the client was still
    there."""
    first = f"{request.method} {request.target[: LONGEST + 1]}"
    end = "" if taken and not response._broken else " cut"
    log.info(
        "%s %s %d %s %.4f %s %s%s",
        request.remote_ip or "-",
        quoted(first, f" HTTP/{request.http_version}"),
        response.status_code,
        "-" if size is None else size,
        seconds,
        quoted(request.headers.get("referer", "-")),
        quoted(request.headers.get("user-agent", "-")),
        end,
    )


def logged(send: Send, request: Request, response: Callable[[], Response], start: float) -> tuple[Send, Over]:
    """`send`, and a line in the access log behind the last call; what to call instead behind a file that the gateway
    has sent."""

    def send_and_log(data: bytes, last: bool, close: bool) -> bool:
        taken = send(data, last, close)
        if last:
            write(request, response(), response()._body_size, time.monotonic() - start, taken=taken)
        return taken

    def log_file(sent: int | None, whole: bool) -> None:
        write(request, response(), sent, time.monotonic() - start, taken=whole)

    return send_and_log, log_file


def quoted(text: str, more: str = "") -> str:
    """In quotes, as printable ASCII, at most LONGEST characters of the text; `more` is behind it in any case."""
    cut = text[:LONGEST].translate(_ESCAPES).encode("ascii", "backslashreplace").decode()
    return f'"{cut}{"..." if len(text) > LONGEST else ""}{more}"'
