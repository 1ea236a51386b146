"""Made by tools/records.py from wire.toml: change that, and build again."""

from enum import IntEnum


class Event(IntEnum):
    """Kinds of the records that go up to a worker."""

    OPEN = EV_OPEN
    MESSAGE = EV_MESSAGE
    CLOSE = EV_CLOSE
    REQUEST = EV_REQUEST
    UNCERTAIN = EV_UNCERTAIN
    SESSION = EV_SESSION
    DEPART = EV_DEPART
    HANDSHAKE = EV_HANDSHAKE
    DISCONNECT = EV_DISCONNECT
    ROOM = EV_ROOM
    GONE = EV_GONE
    END_STREAMS = EV_END_STREAMS
    BODY = EV_BODY
    QUARANTINED = EV_QUARANTINED
    FILE = EV_FILE
    PEER_ENDED = EV_PEER_ENDED
    WORK = EV_WORK
    TAIL = EV_TAIL
    FOLLOWED = EV_FOLLOWED


class Command(IntEnum):
    """Kinds of the records that go down to a gateway."""

    HELLO = CM_HELLO
    ACK = CM_ACK
    SEND = CM_SEND
    DISCONNECT = CM_DISCONNECT
    DROP = CM_DROP
    RESPOND = CM_RESPOND
    SUBSCRIBE = CM_SUBSCRIBE
    UNSUBSCRIBE = CM_UNSUBSCRIBE
    PUBLISH = CM_PUBLISH
    SESSION = CM_SESSION
    CALL = CM_CALL
    HANDSHAKE = CM_HANDSHAKE
    WANT = CM_WANT
    FILE = CM_FILE
    BIND = CM_BIND
    PAUSE = CM_PAUSE
    DISCONNECT_USER = CM_DISCONNECT_USER
    ROOM = CM_ROOM
    MISSED = CM_MISSED
    WORK = CM_WORK
    TAIL = CM_TAIL
    FOLLOW = CM_FOLLOW


class Mail(IntEnum):
    """Kinds of the records between a service (the dispatcher, the engine) and a process."""

    HELLO = DM_HELLO
    TASK = DM_TASK
    CANCEL = DM_CANCEL
    PROGRESS = DM_PROGRESS
    RESULT = DM_RESULT
    STATS = DM_STATS
    MESSAGE = DM_MESSAGE
    DEPART = DM_DEPART
    FULL = DM_FULL
    ENGINE_HELLO = DM_ENGINE_HELLO
    APPEND = DM_APPEND
    APPENDED = DM_APPENDED
    PAST = DM_PAST
    FOLLOW = DM_FOLLOW
    FOLLOWED = DM_FOLLOWED
    UNFOLLOW = DM_UNFOLLOW
    PUBLISHED = DM_PUBLISHED
    BEHIND = DM_BEHIND
    JUDGED = DM_JUDGED


class Ack(IntEnum):
    """What became of events that are acknowledged."""

    HANDLED = ACK_HANDLED
    FAILED = ACK_FAILED
    ENDED = ACK_ENDED


class Respond(IntEnum):
    """What comes with a part of an answer."""

    LAST = RESPOND_LAST
    CLOSE = RESPOND_CLOSE
    ASKS = RESPOND_ASKS
    REFUSES = RESPOND_REFUSES


class TaskFlag(IntEnum):
    """What is said with a task."""

    UNAWAITED = TASK_FLAG_UNAWAITED
    TRACED = TASK_FLAG_TRACED


class Work(IntEnum):
    """What a worker tells of work that a connection owns."""

    BEGUN = WORK_BEGUN
    ENDED = WORK_ENDED
    CUT = WORK_CUT
    CANCEL = WORK_CANCEL


class FileNote(IntEnum):
    """What became of a file that a gateway was asked to send."""

    LEFT = FILE_LEFT
    TAKEN = FILE_TAKEN
    OVER = FILE_OVER
    LATE = FILE_LATE


class Missed(IntEnum):
    """What a worker could not tell a gateway that stood still."""

    CLIENT = MISSED_CLIENT
    TOPIC = MISSED_TOPIC
    TOPICS = MISSED_TOPICS
    PUBLISHES = MISSED_PUBLISHES


class Wants(IntEnum):
    """What an application has handlers for, as far as a gateway must know."""

    HANDSHAKE = WANTS_HANDSHAKE
    ORIGIN = WANTS_ORIGIN
    SUBPROTOCOL = WANTS_SUBPROTOCOL
    DISCONNECT = WANTS_DISCONNECT
    ENDED = WANTS_ENDED


class Call(IntEnum):
    """What a worker can ask a gateway and wait for."""

    SESSION = CALL_SESSION
    STATS = CALL_STATS
    CONNECTIONS_OF = CALL_CONNECTIONS_OF
    FIND = CALL_FIND
    LIST = CALL_LIST
    ROWS = CALL_ROWS
    SUBSCRIBERS = CALL_SUBSCRIBERS
    SUBSCRIBER_COUNT = CALL_SUBSCRIBER_COUNT


class Fate(IntEnum):
    """What became of a task."""

    DONE = FATE_DONE
    FAILED = FATE_FAILED
    LOST = FATE_LOST
    REFUSED = FATE_REFUSED


#: whose handlers are waited for
TICKETED = frozenset([
    Event.OPEN, Event.MESSAGE, Event.CLOSE, Event.REQUEST, Event.UNCERTAIN, Event.HANDSHAKE, Event.DISCONNECT,
    Event.QUARANTINED,
])
#: that a Gateway applies
RARE = frozenset([
    Command.SESSION, Command.CALL, Command.HANDSHAKE, Command.TAIL, Command.FOLLOW,
])
#: that a worker or task worker sends
TO_DISPATCHER = frozenset([
    Mail.HELLO, Mail.TASK, Mail.CANCEL, Mail.PROGRESS, Mail.RESULT, Mail.STATS, Mail.MESSAGE, Mail.DEPART,
])
#: that the dispatcher sends
TO_WORKER = frozenset([
    Mail.TASK, Mail.PROGRESS, Mail.RESULT, Mail.STATS, Mail.MESSAGE, Mail.DEPART, Mail.FULL,
])
#: that workers and gateways send to the engine
TO_ENGINE = frozenset([
    Mail.ENGINE_HELLO, Mail.APPEND, Mail.PAST, Mail.FOLLOW, Mail.UNFOLLOW,
])
#: that the engine sends
FROM_ENGINE = frozenset([
    Mail.APPENDED, Mail.PAST, Mail.FOLLOWED, Mail.PUBLISHED, Mail.BEHIND, Mail.JUDGED,
])
