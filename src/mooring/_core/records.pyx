"""A channel whose records are handled in Python: for what happens once per task or per call, not per message.

Two things are different from the channels of messages. `pump` receives while the loop stands still, which is how a
handler that is not a coroutine waits for an answer. So `on_record` may be called inside of any handler, and must
never call one: it notes what has come, and has the loop do the rest. And `pump` must not touch the reactor's receive
buffer: what called the handler is often still parsing it.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

import select

from mooring._core.buffer cimport buffer_size
from mooring._core.channel cimport Channel
from mooring._core.wire cimport Notice, Record, is_mail, new_notice

cdef enum:
    PUMP_BYTES = 65536


cdef class MailContract:
    """What a channel asks of whom it belongs to: a Peer of the dispatcher, or a worker's DispatcherLink."""

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        """A record (`Mail` in the table of records). Raises ValueError for one that makes no sense."""
        raise NotImplementedError

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        """The other end is gone."""
        raise NotImplementedError

    def on_bad(self, channel: RecordChannel, problem: Exception) -> None:
        """A record had no effect."""
        raise NotImplementedError

    def on_broken(self, channel: RecordChannel, why: str) -> None:
        """What still comes means nothing."""
        raise NotImplementedError


cdef class RecordChannel(Channel):
    """Owns descriptor `fd`."""

    cdef readonly MailContract owner

    def __init__(self, reactor: object, fd: int, owner: MailContract) -> None:
        self.owner = owner

    cdef bint fits(self, const Record* record) noexcept:
        return is_mail(record)

    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1:
        self.owner.on_record(self, new_notice(record, payload))
        return 0

    cdef int on_lost(self, str why) except -1:
        self.owner.on_lost(self, why)
        return 0

    cdef int on_bad(self, object problem) except -1:
        self.owner.on_bad(self, problem)
        return 0

    cdef int on_broken(self, str why) except -1:
        self.owner.on_broken(self, why)
        return 0

    @property
    def waiting(self) -> int:
        """Bytes that the other end has not taken yet."""
        return buffer_size(&self.output)

    def send(self, Notice notice not None) -> None:
        """Queues a record; it leaves before the reactor sleeps."""
        cdef Record record = notice.record
        self.put(&record, notice.payload)

    def flush_now(self) -> None:
        """Hands over what the kernel takes, without waiting for the end of the turn."""
        if self.fd >= 0:
            self.send_some()

    def pump(self, timeout: float) -> None:
        """Waits for what the other end sends, at most `timeout` seconds, and handles it; sends what waits, too."""
        cdef uint8_t* buffer
        if self.fd < 0:
            return
        self.send_some()
        poll = select.poll()
        poll.register(self.fd, select.POLLIN | (select.POLLOUT if buffer_size(&self.output) else 0))
        for _, events in poll.poll(max(0.0, timeout * 1000)):
            if events & ~select.POLLOUT:
                buffer = <uint8_t*> malloc(PUMP_BYTES)
                if buffer == NULL:
                    raise MemoryError("no memory to receive an answer")
                try:
                    self.read_with(buffer, PUMP_BYTES)
                finally:
                    free(buffer)
            if events & select.POLLOUT and self.fd >= 0:
                self.send_some()
