"""All client connections of a gateway: sockets, buffers, codecs, states. Theory in connection.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mooring._core.buffer cimport Buffer
from mooring._core.deflate cimport Deflate
from mooring._core.reactor cimport Source
from mooring._core.table cimport Entry, Table
from mooring._core.timer cimport Timer
from mooring._core.ws cimport FrameDecoder, FrameEvent, FrameLimits

cdef enum:
    NO_PORT = 0xFFFF


cdef enum Phase:
    HTTP = 1         # speaks HTTP; upgrade() leads to OPEN
    OPEN = 2         # an open WebSocket
    CLOSING = 3      # a close frame or the last answer is on its way; nothing from the peer is handled any more
    LINGER = 4       # all is written and our half is shut: input is thrown away until the peer ends or time is up
    DEAD = 5         # freed at the end of the turn


cdef enum Flag:
    DIRTY = 1        # in the list of connections to flush
    HELD = 2         # `held` waits for the window to open
    WOKEN = 4        # in the list of connections to look at again
    BUSY = 8         # HTTP: a request is being answered
    FULL = 16        # the kernel took less than was offered: EPOLLOUT is armed
    HIGH = 32        # the out-queue is above high water, its deadline is armed
    SHUT = 64        # ends when the out-queue is empty
    SLOWLY = 128     # ... and lingers then, because the peer may still be sending (RFC 9112 section 9.6)
    HALF = 256       # the peer has ended its half
    FEEDING = 512    # the decoder is at work on `held`
    UPGRADED = 1024  # was an open WebSocket once
    BEGUN = 2048     # HTTP: a part of the answer is written


cdef enum Deadline:
    D_NONE = 0
    D_REQUEST = 1    # a whole request head must be here
    D_IDLE = 2       # keep-alive
    D_WRITE = 3      # above high water for too long
    D_CLOSE = 4      # the closing handshake
    D_LINGER = 5
    D_PING = 6       # quiet for so long that the peer is asked whether it is there
    D_PONG = 7       # it must have answered by now


cdef struct Membership:
    # one subscription: `index` is this connection's place in the topic's list of members
    void* topic
    uint32_t index


cdef struct Connection:
    # identity; entry is the public part, in shared memory
    uint64_t fd
    int socket
    Phase phase
    uint16_t flags
    uint32_t interest                # epoll events armed
    Entry* entry
    # out: bytes not yet taken by the kernel; `boundary` bytes of them end the frame that is partly sent
    Buffer out
    size_t boundary
    # in: raw bytes that wait for the window, and the frame decoder
    Buffer held
    FrameDecoder decoder
    # the one timer and what it is armed for
    Timer timer
    Deadline deadline
    # how it ends: the code of the close event, and whether it is decided
    uint16_t close_code
    # relay: which worker serves it, what was handed over and is not finished
    uint16_t port
    uint16_t in_flight
    uint32_t in_flight_bytes
    uint32_t requests                # HTTP requests so far; the number of the current one
    uint16_t controls                # pings and pongs since `controls_since`, in seconds
    uint32_t controls_since
    void* deflate                    # a Deflate, kept alive by Connections.deflates; NULL: messages go as they are
    # hub: what it is subscribed to
    Membership* topics
    uint16_t topic_count
    uint16_t topic_capacity


cdef struct Counters:
    uint64_t accepted
    uint64_t refused
    uint64_t refused_by_address
    uint64_t closed
    uint64_t upgraded
    uint64_t requests
    uint64_t messages_received
    uint64_t messages_sent
    uint64_t bytes_received
    uint64_t bytes_sent
    uint64_t failed                  # closed by us for a fault of the peer
    uint64_t slow                    # ... for not reading
    uint64_t timed_out
    uint64_t pings_sent


cdef class Sink:
    # May a message of this connection be taken now? If not, the sink calls wake() later.
    cdef bint ready(self, Connection* connection) except -1
    cdef int on_message(self, Connection* connection, int opcode, const uint8_t* data, size_t size) except -1
    cdef int on_request(self, Connection* connection, object request) except -1
    cdef int on_bad_request(self, Connection* connection, object error) except -1
    cdef int on_gone(self, Connection* connection, int code, bytes reason) except -1


cdef class Connections(Source):
    cdef public Sink sink
    cdef readonly Table table
    cdef readonly int gateway
    cdef FrameLimits limits
    cdef size_t write_limit
    cdef size_t high_water
    cdef uint64_t request_ms, idle_ms, write_ms, close_ms, ping_ms, pong_ms
    cdef uint64_t ping_key           # hides our clock in the payload of pings
    cdef uint32_t control_limit      # pings and pongs of one connection in CONTROL_SECONDS
    cdef bint open_ping, open_pong, open_close       # control frames are messages for the application, too
    cdef int address_limit           # connections of one address; 0: any number
    cdef dict addresses              # address (of IPv6 the first half) -> how many connections
    cdef dict http_options
    # slots[slot] is NULL or that connection; free slots are used again in the order they were freed
    cdef Connection** slots
    cdef uint32_t slot_count
    cdef uint32_t* free_slots
    cdef uint32_t free_head, free_count
    cdef uint64_t serial
    cdef dict codecs                 # fd -> HttpCodec, while a request is coming in
    cdef dict deflates               # terms -> Deflate that connections share, fd -> one of its own
    cdef dict reasons                # fd -> bytes: the reason of the coming close event
    # to do before the reactor sleeps
    cdef Connection** dirty_list
    cdef size_t dirty_count, dirty_capacity
    cdef list woken
    cdef Connection** graves
    cdef size_t grave_count, grave_capacity
    cdef readonly int count
    cdef Counters counters

    cdef int _bury(self) noexcept
    cdef Connection* find(self, uint64_t fd) noexcept
    cdef int adopt(self, int socket, int family, const uint8_t* address, int remote_port, int server_port) except -1
    cdef int wake(self, Connection* c) except -1
    # Queues bytes; 1 when they were taken, 0 when the connection takes none any more.
    cdef int write(self, Connection* c, const uint8_t* head, size_t head_size,
                   const uint8_t* data, size_t size) except -1
    cdef int send(self, Connection* c, int opcode, const uint8_t* data, size_t size) except -1
    cdef bytes deflated(self, Connection* c, const uint8_t* data, size_t size)
    cdef bytes _inflated(self, Connection* c, const FrameEvent* event)
    cdef Deflate _agree(self, uint64_t fd, tuple terms)
    cdef int close(self, Connection* c, int code, bytes reason) except -1
    cdef int drop(self, Connection* c) except -1
    # Whether one more connection of this address may be taken.
    cdef bint welcome(self, int family, const uint8_t* address) except -1
    cdef int respond(self, Connection* c, uint32_t number, int flags, const uint8_t* data, size_t size) except -1

    cdef int _enter(self, Connection* c, Phase phase) except -1
    cdef int _interest(self, Connection* c) except -1
    cdef int _arm(self, Connection* c, Deadline deadline, uint64_t ms) except -1
    cdef int _receive(self, Connection* c) except -1
    cdef size_t _feed(self, Connection* c, uint8_t* data, size_t size) except? 0
    cdef int _await_silence(self, Connection* c) except -1
    cdef int _ping(self, Connection* c) except -1
    cdef int _pong(self, Connection* c, const FrameEvent* event) except -1
    cdef int _control(self, Connection* c, const FrameEvent* event) except -1
    cdef int _resume(self, Connection* c) except -1
    cdef int _next_request(self, Connection* c) except -1
    cdef int _fail(self, Connection* c, int code, bytes reason) except -1
    cdef int _slow(self, Connection* c, bytes why) except -1
    cdef int _end_of_input(self, Connection* c) except -1
    cdef int _send_some(self, Connection* c) except -1
    cdef int _written(self, Connection* c) except -1
    cdef int _mark(self, Connection* c) except -1
    cdef int _doom(self, Connection* c, int code, bytes reason) except -1
    cdef int _offer(self, Connection* c) except -1
    cdef int _above(self, Connection* c) except -1
    cdef bint _is_control(self, Connection* c, uint8_t first) noexcept
    cdef int _below(self, Connection* c) except -1
    cdef int _let_go(self, Connection* c) except -1
    cdef int _move_boundary(self, Connection* c, size_t sent) except -1
    cdef int _gone(self, Connection* c, int code, bytes reason) except -1
