"""The workers, as a gateway sees them. Included by `relay.pyx`, whose text explains tickets and the page."""

cdef uint64_t ANSWER_MS = 5000    # for which a worker may leave an answer unread; then it does not wait any more
ANSWER_AGAIN = 0.002              # seconds until an answer that had no room is offered again


cdef class Port(Publisher):
    """One worker, as the gateway sees it. Subclasses carry records to it."""

    def __cinit__(self, relay: Relay, worker: int, generation: int = 0, serves: bool = True, *args: object) -> None:
        self.relay = relay
        self.index = -1
        self.worker = worker
        self.generation = generation
        self.serves = serves
        self.waiting = []
        self.parts = []
        self.ledger = relay.books.open(relay.port_messages)

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        """Carries one record to the worker."""
        return 0

    cdef int make_room(self, size_t size) noexcept:
        """Memory for a record of that size, which `transmit` then has; -1: there is none."""
        return 0

    cdef bint torn(self) noexcept:
        """Whether a part of what it sent was lost."""
        return False

    cdef bint full(self) noexcept:
        """No message can be given to it now."""
        cdef Ledger ledger = self.ledger
        if ledger.books.kept >= self.relay.kept_limit:
            self.relay.crowded = True
            return True
        return ledger.free == 0 or ledger.in_flight_bytes >= self.relay.port_bytes or ledger.backlog.count != 0

    cpdef size_t unsent(self) noexcept:
        """Bytes for the worker that the kernel has not taken."""
        return 0

    @property
    def silent(self) -> int:
        """Milliseconds for which it has had something to do and has finished nothing."""
        return self.ledger.silent(self.relay.connections.reactor.now)

    @property
    def in_flight(self) -> int:
        """Events that it was given and has not finished."""
        return self.ledger.in_flight

    @property
    def still(self) -> int:
        """Milliseconds for which its loop was not seen to turn, whether it has something to do or not."""
        return 0

    def close(self) -> None:
        """Gives up the connection to the worker."""

    def reply(self, call: int, payload: bytes) -> None:
        """Answers a call of the worker."""

    def leave(self) -> None:
        """Tells the worker that nothing more will come."""
        self.left = True
        self.say(EV_LEAVE)

    cpdef int say(self, int kind, uint32_t extra=0, bytes payload=b"") except -1:
        """A record that is about no connection."""
        cdef Record record = make_record(kind, 0, <uint32_t> len(payload))
        record.extra = extra
        return self.transmit(&record, payload)


cdef class PortChannel(Channel):
    """The gateway's end of a channel to a worker."""

    cdef bint fits(self, const Record* record) noexcept:
        return is_command(record)

    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1:
        cdef Port port = self.port       # the record may be its last
        return port.relay.on_command(port, record, payload)

    cdef int on_bad(self, object problem) except -1:
        self.port.relay.bad_records += 1
        if self.port.relay.publish_order is not None:
            self.port.relay.publish_order.leave(self.port)
        self.port.relay.gateway.on_bad_record(self.port, problem)
        return 0

    cdef int on_broken(self, str why) except -1:
        self.port.relay.bad_records += 1
        self.port.relay.gateway.on_port_broken(self.port, why)
        return 0

    cdef int take(self, const uint8_t* data, size_t size) except -1:
        Channel.take(self, data, size)
        return self.note_applied()

    cdef int resume(self) except -1:
        Channel.resume(self)
        return self.note_applied()

    cdef int note_applied(self) except -1:
        """Lets the worker know what the table shows already."""
        if self.port is not None and self.fd >= 0:
            (<ChannelPort> self.port).page.note_applied(self.received - buffer_size(&self.input))
        return 0

    cdef int on_end(self) except -1:
        """Behind what the worker had sent comes what it had kept in the page for its death."""
        cdef bytes kept = (<ChannelPort> self.port).page.rest(self.received)
        return self.take(kept, len(kept)) if kept else 0

    cdef int on_lost(self, str why) except -1:
        cdef Port port = self.port
        self.port = None     # else the two hold each other, with ledger and page, until Python looks for such circles
        return port.relay.lost(port, why)


cdef class ChannelPort(Port):
    """A worker in another process. Takes over the descriptors of the channel, the reply socket and the page."""

    def __init__(self, relay: Relay, worker: int, generation: int, serves: bool, reactor: Reactor, channel: int,
                 reply_socket: object, page: int) -> None:
        self.ledger.page = self.page = Page(page)
        self.reply_socket = reply_socket
        reply_socket.setblocking(False)
        self.answers = bytearray()
        self.channel = PortChannel(reactor, channel)
        self.channel.port = self
        self.channel.early = True

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        return self.channel.put(record, payload)

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
        cdef uint64_t now = self.relay.connections.reactor.now
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
            self.relay.connections.reactor.call_later(ANSWER_AGAIN, self._answer)

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
            self.reply_socket.close()    # its calls fail from now on; a part of an answer would be taken for the next one
        except OSError:
            pass                         # it is gone
        self.answers.clear()
        return False
