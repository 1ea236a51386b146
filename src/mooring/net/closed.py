"""The line of the log for a connection that has ended. For people:

    connection 39054569405153280 ended by client_closed code=1000 reason="bye" protocol=websocket path=/chat ...

Fields that say nothing are left out. With log_format="json" they are fields of the line, all of them, by the names of
CloseRecord, and `message` is short. What a client chose (path, reason, user) is cut and escaped.
"""

import re
from dataclasses import fields
from typing import Any

from mooring.journal import own_logger
from mooring.net.refusals import printable
from mooring.types import CloseRecord

log = own_logger("mooring.closed")

_NAMES = [field.name for field in fields(CloseRecord)]
_PLAIN = re.compile(r"[\w./:-]{1,255}", re.ASCII)
_IN_TEXT = [name for name in _NAMES if name not in ("fd", "cause")]


def log_record(record: CloseRecord, *, as_json: bool) -> None:
    """One line."""
    if as_json:
        values = {name: getattr(record, name) for name in _NAMES}
        log.info("connection %d ended by %s", record.fd, record.cause, extra=values)
    else:
        log.info("connection %d ended by %s %s", record.fd, record.cause, shown(record))


def shown(record: CloseRecord) -> str:
    """name=value, for people."""
    return " ".join(f"{name}={_text(value)}" for name in _IN_TEXT if (value := getattr(record, name)) not in ("", None))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else '"' + printable(value).replace('"', '\\"') + '"'
    return str(value)
