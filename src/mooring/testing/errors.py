"""What goes wrong in a test, each with the tail of the server's log."""

from mooring.errors import MooringError


class NotInTime(MooringError, AssertionError):
    """What the test waited for has not come within its limit; the text says what that was."""


class ServerFailed(MooringError):
    """The server did not start, or has ended; the text has its log."""


class HandlerFailed(MooringError):
    """A handler has raised during the test; `__cause__` is the first error."""


class Closed(MooringError):
    """There is no further message: the connection has ended, with this `code` and `reason`."""

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Refused(MooringError):
    """No WebSocket was opened: the server has answered the handshake with this `status` and `body`."""

    def __init__(self, message: str, status: int, body: str, headers: dict[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.headers = headers  # by their names in lower case
