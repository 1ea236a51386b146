#!/usr/bin/env python3
# ruff: noqa: PT009 (a unittest on its own, so that it runs without pytest too)
"""Checks that wsload accepts what a server may do and reports what it must not do.

python3 bench/test_wsload.py    (stdlib only; builds wsload from wsload.c)
WSLOAD=path/to/wsload python3 bench/test_wsload.py
"""

import asyncio
import base64
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import threading
import unittest

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, payload, fin=True, rsv=0, mask=None):
    head = bytes([fin << 7 | rsv | opcode])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65536:
        head += bytes([masked | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", len(payload))
    return head + (mask or b"") + payload


class MisbehavingServer:
    """A WebSocket server that behaves, or misbehaves, as the path says."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.pongs = 0
        self.fanout = set()
        ready = threading.Event()
        threading.Thread(target=self.run, args=(ready,), daemon=True).start()
        ready.wait()

    def run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self.client, "127.0.0.1", 0, limit=1 << 24))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def client(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ", 2)[1].strip("/")
                if "Sec-WebSocket-Key" not in head:
                    if not self.http(path, writer):
                        break
                    continue
                if self.handshake(path, head, writer):
                    await self.websocket(path, reader, writer)
                break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.fanout.discard(writer)
            writer.close()

    @staticmethod
    def http(path, writer):
        """Answers a request; whether the connection stays."""
        body = b"5\r\nhello\r\n0\r\n\r\n" if path.startswith("chunked") else b"hello"
        if path == "wrong-body":
            body = b"hullo"
        head = "HTTP/1.1 500 No\r\n" if path == "status" else "HTTP/1.1 200 OK\r\n"
        head += "transfer-encoding: chunked\r\n" if path.startswith("chunked") else f"content-length: {len(body)}\r\n"
        if path == "closes":
            head += "Connection: close\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        return path not in ("closes", "closes-silently")

    @staticmethod
    def handshake(path, head, writer):
        key = head.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
        if path == "wrong-accept":
            key = "x" + key
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        status = "403 Forbidden" if path == "status" else "101 Switching Protocols"
        extra = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if path == "extension" else ""
        writer.write(
            (
                f"HTTP/1.1 {status}\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n"
                f"sec-websocket-accept:{accept}\r\n{extra}\r\n"
            ).encode()
        )
        if path == "ping-at-once":
            writer.write(frame(PING, b"early"))
        return status.startswith("101")

    async def websocket(self, path, reader, writer):
        count = 0
        if path == "fanout":
            self.fanout.add(writer)
        if path == "greeting":
            writer.write(frame(TEXT, b"welcome"))
        while True:
            opcode, payload = await self.read_frame(reader)
            if opcode == CLOSE:
                writer.write(frame(CLOSE, payload))
                return
            if opcode == PING:
                writer.write(frame(PONG, payload))
            elif opcode == PONG:
                self.pongs += 1
            else:
                count += 1
                await self.answer(path, writer, opcode, payload, count)

    @staticmethod
    async def read_frame(reader):
        first, second = await reader.readexactly(2)
        assert second & 0x80, "client frames are masked"
        length = second & 0x7F
        if length >= 126:
            extended = await reader.readexactly(2 if length == 126 else 8)
            length = int.from_bytes(extended, "big")
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(length)
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        return first & 15, (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")

    async def answer(self, path, writer, opcode, payload, count):
        bad = count == 5  # the misbehaviour comes with the fifth message
        if path == "fanout":
            for client in self.fanout:
                client.write(frame(opcode, payload))
        elif path == "fragments":
            third = len(payload) // 3
            writer.write(
                frame(opcode, payload[:third], fin=False)
                + frame(PING, b"between")
                + frame(0, b"", fin=False)
                + frame(0, payload[third : 2 * third], fin=False)
                + frame(0, payload[2 * third :])
            )
        elif path == "bytewise":
            for byte in frame(opcode, payload) + frame(PING, b""):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
        elif path == "opcode" and bad:
            writer.write(frame(TEXT + BINARY - opcode, payload))
        elif path == "contents" and bad:
            writer.write(frame(opcode, payload[:-1] + b"?"))
        elif path == "short" and bad:
            writer.write(frame(opcode, payload[:-1]))
        elif path == "long" and bad:
            writer.write(frame(opcode, payload + b"+"))
        elif path == "twice" and bad:
            writer.write(frame(opcode, payload) * 2)
        elif path == "lost" and bad:
            pass
        elif path == "masked" and bad:
            writer.write(frame(opcode, payload, mask=b"\0\0\0\0"))
        elif path == "rsv" and bad:
            writer.write(frame(opcode, payload, rsv=0x40))
        elif path == "continuation" and bad:
            writer.write(frame(0, payload))
        elif path == "close" and bad:
            writer.write(frame(CLOSE, struct.pack(">H", 1011)))
        elif path == "abort" and bad:
            writer.transport.abort()
        elif path == "no-pong":
            pass
        else:
            writer.write(frame(opcode, payload))


class WsloadTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = MisbehavingServer()
        cls.program = os.environ.get("WSLOAD")
        if not cls.program:
            folder = tempfile.TemporaryDirectory()
            cls.addClassCleanup(folder.cleanup)
            cls.program = os.path.join(folder.name, "wsload")
            source = pathlib.Path(__file__).resolve().with_name("wsload.c")
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", cls.program, str(source)], check=True)

    def load(self, mode, path, *args):
        done = subprocess.run(
            [
                self.program,
                mode,
                f"ws://127.0.0.1:{self.server.port}/{path}",
                "-c",
                "3",
                "-t",
                "0.2",
                "-w",
                "0.05",
                *args,
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(done.stderr, "")
        result = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if result["ok"] else 1)
        return result

    def good(self, *args):
        result = self.load(*args)
        self.assertTrue(result["ok"], result)
        self.assertGreater(result["count"], 0)
        return result

    def bad(self, error, *args):
        result = self.load(*args)
        self.assertFalse(result["ok"])
        self.assertIn(error, result["error"])

    def test_echo(self):
        for size in 0, 1, 7, 125, 126, 65535, 65536, 300000:
            for depth in 1, 5:
                with self.subTest(size=size, depth=depth):
                    self.good("echo", "echo", "-s", str(size), "-d", str(depth))
        self.good("echo", "echo", "--text")

    def test_echo_many(self):
        result = self.good("echo", "echo", "-c", "200", "-d", "64", "--src", "3")
        self.assertEqual(result["unanswered"], 0)

    def test_fragments_and_pings(self):
        before = self.server.pongs
        result = self.good("echo", "fragments", "-s", "1000", "-d", "3")
        self.assertGreaterEqual(self.server.pongs - before, result["count"] * 0.9)

    def test_bytewise(self):
        self.good("echo", "bytewise", "-s", "130")

    def test_frame_with_the_handshake(self):
        self.good("echo", "ping-at-once")

    def test_misbehaviour_is_reported(self):
        for path, error in {
            "opcode": "opcode 1 came back, 2 was sent",
            "contents": "differs",
            "short": "31 bytes, 32 were sent",
            "long": "longer than the 32",
            "twice": "nothing asked for",
            "lost": "not all was answered",
            "masked": "masked",
            "rsv": "reserved bits",
            "continuation": "fragmentation",
            "close": "closed the connection (code 1011)",
            "abort": "ended the connection",
            "status": "status 403",
            "wrong-accept": "wrong Sec-WebSocket-Accept",
            "extension": "not offered",
        }.items():
            with self.subTest(path):
                self.bad(error, "echo", path)

    def test_swapped_answers_are_reported(self):
        self.bad("differs", "echo", "lost", "-d", "4")

    def test_connection_refused(self):
        done = subprocess.run([self.program, "echo", "ws://127.0.0.1:1/"], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn("refused", json.loads(done.stdout)["error"])

    def test_connect(self):
        self.good("connect", "echo")
        self.good("connect", "greeting")
        self.bad("status 403", "connect", "status")

    def test_idle(self):
        result = self.good("idle", "echo", "-c", "20")
        self.assertEqual(result["count"], 20)
        self.good("idle", "echo", "--touch")

    def test_fanout(self):
        for args in ("-d", "1"), ("-d", "4"), ("--interval", "5"):
            with self.subTest(args=args):
                result = self.good("fanout", "fanout", *args)
                self.assertGreater(result["published"], 5)
                self.assertLess(abs(result["count"] - 3 * result["published"]), 20)

    def test_http(self):
        for path in "length", "chunked":
            result = self.good("http", path, "--expect", "hello")
            self.assertEqual(result["reconnects"], 0)
        for path in "closes", "closes-silently":
            self.assertGreater(self.good("http", path)["reconnects"], 0)
        self.bad("not the one expected", "http", "wrong-body", "--expect", "hello")
        self.bad("status", "http", "status")

    def test_meter(self):
        result = self.good("echo", "echo", "-p", str(os.getpid()))
        self.assertGreater(result["server"]["rss_kb"], 1000)
        self.assertGreater(result["server"]["user_s"] + result["server"]["sys_s"], 0)


if __name__ == "__main__":
    unittest.main()
