"""Files that a worker leaves to its gateway. Included by `relay.pyx`."""

cdef int on_file(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    """FILE. Whoever sent it waits to hear whether it is taken, whatever has become of the connection."""
    cdef Connection* c = self.connections.find(record.fd)
    cdef FileClaim claim
    cdef Record answer = make_record(EV_FILE, record.fd, 1)
    cdef size_t head = sizeof(claim) + record.arg
    cdef uint8_t note = FILE_LATE
    if record.size < head:
        raise BadRecord(f"a file with a path of {record.arg} bytes in {record.size}")
    if c != NULL:
        memcpy(&claim, payload, sizeof(claim))
        path = PyBytes_FromStringAndSize(<const char*> payload + sizeof(claim), record.arg)
        note = self.connections.respond_file(c, record.extra, record.opcode, &claim, path, payload + head,
                                             record.size - head)
    answer.extra = record.extra
    return port.transmit(&answer, &note)
