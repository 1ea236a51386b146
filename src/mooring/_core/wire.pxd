"""Records of the channel between a gateway and a worker. Theory in wire.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    RECORD_BYTES = 24
    RECORD_LIMIT = 0x40000000        # payload of one record: 1 GiB; more is a broken stream
    VERSION = 4
    EXCLUDED_LIMIT = 1024            # subscribers that a publish can leave out
    ATTEMPTS = 3                     # workers that may end over one event, see `redeliver`
    LISTENER_MASK = 0xFFFF           # `extra` of an event on a ticket: the listener, and above it
    ATTEMPT = 0x10000                # how many workers have ended over it


cdef struct Record:
    uint32_t size                    # payload bytes behind the record
    uint8_t kind
    uint8_t opcode
    uint16_t arg
    uint32_t ticket
    uint32_t extra
    uint64_t fd


cdef enum Kind:
    # events: gateway -> worker
    EV_OPEN = 1
    EV_MESSAGE = 2
    EV_CLOSE = 3
    EV_REQUEST = 4
    EV_UNCERTAIN = 5
    EV_SESSION = 6
    EV_LEAVE = 7
    EV_HANDSHAKE = 8
    EV_DISCONNECT = 9
    EV_ROOM = 10
    EV_GONE = 11
    EV_FINISH = 12
    EV_BODY = 13
    EV_QUARANTINED = 14
    EV_FILE = 15
    EV_HALF = 16
    EV_WORK = 17
    EV_END                           # behind the last one
    # commands: worker -> gateway
    CM_HELLO = 32
    CM_ACK = 33
    CM_SEND = 34
    CM_DISCONNECT = 35
    CM_DROP = 36
    CM_RESPOND = 37
    CM_SUBSCRIBE = 38
    CM_UNSUBSCRIBE = 39
    CM_PUBLISH = 40
    CM_SESSION = 41
    CM_CALL = 42
    CM_HANDSHAKE = 43
    CM_WANT = 44
    CM_FILE = 45
    CM_GAP
    CM_BIND = 50
    CM_PAUSE = 51
    CM_DISCONNECT_USER = 52
    CM_ROOM = 53
    CM_MISSED = 54
    CM_WORK = 55
    CM_END
    # to and from the dispatcher
    DM_HELLO = 64
    DM_TASK = 65
    DM_CANCEL = 66
    DM_PROGRESS = 67
    DM_RESULT = 68
    DM_STATS = 69
    DM_MESSAGE = 70
    DM_LEAVE = 71
    DM_FULL = 72
    DM_END


cdef enum:
    # CM_RESPOND: flags in `opcode`
    RESPOND_LAST = 1
    RESPOND_CLOSE = 2
    RESPOND_ASKS = 4
    RESPOND_REFUSES = 8


cdef enum:
    # CM_WORK: what, in `opcode`
    WORK_BEGUN = 0
    WORK_ENDED = 1
    WORK_CUT = 2             # ended, because its worker is to go
    WORK_CANCEL = 3          # what other workers have begun is to be cancelled


cdef enum:
    # EV_FILE: the first byte
    FILE_LEFT = 0
    FILE_TAKEN = 1
    FILE_OVER = 2
    FILE_LATE = 3


cdef enum:
    # CM_MISSED: what, in `opcode`
    MISSED_CLIENT = 0        # something for connection `fd`
    MISSED_TOPIC = 1         # a publish of stamp `fd`, in the topic that is the payload
    MISSED_TOPICS = 2        # likewise, in any topic
    MISSED_PUBLISHES = 3     # those up to stamp `fd`, all of which were told of


cdef enum:
    # CM_HELLO: flags in `opcode`, what the worker's application has handlers for
    WANTS_HANDSHAKE = 1
    WANTS_ORIGIN = 2
    WANTS_SUBPROTOCOL = 4
    WANTS_DISCONNECT = 8


# whether a head can be one of an event, a command, a mail: if not, what follows is none either
cdef inline bint is_event(const Record* record) noexcept:
    return EV_OPEN <= record.kind < EV_END and (
        record.size == 0 or record.kind not in (EV_LEAVE, EV_ROOM, EV_GONE, EV_FINISH, EV_HALF))


cdef inline bint is_command(const Record* record) noexcept:
    return (CM_HELLO <= record.kind < CM_GAP or CM_BIND <= record.kind < CM_END) and (
        record.size == 0 or record.kind not in (CM_HELLO, CM_ACK, CM_DROP, CM_WANT, CM_PAUSE, CM_ROOM))


cdef inline bint is_mail(const Record* record) noexcept:
    return DM_HELLO <= record.kind < DM_END and (
        record.size == 0 or record.kind not in (DM_HELLO, DM_CANCEL, DM_LEAVE, DM_FULL))


# which events are counted, tell the end of a connection, may be handled again, are reports of another
cdef inline bint is_counted(int kind) noexcept:
    return kind == EV_MESSAGE or kind == EV_REQUEST


cdef inline bint takes_ticket(int kind) noexcept:
    return EV_OPEN <= kind <= EV_UNCERTAIN or kind in (EV_HANDSHAKE, EV_DISCONNECT, EV_QUARANTINED)


cdef inline bint is_report(int kind) noexcept:
    return kind == EV_UNCERTAIN or kind == EV_QUARANTINED


cdef inline int kind_of(const Record* record) noexcept:
    """The kind of an event, or of the one that a report is about."""
    return record.arg if is_report(record.kind) else record.kind


cdef inline bint is_last(int kind) noexcept:
    return kind == EV_CLOSE or kind == EV_DISCONNECT


# whose client waits for an answer, and can be told to come again
cdef inline bint is_asking(int kind) noexcept:
    return kind == EV_REQUEST or kind == EV_HANDSHAKE


cdef inline bint is_repeatable(int kind) noexcept:
    return kind == EV_MESSAGE or kind == EV_OPEN or is_last(kind)


cdef inline Record make_record(uint8_t kind, uint64_t fd, uint8_t opcode, uint16_t arg, uint32_t size) noexcept nogil:
    cdef Record record
    record.size = size
    record.kind = kind
    record.opcode = opcode
    record.arg = arg
    record.ticket = 0
    record.extra = 0
    record.fd = fd
    return record
