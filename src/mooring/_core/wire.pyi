from enum import IntEnum, IntFlag

NO_TICKET: int
USER: bytes

class Event(IntEnum):
    OPEN = 1
    MESSAGE = 2
    CLOSE = 3
    REQUEST = 4
    UNCERTAIN = 5
    SESSION = 6
    LEAVE = 7
    HANDSHAKE = 8
    DISCONNECT = 9
    ROOM = 10
    GONE = 11
    FINISH = 12
    BODY = 13
    QUARANTINED = 14
    FILE = 15
    HALF = 16
    WORK = 17

ATTEMPTED: int

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
    BIND = 50
    PAUSE = 51
    DISCONNECT_USER = 52
    WANT = 44
    FILE = 45
    ROOM = 53
    MISSED = 54
    WORK = 55

class Wants(IntFlag):
    HANDSHAKE = 1
    ORIGIN = 2
    SUBPROTOCOL = 4
    DISCONNECT = 8

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

class Call(IntEnum):
    SESSION = 1
    STATS = 2
    CONNECTIONS_OF = 10
    FIND = 11
    LIST = 12
    ROWS = 13
    SUBSCRIBERS = 14
    SUBSCRIBER_COUNT = 15

class Mail(IntEnum):
    HELLO = 64
    TASK = 65
    CANCEL = 66
    PROGRESS = 67
    RESULT = 68
    STATS = 69
    MESSAGE = 70
    LEAVE = 71
    FULL = 72

class Fate(IntEnum):
    DONE = 0
    FAILED = 1
    LOST = 2
    REFUSED = 3
