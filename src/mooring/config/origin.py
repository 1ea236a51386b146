"""What an Origin names (RFC 6454), and which ones are the same.

Browsers send the origin of a page: scheme, host and port, in lower case and without a default port, or `null`. Other
programs send what their authors took for one: the URL of the WebSocket itself (ws:// or wss://, of several iOS
libraries), a scheme alone (file://, of WebViews and of libraries for microcontrollers), a scheme of their own (app://,
capacitor://localhost). All of these are read, and brought to one form; equal ones are the same.

* ws and wss are http and https: no page has an origin of these, and they name the same server.
* A port that is the default of its scheme is left out. Letters are small.
* A path counts for nothing, except that one behind http or https makes it no origin: it can't be a browser's, and what
  else sends one is asked to be right.
* A dot behind the name is kept: to browsers `example.org.` is another origin, with cookies of its own, and a server of
  several names may show pages of somebody else there.
"""

import re
from ipaddress import IPv6Address

NULL = "null"  # any sandboxed page can send it
_AUTHORITY = r"([a-z0-9._~-]*|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://{_AUTHORITY}(/.*)?")
_HOST = re.compile(_AUTHORITY)
_SAME = {"ws": "http", "wss": "https"}
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")  # UTS 46 section 7
_DEFAULT_PORTS = {"http": 80, "https": 443}


def normal_origin(text: str) -> str | None:
    """The form in which it can be compared; None for what is no origin."""
    text = text.lower()
    if text == NULL:
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None or (match[4] and match[1] in _DEFAULT_PORTS):
        return None
    return _joined(_SAME.get(match[1], match[1]), match[2], match[3])


def own_origin(scheme: str, host: str) -> str | None:
    """The origin of a server that is reached by http or https under this Host; None when it is no host."""
    match = _HOST.fullmatch(host.lower())
    return _joined(scheme, match[1], match[2]) if match is not None and match[1] else None


def _joined(scheme: str, host: str, port: str | None) -> str | None:
    if host[:1] == "[":
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    if port is None:
        return f"{scheme}://{host}"
    number = int(port)
    if not host or number > 65535:
        return None
    return f"{scheme}://{host}" if number == _DEFAULT_PORTS.get(scheme) else f"{scheme}://{host}:{number}"


def problem_of(text: str) -> str | None:
    """What is wrong with one that is to be allowed, and how it is written; None: nothing. This is stricter than what is
    taken from clients: what stands in the settings shall be what they send."""
    if text in ("*", NULL):
        return None
    scheme, separator, rest = text.partition("://")
    right = f"{scheme.lower()}://{_in_ascii(rest.partition('/')[0].lower())}"
    if not separator or normal_origin(right) is None:
        return (
            f"{text!r} is not an origin: write scheme, host and port only, in lower case, such as "
            '"https://example.org"; or a scheme alone, such as "file://"; or "null" or "*"'
            + ("" if text.isascii() else "; other alphabets as xn--...")
        )
    return None if text == right else f"{text!r} is not an origin as clients send it: write {right!r}"


def _in_ascii(host: str) -> str:
    """Names of other alphabets as browsers send them; unchanged where Python has no such name, or another one (IDNA
    2003 maps the letters of _DEVIATIONS, browsers keep them)."""
    name, colon, port = host.partition(":")
    try:
        return (
            host if host.isascii() or not _DEVIATIONS.isdisjoint(host) else name.encode("idna").decode() + colon + port
        )
    except UnicodeError:
        return host
