"""What somebody else makes of the Centrifuge protocol: `json`, and the messages that `centrifuge-python` has generated.

A message is a dict here, data in it a JSON value, whichever the encoding. What is as by default is left out.
"""

import base64
import json
from collections.abc import Iterable
from typing import Any

from centrifuge.protocol import client_pb2
from google.protobuf.json_format import MessageToDict, ParseDict

from mooring.centrifuge.codec import Codec
from mooring.centrifuge.json import JsonCodec
from mooring.centrifuge.protobuf import ProtobufCodec

DATA = {"data", "conn_info", "chan_info"}
WHOLE = {"offset", "time", "flag"}  # 64 bits, which protobuf's JSON has as texts


class JsonOracle:
    codec: Codec = JsonCodec()

    def commands(self, commands: Iterable[dict[str, Any]]) -> bytes:
        return "\n".join(json.dumps(command, ensure_ascii=False) for command in commands).encode()

    def replies(self, frame: bytes) -> list[dict[str, Any]]:
        return [json.loads(line) for line in frame.decode().split("\n")]


class ProtobufOracle:
    codec: Codec = ProtobufCodec()

    def commands(self, commands: Iterable[dict[str, Any]]) -> bytes:
        return b"".join(
            prefixed(ParseDict(changed(command, encoded), client_pb2.Command()).SerializeToString())
            for command in commands
        )

    def replies(self, frame: bytes) -> list[dict[str, Any]]:
        found = []
        while frame:
            length, at = 0, 0
            while True:
                length |= (frame[at] & 0x7F) << 7 * at
                at += 1
                if frame[at - 1] < 0x80:
                    break
            message = client_pb2.Reply.FromString(frame[at : at + length])
            found.append(changed(MessageToDict(message, preserving_proto_field_name=True), decoded))
            frame = frame[at + length :]
        return found


def prefixed(message: bytes) -> bytes:
    length, prefix = len(message), b""
    while length >= 0x80:
        prefix += bytes([length % 0x80 + 0x80])
        length //= 0x80
    return prefix + bytes([length]) + message


def encoded(name: str, value: Any) -> Any:
    return base64.b64encode(json.dumps(value, ensure_ascii=False).encode()).decode() if name in DATA else value


def decoded(name: str, value: Any) -> Any:
    if name in DATA:
        data = base64.b64decode(value)
        try:
            return json.loads(data)
        except ValueError:
            return data  # protobuf takes any
    return int(value) if name in WHOLE else value


def changed(value: Any, change: Any) -> Any:
    """The value with what `change` makes of each member, whose name it is told."""
    if isinstance(value, list):
        return [changed(one, change) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: change(name, part) if name in DATA | WHOLE else changed(part, change) for name, part in value.items()}


ORACLES = {"json": JsonOracle(), "protobuf": ProtobufOracle()}
