"""The connection table: one process writes a memory file, others read it without a lock."""

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mooring._core.acceptor import Acceptor
from mooring._core.http_exchange import Sink
from mooring._core.reactor import Reactor
from mooring._core.table import Table
from mooring._core.websocket import WebSockets
from mooring.types import ClientInfo, ConnectionState
from unit.options import OPTIONS

SLOT_BITS, GATEWAY_SHIFT = 22, 57
HEADER = struct.Struct("<QIId40x")  # magic, slots, used, epoch
ENTRY = struct.Struct("<QBBHHHHHI16sQQIIQQIIQ")
LIMIT = 5.0


def fd_of(slot: int, serial: int = 1, gateway: int = 0) -> int:
    return gateway << GATEWAY_SHIFT | serial << SLOT_BITS | slot


@pytest.fixture
def file() -> Iterator[int]:
    number = os.memfd_create("table", os.MFD_CLOEXEC)
    yield number
    os.close(number)


class Writer:
    """Writes entries as the gateway does: the fd goes first and comes last."""

    def __init__(self, file: int, slots: int) -> None:
        self.table = Table(file, slots)
        self.memory = mmap.mmap(file, 0)

    def put(self, fd: int, **fields: Any) -> None:
        slot = fd & ((1 << SLOT_BITS) - 1)
        at = HEADER.size + slot * ENTRY.size
        values = {
            "state": 2,
            "family": 4,
            "remote_port": 50123,
            "server_port": 9501,
            "in_flight": 0,
            "worker": 0,
            "spawned": 0,
            "owner": 0,
            "address": bytes([192, 0, 2, 7]) + bytes(12),
            "connected": 1000,
            "received": 2500,
            "round_trip": 0,
            "reserved": 0,
            "bytes_received": 3,
            "bytes_sent": 4,
            "messages_received": 5,
            "messages_sent": 6,
            "user": 0,
            **fields,
        }
        magic, slots, used, epoch = HEADER.unpack_from(self.memory)
        HEADER.pack_into(self.memory, 0, magic, slots, max(used, slot + 1), epoch)
        self.memory[at : at + 8] = bytes(8)
        self.memory[at + 8 : at + ENTRY.size] = ENTRY.pack(0, *values.values())[8:]
        self.memory[at : at + 8] = fd.to_bytes(8, "little")

    def free(self, fd: int) -> None:
        at = HEADER.size + (fd & ((1 << SLOT_BITS) - 1)) * ENTRY.size
        self.memory[at : at + 8] = bytes(8)


@pytest.fixture
def writer(file: int) -> Writer:
    return Writer(file, 8)


def info_of(table: Table, fd: int) -> ClientInfo:
    info = table.info(fd)
    assert info is not None
    return info


# ------------------------------------------------------------------ the file


def test_the_file_is_sized_by_its_writer(file: int) -> None:
    assert HEADER.size == 64
    assert ENTRY.size == 96
    before = time.time() - time.monotonic()
    table = Table(file, 8)
    assert table.slots == 8
    assert os.fstat(file).st_size == 64 + 8 * 96
    magic, slots, used, epoch = HEADER.unpack(os.pread(file, 64, 0))
    assert (magic.to_bytes(8, "big"), slots, used) == (b"mooring\x01", 8, 0)
    assert abs(epoch - before) < 1.0


def test_a_reader_may_come_before_the_writer(file: int) -> None:
    reader = Table(file)
    fd = fd_of(3)
    assert reader.slots == 0
    assert (reader.exists(fd), reader.state(fd), reader.owner(fd), reader.info(fd)) == (False, 0, 0, None)
    assert reader.connections() == []
    assert not reader.is_open(fd)
    writer = Writer(file, 8)
    writer.put(fd, state=2, owner=77)
    assert reader.exists(fd)
    assert reader.slots == 8
    assert (reader.state(fd), reader.owner(fd), reader.is_open(fd)) == (2, 77, True)
    assert reader.connections() == [fd]


def test_a_file_that_is_no_table_is_not_read(file: int) -> None:
    os.write(file, b"\xff" * 4096)
    reader = Table(file)
    assert not reader.exists(0xFFFFFFFFFFFFFFFF)
    assert reader.connections() == []
    assert reader.slots == 0


def test_a_table_that_says_it_is_larger_than_its_file_is_not_read(file: int) -> None:
    Table(file, 8)
    os.pwrite(file, (9).to_bytes(4, sys.byteorder), 8)
    reader = Table(file)
    assert reader.connections() == []
    assert reader.slots == 0


def test_nobody_writes_into_a_sealed_table_or_cuts_it() -> None:
    file = os.memfd_create("table", os.MFD_ALLOW_SEALING)
    early = Table(file)
    writer = Writer(file, 8)
    writer.table.seal()
    for size in (0, 64, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(file, size)
    with pytest.raises(PermissionError):
        os.pwrite(file, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(file, 0)
    again = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(again, 0)
    os.close(again)
    writer.put(fd_of(3), state=2)
    assert early.exists(fd_of(3))
    assert Table(file).exists(fd_of(3))
    os.close(file)


@pytest.mark.parametrize("slots", [-1, 1 << 22, 1 << 30])
def test_slots_out_of_range(file: int, slots: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        Table(file, slots)
    assert os.fstat(file).st_size == 0


def test_no_file() -> None:
    with pytest.raises(OSError):
        Table(-1, 8)
    reader = Table(-1)
    assert not reader.exists(1)
    with pytest.raises(OSError):
        reader.connections()


# ------------------------------------------------------------------ entries


def test_info(file: int, writer: Writer) -> None:
    fd = fd_of(5, serial=12345, gateway=3)
    writer.put(fd, state=3, in_flight=2, worker=1, owner=4711)
    epoch = HEADER.unpack(os.pread(file, 64, 0))[3]
    for table in (writer.table, Table(file)):
        info = info_of(table, fd)
        assert info == ClientInfo(
            fd=fd,
            state=ConnectionState.CLOSING,
            remote_ip="192.0.2.7",
            remote_port=50123,
            server_port=9501,
            worker_id=0,
            connect_time=epoch + 1.0,
            last_receive_time=epoch + 2.5,
            messages_received=5,
            messages_sent=6,
            bytes_received=3,
            bytes_sent=4,
            in_flight=2,
        )
        assert info.state is ConnectionState.CLOSING
        assert table.owner(fd) == 4711


def test_largest_values(file: int, writer: Writer) -> None:
    fd = fd_of(7, serial=(1 << 35) - 1, gateway=63)
    assert fd == (1 << 63) - 1 - ((1 << 22) - 1 - 7)
    writer.put(
        fd,
        remote_port=65535,
        server_port=65535,
        in_flight=65535,
        worker=65535,
        spawned=65535,
        owner=(1 << 32) - 1,
        bytes_received=(1 << 64) - 1,
        bytes_sent=(1 << 64) - 1,
        messages_received=(1 << 32) - 1,
        messages_sent=(1 << 32) - 1,
    )
    info = info_of(Table(file), fd)
    assert (info.remote_port, info.server_port, info.in_flight) == (65535, 65535, 65535)
    assert (info.bytes_received, info.bytes_sent) == ((1 << 64) - 1,) * 2
    assert (info.messages_received, info.messages_sent) == ((1 << 32) - 1,) * 2
    assert (info.worker_id, info.spawned) == (65534, 65535)
    assert Table(file).owner(fd) == (1 << 32) - 1


@pytest.mark.parametrize(
    ("family", "address", "text"),
    [
        (4, "127.0.0.1", "127.0.0.1"),
        (4, "255.255.255.255", "255.255.255.255"),
        (6, "::1", "::1"),
        (6, "2001:db8::ff00:42:8329", "2001:db8::ff00:42:8329"),
        (6, "::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        (0, "", ""),
    ],
)
def test_addresses(file: int, writer: Writer, family: int, address: str, text: str) -> None:
    packed = b""
    if family:
        packed = socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, address)
    writer.put(fd_of(1), family=family, address=packed.ljust(16, b"\0"))
    assert info_of(Table(file), fd_of(1)).remote_ip == text


def test_a_worker_that_is_none(file: int, writer: Writer) -> None:
    writer.put(fd_of(0), worker=0)
    writer.put(fd_of(1), worker=1)
    table = Table(file)
    assert info_of(table, fd_of(0)).worker_id is None
    assert info_of(table, fd_of(1)).worker_id == 0


@pytest.mark.parametrize(("state", "is_open"), [(1, False), (2, True), (3, False)])
def test_only_an_open_websocket_is_open(file: int, writer: Writer, state: int, is_open: bool) -> None:
    writer.put(fd_of(2), state=state)
    table = Table(file)
    assert table.exists(fd_of(2))
    assert (table.state(fd_of(2)), table.is_open(fd_of(2))) == (state, is_open)


# ------------------------------------------------------------------ which fd is whose


def test_an_fd_is_found_by_all_of_its_bits(file: int, writer: Writer) -> None:
    fd = fd_of(4, serial=9, gateway=1)
    writer.put(fd)
    table = Table(file)
    assert table.exists(fd)
    for bit in range(64):
        other = fd ^ (1 << bit)
        assert not table.exists(other), bit
        assert table.info(other) is None
        assert table.state(other) == table.owner(other) == 0
        assert not table.is_open(other)


@pytest.mark.parametrize("fd", [0, 8, 1 << 21, (1 << 22) - 1, (1 << 63) - 1, (1 << 64) - 1])
def test_fds_that_never_were(file: int, writer: Writer, fd: int) -> None:
    table = Table(file)
    assert (table.exists(fd), table.state(fd), table.info(fd)) == (False, 0, None)


@pytest.mark.parametrize("fd", [-1, 1 << 64])
def test_numbers_that_are_no_fd(file: int, writer: Writer, fd: int) -> None:
    with pytest.raises(OverflowError):
        Table(file).exists(fd)


def test_a_free_slot_is_nobody(file: int, writer: Writer) -> None:
    fd = fd_of(2, serial=1)
    writer.put(fd)
    table = Table(file)
    assert table.exists(fd)
    writer.free(fd)
    assert not table.exists(fd)
    assert not table.exists(0)
    assert table.info(fd) is None
    newer = fd_of(2, serial=2)
    writer.put(newer)
    assert not table.exists(fd)
    assert table.exists(newer)


def test_connections(file: int, writer: Writer) -> None:
    table = Table(file)
    fds = [fd_of(slot, serial=100 + slot) for slot in range(8)]
    for fd in fds:
        writer.put(fd)
    assert table.connections() == fds
    for fd in fds[::2]:
        writer.free(fd)
    assert table.connections() == fds[1::2]
    for fd in fds[1::2]:
        writer.free(fd)
    assert table.connections() == []


# ------------------------------------------------------------------ another process

READ = """
import dataclasses, json, sys
from mooring._core.table import Table
table = Table(int(sys.argv[1]))
print(json.dumps([dataclasses.asdict(table.info(fd)) for fd in table.connections()]))
"""


def test_another_process_reads(file: int, writer: Writer) -> None:
    for slot in (1, 6):
        writer.put(fd_of(slot, serial=slot), remote_port=slot)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)], pass_fds=[file], capture_output=True, timeout=30, check=True
    )
    expected = [writer.table.info(fd) for fd in writer.table.connections()]
    assert [ClientInfo(**entry) for entry in json.loads(done.stdout)] == expected
    assert len(expected) == 2


FLICKER = """
import mmap, sys, time
memory = mmap.mmap(int(sys.argv[1]), 0)
words = memoryview(memory)[64:].cast("Q")
serial = 0
print("begun", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    for _ in range(1000):
        serial += 1
        words[0] = 0
        words[5] = words[6] = words[8] = words[9] = serial
        words[0] = serial << 22
"""


def test_an_entry_is_never_a_mix_of_two_connections(file: int, writer: Writer) -> None:
    """A slot is freed and taken as fast as it goes, by another process; what is read is one connection's."""
    writer.put(fd_of(0))
    table = Table(file)
    epoch = HEADER.unpack(os.pread(file, 64, 0))[3]
    child = subprocess.Popen([sys.executable, "-c", FLICKER, str(file)], pass_fds=[file], stdout=subprocess.PIPE)
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begun\n"
            seen = missed = 0
            end = time.monotonic() + LIMIT
            while (seen < 20_000 or missed < 100) and time.monotonic() < end:
                for fd in table.connections():
                    info = table.info(fd)
                    if info is None:
                        missed += 1
                    elif info.bytes_received != 3:  # of the entry that was there before
                        seen += 1
                        serial = fd >> SLOT_BITS
                        assert info.fd == fd
                        assert info.bytes_received == info.bytes_sent == serial
                        assert info.connect_time == info.last_receive_time == epoch + serial / 1000.0
            assert child.poll() is None
        finally:
            child.kill()
    assert seen > 1000
    if not missed:
        pytest.skip("the two processes had one processor in turns, and were never in each other's way")


# ------------------------------------------------------------------ the gateway as the writer


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_UNIX, "")]
)
def test_what_a_gateway_writes(file: int, family: int, host: str, tmp_path: Any) -> None:
    reactor = Reactor()
    connections = WebSockets(reactor, Table(file, 4), 5, 1000, OPTIONS)
    connections.sink = Sink()
    table = Table(file)
    with socket.socket(family) as listener, socket.socket(family) as client:
        try:
            listener.bind((host, 0) if host else str(tmp_path / "socket"))
        except OSError:
            pytest.skip("no such addresses here")
        listener.listen()
        listener.setblocking(False)
        port = listener.getsockname()[1] if host else 0
        acceptor = Acceptor(reactor, connections, listener.fileno(), port)
        begin = time.time()
        client.connect(listener.getsockname())
        while not table.connections():
            reactor.poll(LIMIT)
        (fd,) = table.connections()
        assert fd >> GATEWAY_SHIFT == 5
        assert fd >> SLOT_BITS & ((1 << 35) - 1) == 1001
        info = info_of(table, fd)
        assert (info.fd, info.state, info.worker_id) == (fd, ConnectionState.HTTP, None)
        assert (info.remote_ip, info.server_port) == (host, port)
        assert info.remote_port == (client.getsockname()[1] if host else 0)
        assert connections.peer(fd) == (info.remote_ip, info.remote_port, info.server_port)
        assert abs(info.connect_time - begin) < 2.0
        assert (info.bytes_received, info.bytes_sent, info.messages_received) == (0, 0, 0)
        client.send(b"GET")
        while info_of(table, fd).bytes_received < 3:
            reactor.poll(LIMIT)
        assert info_of(table, fd).last_receive_time >= info.last_receive_time
        client.close()
        while table.connections():
            reactor.poll(LIMIT)
        assert not table.exists(fd)
        assert table.info(fd) is None
        acceptor.stop()


def test_an_fd_never_comes_back(file: int) -> None:
    """Many connections one after another, all in the place that was freed last: each has an fd of its own."""
    reactor = Reactor()
    connections = WebSockets(reactor, Table(file, 2), 0, 0, OPTIONS)
    connections.sink = Sink()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        acceptor = Acceptor(reactor, connections, listener.fileno(), 1)
        seen: list[int] = []
        for _ in range(50):
            with socket.create_connection(listener.getsockname()):
                while not connections.table.connections():
                    reactor.poll(LIMIT)
                seen += connections.table.connections()
            while connections.table.connections():
                reactor.poll(LIMIT)
        assert len(set(seen)) == 50
        assert {fd & ((1 << SLOT_BITS) - 1) for fd in seen} == {0}, "no more places are touched than needed"
        acceptor.stop()
    assert connections.count == 0
    assert connections.free == 2
