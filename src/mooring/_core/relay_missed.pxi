# What a worker could not tell this gateway while it stood still. Included by `relay.pyx`; the worker's side and the
# reasons are in `inlet_standstill.pxi`.

cdef bytes _MISSED = b"a process of the server stood still, and you have missed something"
MISSED_CODE = 1013           # try again later: RFC 6455 section 7.4.2, the registry of IANA


cdef int on_missed(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    """MISSED: whom it concerns is closed, by name."""
    cdef Connection* c
    cdef uint32_t slot
    if record.opcode != MISSED_CLIENT and port.pid and record.fd and record.fd >> 32 != <uint64_t> port.pid:
        raise BadRecord(f"publishes of process {record.fd >> 32} are missed by {port.pid}")
    if record.opcode == MISSED_CLIENT:
        _has_missed(self, self.connections.find(record.fd))
        return 0
    if record.opcode == MISSED_TOPIC:
        for fd in self.hub.members(PyBytes_FromStringAndSize(<const char*> payload, record.size)):
            _has_missed(self, self.connections.find(fd))
    elif record.opcode == MISSED_TOPICS:
        for slot in range(self.connections.used):
            c = self.connections.slots[slot]
            if c != NULL and c.topic_count:
                _has_missed(self, c)
    elif record.opcode != MISSED_PUBLISHES:
        raise BadRecord(f"something of kind {record.opcode} was missed")
    if self.publish_order is not None and record.fd:
        self.publish_order.meet(port, record.fd)     # those up to it will not come
    return 0


cdef int _has_missed(Relay self, Connection* c) except -1:
    if c == NULL:
        return 0
    self.missed += 1
    blame(c, W_STANDSTILL)
    if c.phase == OPEN:
        self.connections.close(c, MISSED_CODE, _MISSED, BY_SERVER)
    else:
        self.connections.drop(c)
    return 0
