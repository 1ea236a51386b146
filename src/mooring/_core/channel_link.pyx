"""A link between two processes, both ends: a channel for records, a socket for answers to calls, a page of marks.

The gateway has a ChannelWorkerEnd, the worker a ChannelGatewayEnd; local.pyx has the two ends of a link inside of one
process. Each end owns its descriptors, and its half of the channel.

A gateway that stands still
---------------------------
A worker does not fill its memory for a gateway that is behind: from a quarter of `output_limit` on it waits for that,
as long as the gateway takes something, and so what publishes too much is slowed down. But whoever waits keeps the
clients of all other gateways waiting, too, and a gateway that stands still (stopped, stuck in the kernel, swapped
out) takes nothing for as long as it pleases. So nobody waits for it for longer than PATIENCE looks, and for LONGEST
when the queue is at its limit; looks and not a time, because a machine that stood still with all its processes blames
nobody. Then its clients are what clients are that do not read: what they cannot be sent ends them, by name. Instead
of a command for a connection the gateway is told, once, that this one misses something, and instead of a publish,
once, that all do who are subscribed; it closes them when it goes on. So nothing is missed silently, in the order of
all other commands, and the queue is bounded.

When it takes something again, everything is as before. If it never does, the supervisor ends it (watchdog.py).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import os
import socket
import threading
import time
from functools import partial

from mooring._core.buffer cimport buffer_reserve, buffer_size
from mooring._core.channel cimport Channel
from mooring._core.contract cimport Taker
from mooring._core.gateway_end cimport GatewayEnd
from mooring._core.page cimport DONE, JOURNAL_BYTES, STARTED, Page
from mooring._core.reactor cimport Reactor, monotonic_ms
from mooring._core.table cimport Table
from mooring._core.wire cimport (
    ACK_HANDLED, CM_ACK, CM_CALL, CM_DISCONNECT_USER, CM_HELLO, CM_MISSED, CM_PUBLISH, CM_WORK, MISSED_CLIENT,
    MISSED_PUBLISHES, MISSED_TOPIC, MISSED_TOPICS, RECORD_BYTES, RECORD_LIMIT, VERSION, Record, is_command, is_event,
    make_record,
)
from mooring._core.worker_end cimport Receiver, WorkerEnd

from mooring._core.wire import USER as _USER
from mooring.errors import StateError
from mooring.journal import own_logger

log = own_logger("mooring.gateway")

cdef uint64_t ANSWER_MS = 5000   # for which a worker may leave an answer unread; then it does not wait any more
ANSWER_AGAIN = 0.002             # seconds until an answer that had no room is offered again
cdef uint64_t LONG_TURN_MS = 5
cdef size_t KEPT = 32768         # bytes of one handler that are copied into the page, and sent later
cdef double RETRY = 0.05         # seconds, after there was no memory for an acknowledgement
CALL_TIMEOUT = 5.0               # seconds a gateway has to answer
ANSWER_PART = 1 << 18            # bytes of an answer that are taken from the kernel at once
cdef double LOOK = 0.05          # seconds
cdef enum:
    PATIENCE = 5                 # looks
    LONGEST = 20
    MOST_NAMES = 10000           # topics of which it is told one by one


# ---------------------------------------------------------------------- the gateway's end

cdef class GatewayChannel(Channel):
    """The gateway's end of a channel to a worker."""

    cdef bint fits(self, const Record* record) noexcept:
        return is_command(record)

    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1:
        cdef WorkerEnd worker_end = self.worker_end  # the record may be its last
        return worker_end.receiver.on_command(worker_end, record, payload)

    cdef int on_bad(self, object problem) except -1:
        return self.worker_end.receiver.on_bad(self.worker_end, problem)

    cdef int on_broken(self, str why) except -1:
        return self.worker_end.receiver.on_broken(self.worker_end, why)

    cdef int take(self, const uint8_t* data, size_t size) except -1:
        Channel.take(self, data, size)
        return self.note_applied()

    cdef int resume(self) except -1:
        Channel.resume(self)
        return self.note_applied()

    cdef int note_applied(self) except -1:
        """Lets the worker know what the table shows already."""
        if self.worker_end is not None and self.fd >= 0:
            self.worker_end.page.note_applied(self.received - buffer_size(&self.input))
        return 0

    cdef int on_end(self) except -1:
        """Behind what the worker had sent comes what it had kept in the page for its death."""
        cdef bytes kept = self.worker_end.page.rest(self.received)
        return self.take(kept, len(kept)) if kept else 0

    cdef int on_lost(self, str why) except -1:
        cdef ChannelWorkerEnd worker_end = self.worker_end
        self.worker_end = None  # else the two hold each other, with ledger and page, till Python looks for such circles
        return worker_end.receiver.on_lost(worker_end, why)


cdef class ChannelWorkerEnd(WorkerEnd):
    """A worker in another process. Takes over the descriptors of the channel, the reply socket and the page."""

    def __init__(self, receiver: Receiver, worker: int, generation: int, serves: bool, reactor: Reactor, channel: int,
                 reply_socket: object, page: int) -> None:
        self.ledger.page = self.page = Page(page)
        self.reply_socket = reply_socket
        reply_socket.setblocking(False)
        self.answers = bytearray()
        self.channel = GatewayChannel(reactor, channel)
        self.channel.worker_end = self
        self.channel.early = True

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        return self.channel.put(record, payload)

    cdef int hand_over(self) except -1:
        return self.channel.flush()

    cdef int go_on(self) except -1:
        return self.channel.resume()

    cdef int make_room(self, size_t size) noexcept:
        return buffer_reserve(&self.channel.output, RECORD_BYTES + size)

    cpdef size_t unsent(self) noexcept:
        return buffer_size(&self.channel.output)

    cdef bint torn(self) noexcept:
        return self.channel.torn

    @property
    def still(self) -> int:
        cdef uint64_t beat = self.page.last_beat()
        cdef uint64_t now = self.receiver.reactor.now
        return now - beat if 0 < beat < now else 0       # a worker that is newer than this turn of our loop

    def hang_up(self) -> None:
        """The worker's process has ended: see Channel.hang_up."""
        self.channel.hang_up()

    def abandon(self) -> None:
        """In a forked child: see Channel.abandon."""
        self.channel.abandon()
        self.reply_socket.close()

    def close(self) -> None:
        self.channel.close()
        self.reply_socket.close()

    def reply(self, call: int, payload: bytes) -> None:
        waits = len(self.answers) > 0
        self.answers += call.to_bytes(4, "little") + len(payload).to_bytes(4, "little") + payload
        if not waits:
            self.answers_since = monotonic_ms()
            self._answer()

    def _answer(self) -> None:
        if self.send_answers():
            self.receiver.reactor.call_later(ANSWER_AGAIN, self._answer)

    cdef bint send_answers(self) except -1:
        """Sends what the worker, which waits, has not been sent yet: it need not fit into the socket's buffer. Whether
        something is left."""
        try:
            while self.answers:
                del self.answers[:self.reply_socket.send(self.answers)]
                self.answers_since = monotonic_ms()
        except BlockingIOError:
            if monotonic_ms() - self.answers_since < ANSWER_MS:
                return True
            log.error("worker %d does not read its answers", self.worker)
            # its calls fail from now on: a part of an answer would be taken for the next one
            self.reply_socket.close()
        except OSError:
            pass                         # it is gone
        self.answers.clear()
        return False


# ---------------------------------------------------------------------- the worker's end

cdef class WorkerChannel(Channel):
    """The worker's end of a channel to a gateway."""

    cdef bint fits(self, const Record* record) noexcept:
        return is_event(record)

    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1:
        if monotonic_ms() - self.reactor.now > LONG_TURN_MS:
            # handlers are slow: what those before have sent shall not wait for those behind
            self.inlet.send_all()
        return self.inlet.deliver(self.gateway_end, record, payload)

    cdef int on_bad(self, object problem) except -1:
        self.inlet.worker.on_bad_record(f"gateway {self.gateway_end.gateway}", problem)
        return 0

    cdef int on_broken(self, str why) except -1:
        self.inlet.worker.on_broken(f"gateway {self.gateway_end.gateway}", why)
        return 0

    cdef int on_lost(self, str why) except -1:
        self.inlet.channels.remove(self)
        self.inlet.worker.gateway_lost(self.gateway_end, why)
        return 0

    cdef int flush(self) except -1:
        self.gateway_end.send_acks()
        return Channel.flush(self)


cdef class ChannelGatewayEnd(GatewayEnd):
    """A gateway in another process. Takes over the descriptors of the channel, the reply socket and the page."""

    def __init__(self, gateway: int, table: Table, inlet: Taker, reactor: Reactor, channel: int, reply_socket: object,
                 page: int) -> None:
        self.gateway = gateway
        self.table = table
        self.page = Page(page)
        self.reply_socket = reply_socket
        self.one_call = threading.Lock()
        reply_socket.settimeout(CALL_TIMEOUT)
        self.unread = bytearray()
        self.channel = WorkerChannel(reactor, channel)
        self.channel.gateway_end = self
        self.channel.inlet = inlet
        inlet.channels.append(self.channel)

    def hello(self) -> None:
        """The first record: this worker is ready for events."""
        cdef Record record = make_record(CM_HELLO, self.outbox.stamp(), 0)
        record.opcode = self.channel.inlet.wants
        record.arg = VERSION
        record.extra = os.getpid()
        self.channel.put(&record, NULL)

    def beat(self) -> None:
        self.page.shared.beat = monotonic_ms()

    def hang_up(self) -> None:
        """The gateway's process has ended: see Channel.hang_up. Nobody waits for an answer of it either."""
        self.channel.hang_up()
        try:
            self.reply_socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass                         # it is closed already

    def abandon(self) -> None:
        """In a forked child: see Channel.abandon."""
        self.channel.abandon()
        self.reply_socket.close()

    def close(self) -> None:
        if self.channel in self.channel.inlet.channels:
            self.channel.inlet.channels.remove(self.channel)
        self.channel.close()
        self.reply_socket.close()

    def flush(self) -> None:
        """Hands everything queued to the kernel, waiting for room if there is none."""
        while not self.hand_over(CALL_TIMEOUT):
            pass

    cdef bint hand_over(self, double timeout) except -1:
        """The same, waiting at most for so many seconds; False: there is something left."""
        cdef double end = time.monotonic() + timeout
        cdef double left
        self.channel.inlet.send_all()
        self.send_acks()
        while self.channel.fd >= 0:
            self.channel.send_some()
            if not self.channel.writing:
                break
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.channel.inlet.waiting.writable(self.channel.fd, left)
        return True

    cdef int command(self, Record* record, const uint8_t* payload) except -1:
        self.make_room()
        if buffer_size(&self.channel.output) > self.channel.inlet.output_limit:
            if record.kind == CM_WORK:
                self.channel.put(record, payload)        # small, and the gateway's ledger relies on it
            else:
                self._miss(record, payload)
        else:
            if self.missed is not None:
                self._takes_again()
            self.channel.put(record, payload)
        return self.channel.flush() if self.eager else 0

    cdef int make_room(self) except -1:
        if buffer_size(&self.channel.output) > self.channel.inlet.output_limit // 4:
            self._wait_for_room()
        return 0

    cdef int begin(self, uint32_t ticket) noexcept:
        return self.page.mark(ticket, STARTED)

    cdef uint64_t waited(self, uint32_t ticket, uint64_t now) noexcept:
        return self.page.waited(ticket, now)

    cdef bint keep(self) except -1:
        """Whether what was sent so far would survive this process."""
        cdef Channel channel = self.channel
        if buffer_size(&channel.output) == 0 or self.page.keep(channel.sent, &channel.output, KEPT):
            return True
        # it is large, and another copy costs more than a system call, or the page is full: the kernel shall have it
        self.channel.inlet.send_all()
        return buffer_size(&channel.output) == 0 or self.page.keep(channel.sent, &channel.output, JOURNAL_BYTES)

    cdef bint all_keep(self) except -1:
        """The same for all gateways: a handler may have sent through any of them."""
        cdef WorkerChannel channel
        cdef bint kept = True
        for channel in self.channel.inlet.channels:
            kept &= channel.gateway_end.keep()
        return kept

    cdef int settle(self, uint32_t ticket) except -1:
        if self.keep() if len(self.channel.inlet.channels) == 1 else self.all_keep():
            self.page.mark(ticket, DONE)
        return self._acknowledge(ticket, ACK_HANDLED)

    cdef int give_back(self, uint32_t ticket, int why) except -1:
        # without a mark: should this process end before that has left, the gateway knows it from what has closed it
        return self._acknowledge(ticket, why)

    cdef int _acknowledge(self, uint32_t ticket, int how) except -1:
        if self.acked and ticket == self.first_ack + self.acked and how == self.how_acked:
            self.acked += 1
            return 0
        self.send_acks()
        self.first_ack = ticket
        self.acked = 1
        self.how_acked = how
        self.channel.reactor.mark_dirty(self.channel)
        return 0

    cdef uint64_t position(self) noexcept:
        return self.channel.sent + buffer_size(&self.channel.output) if self.channel.fd >= 0 else 0

    cdef bint is_applied(self, uint64_t position) noexcept:
        return self.page.applied() >= position

    cpdef send_acks(self):
        cdef Record record
        if self.acked:
            record = make_record(CM_ACK, 0, 0)
            record.opcode = self.how_acked
            record.ticket = self.first_ack
            record.extra = self.acked
            self.acked = 0
            try:
                self.channel.put(&record, NULL)
            except MemoryError:
                self.channel.reactor.call_later(RETRY, partial(self._ack_again, record.ticket, record.extra,
                                                               record.opcode))

    def _ack_again(self, first: int, count: int, how: int) -> None:
        self.send_acks()
        self.first_ack = first
        self.acked = count
        self.how_acked = how
        self.send_acks()

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        self.channel.inlet.waiting.acquire(self.one_call)
        try:
            return self._call(what, fd, payload)
        finally:
            self.one_call.release()

    def _call(self, what: int, fd: int, payload: bytes) -> bytes:
        cdef Record record = make_record(CM_CALL, fd, <uint32_t> len(payload))
        record.arg = what
        waits = self.reply_socket.fileno()
        if self.answered != self.calls and (waits < 0 or not self.channel.inlet.waiting.readable_now(waits)):
            # it stands still: this worker waits for that once, and not again with each question
            raise StateError(f"gateway {self.gateway} does not answer: timed out")
        deadline = time.monotonic() + CALL_TIMEOUT
        self.calls += 1
        record.ticket = self.calls
        self.channel.put(&record, payload)
        if not self.hand_over(CALL_TIMEOUT):
            raise StateError(f"gateway {self.gateway} does not take the question: timed out")
        try:
            while True:
                self.answered, answer = self._receive(deadline)
                if self.answered == self.calls:   # else it came too late for an earlier one
                    return answer
        except OSError as error:
            raise StateError(f"gateway {self.gateway} does not answer: {error}") from None

    def _receive(self, deadline: float) -> tuple[int, bytes]:
        """The next answer, and the number of its call; `unread` keeps what a call that was given up has left."""
        answers = self.unread
        while len(answers) < 8 or len(answers) < 8 + int.from_bytes(answers[4:8], "little"):
            if len(answers) >= 8 and int.from_bytes(answers[4:8], "little") > RECORD_LIMIT:
                self.reply_socket.close()        # whatever follows is no answer either
                size = int.from_bytes(answers[4:8], "little")
                raise ConnectionError(f"an answer of {size} bytes: the stream is broken")
            fd = self.reply_socket.fileno()
            if fd < 0 or not self.channel.inlet.waiting.readable(fd, max(0.0, deadline - time.monotonic())):
                raise TimeoutError("timed out")
            part = self.reply_socket.recv(ANSWER_PART)
            if not part:
                raise ConnectionError("it is gone")
            answers += part
        end = 8 + int.from_bytes(answers[4:8], "little")
        call, answer = int.from_bytes(answers[:4], "little"), bytes(answers[8:end])
        del answers[:end]
        return call, answer

    # ------------------------------------------------------------------ a gateway that stands still

    cdef int _wait_for_room(self) except -1:
        """Until a quarter of the limit is free for more, or the gateway was seen to stand still."""
        cdef Channel channel = self.channel
        cdef size_t limit = self.channel.inlet.output_limit
        cdef bint room = False
        self.channel.inlet.send_all()
        while channel.fd >= 0 and buffer_size(&channel.output) > limit // 4:
            channel.send_some()
            if channel.sent != self.taken:
                self.taken = channel.sent
                self.looks = 0
                room = False
                continue
            if self.looks >= <uint32_t> (PATIENCE if buffer_size(&channel.output) <= limit else LONGEST):
                return 0
            if room:
                time.sleep(LOOK / 10)        # the kernel has room and yet takes nothing: it has no memory
            room = self.channel.inlet.waiting.writable(channel.fd, LOOK)
            self.looks += not room
        return 0

    cdef int _miss(self, const Record* command, const uint8_t* payload) except -1:
        """Instead of a command that there is no room for."""
        cdef object key
        cdef Record record
        cdef bytes name = b""
        cdef int what = MISSED_CLIENT
        if self.missed is None:
            self.missed = set()
            self.channel.inlet.worker.on_standstill(self.gateway, False)
        if command.kind == CM_PUBLISH:
            self.stamp = command.fd
        if command.kind == CM_PUBLISH or command.kind == CM_DISCONNECT_USER:
            if self.missed_names >= MOST_NAMES:
                return 0
            key = name = (PyBytes_FromStringAndSize(<const char*> payload, command.arg) if command.kind == CM_PUBLISH
                          else _USER + PyBytes_FromStringAndSize(<const char*> payload, command.extra))
            what = MISSED_TOPIC
        else:
            key = command.fd
        if key in self.missed:
            return 0
        if what == MISSED_TOPIC:
            self.missed_names += 1
            if self.missed_names == MOST_NAMES:
                what, name = MISSED_TOPICS, b""
        record = make_record(CM_MISSED, command.fd, <uint32_t> len(name))
        record.opcode = what
        self.channel.put(&record, name)
        self.missed.add(key)
        return 0

    cdef int _takes_again(self) except -1:
        cdef Record record = make_record(CM_MISSED, self.stamp, 0)
        record.opcode = MISSED_PUBLISHES
        self.missed = None
        self.missed_names = 0
        if self.stamp:
            self.stamp = 0
            self.channel.put(&record, NULL)
        self.channel.inlet.worker.on_standstill(self.gateway, True)
        return 0
