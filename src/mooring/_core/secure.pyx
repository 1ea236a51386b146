"""TLS on a gateway's connections: between the socket and what is spoken, and nothing of it elsewhere.

Theory
------
The standard library's `ssl` does the cryptography, on memory (SSLObject and two MemoryBIOs); sockets stay
non-blocking and in the reactor, so no handshake keeps anybody waiting. A connection without TLS costs a NULL pointer.

* In: what the socket gives is decrypted into the reactor's receive buffer and handed on from there, record by record,
  as long as the connection reads. When it stops (`held`, a request that is being answered), what is left waits in the
  BIO: one receive buffer at the most, since the socket is not read meanwhile. `_interest`, which arms reading again,
  also says that this can go on.
* Out: the out-queue stays what it is, plaintext with its limits. At the flush up to CHUNK of it are encrypted. They
  leave the queue when the kernel has taken their ciphertext, not before: so the queue's length, high water and the slow
  client's end count what waits in either form. What is encrypted is committed: `boundary` covers it, and a close frame
  that overtakes the rest comes behind it.
* What TLS itself says (handshake, alerts, tickets) is counted in `c.owed`.
* A first octet that begins no TLS record (RFC 8446 section 5.1) is somebody who speaks plain HTTP: told so, in plain
  HTTP.
"""

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

import ssl

from mooring._core.buffer cimport buffer_consume, buffer_free, buffer_size
from mooring._core.reactor cimport EPOLLIN, RECEIVE_BYTES, Reactor
from mooring._core.registry cimport (
    BEGUN, BUSY, BY_PEER, BY_SERVER, CLOSING, D_TLS, DEAD, DEFERRED, DONE, END_WHEN_WRITTEN, FULL, HELD, HTTP, LINGER,
    SHAKING, THEN_LINGER, W_REQUEST_TIMEOUT, W_TLS_FAILED, WANTED, Connection, blame,
)
from mooring._core.table cimport Table, address_text
from mooring._core.transport cimport Transport, reads

from mooring.types import TLS_VERSIONS as _TLS_VERSIONS

cdef extern from "calls.h" nogil:
    ssize_t mooring_send(int fd, const void* data, size_t size, int flags)

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_NOSIGNAL

cdef enum:
    CHUNK = 65536            # plaintext that is encrypted at once
    SLICE = 17408            # ciphertext given to a session at once: any usual record whole (RFC 8446 section 5.2)
    RECORDS = 64             # of one connection, whatever the turn: a record may hold a single byte
    OWED = 65536             # bytes of TLS itself that a peer may leave unread
    HANDSHAKE_RECORD = 22    # RFC 8446 section 5.1

cdef bytes PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 58\r\n\r\n400 Bad Request: this port speaks TLS; use https or wss.\r\n"
)


cdef class Tls:
    """What one connection has besides."""

    def __cinit__(self, context: object) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.shaking = True
        self.unsent = b""
        self.ahead = b""

    cdef int collect(self) except -1:
        """Takes over what the session wants to send."""
        cdef bytes more = self.outgoing.read()
        if more:
            self.unsent = self.unsent[self.at:] + more
            self.at = 0
        return 0

    cdef bint drained(self) except -1:
        """Nothing is left to read: a read takes all of a record. The session would say so, too, but by an exception,
        which costs as much as a small message."""
        return self.incoming.pending == 0


cdef class SecureTransport(Transport):
    """A Transport whose profiles may have `tls`, an ssl.SSLContext, and `tls_timeout`, seconds for a handshake."""

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        self.contexts = [options.get("tls") for options in profiles]
        self.tls = {}
        self.reading = []

    def use_context(self, listener: int, context: ssl.SSLContext) -> None:
        """New connections of a listener get this context; those that are there keep theirs."""
        self.contexts[listener] = context

    def is_secure(self, listener: int) -> bool:
        """Whether clients of this listener speak TLS."""
        return self.contexts[listener] is not None

    def tls_session(self, fd: int) -> object:
        """The TLS session of a connection; None: it has none, or is gone."""
        tls = self.tls.get(fd)
        return (<Tls> tls).session if tls is not None else None

    cdef int on_connected(self, Connection* c) except -1:
        context = self.contexts[c.profile.index]
        if context is None:
            return self.on_adopted(c)
        tls = self.tls[c.fd] = Tls(context)
        c.tls = <void*> tls
        c.flags |= SHAKING
        return self._arm(c, D_TLS, c.profile.tls_ms)

    cdef int _gone(self, Connection* c, int code, bytes reason) except -1:
        if c.tls != NULL and c.phase != DEAD:
            if c.closed_by != BY_PEER and buffer_size(&c.out) == 0:
                self._say_goodbye(<Tls> c.tls, c.socket)
            self._drop_tls(c)
        return Transport._gone(self, c, code, reason)

    # ------------------------------------------------------------------ in

    cdef int on_raw(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        cdef Tls tls
        if c.tls == NULL:
            return self.on_bytes(c, buffer, got)
        tls = <Tls> c.tls
        if tls.shaking:
            return self._greet(c, buffer, got)
        if got <= SLICE:
            tls.incoming.write(PyMemoryView_FromMemory(<char*> buffer, got, PyBUF_READ))
            return self._read(c)
        # a BIO keeps the memory of the most that was ever in it; and what is decrypted goes where these bytes are
        raw = memoryview(PyBytes_FromStringAndSize(<const char*> buffer, got))
        for at in range(0, got, SLICE):
            if c.phase == DEAD or c.tls == NULL:
                return 0
            tls.incoming.write(raw[at:at + SLICE])
            if not tls.unread:
                self._read(c)
        return 0

    cdef int _greet(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        """A part of the handshake."""
        cdef Tls tls = <Tls> c.tls
        if c.flags & END_WHEN_WRITTEN:
            return 0
        if not tls.met and buffer[0] != HANDSHAKE_RECORD:
            return self._refuse_plaintext(c)
        tls.met = True
        tls.incoming.write(PyMemoryView_FromMemory(<char*> buffer, got, PyBUF_READ))
        try:
            tls.session.do_handshake()
        except ssl.SSLWantReadError:
            return self._push(c, tls)
        except (ssl.SSLError, OSError) as error:
            return self._broken(c, tls, f"the handshake failed: {reason_of(error)}")
        tls.shaking = False
        c.flags &= ~SHAKING
        if c.profile.records:
            c.tls_version = version_of(tls.session)
        self.on_adopted(c)
        self._push(c, tls)
        return self._read(c) if c.phase != DEAD else 0

    cdef int _read(self, Connection* c) except -1:
        """Hands on what can be decrypted, as long as the connection reads."""
        cdef Tls tls = <Tls> c.tls
        cdef uint8_t* buffer = self.reactor.receive_buffer
        cdef size_t got
        cdef bytes ahead
        cdef int share = RECORDS
        view = PyMemoryView_FromMemory(<char*> buffer, RECEIVE_BYTES, PyBUF_WRITE)
        while c.phase != DEAD and c.tls != NULL:
            if not reads(c):
                tls.unread = True
                return self._listen(c, tls) if self.listens(c) else self._push(c, tls)
            if share == 0:
                if c.phase != LINGER and self.reactor.is_long():
                    tls.unread = True
                    self.defer(c)
                    return self._push(c, tls)
                share = RECORDS
            share -= 1
            if tls.ahead:
                ahead, tls.ahead = tls.ahead, b""
                if c.phase != LINGER:
                    self.on_bytes(c, <uint8_t*> PyBytes_AS_STRING(ahead), 1)
                continue
            try:
                got = tls.session.read(RECEIVE_BYTES, view)
            except ssl.SSLWantReadError:
                tls.unread = False
                return self._push(c, tls)        # an answer to a key update, for instance
            except ssl.SSLZeroReturnError:
                got = 0
            except (ssl.SSLError, OSError) as error:
                return self._broken(c, tls, f"the stream is broken: {reason_of(error)}")
            if got == 0:
                tls.unread = False
                if tls.closed:
                    return 0
                tls.closed = True
                return self.on_end(c)
            if c.phase != LINGER:
                self.on_bytes(c, buffer, got)
            if tls.drained() and c.phase != DEAD and c.tls != NULL:
                tls.unread = False
                return self._push(c, tls)
        return 0

    cdef bint listens(self, Connection* c) except -1:
        """While an answer goes out in parts, maybe for ever, nothing is read of a next request. But a client that
        leaves may say so by a close_notify (RFC 8446 section 6.1) and then wait for ours before it closes (asyncio
        does, for 30 s): that is its FIN. Only who reads can know it from a request, so the first octet of one is taken,
        too."""
        cdef Tls tls = <Tls> c.tls
        cdef uint32_t asked = BUSY | BEGUN | DONE | HELD | WANTED | END_WHEN_WRITTEN | DEFERRED
        return (c.phase == HTTP and c.flags & asked == BUSY | BEGUN
                and not tls.shaking and not tls.ahead and not tls.closed)

    cdef int _listen(self, Connection* c, Tls tls) except -1:
        try:
            tls.ahead = tls.session.read(1)
        except ssl.SSLWantReadError:
            tls.unread = False
            self._interest(c)
            return self._push(c, tls)
        except ssl.SSLZeroReturnError:
            tls.ahead = b""
        except (ssl.SSLError, OSError) as error:
            return self._broken(c, tls, f"the stream is broken: {reason_of(error)}")
        if not tls.ahead:
            return self.on_end(c)        # and said again by the next read
        self._interest(c)
        return self._push(c, tls)

    cdef int _interest(self, Connection* c) except -1:
        cdef Tls tls
        Transport._interest(self, c)
        if c.tls != NULL and c.phase != DEAD and c.interest & EPOLLIN:
            tls = <Tls> c.tls
            if (tls.unread or tls.ahead) and not tls.queued:
                tls.queued = True
                self.reading.append(c.fd)
                self.reactor.mark_dirty(self)
        return 0

    cdef int flush(self) except -1:
        cdef Connection* c
        Transport.flush(self)
        while self.reading:
            reading = self.reading
            self.reading = []
            for fd in reading:
                c = self.find(fd)
                if c != NULL and c.tls != NULL:
                    (<Tls> c.tls).queued = False
                    self._read(c)
            Transport.flush(self)
        return 0

    cdef int _refuse_plaintext(self, Connection* c) except -1:
        self._drop_tls(c)
        self.counters.tls_failed += 1
        self._report(c, "it does not speak TLS")
        self.write(c, <const uint8_t*> PyBytes_AS_STRING(PLAIN), len(PLAIN), NULL, 0)
        blame(c, W_TLS_FAILED)
        self._decide(c, BY_SERVER, 1006, b"TLS: it does not speak TLS")
        c.flags |= END_WHEN_WRITTEN | THEN_LINGER
        self._enter(c, CLOSING)
        self._await_end(c)
        return self._mark(c)

    cdef int _drop_tls(self, Connection* c) except -1:
        c.tls = NULL
        c.owed = 0
        del self.tls[c.fd]
        return 0

    cdef int _report(self, Connection* c, str why) except -1:
        if self.on_tls_failed is not None:
            self.on_tls_failed(address_text(c.entry.family, c.entry.address), why)
        return 0

    cdef int _broken(self, Connection* c, Tls tls, str why) except -1:
        """It cannot go on. The alert that says so is behind what is encrypted already; the rest can't be sent any more.
        Then it lingers, since a reset could overtake the alert."""
        cdef bytes last
        self.counters.tls_failed += 1
        self._report(c, why)
        tls.collect()
        last = tls.unsent[tls.at:]
        self._drop_tls(c)
        blame(c, W_TLS_FAILED)
        if c.phase >= LINGER:
            return self._gone(c, 1006, f"TLS: {why}".encode())
        self._decide(c, BY_SERVER, 1006, f"TLS: {why}".encode())
        buffer_free(&c.out)
        c.flags &= ~END_WHEN_WRITTEN
        self.write(c, <const uint8_t*> PyBytes_AS_STRING(last), len(last), NULL, 0)
        c.flags |= END_WHEN_WRITTEN | THEN_LINGER
        if c.phase != CLOSING:
            self._enter(c, CLOSING)
        self._await_end(c)
        self._interest(c)
        return self._mark(c)

    cdef int on_tls_late(self, Connection* c) except -1:
        self.counters.tls_failed += 1
        self._report(c, "the handshake took too long")
        blame(c, W_REQUEST_TIMEOUT)
        return self._gone(c, 1006, b"TLS: the handshake took too long")

    # ------------------------------------------------------------------ out

    cdef int _push(self, Connection* c, Tls tls) except -1:
        """What TLS itself has to say goes out with the next flush."""
        if c.phase == DEAD or c.tls == NULL:
            return 0
        tls.collect()
        c.owed = len(tls.unsent) - tls.at
        if c.owed > OWED and tls.covers == 0:
            return self._broken(c, tls, "it asks and does not read the answers")
        return self._mark(c) if c.owed and not c.flags & FULL else 0

    cdef int _offer(self, Connection* c) except -1:
        cdef Tls tls
        cdef size_t size, left
        cdef ssize_t sent
        if c.tls == NULL:
            return Transport._offer(self, c)
        tls = <Tls> c.tls
        while True:
            left = len(tls.unsent) - tls.at
            if left == 0:
                if tls.covers:
                    buffer_consume(&c.out, tls.covers)
                    c.boundary = c.boundary - tls.covers if c.boundary > tls.covers else 0
                    tls.covers = 0
                if buffer_size(&c.out) == 0 or tls.shaking:
                    break
                try:
                    size = self._encrypt(c, tls)
                except (ssl.SSLError, OSError):
                    return 1         # the peer has closed the session, or never opened it well
                if size < buffer_size(&c.out):
                    self.on_partial(c, size)
                    c.boundary += size
                else:
                    c.boundary = size
                tls.covers = size
                continue
            sent = mooring_send(c.socket, PyBytes_AS_STRING(tls.unsent) + tls.at, left, MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    return errno
                sent = 0
            c.entry.bytes_sent += sent
            self.counters.bytes_sent += sent
            tls.at += sent
            if <size_t> sent < left:
                c.flags |= FULL
                break
            tls.unsent = b""
            tls.at = 0
        # what covers a part of the queue is counted there
        c.owed = len(tls.unsent) - tls.at if tls.covers == 0 else 0
        return 0

    cdef size_t _encrypt(self, Connection* c, Tls tls) except? 0:
        """Encrypts the front of the queue; how much of it."""
        cdef size_t size = min(buffer_size(&c.out), <size_t> CHUNK)
        cdef size_t done = 0
        while done < size:           # one record at a time (RFC 8446 section 5.1: 2^14 bytes)
            done += tls.session.write(
                PyMemoryView_FromMemory(<char*> c.out.data + c.out.start + done, size - done, PyBUF_READ))
        tls.collect()
        return done

    cdef int _doom(self, Connection* c, int code, bytes reason) except -1:
        cdef Tls tls
        if c.tls != NULL and c.phase < LINGER:
            tls = <Tls> c.tls
            if buffer_size(&c.out) or <size_t> len(tls.unsent) > tls.at:
                self._drop_tls(c)        # a close_notify would say that this was all
        return Transport._doom(self, c, code, reason)

    cdef int _written(self, Connection* c) except -1:
        if c.tls != NULL:
            self._say_goodbye(<Tls> c.tls, c.socket)
        return Transport._written(self, c)

    cdef int _say_goodbye(self, Tls tls, int socket) except -1:
        """close_notify (RFC 8446 section 6.1), if the kernel takes it: it is the last thing said, and said once."""
        if tls.shaking or <size_t> len(tls.unsent) > tls.at:
            return 0                 # behind half a record it would be nonsense
        try:
            tls.session.unwrap()
        except (ssl.SSLError, OSError):
            pass                     # it waits for the peer's, which we need not
        tls.collect()
        if <size_t> len(tls.unsent) > tls.at:
            mooring_send(socket, PyBytes_AS_STRING(tls.unsent) + tls.at, len(tls.unsent) - tls.at, MSG_NOSIGNAL)
        tls.unsent = b""
        tls.at = 0
        return 0


cdef uint8_t version_of(object session) except? 0:
    version = session.version()
    return _TLS_VERSIONS.index(version) if version in _TLS_VERSIONS else 0


def reason_of(error: OSError) -> str:
    """Why OpenSSL gave up, without the names of its functions."""
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return str(reason).replace("_", " ").lower()
