"""Requests on their way, and their bodies. Included by `http_exchange.pyx`.

A body that is streamed is asked for by the worker, part by part. Only then is the socket read, and what was read is
handed over at once: never more than one receive buffer of it is here, and TCP slows the client down.

A client has to send a body at a certain rate on average, counted over the time in which it is waited for.
"""

cdef int _next_request(HttpExchanges self, Connection* c) except -1:
    """One request at a time: the next one is not even parsed before this one is answered."""
    cdef HttpCodec codec = self.codecs.get(c.fd)
    cdef ParsedRequest request
    if codec is None:
        return 0
    while c.phase == HTTP and not c.flags & (BUSY | END_WHEN_WRITTEN | DEFERRED):
        cleared = False
        event = self.parked.pop(c.fd, None) if self.parked else None
        if event is None:
            if not codec.is_in_body() and not codec.is_idle():
                if not _may_ask(self, c):
                    break
                cleared = True
            try:
                event = codec.next_event()
            except HttpError as error:
                self.counters.failed += 1
                return self.sink.on_bad_request(c, error)
        if event is None:
            if codec.is_idle():
                del self.codecs[c.fd]
            elif codec.is_in_body():
                if c.deadline == D_REQUEST:      # the head is complete just now
                    c.body_bytes = codec.buffered()
                    c.body_waited = 0
                _await_body(self, c)
            break
        if type(event) is int:           # CONTINUE
            self.write(c, <const uint8_t*> PyBytes_AS_STRING(CONTINUE_RESPONSE),
                       PyBytes_GET_SIZE(CONTINUE_RESPONSE), NULL, 0)
            continue
        request = event
        if not cleared and not _may_ask(self, c):
            self.parked[c.fd] = request
            break
        c.flags |= BUSY | HEAD_ONLY if request.method == "HEAD" else BUSY
        c.requests += 1
        self.counters.requests += 1
        if request.streamed:
            c.body_bytes = codec.buffered()
            c.body_waited = 0
        self.reactor.disarm(&c.timer)
        c.deadline = D_NONE
        self.sink.on_request(c, request)
        if c.phase == DEAD:
            return 0
        codec = self.codecs.get(c.fd)
        if codec is None:            # the handler has read all of the body, and answered, at once
            break
    return self._interest(c)


cdef bint _may_ask(HttpExchanges self, Connection* c) except -1:
    """Whether its next request can be taken. If not, it is not read meanwhile, and no time limit of it runs."""
    if self.sink.takes(c):
        if c.flags & HELD:
            c.flags &= ~HELD
            self._arm(c, D_REQUEST, c.profile.request_ms)
        return True
    if not c.flags & HELD:
        c.flags |= HELD
        self.counters.requests_held += 1
    self.reactor.disarm(&c.timer)
    c.deadline = D_NONE
    return False


cdef int _count_kept(HttpExchanges self, Connection* c) except -1:
    """What is here of requests that are not handed over counts against the memory for all connections."""
    cdef HttpCodec codec
    cdef ParsedRequest parked
    cdef size_t kept
    if c.phase != HTTP:
        return 0
    codec = self.codecs.get(c.fd)
    parked = self.parked.get(c.fd) if c.flags & HELD else None
    kept = codec.gathered() if codec is not None else 0
    if parked is not None:
        kept += len(parked.body)
    return self.gather(c, kept)


cdef int _await_body(HttpExchanges self, Connection* c) except -1:
    """It is the client's turn to send: it may take as long as what has come allows, less what it took before."""
    cdef uint64_t allowed = c.profile.body_grace_ms
    if c.profile.body_rate == 0:
        c.deadline = D_NONE
        self.reactor.disarm(&c.timer)
        return 0
    if c.body_bytes * 1000 // c.profile.body_rate > allowed:
        allowed = c.body_bytes * 1000 // c.profile.body_rate
    c.body_since = self.reactor.now
    return self._arm(c, D_BODY, allowed - c.body_waited if c.body_waited < allowed else 1)


cdef int _body_came(HttpExchanges self, Connection* c, size_t size) except -1:
    c.body_bytes += size
    if c.deadline == D_BODY:
        if not c.taken_at:               # else it had to read first
            c.body_waited += self.reactor.now - c.body_since
        c.deadline = D_NONE
        self.reactor.disarm(&c.timer)
    return 0


cdef int _next_part(HttpExchanges self, Connection* c) except -1:
    """The worker waits: hands over what there is of the body, or waits for the client."""
    cdef HttpCodec codec
    if not self.sink.takes_part(c):
        c.flags |= HELD
        return self._interest(c)
    c.flags &= ~HELD
    codec = self.codecs.get(c.fd)
    try:
        part = codec.next_part() if codec is not None else b""
        if type(part) is int:            # CONTINUE
            if not c.flags & BEGUN:
                self.write(c, <const uint8_t*> PyBytes_AS_STRING(CONTINUE_RESPONSE),
                           PyBytes_GET_SIZE(CONTINUE_RESPONSE), NULL, 0)
            part = codec.next_part()
    except HttpError as error:
        self.counters.failed += 1
        return _body_failed(self, c, error)
    if part is None:
        _await_body(self, c)
    else:
        c.flags &= ~WANTED
        if codec is not None and codec.is_idle():
            del self.codecs[c.fd]
        self.sink.on_note(c, EV_BODY, part)
    return self._interest(c)


cdef int _body_failed(HttpExchanges self, Connection* c, object error) except -1:
    """The rest of a body will not come: for its handler the client has left."""
    c.flags &= ~WANTED
    self.sink.on_note(c, EV_GONE, b"")
    if c.flags & BEGUN:
        blame(c, cause_of(error.status))
        return self._doom(c, 1006, error.reason.encode())
    return self.sink.on_bad_request(c, error)
