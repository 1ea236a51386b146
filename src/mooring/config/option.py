"""How an option is declared and checked; which ones there are, say the modules of the sections.

An option is a field of a dataclass, a `Section`, with what it means and what it may be in the field's metadata.
A value is checked, and brought to its exact type, when a section is made.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from ipaddress import ip_network
from typing import Any, TypeVar, cast

from mooring.errors import ConfigError

from .origin import problem_of

HOUR = 3600.0  # seconds
GIB = 1 << 30  # bytes
T = TypeVar("T")
Check = Callable[[Any], str | None]

# RFC 9110 section 5.6.2; a WebSocket subprotocol is a token (RFC 6455 section 4.1).
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
HOST = re.compile(r"(?:\*\.)?[a-z0-9._-]{1,255}|\[[0-9a-f:.]{2,45}\]")
# systemd.socket(5): a name has no control characters and no colon
INHERITED = re.compile(r"fd://(?:[3-9]|[1-9][0-9]{1,4})|systemd(?::[^\x00-\x1f\x7f:]{1,255})?")
UNIX = "unix"  # among networks: whoever comes through a Unix socket


def option(
    default: T,
    doc: str,
    unit: str = "",
    *,
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    check: Check | None = None,
    shown: str | None = None,
) -> T:
    """A dataclass field with its documentation and its bounds, the lowest and the highest value that are allowed.

    `check` returns what is wrong with a value, or None; `shown` stands in the docs for a default that
    depends on the machine.
    """
    metadata = {"doc": doc, "unit": unit, "shown": shown, "bounds": bounds, "choices": choices, "check": check}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Section:
    """What the sections share: every field is checked, and brought to its exact type, when one is made."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, checked(spec, getattr(self, spec.name)))


TYPE_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}


def type_name(spec: "Field[Any]") -> str:
    return TYPE_NAMES.get(cast(type, spec.type), "a list of texts")


def number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def allowed(spec: "Field[Any]") -> str:
    """The values an option may have, in words."""
    meta = spec.metadata
    if meta["choices"]:
        return " or ".join(meta["choices"])
    return " to ".join(map(number, meta["bounds"] or ()))


def checked(spec: "Field[Any]", value: object) -> object:
    """The value in the field's exact type; ConfigError if it is not allowed."""
    meta = spec.metadata
    problem: str | None = None
    right, value = typed(spec.type, value)
    limits = allowed(spec)
    if meta["choices"]:
        problem = None if value in meta["choices"] else f"must be {limits}"
    elif not right:
        problem = f"must be {type_name(spec)}" + (f", {limits} {meta['unit']}".rstrip() if limits else "")
        problem += instead_of(spec, value)
    elif meta["bounds"] and not meta["bounds"][0] <= cast(float, value) <= meta["bounds"][1]:  # a NaN is in none
        problem = f"must be {limits} {meta['unit']}".rstrip()
    elif meta["check"] is not None:
        problem = meta["check"](value)
    if problem is not None:
        raise ConfigError(f"{spec.name}={value!r}: {problem}")
    return value


def instead_of(spec: "Field[Any]", value: object) -> str:
    """What to write instead of a value of the wrong type, where that is plain."""
    if isinstance(value, str | os.PathLike) and spec.type not in TYPE_NAMES:
        return f": write {spec.name}=[{os.fspath(value)!r}]"
    return ""


def typed(wanted: object, value: object) -> tuple[bool, object]:
    """Whether the value is of a field's type, and the value in exactly that type."""
    if wanted is bool:
        return isinstance(value, bool), value
    if wanted is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return isinstance(value, str), value
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if wanted is float:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        return right, as_float(cast(float, value)) if right else value
    if isinstance(value, list | tuple):  # a lone text would be taken letter by letter: refused
        value = tuple([os.fspath(item) if isinstance(item, os.PathLike) else item for item in value])
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value), value


def as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


# ---- checks that bounds can't express


def check_protocols(values: tuple[str, ...]) -> str | None:
    for value in values:
        if not value or not TOKEN.issuperset(value):
            return f"{value!r} is not a token (RFC 9110 section 5.6.2)"
    return "one name stands in it twice" if len(set(values)) != len(values) else None


def check_origins(values: tuple[str, ...]) -> str | None:
    return next((problem for value in values if (problem := problem_of(value)) is not None), None)


def check_hosts(values: tuple[str, ...]) -> str | None:
    for value in values:
        if not HOST.fullmatch(value):
            return f"{value!r} is not a host: write names or addresses in lower case without a port, or *.example.org"
    return None


def check_networks(values: tuple[str, ...]) -> str | None:
    for value in values:
        try:
            if value != UNIX:
                ip_network(value)
        except ValueError as error:
            return f"{error}; write networks or addresses, such as 10.0.0.0/8 or ::1, or unix"
    return None


def check_path(value: str) -> str | None:
    return "a path has no NUL in it" if "\0" in value else None


def check_mode(value: int) -> str | None:
    return None if 0 <= value <= 0o777 else "must be from 0 to 0o777, such as 0o660"


def check_inherited(value: str) -> str | None:
    if not value or INHERITED.fullmatch(value):
        return None
    return "write fd://N with N from 3 to 65535, systemd or systemd:NAME"


def check_dispatch(value: str) -> str | None:
    if value in ("connection", "address", "user") or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        return None
    return "write connection, address, user, or MODULE:FUNCTION"


def check_sni(values: tuple[str, ...]) -> str | None:
    for value in values:
        if not re.fullmatch(r"(?:\*\.)?[A-Za-z0-9.-]+=[^:=\0]+(?::[^:=\0]+)?", value):
            return f"{value!r}: write NAME=CERT or NAME=CERT:KEY"
    return None


def check_host(value: str) -> str | None:
    """A name or address, and nothing of a URL around it."""
    if not value:
        return "it is empty"
    bare, colon, port = value.rpartition("://")[2].partition("/")[0].rpartition(":")
    if colon and port.isascii() and port.isdigit() and (":" not in bare or bare.startswith("[")):
        return f"it has a port in it: write host={bare.strip('[]') or '0.0.0.0'!r}, port={int(port)}"
    if "://" in value or "/" in value:
        return "it is a URL or a path: write a name or an address such as 127.0.0.1; a Unix socket is unix_socket"
    if value.startswith("[") and value.endswith("]"):
        return f"write it without brackets: {value[1:-1]!r}"
    return None


def split_address(value: str) -> tuple[str, int | None]:
    """Host and port of `HOST:PORT`, or the path of `unix:PATH` and None. Raises ValueError."""
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError("there is no path behind unix:")
        return path, None
    host, colon, port = value.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError("write HOST:PORT, such as 127.0.0.1:9600, or unix:PATH")
    if "://" in host:
        raise ValueError("it is a URL: write HOST:PORT, such as 127.0.0.1:9600, or unix:PATH")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    host = host.strip("[]")
    problem = check_host(host)
    if problem is not None:
        raise ValueError(problem)
    return host, int(port)


def check_address(value: str) -> str | None:
    """Empty, or one that `split_address` knows."""
    if value:
        try:
            split_address(value)
        except ValueError as problem:
            return str(problem)
    return None


def check_filled(value: str | tuple[str, ...]) -> str | None:
    return "it is empty" if value == "" else "a text in it is empty" if not all(value) else None
