"""The gateway's half of the seam: which worker gets an event, and the ledger of what is not finished."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mooring._core.channel cimport Channel
from mooring._core.connection cimport Connections
from mooring._core.exchange cimport Sink
from mooring._core.hub cimport Hub
from mooring._core.ledger cimport Backlog, Books, Ledger
from mooring._core.order cimport Order, Publisher
from mooring._core.page cimport Page
from mooring._core.registry cimport Connection
from mooring._core.wire cimport Notice, Record


cdef class Port(Publisher):
    cdef object __weakref__
    cdef readonly Relay relay
    cdef readonly int index          # place in relay.ports, -1 when it is in none
    cdef readonly int worker
    cdef readonly int generation
    cdef readonly int pid
    cdef readonly int wants          # flags of its HELLO: what its application has handlers for
    cdef readonly bint serves        # may be given connections (a sibling's worker in base mode may not)
    cdef readonly bint usable        # its worker has said HELLO and is not lost
    cdef readonly bint retiring      # gets no new connection; those it has move when it has finished them
    cdef readonly bint left          # was told to leave
    cdef bint going_on               # _went_on is at work
    cdef readonly uint32_t bound     # connections it serves
    cdef uint64_t spared             # see give_share
    cdef readonly Ledger ledger
    # who waits: fds of connections that hold
    cdef list waiting
    cdef list parts                  # fds of connections that hold a part of a body
    cdef uint64_t woken_in           # a turn, and how many of `waiting` were woken in it
    cdef uint32_t woken
    cdef bint waking                 # the rest of `waiting` is looked at in the next turn

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1
    cdef int make_room(self, size_t size) noexcept
    cpdef int say(self, int kind, uint32_t extra=*, bytes payload=*) except -1
    cdef bint torn(self) noexcept
    cdef bint full(self) noexcept
    cpdef size_t unsent(self) noexcept


cdef class PortChannel(Channel):
    cdef Port port

    cdef int note_applied(self) except -1


cdef class ChannelPort(Port):
    cdef readonly PortChannel channel
    cdef Page page                   # where the worker marks what it has started
    cdef object reply_socket
    cdef bytearray answers           # those that the reply socket had no room for
    cdef uint64_t answers_since      # milliseconds: when it last took some of them

    cdef bint send_answers(self) except -1


cdef class Relay(Sink):
    cdef readonly Connections connections
    cdef readonly Hub hub
    cdef public Order publish_order          # of publishes, among several gateways; None where there is one
    cdef public object gateway       # on_open, on_request, ...: see mooring.gateway
    cdef public object policy        # policy(list of ports, fd) -> port
    cdef public bint by_key          # the policy gives a key the same worker, whoever else is there
    cdef public bint by_user         # the policy looks at the user a connection is bound to
    cdef public object redeliver     # of each listener: whether what had started is handled again
    cdef readonly list ports         # index -> Port or None
    cdef uint32_t max_messages, max_bytes, port_messages
    cdef uint64_t port_bytes
    cdef readonly dict sessions      # fd -> {key: msgpack bytes}, for connections that have any
    # publishes: see relay_turns.pxi
    cdef list paused                 # ports whose next publish waits for another turn
    cdef Port resuming
    cdef bint posted                 # resume_paused will be called
    cdef bint unlimited              # no turn ends now: a handler waits, see local.pyx
    cdef uint64_t spent_in           # the turn in which no more are copied
    cdef uint64_t copies             # since the clock was looked at
    cdef dict asking                 # fd -> the ports that have asked for ROOM and were not answered
    cdef readonly dict works         # fd -> {(port, number): name}: see relay_works.pxi
    cdef public uint32_t grace       # milliseconds a worker that retires has for them
    # without a worker: events in order, fds of connections that hold
    cdef readonly Backlog limbo      # that of the books
    cdef int wanted                  # `wants` of the worker that greeted last
    cdef list unbound
    cdef readonly Books books
    cdef size_t kept_limit           # how many bytes of events there may be with workers, or wait for one
    cdef bint crowded                # somebody waits for it to become less
    cdef set abandoned               # fds of connections that have ended and may have asked for something that waits
    cdef readonly uint64_t bad_records            # that made no sense and were ignored
    cdef readonly uint64_t missed    # connections that missed something while this process stood still

    cdef Port port_of(self, Connection* c)
    cdef int bind(self, Connection* c, Port port) except -1
    cdef int bring_session(self, uint64_t fd, Port port) except -1
    cdef int unbind(self, Connection* c) except -1
    # 1: there is no memory, and nothing has happened
    cdef int hand(self, Port port, Record* record, const uint8_t* data) except -1
    cdef int _queue(self, Port port, Notice event) except -1
    # 1: there was no such ticket
    cdef int finish(self, Port port, uint32_t number, int how) except -1
    cdef int _tell(self, Connection* c, int kind, uint32_t extra, bytes payload) except -1
    cdef int on_command(self, Port port, const Record* record, const uint8_t* payload) except -1
    cdef int lost(self, Port port, str why) except -1
    cdef int _detach(self, Port port) except -1
    cdef int _started(self, Port port, Notice event, list doubtful) except -1
    cdef int _report(self, Port port, Notice event, bint quarantined) except -1
