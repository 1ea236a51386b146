"""Which connections of a gateway are wanted, out of very many: a filter and an order, and the first few of them.

Whoever looks at a server with 100,000 connections wants those of one room, or the ten slowest. So they are found where
they are: one walk over the connections, without a Python object for any that is not among the answer, and a heap that
keeps the `limit` best so far. One that does not fit costs the gateway a few comparisons, and no memory grows with their
number; `limit` is bounded by who asks. Several gateways answer each for itself, and the one who asked merges.

Ten thousand rows are more than a turn has time for. So a long list is asked for in two steps: which connections in
which order, 32 bytes each (`brief`), and then a few rows at a time (`rows`). The order is that of the moment of the
first step, and who has left until its row is asked for is not in the list.

A rate needs two looks. The first time that one is asked for, the counts of all connections are noted; later ones are
compared with these, and noted anew when a second has passed. Nobody asks for a while: they are forgotten.

The path that a WebSocket was opened for is kept here, too, in plain memory: up to PATH_LIMIT bytes of it.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.math cimport INFINITY
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from mooring._core.buffer cimport buffer_size
from mooring._core.websocket cimport WebSockets
from mooring._core.hub cimport Hub, Topic
from mooring._core.registry cimport Connection, path_free, path_of
from mooring._core.table cimport Entry, slot_of

from mooring._core.wire import USER as _USER

PATH_LIMIT = 255
SORTS = ("age", "idle", "messages", "bytes", "queued", "rtt", "rate")
cdef uint64_t SAMPLE_MS = 1000           # of a rate, at least
FORGET = 30.0                            # seconds after the last question for rates

cdef enum Sort:
    BY_AGE
    BY_IDLE
    BY_MESSAGES
    BY_BYTES
    BY_QUEUED
    BY_RTT
    BY_RATE


cdef struct Wanted:
    # what a connection must be; 0 or NULL: anything
    uint64_t fd
    const uint8_t* path
    size_t path_size
    bint path_prefix                     # it begins so
    int family                           # of the network: 4, 6
    uint8_t network[16]
    int bits                             # of the network that count
    void* user                           # Topics
    void* topic
    uint32_t worker                      # number + 1
    uint8_t state
    uint64_t older, younger, idle        # milliseconds


cdef struct Found:
    double key                           # the larger, the better
    uint64_t fd
    uint64_t tie                         # the smaller comes first among equals: fd, or ~fd in the other order
    uint32_t slot


cdef struct Brief:
    # what a long list consists of
    double key
    uint64_t fd
    double messages, bytes               # a second; -1: not asked for


cdef struct Sample:
    uint64_t fd
    uint64_t messages
    uint64_t bytes


cdef inline uint64_t _since(uint64_t now, uint64_t then) noexcept nogil:
    return now - then if now > then else 0


cdef inline bint _worse(const Found* one, const Found* other) noexcept nogil:
    return one.key < other.key or (one.key == other.key and one.tie > other.tie)


cdef class Finder:
    """Of one gateway."""

    cdef WebSockets connections
    cdef Hub hub
    cdef Sample* samples                 # by slot; NULL: nobody asks for rates
    cdef uint64_t sampled                # milliseconds
    cdef uint64_t asked                  # likewise: when rates were asked for last
    cdef bint forgets                    # it looks whether to forget them

    def __cinit__(self, connections: WebSockets, hub: Hub) -> None:
        self.connections = connections
        self.hub = hub

    def __dealloc__(self) -> None:
        free(self.samples)

    def note_path(self, fd: int, path: bytes) -> None:
        """The path that this connection is opened for."""
        cdef Connection* c = self.connections.find(fd)
        cdef size_t size = min(len(path), PATH_LIMIT)
        if c == NULL or size == 0:
            return
        path_free(c)
        if size > sizeof(c.path.near):
            c.path.far = <uint8_t*> malloc(size)
            if c.path.far == NULL:
                raise MemoryError("no memory for a path")
        c.path_size = <uint8_t> size
        memcpy(<uint8_t*> path_of(c), <const uint8_t*> path, size)

    def find(
        self, *, fd: int = 0, path: bytes = b"", prefix: bool = False, family: int = 0, network: bytes = b"",
        bits: int = 0, user: bytes = b"", topic: bytes = b"", worker: int = -1, state: int = 0, older: int = 0,
        younger: int = 0, idle: int = 0, sort: str = "age", reverse: bool = False, limit: int = 0, brief: bool = False,
    ) -> tuple[int, list[tuple] | bytes]:
        """How many there are, and the `limit` that come first in order: each as (key, fd, seconds since it is
        connected, seconds since something came, path, user, number of topics, bytes queued, messages per second, bytes
        per second). Rates are None unless asked for by `sort`.

        The key is larger for who comes first. `older`, `younger` and `idle` are milliseconds. With `brief` only key, fd
        and rates, packed in order.
        """
        cdef Wanted wanted
        cdef int by = SORTS.index(sort)
        cdef bint backwards = reverse
        cdef uint32_t slot, count, room = min(limit, self.connections.slot_count)
        cdef uint64_t total = 0, now = self.connections.reactor.now
        cdef Found* heap
        wanted.fd = fd
        wanted.path = NULL
        if path or prefix:
            wanted.path = path
        wanted.path_size = len(path)
        wanted.path_prefix = prefix
        wanted.family = family
        wanted.bits = bits
        if family and (len(network) != (4 if family == 4 else 16) or not 0 <= bits <= len(network) * 8):
            raise ValueError(f"a network of family {family} with {len(network)} bytes and {bits} bits")
        memcpy(wanted.network, <const uint8_t*> network, len(network) if family else 0)
        if not self._find_groups(&wanted, user, topic):
            return 0, b"" if brief else []
        wanted.worker = <uint32_t> (worker + 1)
        wanted.state = <uint8_t> state
        wanted.older, wanted.younger, wanted.idle = older, younger, idle
        heap = <Found*> malloc((room + 1) * sizeof(Found))
        if heap == NULL:
            raise MemoryError("no memory to find connections")
        try:
            count = self._walk(&wanted, heap, room, by, backwards, now, &total)
            if brief:
                rows = self._brief(heap, count, by == BY_RATE, now)
            else:
                rows = [self._row(&heap[slot], by == BY_RATE, now) for slot in range(count)]
        finally:
            free(heap)
        if by == BY_RATE:
            self._sample(now)
        if not brief:
            rows.sort(key=_order_backwards if backwards else _order)
        return total, rows

    cdef bint _find_groups(self, Wanted* wanted, bytes user, bytes topic) except -1:
        """Whose user and in which topic it must be; whether there are any."""
        cdef Topic group
        wanted.user = wanted.topic = NULL
        if user:
            group = self.hub.topics.get(_USER + user)
            if group is None:
                return False
            wanted.user = <void*> group
        if topic:
            group = self.hub.topics.get(topic)
            if group is None:
                return False
            wanted.topic = <void*> group
        return True

    cdef uint32_t _walk(
        self, const Wanted* wanted, Found* heap, uint32_t room, int by, bint backwards, uint64_t now, uint64_t* total
    ) noexcept:
        """Looks at all connections: how many are in the heap, the worst of them at the top; in `total` how many fit."""
        cdef Connection* c
        cdef Found one
        cdef uint32_t slot, count = 0
        for slot in range(self.connections.used):
            c = self.connections.slots[slot]
            if c == NULL or not _fits(c, wanted, now):
                continue
            total[0] += 1
            one.key = self._key(c, slot, by, backwards, now)
            one.fd = c.fd
            one.tie = ~c.fd if backwards else c.fd
            one.slot = slot
            if count < room:
                heap[count] = one
                count += 1
                _up(heap, count - 1)
            elif room and _worse(&heap[0], &one):
                heap[0] = one
                _down(heap, count, 0)
        return count

    cdef bytes _brief(self, Found* heap, uint32_t count, bint with_rates, uint64_t now):
        cdef uint32_t place
        cdef Found one
        cdef Brief row
        cdef bytearray packed = bytearray(count * sizeof(Brief))
        cdef uint8_t* to = <uint8_t*> PyByteArray_AS_STRING(packed)
        for place in range(count, 1, -1):        # the worst one is at the top, and goes to the end
            one = heap[0]
            heap[0] = heap[place - 1]
            _down(heap, place - 1, 0)
            heap[place - 1] = one
        for place in range(count):
            row.key = heap[place].key
            row.fd = heap[place].fd
            row.messages = row.bytes = -1
            if with_rates:
                self._rates(self.connections.slots[heap[place].slot], heap[place].slot, now, &row.messages, &row.bytes)
            memcpy(to + place * sizeof(Brief), &row, sizeof(Brief))
        return bytes(packed)

    def rows(self, fds: list[int]) -> list[tuple]:
        """Those of these connections that are there, as `find` gives them, with a key of 0."""
        cdef Connection* c
        cdef Found found
        cdef uint64_t fd
        rows = []
        found.key = 0
        for fd in fds:
            c = self.connections.find(fd)
            if c != NULL:
                found.fd = fd
                found.slot = slot_of(fd)
                rows.append(self._row(&found, False, self.connections.reactor.now))
        return rows

    cdef double _key(self, const Connection* c, uint32_t slot, int by, bint backwards, uint64_t now) noexcept:
        cdef const Entry* entry = c.entry
        cdef double key, bytes_
        if by == BY_AGE:
            key = -<double> entry.connected      # not the difference: gateways are not asked at the same moment
        elif by == BY_IDLE:
            key = -<double> entry.received
        elif by == BY_MESSAGES:
            key = <double> entry.messages_received + entry.messages_sent
        elif by == BY_BYTES:
            key = <double> entry.bytes_received + entry.bytes_sent
        elif by == BY_QUEUED:
            key = <double> buffer_size(&c.out)
        elif by == BY_RTT:
            if entry.round_trip == 0:
                return -INFINITY             # not measured: last in either order
            key = entry.round_trip
        else:
            self._rates(c, slot, now, &key, &bytes_)
        return -key if backwards else key

    cdef void _rates(self, const Connection* c, uint32_t slot, uint64_t now, double* messages, double* bytes_) noexcept:
        """Since the last sample, or since it is connected if that is later."""
        cdef const Entry* entry = c.entry
        cdef double ms
        messages[0] = <double> entry.messages_received + entry.messages_sent
        bytes_[0] = <double> entry.bytes_received + entry.bytes_sent
        if self.samples != NULL and self.samples[slot].fd == c.fd:
            messages[0] -= self.samples[slot].messages
            bytes_[0] -= self.samples[slot].bytes
            ms = now - self.sampled
        else:
            ms = _since(now, entry.connected)
        ms = max(ms, 1.0)
        messages[0] *= 1000 / ms
        bytes_[0] *= 1000 / ms

    cdef tuple _row(self, const Found* found, bint with_rates, uint64_t now):
        cdef Connection* c = self.connections.slots[found.slot]
        cdef double messages, bytes_
        rates = (None, None)
        if with_rates:
            self._rates(c, found.slot, now, &messages, &bytes_)
            rates = (messages, bytes_)
        path = path_of(c)[:c.path_size]
        user = self.hub.user_of(c)
        age = _since(now, c.entry.connected) / 1000.0
        idle = _since(now, c.entry.received) / 1000.0
        return found.key, found.fd, age, idle, path, user, c.topic_count - bool(user), buffer_size(&c.out), *rates

    cdef int _sample(self, uint64_t now) except -1:
        cdef uint32_t slot
        cdef const Connection* c
        self.asked = now
        if self.samples == NULL:
            self.samples = <Sample*> calloc(self.connections.slot_count, sizeof(Sample))
            if self.samples == NULL:
                raise MemoryError("no memory for the rates of connections")
        elif now - self.sampled < SAMPLE_MS:
            return 0
        self.sampled = now
        for slot in range(self.connections.used):
            c = self.connections.slots[slot]
            if c != NULL:
                self.samples[slot].fd = c.fd
                self.samples[slot].messages = <uint64_t> c.entry.messages_received + c.entry.messages_sent
                self.samples[slot].bytes = c.entry.bytes_received + c.entry.bytes_sent
        if not self.forgets:
            self.forgets = True
            self.connections.reactor.call_later(FORGET, self.forget)
        return 0

    def forget(self) -> None:
        """Gives the samples back when nobody has asked for long."""
        self.forgets = self.connections.reactor.now - self.asked < FORGET * 1000
        if self.forgets:
            self.connections.reactor.call_later(FORGET, self.forget)
        else:
            free(self.samples)
            self.samples = NULL


def _order(row: tuple) -> tuple[float, int]:
    return -row[0], row[1]


def _order_backwards(row: tuple) -> tuple[float, int]:
    return -row[0], -row[1]


cdef bint _fits(const Connection* c, const Wanted* wanted, uint64_t now) noexcept:
    cdef const Entry* entry = c.entry
    if wanted.fd and c.fd != wanted.fd:
        return False
    if wanted.state and entry.state != wanted.state:
        return False
    if wanted.worker and entry.worker != wanted.worker:
        return False
    if wanted.older and _since(now, entry.connected) < wanted.older:
        return False
    if wanted.younger and _since(now, entry.connected) >= wanted.younger:
        return False
    if wanted.idle and _since(now, entry.received) < wanted.idle:
        return False
    if wanted.path != NULL:
        if c.path_size == 0 or c.path_size < wanted.path_size:
            return False
        if not wanted.path_prefix and c.path_size > wanted.path_size:
            return False
        if memcmp(path_of(c), wanted.path, wanted.path_size) != 0:
            return False
    if wanted.family and not _in_network(entry, wanted):
        return False
    if wanted.user != NULL and not _is_member(c, wanted.user):
        return False
    return wanted.topic == NULL or _is_member(c, wanted.topic)


cdef bint _in_network(const Entry* entry, const Wanted* wanted) noexcept:
    cdef int whole = wanted.bits // 8
    cdef int rest = wanted.bits % 8
    if entry.family != wanted.family or memcmp(entry.address, wanted.network, whole) != 0:
        return False
    return rest == 0 or (entry.address[whole] ^ wanted.network[whole]) >> (8 - rest) == 0


cdef bint _is_member(const Connection* c, const void* topic) noexcept:
    cdef int i
    for i in range(c.topic_count):
        if c.topics[i].topic == topic:
            return True
    return False


cdef void _up(Found* heap, uint32_t place) noexcept:
    """The worst is at the top."""
    cdef uint32_t above
    cdef Found one = heap[place]
    while place:
        above = (place - 1) // 2
        if not _worse(&one, &heap[above]):
            break
        heap[place] = heap[above]
        place = above
    heap[place] = one


cdef void _down(Found* heap, uint32_t count, uint32_t place) noexcept:
    cdef uint32_t below
    cdef Found one = heap[place]
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and _worse(&heap[below + 1], &heap[below]):
            below += 1
        if not _worse(&heap[below], &one):
            break
        heap[place] = heap[below]
        place = below
    heap[place] = one
