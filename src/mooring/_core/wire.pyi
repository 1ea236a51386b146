# Made by tools/records.py from wire.toml: change that, and build again.
from enum import IntEnum
from typing import Final

from typing_extensions import disjoint_base

VERSION: Final = 5
RECORD_BYTES: Final = 24
RECORD_LIMIT: Final = 1073741824
EXCLUDED_LIMIT: Final = 1024
MAX_ATTEMPTS: Final = 3
LISTENER_MASK: Final = 65535
ATTEMPT_UNIT: Final = 65536
RECORD_MARK: bytes
USER: bytes
TICKETED: frozenset[Event]
RARE: frozenset[Command]
TO_DISPATCHER: frozenset[Mail]
TO_WORKER: frozenset[Mail]
TO_ENGINE: frozenset[Mail]
FROM_ENGINE: frozenset[Mail]

class Event(IntEnum):
    OPEN = 1
    MESSAGE = 2
    CLOSE = 3
    REQUEST = 4
    UNCERTAIN = 5
    SESSION = 6
    DEPART = 7
    HANDSHAKE = 8
    DISCONNECT = 9
    ROOM = 10
    GONE = 11
    END_STREAMS = 12
    BODY = 13
    QUARANTINED = 14
    FILE = 15
    PEER_ENDED = 16
    WORK = 17
    TAIL = 18
    FOLLOWED = 19

class Command(IntEnum):
    HELLO = 32
    ACK = 33
    SEND = 34
    DISCONNECT = 35
    DROP = 36
    RESPOND = 37
    SUBSCRIBE = 38
    UNSUBSCRIBE = 39
    PUBLISH = 40
    SESSION = 41
    CALL = 42
    HANDSHAKE = 43
    WANT = 44
    FILE = 45
    BIND = 46
    PAUSE = 47
    DISCONNECT_USER = 48
    ROOM = 49
    MISSED = 50
    WORK = 51
    TAIL = 52
    FOLLOW = 53

class Mail(IntEnum):
    HELLO = 64
    TASK = 65
    CANCEL = 66
    PROGRESS = 67
    RESULT = 68
    STATS = 69
    MESSAGE = 70
    DEPART = 71
    FULL = 72
    ENGINE_HELLO = 73
    APPEND = 74
    APPENDED = 75
    PAST = 76
    FOLLOW = 77
    FOLLOWED = 78
    UNFOLLOW = 79
    PUBLISHED = 80
    BEHIND = 81
    JUDGED = 82

class Ack(IntEnum):
    HANDLED = 0
    FAILED = 1
    ENDED = 2

class Respond(IntEnum):
    LAST = 1
    CLOSE = 2
    ASKS = 4
    REFUSES = 8

class TaskFlag(IntEnum):
    UNAWAITED = 1
    TRACED = 2

class Work(IntEnum):
    BEGUN = 0
    ENDED = 1
    CUT = 2
    CANCEL = 3

class FileNote(IntEnum):
    LEFT = 0
    TAKEN = 1
    OVER = 2
    LATE = 3

class Missed(IntEnum):
    CLIENT = 0
    TOPIC = 1
    TOPICS = 2
    PUBLISHES = 3

class Wants(IntEnum):
    HANDSHAKE = 1
    ORIGIN = 2
    SUBPROTOCOL = 4
    DISCONNECT = 8
    ENDED = 16

class Call(IntEnum):
    SESSION = 0
    STATS = 1
    CONNECTIONS_OF = 2
    FIND = 3
    LIST = 4
    ROWS = 5
    SUBSCRIBERS = 6
    SUBSCRIBER_COUNT = 7

class Fate(IntEnum):
    DONE = 0
    FAILED = 1
    LOST = 2
    REFUSED = 3

@disjoint_base
class Notice:
    payload: bytes
    def __init__(
        self, kind: int, fd: int, payload: bytes = b"", *, opcode: int = 0, arg: int = 0, extra: int = 0
    ) -> None: ...
    @property
    def kind(self) -> int: ...
    @property
    def opcode(self) -> int: ...
    @property
    def arg(self) -> int: ...
    @property
    def ticket(self) -> int: ...
    @property
    def extra(self) -> int: ...
    @property
    def listener(self) -> int: ...
    @property
    def fd(self) -> int: ...
    @property
    def number(self) -> int: ...
