"""The lines of the control socket, both ways, and the child messages of processes."""

from collections.abc import Iterator
from functools import partial

import msgspec

from fuzz.harness import outcome
from mooring.admin import requests
from mooring.admin.requests import Answer
from mooring.errors import AdminError, MooringError
from mooring.net import messages
from mooring.net.child_socket import decode


def seeds() -> Iterator[bytes]:
    yield b'{"command": "stats"}'
    yield b'{"command": "push", "fd": 1, "text": "hello"}'
    yield b'{"command": "push", "topic": "t", "binary": "AAECAw=="}'
    yield b'{"command": "kick", "user": "ann", "code": 4000, "reason": "bye"}'
    yield b'{"command": "connections", "limit": 10, "order": "age", "path": "/chat", "state": "OPEN", "min_age": 1.5}'
    yield b'{"command": "inspect", "fd": 144115188499480576}'
    yield b'{"ok": true, "result": [1, {"a": null}]}'
    yield b'{"ok": false, "error": "why"}'
    yield msgspec.msgpack.encode(messages.Attach(1, None, 1, 4711, 7))
    yield msgspec.msgpack.encode(messages.Drained({"accepted": 7, "dropped": {"timeout": 1}}))


def one(data: bytes) -> None:
    request = outcome(lambda: requests.decode_request(data), AdminError)
    if not isinstance(request, tuple):
        again = requests.decode_request(requests.encode(request))
        assert again == request
        if isinstance(request, requests.Push):
            assert isinstance(outcome(lambda: request.data, ValueError), str | bytes | tuple)
        if isinstance(request, requests.ListConnections):
            outcome(request.terms, ValueError)
    answer = outcome(lambda: requests.decode_answer(data), AdminError)
    if isinstance(answer, Answer):
        assert requests.decode_answer(requests.encode(answer)) == answer
    for decoder in (messages.to_child, messages.to_supervisor):
        message = outcome(partial(decode, decoder, data), MooringError)
        if isinstance(message, msgspec.Struct):
            assert decode(decoder, msgspec.msgpack.encode(message)) == message
