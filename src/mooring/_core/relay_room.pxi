"""Workers that wait until a WebSocket has taken what was pushed to it. Included by `relay.pyx`.

Any worker may, not only the one that serves the connection; each is answered as often as it has asked, in that order.
"""

cdef int on_room(Relay self, Port port, const Record* record, const uint8_t* payload) except -1:
    """ROOM. The answer is at once, or when so much is out or the connection gone."""
    cdef uint64_t fd = record.fd
    cdef Connection* c = self.connections.find(fd)
    if c == NULL or c.phase != OPEN:
        return _answer_room(port, fd, EV_GONE)
    if buffer_size(&c.out) <= c.profile.high_water:
        return _answer_room(port, fd, EV_ROOM)
    self.asking.setdefault(fd, []).append(port)
    c.flags |= ASKED
    return 0


cdef int _answer_asking(Relay self, uint64_t fd, int kind) except -1:
    cdef list ports = self.asking.pop(fd, None)
    if ports is not None:
        for port in ports:
            if (<Port> port).usable:
                _answer_room(port, fd, kind)
    return 0


cdef int _answer_room(Port port, uint64_t fd, int kind) except -1:
    cdef Record answer = make_record(kind, fd, 0)
    return port.transmit(&answer, NULL)
