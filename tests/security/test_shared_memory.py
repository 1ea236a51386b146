"""A process that runs the application does what it likes to memory that it shares: it ends at most itself."""

import os
import signal
from typing import Any

import pytest

from contract.clients import TEXT, Raw, only_gateway
from frames import frame
from security.watch import KEY, Canary
from support.serving import Serving, eventually

# Descriptors of memory that it is given, and those that are closed once they are mapped.
APP = """
import mmap, random, re, signal
from mooring.parts import gateway, worker
memory = []

def spy(part, name, key):
    real = getattr(part, name)
    def opened(*arguments, **named):
        memory.append(os.dup(named[key] if key else arguments[-1]))
        return real(*arguments, **named)
    setattr(part, name, opened)

spy(worker, "open_gateway_end", "page")
spy(gateway, "open_worker_end", "page")
spy(gateway, "Order", None)

def attempts(rng):
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:mooring" in os.readlink(f"/proc/self/fd/{name}"):
                memory.append(os.open(f"/proc/self/fd/{name}", os.O_RDWR))
        except OSError:
            pass
    for fd in memory:
        size = os.fstat(fd).st_size
        yield os.ftruncate, fd, 0
        yield os.ftruncate, fd, size + 4096
        yield os.pwrite, fd, rng.randbytes(size), 0
        yield lambda fd, size: mmap.mmap(fd, size).write(rng.randbytes(size)), fd, size
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "r+b", buffering=0) as own:
        for line in maps:
            found = re.match(r"(\\w+)-(\\w+) .*memfd:mooring", line)
            if found:
                start, end = (int(word, 16) for word in found.groups())
                yield lambda start, size: (own.seek(start), own.write(rng.randbytes(size))), start, end - start

@server.on("open")
def opened(server, request):
    server.push(request.fd, str(os.getpid()))
    if request.path != "/canary":
        server.subscribe(request.fd, "all")

@server.on("message")
def said(server, frame):
    if isinstance(frame.data, str) and frame.data.startswith("attack"):
        done = 0
        rng = random.Random(frame.data)
        for act, *arguments in attempts(rng):
            try:
                act(*arguments)
                done += 1
            except (OSError, ValueError):
                pass
        server.publish("all", f"attacked {done}")
        return
    server.push(frame.fd, frame.data, frame.opcode)
"""
MODES: list[Any] = [
    pytest.param({"mode": "process", "worker_num": 2, "gateway_num": 2}, id="process"),
    pytest.param({"mode": "base", "worker_num": 2}, id="base"),
]


@pytest.mark.parametrize("mode", MODES)
def test_c21_what_a_process_does_to_shared_memory_ends_at_most_itself(mode: dict[str, Any]):
    role = "worker" if mode["mode"] == "process" else "server"
    others = ["supervisor", *(f"gateway {n}" for n in range(2))] if role == "worker" else ["supervisor", "server 1"]
    with Serving(APP, **mode) as server:
        before = {one: server.pid_of(one) for one in others}
        with only_gateway(server, mode, 1):
            canary = Canary(server, greeted=True)
        for number in range(3):
            with only_gateway(server, mode, 0):
                attacker = Raw(server)
                assert attacker.upgrade("/").status == 101
            pid = int(attacker.text())
            with attacker:
                canary.beat()
                attacker.send(frame(TEXT, f"attack {number}".encode(), key=KEY))
                assert int(attacker.text().split()[1]) > 0
                canary.beat(3)
                since = server.mark()
                os.kill(pid, signal.SIGKILL)  # what it has left in its page is read now
                server.wait_log(r"serves in place|replaces|serves", since=since)
                canary.beat(3)
        canary.stop()
        assert {one: server.pid_of(one) for one in others} == before
        eventually(lambda: len(server.titles()) == 1 + 2 + (2 if role == "worker" else 0))
        assert server.stop() == 0
