"""The header of the PROXY protocol that comes ahead of everything else. Included by transport.pyx."""

cdef int read_preface(Transport self, Connection* c, uint8_t* buffer, size_t got) except -1:
    """Bytes of the header that a proxy sends ahead of the client's. `held` keeps an unfinished one."""
    cdef size_t have = buffer_size(&c.held)
    cdef size_t used
    cdef bytes padded
    if buffer_append(&c.held, buffer, got) < 0:
        blame(c, W_OUT_OF_MEMORY)
        return self._gone(c, 1006, b"no memory for a header of the PROXY protocol")
    try:
        header = self.prefaces[c.profile.index].parse((<const char*> c.held.data + c.held.start)[:have + got])
    except ValueError as error:
        return refuse_preface(self, c, str(error))
    if header is None:
        return 0
    size, family, address, port = header
    used = size - have           # it was not whole before these bytes
    buffer_free(&c.held)
    if family:
        c.entry.family = family
        padded = address.ljust(16, b"\0")
        memcpy(c.entry.address, <const char*> padded, 16)
        c.entry.remote_port = port
    c.flags &= ~PREFACE
    crowded = self.admission.welcome(c.entry.family, c.entry.address) != WELCOME
    self._count(c)
    self.on_connected(c)
    if crowded:
        self.counters.connections_refused += 1
        self.counters.connections_refused_by_address += 1
        return self.on_crowd(c)
    if c.phase == DEAD or used == got:
        return 0
    return self.on_raw(c, buffer + used, got - used)


cdef int refuse_preface(Transport self, Connection* c, str why) except -1:
    self.counters.proxy_headers_refused += 1
    self.prefaces[c.profile.index].refused(address_text(c.entry.family, c.entry.address), why)
    blame(c, W_BAD_PROXY_HEADER)
    return self._gone(c, 1006, b"PROXY protocol: " + why.encode())
