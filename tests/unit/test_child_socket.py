"""The child socket: whole messages in order, descriptors that belong to them, and what breaks the rules."""

import array
import contextlib
import os
import resource
import select
import socket

import msgspec
import pytest

from mooring.net import child_socket, messages
from mooring.net.child_socket import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE,
    MAX_PENDING,
    ChildSocket,
    ChildSocketError,
    MessageRefused,
)
from mooring.net.messages import Event, Ready, Reopen, Warm
from support.descriptors import open_descriptors

pytestmark = pytest.mark.usefixtures("descriptors")


@pytest.fixture
def pair(descriptors):
    ours, theirs = ChildSocket.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def raw(descriptors):
    """The supervisor's end, and the plain socket at the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    one = ChildSocket(ours.detach(), messages.to_supervisor)
    with theirs:
        yield one, theirs
    one.close()


@pytest.fixture
def files(descriptors):
    """Makes files that are closed at the end, unless the test closed them."""
    made = []

    def make(*texts):
        new = []
        for text in texts:
            new.append(os.memfd_create("test"))
            os.write(new[-1], text.encode())
        made.extend(new)
        return new

    yield make
    for fd in made:
        if os.path.exists(f"/proc/self/fd/{fd}"):
            os.close(fd)


def text_of(fd):
    """What is in a file; closes it."""
    text = os.pread(fd, 100, 0).decode()
    os.close(fd)
    return text


def count(number, data):
    """A message of any length."""
    return Event("count", [data], number)


def send_raw(theirs, data, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    theirs.sendmsg([data], rights)


# -- what goes through


def test_messages_arrive_whole_and_in_order(pair):
    one, other = pair
    for number in range(10):
        one.send(count(number, "x" * number))
    other.send(Ready())
    for number in range(10):
        assert other.receive() == (count(number, "x" * number), [])
    assert one.receive() == (Ready(), [])
    with pytest.raises(BlockingIOError):
        other.receive()


def test_descriptors_belong_to_their_message(pair, files):
    one, other = pair
    fds = files("first", "second", "third")
    one.send(Reopen(), fds[:2])
    one.send(Reopen())
    one.send(Reopen(), fds[2:])
    for fd in fds:  # they are the caller's, who may close them at once
        os.close(fd)
    received = [other.receive() for _ in range(3)]
    assert [[text_of(fd) for fd in message[1]] for message in received] == [
        ["first", "second"],
        [],
        ["third"],
    ]


def test_received_descriptors_are_not_inherited(pair, files):
    one, other = pair
    (fd,) = files("secret")
    os.set_inheritable(fd, True)
    one.send(Reopen(), [fd])
    _, (received,) = other.receive()
    assert received != fd
    assert not os.get_inheritable(received)
    os.close(received)


def test_the_socket_neither_blocks_nor_is_inherited(raw):
    one, _ = raw
    assert not os.get_blocking(one.fileno())
    assert not os.get_inheritable(one.fileno())
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.set_inheritable(True)
    taken = ChildSocket(ours.detach(), messages.to_child)
    assert not os.get_inheritable(taken.fileno())
    taken.close()
    peer.close()


def test_the_largest_message_and_the_most_descriptors(pair, files):
    one, other = pair
    fds = files(*"abcdefghijklmnop")
    assert len(fds) == MAX_DESCRIPTORS
    most = MAX_MESSAGE - 100
    data = bytes(most + MAX_MESSAGE - len(msgspec.msgpack.encode(count(0, bytes(most)))))
    one.send(count(0, data), fds)
    message, received = other.receive()
    assert message == count(0, data)
    assert [text_of(fd) for fd in received] == list("abcdefghijklmnop")
    with pytest.raises(ChildSocketError, match="65537 bytes"):
        one.send(count(0, data + b"x"))
    with pytest.raises(ChildSocketError, match="17 descriptors"):
        one.send(Reopen(), [*fds, fds[0]])
    with pytest.raises(BlockingIOError):  # nothing of it was sent
        other.receive()


# -- the outbox


def fill(one):
    """Send until the kernel takes no more; how many it took."""
    taken = 0
    while not one.pending:
        one.send(count(taken, b"x" * 1000))
        taken += 1
    return taken - 1


def test_what_the_kernel_does_not_take_waits_and_keeps_its_order(pair, files):
    one, other = pair
    assert one.pending == 0
    taken = fill(one)
    (fd,) = files("for the last one")
    one.send(Reopen(), [fd])
    os.close(fd)  # ours even while it waits
    assert one.pending == 2
    assert one.flush() is False, "there is no room yet"
    numbers = []
    while True:
        try:
            message, fds = other.receive()
        except BlockingIOError:
            one.flush()
            if not select.select([other.fileno()], [], [], 1)[0]:
                raise
            continue
        if message == Reopen():
            break
        numbers.append(message.answer)
    assert numbers == list(range(taken + 1))
    assert [text_of(fd) for fd in fds] == ["for the last one"]
    assert one.pending == 0
    assert one.flush() is True


def test_nothing_passes_what_waits(pair):
    """Also when there is room for the new one by now."""
    one, other = pair
    taken = fill(one)
    for _ in range(taken):
        other.receive()
    one.send(Reopen())
    assert one.pending == 2
    assert one.flush() is True
    assert other.receive()[0].answer == taken
    assert other.receive()[0] == Reopen()


def test_a_peer_that_never_reads_is_an_error(pair, monkeypatch):
    one, _ = pair
    monkeypatch.setattr(child_socket, "MAX_PENDING", 20)
    fill(one)
    for _ in range(19):
        one.send(Reopen())
    with pytest.raises(ChildSocketError, match="left 20 child messages unread"):
        one.send(Reopen())
    assert one.pending == 20
    assert MAX_PENDING >= 1000


def test_what_waits_is_forgotten_with_its_descriptors(pair, files):
    one, other = pair
    fill(one)
    one.send(Reopen(), files("a", "b"))
    before = open_descriptors()
    one.drop()
    assert one.pending == 0
    assert open_descriptors() == before - 2
    assert other.receive()[0].answer == 0, "what was sent is there"


def test_a_descriptor_that_can_not_be_kept_is_an_error_and_leaks_none(pair, files, monkeypatch):
    one, _ = pair
    fill(one)
    fds = files("a", "b")
    real, calls = os.dup, []

    def dup(fd):
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(24, "Too many open files")
        return real(fd)

    monkeypatch.setattr(os, "dup", dup)
    with pytest.raises(OSError, match="Too many open files"):
        one.send(Reopen(), fds)
    assert one.pending == 1
    assert len(calls) == 2


# -- the end


def test_the_end_of_file_comes_after_the_last_words(pair):
    one, other = pair
    other.send(Warm())
    other.close()
    assert one.receive() == (Warm(), [])
    assert one.receive() is None
    assert one.receive() is None


def test_last_words_of_a_peer_that_had_not_read_everything(pair):
    """The kernel reports a reset before what the peer had sent."""
    one, other = pair
    one.send(Reopen())
    other.send(Warm())
    other.close()
    assert one.receive() == (Warm(), [])
    assert one.receive() is None


def test_sending_to_a_peer_that_is_gone(pair):
    one, other = pair
    other.close()
    with pytest.raises(ConnectionError):
        one.send(Reopen())


def test_flushing_to_a_peer_that_is_gone(pair):
    one, other = pair
    fill(one)
    other.close()
    with pytest.raises(ConnectionError):
        one.flush()
    one.drop()


def test_closing_twice(pair):
    one, _ = pair
    one.close()
    one.close()
    assert one.fileno() == -1


# -- what breaks the rules


@pytest.mark.parametrize(
    "data",
    [
        b"?",
        b"\xc1",
        b"\x81\xa2op",  # cut
        msgspec.msgpack.encode(["op", "ready"]),
        msgspec.msgpack.encode({}),
        msgspec.msgpack.encode({"op": 1}),
        msgspec.msgpack.encode({"op": None}),
        msgspec.msgpack.encode({1: "op"}),
        b"\x81\xa2op" + b"\x91" * 60000,  # nested too deep
    ],
)
def test_a_message_that_breaks_the_rules(raw, files, data):
    """It is refused with its descriptors, and the next one is received."""
    one, theirs = raw
    send_raw(theirs, data, files("a", "b"))
    send_raw(theirs, msgspec.msgpack.encode({"op": "ready"}))
    with pytest.raises(ChildSocketError):
        one.receive()
    assert one.receive() == (Ready(), [])


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"op": "dance"}, "'dance' is refused: Invalid value 'dance'"),
        ({"op": "d" * 1000}, f"'{'d' * 64}' is refused"),
        ({"op": "stop", "reason": "", "last": True}, "'stop' is refused"),  # it is for children
        ({"op": "retired"}, "'retired' is refused: Object missing required field `worker`"),
        ({"op": "retired", "worker": [], "generation": {}}, "Expected `int`"),
        ({"op": "handled", "answer": "1"}, "Expected `int`"),
        ({"op": "drained", "counts": {"accepted": "many"}}, "Expected `int | object`"),
        ({"op": "ready", "more": 1}, "unknown field `more`"),
    ],
)
def test_a_message_that_is_not_in_the_table(raw, files, message, why):
    """It is refused with its descriptors, which is no reason to distrust who has sent it; the next one is received."""
    one, theirs = raw
    before = open_descriptors()
    made = files("a")
    send_raw(theirs, msgspec.msgpack.encode(message), made)
    send_raw(theirs, msgspec.msgpack.encode({"op": "ready"}))
    with pytest.raises(MessageRefused) as refused:
        one.receive()
    assert why in str(refused.value)
    assert one.receive() == (Ready(), [])
    assert open_descriptors() == before + len(made)


def test_a_message_that_was_cut(raw):
    one, theirs = raw
    send_raw(theirs, msgspec.msgpack.encode({"op": "big", "data": bytes(MAX_MESSAGE)}))
    with pytest.raises(ChildSocketError, match="cut"):
        one.receive()


def test_too_many_descriptors_are_refused_and_none_stays_open(raw, files):
    one, theirs = raw
    send_raw(theirs, msgspec.msgpack.encode({"op": "attach"}), files(*["x"] * 40))
    with pytest.raises(ChildSocketError, match="cut"):
        one.receive()


def test_an_empty_message_is_an_end_and_leaves_no_descriptor(raw, files):
    one, theirs = raw
    send_raw(theirs, b"", files("a"))
    assert one.receive() is None


def test_descriptors_arrive_where_none_are_left(pair, files):
    """A gateway that strangers have filled up must still hear of a new worker."""
    ours, theirs = pair
    theirs.reserve()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = files("a", "b", "c")
    stuffed = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                stuffed.append(os.eventfd(0))
        for _ in range(child_socket.RESERVE // 3):
            ours.send(Reopen(), fds)
            message, received = theirs.receive()
            assert message == Reopen()
            assert len(received) == 3
            stuffed += received
        ours.send(Reopen(), fds)
        with pytest.raises(ChildSocketError, match="none left"):
            theirs.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in stuffed:
            os.close(fd)
