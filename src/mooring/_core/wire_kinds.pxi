# Made by tools/records.py from wire.toml: change that, and build again.

cpdef enum:
    VERSION = 5
    RECORD_BYTES = 24               # of the head
    RECORD_LIMIT = 1073741824       # payload of one record: 1 GiB; more is a broken stream
    EXCLUDED_LIMIT = 1024           # subscribers that a publish can leave out
    MAX_ATTEMPTS = 3                # workers that may end over one event, see `redeliver`
    LISTENER_MASK = 65535           # `extra` of an event on a ticket: the listener, and above it
    ATTEMPT_UNIT = 65536            # how many workers have ended over it


cdef enum:
    NO_TICKET = 0xffffffff          # in `ticket`: nothing waits for an ACK


cdef enum Kind:
    EV_OPEN = 1
    EV_MESSAGE = 2
    EV_CLOSE = 3
    EV_REQUEST = 4
    EV_UNCERTAIN = 5
    EV_SESSION = 6
    EV_DEPART = 7
    EV_HANDSHAKE = 8
    EV_DISCONNECT = 9
    EV_ROOM = 10
    EV_GONE = 11
    EV_END_STREAMS = 12
    EV_BODY = 13
    EV_QUARANTINED = 14
    EV_FILE = 15
    EV_PEER_ENDED = 16
    EV_WORK = 17
    EV_TAIL = 18
    EV_FOLLOWED = 19
    EV_END                          # behind the last one
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
    CM_BIND = 46
    CM_PAUSE = 47
    CM_DISCONNECT_USER = 48
    CM_ROOM = 49
    CM_MISSED = 50
    CM_WORK = 51
    CM_TAIL = 52
    CM_FOLLOW = 53
    CM_END                          # behind the last one
    DM_HELLO = 64
    DM_TASK = 65
    DM_CANCEL = 66
    DM_PROGRESS = 67
    DM_RESULT = 68
    DM_STATS = 69
    DM_MESSAGE = 70
    DM_DEPART = 71
    DM_FULL = 72
    DM_ENGINE_HELLO = 73
    DM_APPEND = 74
    DM_APPENDED = 75
    DM_PAST = 76
    DM_FOLLOW = 77
    DM_FOLLOWED = 78
    DM_UNFOLLOW = 79
    DM_PUBLISHED = 80
    DM_BEHIND = 81
    DM_JUDGED = 82
    DM_END                          # behind the last one


cdef enum:
    # what became of events that are acknowledged
    ACK_HANDLED = 0
    ACK_FAILED = 1
    ACK_ENDED = 2


cdef enum:
    # what comes with a part of an answer
    RESPOND_LAST = 1
    RESPOND_CLOSE = 2
    RESPOND_ASKS = 4
    RESPOND_REFUSES = 8


cdef enum:
    # what is said with a task
    TASK_FLAG_UNAWAITED = 1
    TASK_FLAG_TRACED = 2


cdef enum:
    # what a worker tells of work that a connection owns
    WORK_BEGUN = 0
    WORK_ENDED = 1
    WORK_CUT = 2
    WORK_CANCEL = 3


cdef enum:
    # what became of a file that a gateway was asked to send
    FILE_LEFT = 0
    FILE_TAKEN = 1
    FILE_OVER = 2
    FILE_LATE = 3


cdef enum:
    # what a worker could not tell a gateway that stood still
    MISSED_CLIENT = 0
    MISSED_TOPIC = 1
    MISSED_TOPICS = 2
    MISSED_PUBLISHES = 3


cdef enum:
    # what an application has handlers for, as far as a gateway must know
    WANTS_HANDSHAKE = 1
    WANTS_ORIGIN = 2
    WANTS_SUBPROTOCOL = 4
    WANTS_DISCONNECT = 8
    WANTS_ENDED = 16


cdef enum:
    # what a worker can ask a gateway and wait for
    CALL_SESSION = 0
    CALL_STATS = 1
    CALL_CONNECTIONS_OF = 2
    CALL_FIND = 3
    CALL_LIST = 4
    CALL_ROWS = 5
    CALL_SUBSCRIBERS = 6
    CALL_SUBSCRIBER_COUNT = 7


cdef enum:
    # what became of a task
    FATE_DONE = 0
    FATE_FAILED = 1
    FATE_LOST = 2
    FATE_REFUSED = 3


# whether a head can be one of an event, a command, a mail: if not, what follows is none either
cdef inline bint is_event(const Record* record) noexcept:
    return EV_OPEN <= record.kind < EV_END and (record.size == 0 or record.kind not in (
        EV_DEPART, EV_ROOM, EV_GONE, EV_END_STREAMS, EV_PEER_ENDED,
    ))


cdef inline bint is_command(const Record* record) noexcept:
    return CM_HELLO <= record.kind < CM_END and (record.size == 0 or record.kind not in (
        CM_HELLO, CM_ACK, CM_DROP, CM_WANT, CM_PAUSE, CM_ROOM, CM_TAIL,
    ))


cdef inline bint is_mail(const Record* record) noexcept:
    return DM_HELLO <= record.kind < DM_END and (record.size == 0 or record.kind not in (
        DM_HELLO, DM_CANCEL, DM_DEPART, DM_FULL, DM_ENGINE_HELLO, DM_BEHIND,
    ))


# which events wait for an ACK
cdef inline bint takes_ticket(int kind) noexcept:
    return kind in (
        EV_OPEN, EV_MESSAGE, EV_CLOSE, EV_REQUEST, EV_UNCERTAIN, EV_HANDSHAKE, EV_DISCONNECT, EV_QUARANTINED,
    )


# which are counted
cdef inline bint is_counted(int kind) noexcept:
    return kind in (
        EV_MESSAGE, EV_REQUEST,
    )


# whose client waits for an answer, and can be told to come again
cdef inline bint is_asking(int kind) noexcept:
    return kind in (
        EV_REQUEST, EV_HANDSHAKE,
    )


# which may be handled again
cdef inline bint is_repeatable(int kind) noexcept:
    return kind in (
        EV_OPEN, EV_MESSAGE, EV_CLOSE, EV_DISCONNECT,
    )


# which tell the end of a connection
cdef inline bint is_last(int kind) noexcept:
    return kind in (
        EV_CLOSE, EV_DISCONNECT,
    )


# which tell of another event
cdef inline bint is_report(int kind) noexcept:
    return kind in (
        EV_UNCERTAIN, EV_QUARANTINED,
    )
