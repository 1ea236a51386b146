"""The connections of a gateway: what each is, its id, and how it ends. Theory in registry.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from mooring._core.admission cimport Admission, Bucket
from mooring._core.buffer cimport Buffer
from mooring._core.profile cimport Profile
from mooring._core.reactor cimport Source
from mooring._core.room cimport Rooms
from mooring._core.table cimport Entry, Table
from mooring._core.timer cimport Timer
from mooring._core.ws cimport FrameDecoder

cdef enum:
    NO_WORKER_END = 0xFFFF


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
    ABOVE_HIGH_WATER = 32        # the out-queue is above high water, its deadline is armed
    END_WHEN_WRITTEN = 64        # ends when the out-queue is empty
    THEN_LINGER = 128     # ... and lingers then, because the peer may still be sending (RFC 9112 section 9.6)
    PEER_ENDED = 256       # the peer has ended its half
    FEEDING = 512    # the decoder is at work: its memory is in use
    UPGRADED = 1024  # was an open WebSocket once
    BEGUN = 2048     # HTTP: a part of the answer is written
    ASKED = 4096     # HTTP: the worker waits for the queue to be below high water
    DONE = 8192      # HTTP: the answer is complete, and still above high water
    PREFACE = 16384  # a header of the proxy comes first: until then nothing is known of the client
    WANTED = 32768   # HTTP: the worker waits for the next part of the body
    PAUSED = 65536   # the application does not want its messages for now
    MOVES = 131072   # another worker is to serve it, once nothing of it is in flight
    UNANSWERED = 262144   # no request of it is answered yet, which Registry.admission counts
    COUNTED = 524288  # its address is counted there
    DEFERRED = 1048576  # it has had its share of this turn, and is not read before the next
    LATE = 2097152   # a time limit has ended it, and is counted
    HEAD_ONLY = 4194304  # HTTP: it has asked with HEAD, and the answer is to have no content
    OWNS = 8388608   # the worker that serves it runs work that it owns, see owned.pyx
    SHAKING = 16777216  # its TLS handshake is under way


cdef enum Deadline:
    D_NONE = 0
    D_REQUEST = 1    # a whole request head must be here
    D_IDLE = 2       # keep-alive
    D_WRITE = 3      # while much waits for it: it must take it fast enough
    D_CLOSE = 4      # the closing handshake
    D_LINGER = 5
    D_PING = 6       # quiet for so long that the peer is asked whether it is there
    D_PONG = 7       # it must have answered by now
    D_PREFACE = 8    # the header of the proxy must be here
    D_BODY = 9       # more of a request body must be here
    D_TLS = 10       # the TLS handshake must be over


cdef enum By:
    # who closed; types.ClosedBy has the same numbers
    BY_PEER = 1
    BY_SERVER = 2
    BY_APPLICATION = 3


cdef enum Why:
    # what has ended it, for its close record; Cause of registry.pyx has the same, types.CAUSES says what each means
    W_UNKNOWN = 0
    W_CLIENT_CLOSED = 1
    W_CLIENT_ENDED = 2
    W_CLIENT_RESET = 3
    W_APPLICATION_CLOSED = 4
    W_HANDLER_FAILED = 5
    W_MESSAGE_REFUSED = 6
    W_HANDSHAKE_REFUSED = 7
    W_ANSWERED = 8
    W_BAD_REQUEST = 9
    W_BAD_HOST = 10
    W_BAD_HANDSHAKE = 11
    W_BAD_PROXY_HEADER = 12
    W_TLS_FAILED = 13
    W_PROTOCOL_ERROR = 14
    W_INVALID_DATA = 15
    W_MESSAGE_TOO_BIG = 16
    W_TOO_MANY_PINGS = 17
    W_TOO_MANY_CONNECTIONS = 18
    W_REQUEST_TIMEOUT = 19
    W_KEEPALIVE_TIMEOUT = 20
    W_HANDSHAKE_TIMEOUT = 21
    W_PING_TIMEOUT = 22
    W_HEARTBEAT_TIMEOUT = 23
    W_SLOW_CONSUMER = 24
    W_MEMORY_FULL = 25
    W_SERVER_FULL = 26
    W_SHUTDOWN = 27
    W_WORKER_LOST = 28
    W_NO_WORKER = 29
    W_STANDSTILL = 30
    W_FILE_BROKEN = 31
    W_OUT_OF_MEMORY = 32
    W_SERVER_ERROR = 33
    W_GATEWAY_LOST = 34


cdef enum Stage:
    # where it was when its end was decided; types.PHASES has the names, in this order
    STAGE_CONNECTING = 0     # ahead of the first request: TLS, the header of a proxy
    STAGE_REQUEST = 1        # the first request was waited for, or read
    STAGE_HANDLING = 2       # a request or a handshake was with the application
    STAGE_IDLE = 3           # behind an answer
    STAGE_OPEN = 4           # an open WebSocket
    STAGE_CLOSING = 5


cdef struct Membership:
    # one subscription: `index` is this connection's place in the topic's list of subscribers
    void* topic
    uint32_t index


cdef union Path:
    # `path_size` says which of the two it is: a short one, as most are, needs no memory of its own
    uint8_t near[8]
    uint8_t* far


cdef struct Connection:
    # identity; entry is the public part, in shared memory
    uint64_t fd
    int socket
    Phase phase
    uint32_t flags
    uint32_t interest                # epoll events armed
    Entry* entry
    const Profile* profile           # of its listener
    # out: bytes not yet taken by the kernel; `boundary` bytes of them end the frame that is partly sent
    Buffer out
    size_t boundary
    void* tls                        # a Tls, kept alive by SecureTransport.tls; NULL: none
    size_t owed                      # bytes that TLS itself has to send
    size_t gathered                  # bytes kept of what it sent: the beginning of a message or a body
    void* file                       # an Outfile of files.pyx, sent behind `out`; NULL: none
    size_t counted                   # of `out`, in Transport.queued
    # in: raw bytes that wait for the window, and the frame decoder
    Buffer held
    FrameDecoder decoder
    # the one timer and what it is armed for
    Timer timer
    Deadline deadline
    # how it ends: the code of the close event, and whether it is decided; who wanted it
    uint16_t close_code              # or, below 1000, the HTTP status with which it was refused
    uint8_t closed_by
    uint8_t why                      # a Why; and a Stage: where it was then
    uint8_t stage
    uint8_t tls_version              # types.TLS_VERSIONS[this]; 0: none, or nobody asks for close records
    uint8_t path_size                # of `path`; here it fills a hole, as there are very many of these
    uint32_t least_round_trip        # microseconds; 0: not measured
    size_t most_queued               # bytes that waited for it at one time
    # relay: which worker serves it, what was handed over and is not finished
    uint16_t worker_end
    uint16_t in_flight
    uint32_t in_flight_bytes
    int64_t taken                    # what its machine had when the deadline was armed, and when;
    uint64_t taken_at                # 0: it is not watched, see pace.pyx
    uint64_t body_since              # when we began to wait for more of a body, in milliseconds
    uint64_t body_waited             # how long we waited for this body before that
    uint64_t body_bytes              # what has come of it
    uint32_t requests                # HTTP requests so far; the number of the current one
    uint16_t controls                # pings and pongs since `controls_since`, in seconds
    uint16_t pongs_due               # of pings that it was sent, whoever sent them: these are not counted there
    uint32_t controls_since
    # hub: what it is subscribed to
    uint16_t topic_count
    uint16_t topic_capacity
    Membership* topics
    Bucket bucket                    # of the messages it may send now
    void* deflate                    # a Deflate, kept alive by WebSockets.deflates; NULL: messages go as they are
    # finder: the path it was opened for
    Path path
    # Transport: of those to flush; Registry: of those to free
    Connection* next_dirty
    Connection* next_grave


# Of `path_size` bytes; 0: none is noted.
cdef inline const uint8_t* path_of(const Connection* c) noexcept nogil:
    return &c.path.near[0] if c.path_size <= sizeof(c.path.near) else c.path.far


cdef inline void path_free(Connection* c) noexcept:
    if c.path_size > sizeof(c.path.near):
        free(c.path.far)
    c.path_size = 0


# Says why it ends, ahead of what ends it: whoever decides the end first has said the cause that counts.
cdef inline int blame(Connection* c, Why why) noexcept:
    if c.close_code == 0:
        c.why = why
    return 0


# One more event of it, of this many bytes, is for a handler; or it is handled, or will not be.
cdef inline void into_flight(Connection* c, uint32_t size) noexcept:
    c.in_flight += 1
    c.in_flight_bytes += size
    c.entry.in_flight = c.in_flight


cdef inline void out_of_flight(Connection* c, uint32_t size) noexcept:
    c.in_flight -= 1
    c.in_flight_bytes -= size
    c.entry.in_flight = c.in_flight


cdef class Registry(Source):
    cdef readonly Table table
    cdef readonly int gateway
    cdef Profile* profiles           # of the listeners, by index
    cdef readonly int listeners
    cdef Admission admission
    # slots[slot] is NULL or that connection; of the free slots the one that was freed last is used first
    cdef Connection** slots
    cdef uint32_t slot_count
    cdef uint32_t used               # no slot at or above this was ever taken
    cdef uint32_t* free_slots
    cdef uint32_t free_count
    cdef uint64_t serial
    cdef Connection* graves          # to be freed
    cdef public Rooms rooms          # of all gateways that accept from the same listeners; None: there is no other one
    cdef bint closed                 # nobody can be taken now, however many slots are free
    cdef dict reasons                # fd -> bytes: the reason of the coming close event
    cdef public object on_ended      # called with a last look and whether its worker wants the record, see closed.pyx
    cdef readonly int count

    cdef Connection* find(self, uint64_t fd) noexcept
    cdef Connection* _occupy(self, int socket, int family, const uint8_t* address, int remote_port, int server_port,
                             int listener) except NULL
    cdef int _vacate(self, Connection* c) except -1
    cdef int _bury(self) noexcept
    cdef int _say_room(self) noexcept
    cdef int _count(self, Connection* c) except -1
    # The fds of those that live, but for who lingers, for whom most is kept first.
    cdef list greediest(self)
    # A request of it was answered.
    cdef int settle(self, Connection* c) except -1
    cdef int _enter(self, Connection* c, Phase phase) except -1
    # What it ends with, and who wanted it; who comes first decides.
    cdef int _decide(self, Connection* c, By by, int code, bytes reason) except -1
