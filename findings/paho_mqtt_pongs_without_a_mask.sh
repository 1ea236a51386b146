#!/usr/bin/env bash
# paho-mqtt 2.2.0 over WebSocket answers a ping with a pong that is not masked, and a close frame likewise.
#
# RFC 6455 section 5.1: a client MUST mask all frames, and a server MUST close the connection upon receiving one that is not.
# Its MQTT packets are masked. So a broker that does what the RFC says, and pings, loses each client at the first ping.
#
# Seen: CONNECT is masked, the pong is not. Exit code 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check paho-mqtt==2.2.0
timeout 60 "$folder/venv/bin/python" - <<'PYTHON'
import base64
import hashlib
import re
import socket
import sys
import threading
from importlib.metadata import version

import paho.mqtt.client as mqtt

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
masked = {}


def exactly(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def serve(listener):
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        key = re.search(rb"sec-websocket-key: *(\S+)", head, re.IGNORECASE)[1]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        sock.sendall(b"\x89\x04ping")
        while 10 not in masked:
            first, second = exactly(sock, 2)
            masked[first & 15] = bool(second & 0x80)
            exactly(sock, (4 if second & 0x80 else 0) + (second & 0x7F))


with socket.create_server(("127.0.0.1", 0)) as listener:
    server = threading.Thread(target=serve, args=(listener,))
    server.start()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets")
    client.connect("127.0.0.1", listener.getsockname()[1])
    client.loop_start()
    server.join(30)
    client.loop_stop()
print("paho-mqtt", version("paho-mqtt"))
print("masked: the MQTT packet (opcode 2)", masked.get(2), "- the pong (opcode 10)", masked.get(10))
sys.exit(masked.get(2) is not True or masked.get(10) is not False)
PYTHON
