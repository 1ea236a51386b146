"""The Set-Cookie field (RFC 6265 section 4.1)."""

from datetime import datetime
from email.utils import formatdate
from typing import Literal, TypedDict

from mooring._core.http_response import response_head

SameSite = Literal["Lax", "Strict", "None"]

_OCTETS = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('",;\\')  # RFC 6265 section 4.1.1


class CookieOptions(TypedDict, total=False):
    """`Response.cookie` tells what they are."""

    max_age: int | None
    expires: datetime | float | None
    path: str | None
    domain: str | None
    secure: bool
    http_only: bool
    same_site: SameSite | None


def set_cookie(
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    expires: datetime | float | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    http_only: bool = True,
    same_site: SameSite | None = "Lax",
) -> str:
    """The value of the field. Raises ValueError for what can't be sent."""
    response_head(200, [(name, "")])  # a cookie's name is a token, as a header's is
    if not _OCTETS.issuperset(value):
        raise ValueError(f"cookie {name}: {value!r} has characters a cookie can't carry; percent-encode them")
    parts = [f"{name}={value}"]
    if max_age is not None:
        parts.append(f"Max-Age={int(max_age)}")
    if expires is not None:
        parts.append(f"Expires={formatdate(_unix_seconds(name, expires), usegmt=True)}")
    for attribute, text in (("Path", path), ("Domain", domain)):
        if text is not None:
            if ";" in text or not text.isascii():
                raise ValueError(f"cookie {name}: {attribute} {text!r} has a semicolon or is not ASCII")
            parts.append(f"{attribute}={text}")
    if same_site not in (None, "Lax", "Strict", "None"):
        raise ValueError(f"cookie {name}: same_site is 'Lax', 'Strict', 'None' or None, not {same_site!r}")
    if same_site == "None" and not secure:
        raise ValueError(f"cookie {name}: browsers refuse same_site='None' without secure=True")
    if same_site is not None:
        parts.append(f"SameSite={same_site}")
    if secure:
        parts.append("Secure")
    if http_only:
        parts.append("HttpOnly")
    return "; ".join(parts)


def _unix_seconds(name: str, when: datetime | float) -> float:
    if not isinstance(when, datetime):
        return when
    if when.tzinfo is None:
        raise ValueError(f"cookie {name}: expires {when!r} has no time zone")
    return when.timestamp()
