"""The connections that there are: what is known of each, the id it has for the world, and how it ends.

Theory
------
A connection is a C struct in a slot: an idle one costs that struct and its entry in the table, no Python object and no
buffer. All stages of what is spoken keep their state of it in that one struct; what is rarer, in a dict by its fd.

* An fd is the number of the gateway, a serial and the slot. The serial never comes back, so neither does an fd; who
  asks for one that is gone finds nothing, whoever has the slot now.
* Its life is one enum, changed in one function (`_enter`), and it only moves forward:

      HTTP -> OPEN -> CLOSING -> LINGER -> DEAD        (any phase may be left out, none is entered twice)

* What it ends with is decided once (`_decide`): the first who wants it to end says why, ahead of that by `blame`, by a
  name that stays the same (Why), for its close record (closed.pyx).
* Handlers can run inside of calls from here (base mode), so any connection may be closed under our feet. One that ends
  is DEAD and out of its slot at once, but its memory goes at the end of the turn (`_bury`): who still has a pointer to
  it looks at the phase after every call to others.
* Limits and times are those of the listener it came from: its `profile`.

What comes and goes on its socket is the matter of a subclass, transport.pyx.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from enum import IntEnum

from mooring._core.admission cimport Admission
from mooring._core.buffer cimport buffer_free
from mooring._core.profile cimport Profile, fill_profile
from mooring._core.reactor cimport Reactor
from mooring._core.table cimport (
    GATEWAY_SHIFT, SERIAL_BITS, SLOT_BITS, ST_CLOSING, ST_HTTP, ST_OPEN, Entry, Table, address_text, slot_of,
)
from mooring._core.ws cimport decoder_free

cdef extern from "unistd.h" nogil:
    int c_close "close" (int fd)

cdef extern from *:
    """
    #define mooring_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    """
    void mooring_store(uint64_t* where, uint64_t value) noexcept nogil


cdef class Registry(Source):
    """The connections of gateway number `gateway`; `table` must be writable. MemoryError without memory for it.

    profiles: the options of each listener, by its index: max_message, max_fragments, write_limit, high_water (bytes),
    request_timeout, idle_timeout, write_timeout, close_timeout, ping_interval (0: never), pong_timeout,
    heartbeat_idle_time (seconds; 0: any time),
    control_limit (frames), open_ping, open_pong, open_close (hand these frames to the application).
    preface, preface_timeout (seconds): an object with admits(), parse() and refused(), see gateway/preface.py, when
    connections begin with a header of a proxy.
    message_rate, message_burst (messages a second, and at once; 0: any number).
    address_limit: connections of one address; fresh_limit: those of them without an answered request; 0: any number.
    """

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        cdef uint32_t slot
        self.table = table
        self.slot_count = table.slots
        self.gateway = gateway
        self.serial = <uint64_t> first_serial & ((<uint64_t> 1 << SERIAL_BITS) - 1)
        self.reasons = {}
        self.admission = Admission(address_limit, fresh_limit)
        self.slots = <Connection**> calloc(self.slot_count, sizeof(Connection*))
        self.free_slots = <uint32_t*> malloc(self.slot_count * sizeof(uint32_t))
        self.profiles = <Profile*> calloc(len(profiles), sizeof(Profile))
        if self.slots == NULL or self.free_slots == NULL or self.profiles == NULL:
            raise MemoryError("no memory for the table of connections")
        for index, options in enumerate(profiles):
            fill_profile(&self.profiles[index], index, options)
        self.listeners = len(profiles)
        for slot in range(self.slot_count):
            self.free_slots[slot] = <uint32_t> (self.slot_count - 1 - slot)
        self.free_count = self.slot_count

    def __dealloc__(self) -> None:
        # `table` may be cleared by now: an object in a circle loses its references before this
        cdef uint32_t slot
        if self.slots != NULL:
            for slot in range(self.slot_count):
                if self.slots[slot] != NULL:
                    c_close(self.slots[slot].socket)
                    buffer_free(&self.slots[slot].out)
                    buffer_free(&self.slots[slot].held)
                    decoder_free(&self.slots[slot].decoder)
                    free(self.slots[slot].topics)
                    path_free(self.slots[slot])
                    free(self.slots[slot])
        self._bury()
        free(self.slots)
        free(self.free_slots)
        free(self.profiles)

    def abandon(self) -> None:
        """In a forked child, whose reactor was abandoned before: gives the sockets back. Nobody is told of it."""
        cdef uint32_t slot
        for slot in range(self.slot_count):
            if self.slots[slot] != NULL and self.slots[slot].socket >= 0:
                c_close(self.slots[slot].socket)
                self.slots[slot].socket = -1

    cdef int _bury(self) noexcept:
        """At the end of a turn: nobody has a pointer to a dead one any more."""
        cdef Connection* c
        while self.graves != NULL:
            c = self.graves
            self.graves = c.next_grave
            free(c)
        return 0

    cdef Connection* find(self, uint64_t fd) noexcept:
        """The connection with this public id, or NULL: an id is never given out twice."""
        cdef uint32_t slot = slot_of(fd)
        cdef Connection* c
        if slot >= self.slot_count:
            return NULL
        c = self.slots[slot]
        return c if c != NULL and c.fd == fd else NULL

    cdef list greediest(self):
        cdef uint32_t slot
        cdef Connection* c
        found = []
        for slot in range(self.used):
            c = self.slots[slot]
            if c != NULL and c.phase <= CLOSING and c.counted + c.gathered:
                found.append((c.counted + c.gathered, c.fd))
        found.sort(reverse=True)
        return [fd for _, fd in found]

    cdef int _say_room(self) noexcept:
        if self.rooms is not None:
            self.rooms.say(self.gateway, 0 if self.closed else self.free_count, self.reactor.now)
        return 0

    def say_room(self) -> None:
        """Says again how many connections can still be taken, which the other gateways believe for a while only."""
        self._say_room()

    @property
    def free(self) -> int:
        """How many connections can still be taken."""
        return self.free_count

    cdef Connection* _occupy(self, int socket, int family, const uint8_t* address, int remote_port, int server_port,
                             int listener) except NULL:
        """A new connection; the socket is its own. The caller has looked whether there is a free slot."""
        cdef uint32_t slot
        cdef Connection* c
        cdef Entry* entry
        c = <Connection*> calloc(1, sizeof(Connection))
        if c == NULL:
            c_close(socket)
            raise MemoryError("no memory for a connection")
        # the one that was freed last: so no more of the table is ever touched than there were connections at one time
        self.free_count -= 1
        self._say_room()
        slot = self.free_slots[self.free_count]
        self.slots[slot] = c
        self.serial = (self.serial + 1) & ((<uint64_t> 1 << SERIAL_BITS) - 1)
        c.fd = (<uint64_t> self.gateway << GATEWAY_SHIFT) | (self.serial << SLOT_BITS) | slot
        c.socket = socket
        c.profile = &self.profiles[listener]
        c.worker_end = NO_WORKER_END
        entry = &self.table.entries[slot]
        entry.state = ST_HTTP
        entry.family = family
        entry.remote_port = remote_port
        entry.server_port = server_port
        entry.listener = listener
        entry.worker = entry.owner = 0
        entry.in_flight = 0
        entry.round_trip = 0
        entry.opened = entry.spawned = 0
        entry.user = 0
        memcpy(entry.address, address, 16)
        entry.connected = entry.received = self.reactor.now
        entry.bytes_received = entry.bytes_sent = 0
        entry.messages_received = entry.messages_sent = 0
        c.entry = entry
        if slot >= self.used:
            self.used = self.table.header.used = slot + 1
        mooring_store(&entry.fd, c.fd)
        self.count += 1
        c.phase = HTTP
        return c

    cdef int _vacate(self, Connection* c) except -1:
        """The end of one that is DEAD: the slot is free, the fd unknown. What it had on its socket is gone already."""
        cdef uint32_t slot = slot_of(c.fd)
        c.next_grave = self.graves
        self.graves = c
        self.settle(c)
        if c.flags & COUNTED:
            self.admission.release(c.entry.family, c.entry.address)
        self.slots[slot] = NULL
        self.free_slots[self.free_count] = slot
        self.free_count += 1
        self._say_room()
        self.count -= 1
        mooring_store(&c.entry.fd, 0)
        return 0

    cdef int _count(self, Connection* c) except -1:
        """One more of this address; `_vacate` takes it back."""
        if self.admission.enter(c.entry.family, c.entry.address):
            c.flags |= UNANSWERED | COUNTED
        return 0

    cdef int settle(self, Connection* c) except -1:
        if c.flags & UNANSWERED:
            c.flags &= ~UNANSWERED
            self.admission.settle(c.entry.family, c.entry.address)
        return 0

    cdef int _enter(self, Connection* c, Phase phase) except -1:
        """The one place where a phase changes: forward only."""
        if phase <= c.phase:
            raise AssertionError(f"connection {c.fd}: phase {c.phase} -> {phase}")
        c.phase = phase
        if phase == OPEN:
            c.entry.state = ST_OPEN
        elif phase < DEAD:
            c.entry.state = ST_CLOSING
        return 0

    cdef int _decide(self, Connection* c, By by, int code, bytes reason) except -1:
        if c.close_code == 0:
            if c.why == W_UNKNOWN and by != BY_SERVER:
                c.why = W_APPLICATION_CLOSED if by == BY_APPLICATION else W_CLIENT_ENDED
            c.stage = _stage_of(c)
            c.close_code = code
            c.closed_by = by
            self.reasons[c.fd] = reason
        return 0

    # ------------------------------------------------------------------ for the gateway

    def listener(self, fd: int) -> int:
        """Index of the listener it came from; 0 for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        return c.profile.index if c != NULL else 0

    def peer(self, fd: int) -> tuple[str, int, int]:
        """(remote address, remote port, our port); empty for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        if c == NULL:
            return "", 0, 0
        return address_text(c.entry.family, c.entry.address), c.entry.remote_port, c.entry.server_port


cdef Stage _stage_of(const Connection* c) noexcept:
    if c.flags & (PREFACE | SHAKING):
        return STAGE_CONNECTING
    if c.phase != HTTP:
        return STAGE_OPEN if c.phase == OPEN else STAGE_CLOSING
    if c.flags & BUSY:
        return STAGE_HANDLING
    return STAGE_IDLE if c.requests else STAGE_REQUEST


class Cause(IntEnum):
    """What has ended a connection; types.CAUSES has the names in small letters, and what each means."""

    UNKNOWN = W_UNKNOWN
    CLIENT_CLOSED = W_CLIENT_CLOSED
    CLIENT_ENDED = W_CLIENT_ENDED
    CLIENT_RESET = W_CLIENT_RESET
    APPLICATION_CLOSED = W_APPLICATION_CLOSED
    HANDLER_FAILED = W_HANDLER_FAILED
    MESSAGE_REFUSED = W_MESSAGE_REFUSED
    HANDSHAKE_REFUSED = W_HANDSHAKE_REFUSED
    ANSWERED = W_ANSWERED
    BAD_REQUEST = W_BAD_REQUEST
    BAD_HOST = W_BAD_HOST
    BAD_HANDSHAKE = W_BAD_HANDSHAKE
    BAD_PROXY_HEADER = W_BAD_PROXY_HEADER
    TLS_FAILED = W_TLS_FAILED
    PROTOCOL_ERROR = W_PROTOCOL_ERROR
    INVALID_DATA = W_INVALID_DATA
    MESSAGE_TOO_BIG = W_MESSAGE_TOO_BIG
    TOO_MANY_PINGS = W_TOO_MANY_PINGS
    TOO_MANY_CONNECTIONS = W_TOO_MANY_CONNECTIONS
    REQUEST_TIMEOUT = W_REQUEST_TIMEOUT
    KEEPALIVE_TIMEOUT = W_KEEPALIVE_TIMEOUT
    HANDSHAKE_TIMEOUT = W_HANDSHAKE_TIMEOUT
    PING_TIMEOUT = W_PING_TIMEOUT
    HEARTBEAT_TIMEOUT = W_HEARTBEAT_TIMEOUT
    SLOW_CONSUMER = W_SLOW_CONSUMER
    MEMORY_FULL = W_MEMORY_FULL
    SERVER_FULL = W_SERVER_FULL
    SHUTDOWN = W_SHUTDOWN
    WORKER_LOST = W_WORKER_LOST
    NO_WORKER = W_NO_WORKER
    STANDSTILL = W_STANDSTILL
    FILE_BROKEN = W_FILE_BROKEN
    OUT_OF_MEMORY = W_OUT_OF_MEMORY
    SERVER_ERROR = W_SERVER_ERROR
    GATEWAY_LOST = W_GATEWAY_LOST
