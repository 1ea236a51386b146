"""What a worker tells a gateway to do: one function for each command. Included by `relay.pyx`; which one applies which
command follows from the table of records (wire.toml).

Commands of one worker are applied in the order given. One can be refused for now (1): a publish whose turn has not
come (see order.pyx, relay_turns.pxi). The worker's port offers it again, and nothing behind it before that. One that
makes no sense raises BadRecord and has no effect.
"""

ctypedef int (*Apply)(Relay, Port, const Record*, const uint8_t*) except -1


cdef bytes bytes_of(const uint8_t* data, size_t size):
    return PyBytes_FromStringAndSize(<const char*> data, size)


cdef int on_hello(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    if record.arg != VERSION:
        self.lost(port, f"it speaks version {record.arg} of the channel, not {VERSION}: restart the server")
    elif not port.usable:
        if self.publish_order is not None:
            self.publish_order.meet(port, record.fd)
        self.greet(port, record.extra, record.opcode)
    return 0


cdef int on_ack(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef uint32_t i, unknown = 0
    if record.ticket >= port.ledger.size or record.extra > port.ledger.size or record.opcode > ACK_ENDED:
        raise BadRecord(f"{record.extra} tickets from {record.ticket} on are acknowledged, of {port.ledger.size}")
    for i in range(record.extra):
        unknown += self.finish(port, (record.ticket + i) % port.ledger.size, record.opcode)
    if unknown:
        raise BadRecord(f"{unknown} tickets are acknowledged that are not in use")
    return 0


cdef int on_send(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    if record.opcode not in (OP_TEXT, OP_BINARY, OP_PING, OP_PONG):
        raise BadRecord(f"a message with opcode {record.opcode}")
    c = self.connections.find(record.fd)
    if c != NULL:
        self.connections.send(c, record.opcode, payload, record.size)
    return 0


cdef int on_publish(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef uint32_t skipped = record.extra * sizeof(uint64_t)
    if record.arg > record.size or record.opcode != OP_TEXT and record.opcode != OP_BINARY:
        raise BadRecord(f"a message with opcode {record.opcode} for a topic of {record.arg} bytes")
    if record.extra > EXCLUDED_LIMIT or record.extra * sizeof(uint64_t) > record.size - record.arg:
        raise BadRecord(f"{record.extra} subscribers are left out, in {record.size - record.arg} bytes")
    if port.pid and record.fd >> 32 != <uint64_t> port.pid:
        raise BadRecord(f"a publish of process {record.fd >> 32} from {port.pid}")
    if not _may_copy(self, port):
        return 1
    if self.publish_order is not None and not self.publish_order.admit(port, record.fd):
        return 1
    self.copies += (1 + record.size // COPY_BYTES) * (1 + self.hub.publish(
        bytes_of(payload, record.arg), record.opcode, payload + record.arg + skipped,
        record.size - record.arg - skipped, payload + record.arg, record.extra))
    return 0


cdef int on_respond(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    if record.opcode == RESPOND_REFUSES:
        if record.arg:
            self.gateway.counters["messages_invalid"] += 1
        else:
            self.gateway.counters["requests_refused"] += 1
        return 0
    c = self.connections.find(record.fd)
    if c == NULL or not self.connections.respond(c, record.extra, record.opcode, payload, record.size):
        return _over(port, record) if record.opcode & RESPOND_ASKS else 0
    return 0


cdef int on_want(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = self.connections.find(record.fd)
    if c == NULL or not self.connections.want(c, record.extra):
        return _over(port, record)
    return 0


cdef int _over(Port port, const Record* asked) except -1:
    """Whoever asks waits for an answer, also about a request that is over or whose client has left."""
    cdef Record answer = make_record(EV_GONE, asked.fd, 0)
    answer.extra = asked.extra
    return port.transmit(&answer, NULL)


cdef int on_disconnect(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    _check_close_code(record)
    c = self.connections.find(record.fd)
    if c != NULL:
        self.connections.dismiss(c, record.arg, bytes_of(payload, record.size), record.opcode != 0)
    return 0


cdef int on_disconnect_user(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    _check_close_code(record)
    if record.extra > record.size:
        raise BadRecord(f"a user id of {record.extra} bytes in {record.size}")
    reason = bytes_of(payload + record.extra, record.size - record.extra)
    for fd in self.hub.members(_USER + bytes_of(payload, record.extra)):
        c = self.connections.find(fd)
        if c != NULL:
            self.connections.close(c, record.arg, reason, BY_APPLICATION)
    return 0


cdef int _check_close_code(const Record* record) except -1:
    if not may_send_close_code(record.arg):
        raise BadRecord(f"close code {record.arg}")
    return 0


cdef int on_drop(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = self.connections.find(record.fd)
    if c != NULL:
        self.connections.drop(c)
    return 0


cdef int on_subscribe(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = self.connections.find(record.fd)
    if c != NULL and c.phase == OPEN:
        name = bytes_of(payload, record.size)
        if not self.hub.subscribe(c, name):
            self.gateway.on_topic_limit(record.fd, name)
    return 0


cdef int on_unsubscribe(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = self.connections.find(record.fd)
    if c != NULL and c.phase == OPEN:
        self.hub.unsubscribe(c, bytes_of(payload, record.size))
    return 0


cdef int on_bind(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    if not is_utf8(payload, record.size):
        raise BadRecord("a user id that is not UTF-8")
    c = self.connections.find(record.fd)
    if c != NULL and c.phase == OPEN:
        self.hub.bind(c, bytes_of(payload, record.size))
        c.entry.user = user_mark(payload, record.size)
        if self.by_user and c.port != NO_PORT and self._any_port(c.fd) is not self.ports[c.port]:
            c.flags |= MOVES
    return 0


cdef int on_pause(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = self.connections.find(record.fd)
    if c == NULL or c.phase != OPEN:
        return 0
    if record.arg:
        c.flags |= PAUSED
    else:
        c.flags &= ~PAUSED
        self.connections.wake(c)
    return 0


cdef int rare(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    """A command that Python applies."""
    self.gateway.apply(port, new_notice(record, payload))
    return 0


include "relay_table.pxi"


cdef int _apply(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    """One command of a worker, whose head `is_command`; 1: not now."""
    return TABLE[record.kind - CM_HELLO](self, port, record, payload)
