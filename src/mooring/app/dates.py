"""The date of an answer."""

import time
from email.utils import formatdate

_date = (0, "")


def http_date() -> str:
    """Now, as the Date field has it (RFC 9110 section 5.6.7); formatted once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]
