"""What a worker tells a gateway to do. Included by `relay.pyx`; the records are those of `wire.pyx`.

Commands of one worker are applied in the order given. One can be refused for now, a publish whose turn has not come (see
order.pyx, relay_turns.pxi); the worker's port offers it again, and nothing behind it before that.
"""

cdef int _apply(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    """One command of a worker; 1: not now. BadRecord, without an effect, for one that makes no sense."""
    cdef Connection* c
    cdef uint32_t i, unknown = 0
    cdef uint32_t skipped
    cdef int kind = record.kind
    if kind == CM_ACK:
        if record.ticket >= port.ticket_count or record.extra > port.ticket_count or record.opcode > ENDED:
            raise BadRecord(f"{record.extra} tickets from {record.ticket} on are acknowledged, of {port.ticket_count}")
        for i in range(record.extra):
            unknown += self.finish(port, (record.ticket + i) % port.ticket_count, record.opcode)
        if unknown:
            raise BadRecord(f"{unknown} tickets are acknowledged that are not in use")
        return 0
    if kind == CM_PUBLISH:
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
        skipped = record.extra * sizeof(uint64_t)
        self.copies += (1 + record.size // COPY_BYTES) * (1 + self.hub.publish(
            PyBytes_FromStringAndSize(<const char*> payload, record.arg), record.opcode, payload + record.arg + skipped,
            record.size - record.arg - skipped, payload + record.arg, record.extra))
        return 0
    if kind == CM_HELLO:
        if record.arg != VERSION:
            self.lost(port, f"it speaks version {record.arg} of the channel, not {VERSION}: restart the server")
        elif not port.usable:
            if self.publish_order is not None:
                self.publish_order.meet(port, record.fd)
            self.greet(port, record.extra, record.opcode)
        return 0
    if kind == CM_SEND:
        if record.opcode not in (OP_TEXT, OP_BINARY, OP_PING, OP_PONG):
            raise BadRecord(f"a message with opcode {record.opcode}")
        c = self.connections.find(record.fd)
        if c != NULL:
            self.connections.send(c, record.opcode, payload, record.size)
        return 0
    if kind == CM_RESPOND and record.opcode == RESPOND_REFUSES:
        if record.arg:
            self.gateway.counters["messages_invalid"] += 1
        else:
            self.gateway.counters["requests_refused"] += 1
        return 0
    if kind == CM_RESPOND:
        c = self.connections.find(record.fd)
        if c == NULL or not self.connections.respond(c, record.extra, record.opcode, payload, record.size):
            return _over(port, record) if record.opcode & RESPOND_ASKS else 0
        return 0
    if kind == CM_FILE:
        return take_file(self, port, record, payload)
    if kind == CM_WANT:
        c = self.connections.find(record.fd)
        if c == NULL or not self.connections.want(c, record.extra):
            return _over(port, record)
        return 0
    if (kind == CM_DISCONNECT or kind == CM_DISCONNECT_USER) and not may_send_close_code(record.arg):
        raise BadRecord(f"close code {record.arg}")
    if kind == CM_DISCONNECT:
        c = self.connections.find(record.fd)
        if c != NULL:
            self.connections.close(c, record.arg, PyBytes_FromStringAndSize(<const char*> payload, record.size),
                                   BY_APPLICATION)
        return 0
    if kind == CM_DROP:
        c = self.connections.find(record.fd)
        if c != NULL:
            self.connections.drop(c)
        return 0
    if kind == CM_SUBSCRIBE or kind == CM_UNSUBSCRIBE:
        c = self.connections.find(record.fd)
        if c != NULL and c.phase == OPEN:
            name = PyBytes_FromStringAndSize(<const char*> payload, record.size)
            if kind == CM_UNSUBSCRIBE:
                self.hub.unsubscribe(c, name)
            elif not self.hub.subscribe(c, name):
                self.gateway.on_topic_limit(record.fd, name)
        return 0
    if kind == CM_MISSED:
        return _missed(self, port, record, payload)
    if kind == CM_WORK:
        return _note_work(self, port, record, payload)
    if kind == CM_ROOM:
        return _ask_room(self, port, record.fd)
    if kind == CM_BIND or kind == CM_PAUSE:
        if kind == CM_BIND and not is_utf8(payload, record.size):
            raise BadRecord("a user id that is not UTF-8")
        c = self.connections.find(record.fd)
        if c == NULL or c.phase != OPEN:
            return 0
        if kind == CM_BIND:
            self.hub.bind(c, PyBytes_FromStringAndSize(<const char*> payload, record.size))
            c.entry.user = user_mark(payload, record.size)
            if self.by_user and c.port != NO_PORT and self._any_port(c.fd) is not self.ports[c.port]:
                c.flags |= MOVES
        elif record.arg:
            c.flags |= PAUSED
        else:
            c.flags &= ~PAUSED
            self.connections.wake(c)
        return 0
    if kind == CM_DISCONNECT_USER:
        if record.extra > record.size:
            raise BadRecord(f"a user id of {record.extra} bytes in {record.size}")
        reason = PyBytes_FromStringAndSize(<const char*> payload + record.extra, record.size - record.extra)
        for fd in self.hub.members(_USER + PyBytes_FromStringAndSize(<const char*> payload, record.extra)):
            c = self.connections.find(fd)
            if c != NULL:
                self.connections.close(c, record.arg, reason, BY_APPLICATION)
        return 0
    self.gateway.apply(port, kind, record.arg, record.fd, record.ticket,
                       PyBytes_FromStringAndSize(<const char*> payload, record.size))
    return 0


cdef int _over(Port port, const Record* asked) except -1:
    """Whoever asks waits for an answer; so one about a request that is over, or whose client has left, gets one, too."""
    cdef Record answer = make_record(EV_GONE, asked.fd, 0, 0, 0)
    answer.ticket = NO_TICKET
    answer.extra = asked.extra
    return port.transmit(&answer, NULL)
