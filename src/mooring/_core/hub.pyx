"""Topics: who is subscribed, and the fan-out of one frame.

A topic is an array of subscribers, a connection has an array of its subscriptions, and each side knows the other's
index: to subscribe and to unsubscribe cost the same whatever the topic's size, and a publish walks one array. The
frame's header is encoded once; a subscriber costs a copy into its out-queue. A subscriber that is slow is closed by its
connection's own limit and keeps nobody waiting; it is taken out when the connection is gone, which is never while a
publish walks the array. Who is left out (`exclude`) is found by its subscriptions before the walk, which then only
steps over a few places.

Who lists a large topic does so in parts, each of which walks a piece of the array from its end to its beginning: what
takes the place of a subscriber that leaves comes from the end, so it has been listed already, and nobody who stays is
missed.

A user is a topic, too: all connections bound to one user id. Its name begins with an octet that no text in UTF-8 has
(RFC 3629 section 3), so no topic of the application can be taken for one; a connection is in one of them at most.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport UINT16_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from mooring._core.buffer cimport buffer_size
from mooring._core.websocket cimport WebSockets
from mooring._core.deflate cimport Deflate
from mooring._core.registry cimport OPEN, Connection, Membership
from mooring._core.ws cimport RSV1, SERVER_HEADER_LIMIT, encode_header

from mooring._core.wire import USER as _USER

ALL_PLACES = 0xFFFFFFFF
cdef enum:
    LISTED = 32768       # subscribers that one part of a list looks at: half a millisecond of work
cdef uint32_t NO_PLACE = 0xFFFFFFFF


cdef inline bint _is_user(bytes name) noexcept:
    return <uint8_t> name[0] == 0xFF


cdef class Topic:

    def __dealloc__(self) -> None:
        free(self.subscribers)


cdef class Hub:
    """The topics of one gateway; a connection may be in `limit` of them."""

    def __cinit__(self, connections: WebSockets, limit: int) -> None:
        self.connections = connections
        self.topics = {}
        self.limit = limit

    cdef int subscribe(self, Connection* c, bytes name) except -1:
        """0: it is in too many topics."""
        cdef int limit = self.limit
        if c.topic_count >= limit and self.user_of(c):
            limit += 1               # the user is none of them
        return self._join(c, name, limit)

    cdef int bind(self, Connection* c, bytes user) except -1:
        """Makes it a connection of this user, and of no other; empty: of none."""
        cdef int i
        cdef bytes name = _USER + user
        for i in range(c.topic_count):
            if _is_user((<Topic> c.topics[i].topic).name):
                if (<Topic> c.topics[i].topic).name == name:
                    return 1
                self._remove(c, i)
                break
        return self._join(c, name, UINT16_MAX) if user else 1

    cdef bytes user_of(self, Connection* c):
        """The user id it is bound to; empty for none."""
        cdef int i
        for i in range(c.topic_count):
            if _is_user((<Topic> c.topics[i].topic).name):
                return (<Topic> c.topics[i].topic).name[1:]
        return b""

    cdef int _join(self, Connection* c, bytes name, int limit) except -1:
        cdef Topic topic = self.topics.get(name)
        cdef Subscriber* subscribers
        cdef Membership* topics
        cdef int i
        cdef uint32_t capacity
        if topic is not None:
            for i in range(c.topic_count):
                if c.topics[i].topic == <void*> topic:
                    return 1
        if c.topic_count >= limit:
            return 0
        if topic is None:
            topic = Topic()
            topic.name = name
            self.users += _is_user(name)
        if topic.count == topic.capacity:
            capacity = topic.capacity * 2 or 4
            subscribers = <Subscriber*> realloc(topic.subscribers, capacity * sizeof(Subscriber))
            if subscribers == NULL:
                raise MemoryError("no memory for a topic")
            topic.subscribers = subscribers
            topic.capacity = capacity
        if c.topic_count == c.topic_capacity:
            capacity = c.topic_capacity * 2 or 2
            topics = <Membership*> realloc(c.topics, capacity * sizeof(Membership))
            if topics == NULL:
                raise MemoryError("no memory for a subscription")
            c.topics = topics
            c.topic_capacity = capacity
        self.topics[name] = topic
        topic.subscribers[topic.count].connection = c
        topic.subscribers[topic.count].place = c.topic_count
        c.topics[c.topic_count].topic = <void*> topic
        c.topics[c.topic_count].index = topic.count
        topic.count += 1
        c.topic_count += 1
        return 1

    cdef int _remove(self, Connection* c, int place) except -1:
        """Ends subscription number `place` of c: the last one of each array moves into the gap."""
        cdef Topic topic = <Topic> c.topics[place].topic
        cdef uint32_t index = c.topics[place].index
        cdef Subscriber* moved
        topic.count -= 1
        if index < topic.count:
            topic.subscribers[index] = topic.subscribers[topic.count]
            moved = &topic.subscribers[index]
            moved.connection.topics[moved.place].index = index
        c.topic_count -= 1
        if place < c.topic_count:
            c.topics[place] = c.topics[c.topic_count]
            (<Topic> c.topics[place].topic).subscribers[c.topics[place].index].place = place
        if topic.count == 0:
            del self.topics[topic.name]
            self.users -= _is_user(topic.name)
            if topic.followed:
                self.on_left(topic.name)
        return 0

    cdef bint is_in(self, Connection* c, bytes name) except -1:
        cdef Topic topic = self.topics.get(name)
        cdef int i
        if topic is not None:
            for i in range(c.topic_count):
                if c.topics[i].topic == <void*> topic:
                    return True
        return False

    cdef int unsubscribe(self, Connection* c, bytes name) except -1:
        cdef Topic topic = self.topics.get(name)
        cdef int i
        if topic is not None:
            for i in range(c.topic_count):
                if c.topics[i].topic == <void*> topic:
                    self._remove(c, i)
                    return 1
        return 0

    cdef int unsubscribe_all(self, Connection* c) except -1:
        while c.topic_count:
            self._remove(c, c.topic_count - 1)
        return 0

    cdef list _places(self, Topic topic, const uint8_t* fds, uint32_t count):
        """Where in the topic's array these are, the last one first."""
        cdef set found = set()
        cdef uint32_t i
        cdef int k
        cdef uint64_t fd
        cdef Connection* c
        for i in range(count):
            memcpy(&fd, fds + i * sizeof(uint64_t), sizeof(uint64_t))
            c = self.connections.find(fd)
            if c == NULL:
                continue             # of another gateway, or gone
            for k in range(c.topic_count):
                if c.topics[k].topic == <void*> topic:
                    found.add(c.topics[k].index)
                    break
        return sorted(found, reverse=True)

    cdef int publish(self, bytes name, int opcode, const uint8_t* data, size_t size, const uint8_t* excluded,
                     uint32_t excluded_count) except -1:
        cdef Topic topic = self.topics.get(name)
        cdef uint8_t header[SERVER_HEADER_LIMIT]
        cdef size_t header_size
        cdef uint32_t i
        cdef uint32_t skip = NO_PLACE
        cdef list places = None
        cdef int reached = 0
        cdef Connection* c
        cdef Deflate deflate
        cdef dict compressed = {}    # by who compresses: once for all connections that share a compressor
        cdef bytes payload
        if topic is None:
            return 0
        if excluded_count:
            places = self._places(topic, excluded, excluded_count)
            skip = places.pop() if places else NO_PLACE
        header_size = encode_header(header, opcode, True, size)
        for i in range(topic.count):
            if i == skip:
                skip = places.pop() if places else NO_PLACE
                continue
            c = topic.subscribers[i].connection
            if c.phase != OPEN:
                continue
            if c.deflate != NULL:
                deflate = <Deflate> c.deflate
                if deflate not in compressed:
                    compressed[deflate] = self.connections.deflated(c, data, size)
                payload = compressed[deflate]
                if payload is not None:
                    reached += self._deliver_compressed(c, opcode, payload)
                    continue
            if self.connections.write(c, header, header_size, data, size):
                c.entry.messages_sent += 1
                reached += 1
        self.connections.counters.messages_sent += reached
        return reached

    cdef int _deliver_compressed(self, Connection* c, int opcode, bytes payload) except -1:
        cdef uint8_t header[SERVER_HEADER_LIMIT]
        cdef size_t size = len(payload)
        if not self.connections.write(c, header, encode_header(header, opcode | RSV1, True, size), payload, size):
            return 0
        c.entry.messages_sent += 1
        return 1

    def can_enter(self, fd: int, name: bytes) -> bool | None:
        """Whether a connection may hear a topic. None: there is no such open WebSocket."""
        cdef Connection* c = self.connections.find(fd)
        if c == NULL or c.phase != OPEN:
            return None
        if c.topic_count < self.limit or self.is_in(c, name):
            return True
        return c.topic_count == self.limit and len(self.user_of(c)) > 0

    def send(self, fd: int, missed: object) -> bool | None:
        """(offset, opcode, data) of each. Whether there is room for more; None: there is no such open WebSocket, or no
        longer."""
        cdef Connection* c
        cdef bytes data
        for _, opcode, data in missed:
            c = self.connections.find(fd)
            if c == NULL or not self.connections.send(c, opcode, data, len(data)):
                return None
        c = self.connections.find(fd)
        if c == NULL or c.phase != OPEN:
            return None
        return buffer_size(&c.out) <= c.profile.high_water

    def enter(self, fd: int, name: bytes) -> bool:
        """Has a connection hear a topic; `on_left` tells when nobody does any more. False: it is in too many, or no
        open WebSocket."""
        cdef Connection* c = self.connections.find(fd)
        if c == NULL or c.phase != OPEN or not self.subscribe(c, name):
            return False
        (<Topic> self.topics[name]).followed = True
        return True

    def leave(self, fd: int, name: bytes) -> None:
        """Has it hear the topic no more."""
        cdef Connection* c = self.connections.find(fd)
        if c != NULL and c.phase == OPEN:
            self.unsubscribe(c, name)

    def spread(self, name: bytes, opcode: int, data: bytes, excluded: bytes) -> bool:
        """publish(), from Python; `excluded`: fds, 8 bytes each. Whether anybody hears the topic."""
        if name not in self.topics:
            return False
        self.publish(name, opcode, data, len(data), excluded, <uint32_t> (len(excluded) // sizeof(uint64_t)))
        return True

    def has(self, name: bytes) -> bool:
        """Whether anybody hears the topic."""
        return name in self.topics

    def all_subscribers(self, name: bytes) -> list[int]:
        """fds of the connections in a topic; of a user's: wire.USER + id."""
        cdef Topic topic = self.topics.get(name)
        cdef uint32_t i
        return [] if topic is None else [topic.subscribers[i].connection.fd for i in range(topic.count)]

    def subscribers(self, name: bytes, before: int, most: int = LISTED) -> bytes:
        """A part of the fds of a topic's open WebSockets, 8 bytes each, behind the number to give as `before` for the
        next part; 0: this was the last one. For the first part it is ALL_PLACES. A part looks at `most` subscribers."""
        cdef Topic topic = self.topics.get(name)
        cdef uint64_t end = min(<uint64_t> before, <uint64_t> topic.count) if topic is not None else 0
        cdef uint64_t start = end - <uint64_t> most if end > <uint64_t> most else 0
        cdef bytes part = PyBytes_FromStringAndSize(NULL, (1 + end - start) * sizeof(uint64_t))
        cdef uint8_t* to = <uint8_t*> PyBytes_AS_STRING(part)
        cdef size_t used = sizeof(uint64_t)
        cdef Connection* c
        memcpy(to, &start, sizeof(uint64_t))
        while end > start:
            end -= 1
            c = topic.subscribers[end].connection
            if c.phase == OPEN:
                memcpy(to + used, &c.fd, sizeof(uint64_t))
                used += sizeof(uint64_t)
        return part[:used]

    def subscriber_count(self, name: bytes) -> int:
        """How many open WebSockets are in a topic."""
        cdef Topic topic = self.topics.get(name)
        cdef uint32_t i
        cdef uint32_t count = 0
        if topic is not None:
            for i in range(topic.count):
                count += topic.subscribers[i].connection.phase == OPEN
        return count

    def __len__(self) -> int:
        return len(self.topics) - self.users
