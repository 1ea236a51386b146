"""JSON: one object per line, lines joined by a newline; a frame is a text message.

Data of a client or an application stands in it as it came, so that it must be looked at: a newline in it would end the
line early, and half a value would make the reader take the rest of the message for something else. Whatever is embedded
is therefore checked to be one JSON value, and blanks outside of its texts are taken out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw, Struct

from mooring.centrifuge.codes import NotJson, Violation
from mooring.centrifuge.commands import EMPTY, Command, Emulation, Message, Reply
from mooring.centrifuge.limits import DEFAULT, Limits

BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')  # a text as a whole, so that brackets within do not count


class _JsonEmulation(Struct, frozen=True):
    """In JSON the commands are a text within the text."""

    data: str
    session: str = ""
    node: str = ""


class JsonCodec:
    """Frames as JSON."""

    name = "json"
    binary = False
    ping = b"{}"

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._command = msgspec.json.Decoder(Command)
        self._emulation = msgspec.json.Decoder(_JsonEmulation)
        self._encoder = msgspec.json.Encoder()

    def commands(self, frame: bytes) -> list[Command]:
        if len(frame) > self._limits.frame:
            raise Violation(f"a frame of {len(frame)} bytes, {self._limits.frame} are allowed")
        if frame.count(b"\n") > self._limits.commands:
            raise Violation(f"more than {self._limits.commands} commands in a frame")
        lines = [line for line in frame.split(b"\n") if line.strip()]
        if not lines:
            raise Violation("an empty frame")
        return [self._decode(self._command, line) for line in lines]

    def emulation(self, body: bytes) -> Emulation:
        if len(body) > 2 * self._limits.frame:  # a text within a text is longer
            raise Violation(f"a body of {len(body)} bytes, {2 * self._limits.frame} are allowed")
        found = self._decode(self._emulation, body)
        return Emulation(found.node, found.session, found.data.encode())

    def _decode(self, decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
        if nested_deeper(text, self._limits.depth):
            raise Violation(f"JSON that is nested more than {self._limits.depth} deep")
        try:
            text.decode()  # what is not looked at is passed on, and must be a text there too
            return decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Violation(f"not a command: {error}") from error

    def encode(self, replies: Iterable[Reply]) -> bytes:
        return b"\n".join([self._encoder.encode(self._checked(reply)) for reply in replies])

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"\n".join(frames)

    def _checked(self, message: Any) -> Any:
        """The message with its data as it can stand in a line."""
        changes = {}
        for name, check in CHECKED[type(message)]:
            value = getattr(message, name)
            if value is not None:
                checked = check(self, value)
                if checked is not value:
                    changes[name] = checked
        return msgspec.structs.replace(message, **changes) if changes else message

    def _checked_list(self, messages: list[Any]) -> list[Any]:
        return [self._checked(message) for message in messages]

    def _checked_map(self, messages: dict[str, Any]) -> dict[str, Any]:
        return {name: self._checked(message) for name, message in messages.items()}

    def _one_value(self, data: Raw) -> Raw:
        if data is EMPTY:
            return data
        text = bytes(data)
        if not text:
            return EMPTY
        try:
            text.decode()
            if nested_deeper(text, self._limits.depth):
                raise NotJson(f"data that is nested more than {self._limits.depth} deep")
            line = msgspec.json.format(text, indent=-1)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotJson(f"data that is no JSON: {error}") from error
        return data if line == text else Raw(line)


def nested_deeper(text: bytes, most: int) -> bool:
    """Whether there are more than `most` brackets around something. Nearly always it is enough to count them."""
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    depth = 0
    for found in BRACKETS.finditer(text):
        mark = text[found.start()]
        if mark in b"[{":
            depth += 1
            if depth > most:
                return True
        elif mark in b"]}":
            depth -= 1
    return False


def _how(hint: Any) -> Callable[..., Any]:
    origin = get_origin(hint)
    if origin is list:
        return JsonCodec._checked_list
    return JsonCodec._checked_map if origin is dict else JsonCodec._checked


def _checks() -> dict[type, list[tuple[str, Callable[..., Any]]]]:
    """For each message the fields that hold data, or messages that may."""
    found: dict[type, list[tuple[str, Callable[..., Any]]]] = {}

    def of(message: type) -> list[tuple[str, Callable[..., Any]]]:
        if message not in found:
            found[message] = []
            for name, hint in get_type_hints(message).items():
                inner = [part for part in (hint, *get_args(hint)) if isinstance(part, type)]
                if Raw in inner:
                    found[message].append((name, JsonCodec._one_value))
                found[message] += [(name, _how(hint)) for part in inner if issubclass(part, Message) and of(part)]
        return found[message]

    of(Reply)
    return found


CHECKED = _checks()
