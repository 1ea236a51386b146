"""Records of the channel between a gateway and a worker, sans-IO.

A channel is a Unix stream socket pair. What crosses it is a sequence of records: a fixed head in host byte order (both
ends are processes of one machine and one version, which HELLO checks), then `size` bytes of payload.

     0        4     5       6      8        12       16                24
     | size   | kind| opcode| arg  | ticket | extra  | fd              | payload ...

Events go up, gateway to worker; a ticket other than NO_TICKET says that the gateway's ledger waits for an ACK of it,
and that `extra` is the index of the listener that the connection came from, and from bit 16 on, how many workers have ended
while its handler ran:

    HANDSHAKE  opcode: 1 for an Origin that the settings do not allow; payload: request record
               may it become a WebSocket? The answer is a command of the same name
    OPEN       payload: request record             a WebSocket was opened; opcode 1: its session was told before
    CLOSE      arg: close code; opcode: who closed (ClosedBy); payload: reason (UTF-8)
    DISCONNECT likewise, of a connection that was no WebSocket; arg: the status with which it was refused and ended, or
               1006
    MESSAGE    opcode; payload: the message
    REQUEST    arg: number of the request on its connection; payload: request record
    UNCERTAIN  opcode; arg: kind of the event whose handler had started when its worker ended;
               payload: u16 length of the reason, reason, payload of that event
    QUARANTINED  like UNCERTAIN: ATTEMPTS workers have ended while this event's handler ran
    SESSION    payload: msgpack map of session entries (nil: the key is gone); extra 1: forget what you knew
    LEAVE      nothing more is coming: this worker's connections have moved, or the gateway ends in order
    ROOM       extra: number of the request; what waits for that client is below high water again
    GONE       extra: number of the request; its client has left. Also in answer to RESPOND with ASKS, or WANT, for a
               request that is over. Both with extra 0: the answer to the command ROOM, one for each
    BODY       extra: number of the request; payload: the next part of its body, empty behind the last one
    FILE       extra: number of the request; payload: u8 what became of the file (FileNote); if it is over, u64 how many
               bytes of it were sent
    HALF       extra: number of the request; its client has ended its half of the connection: it has left, or it only has
               nothing more to say. Which of them, a byte that is sent to it may tell
    FINISH     extra: milliseconds. This worker is to go: what would never end by itself (event streams) shall end at once,
               what the connections own in that time
    WORK       what the connection owns in this worker is to be cancelled: it has ended, or another worker wants it.
               extra 1: only what has the name in the payload

Commands go down, worker to gateway:

    HELLO      arg: version; extra: pid; opcode: what it has handlers for (Wants); fd: stamp of its last publish
    ACK        ticket, extra: count                 these handlers are finished; it follows what they sent
    SEND       opcode; payload
    DISCONNECT arg: close code; payload: reason
    DROP       ends the connection, whatever it speaks
    HANDSHAKE  arg: 101; payload: msgpack [sub-protocol or nil, header fields];
               arg: another status; payload: bytes of the HTTP response that refuses
    RESPOND    extra: number of the request; opcode: flags (LAST, CLOSE; ASKS: tell with ROOM when the client has
               read most of it); payload: bytes of an HTTP response.
               REFUSES, alone: what the client sent is to be counted as refused, arg 0: a request, 1: a message; the
               answer follows
    WANT       extra: number of the request; answered with BODY, once, as soon as there is more of it
    FILE       extra: number of the request; opcode: flags (CLOSE); arg: length of the path; payload: FileClaim, path,
               bytes of the HTTP response ahead of the file. The rest of the answer is that part of that file. Answered
               with FILE, twice if the gateway takes it
    SUBSCRIBE, UNSUBSCRIBE  payload: topic
    PUBLISH    opcode; arg: length of the topic; fd: stamp, pid and number of the publish; extra: how many subscribers are
               left out; payload: topic, fds of these as u64, message
    BIND       payload: id of the user whose connection it is; empty: nobody's
    DISCONNECT_USER  arg: close code; extra: length of the user id; payload: user id, reason
    ROOM       what waits for this WebSocket is to get below high water: answered with ROOM then, or with GONE
    PAUSE      arg 1: no more of its messages are handed out; 0: again
    SESSION    payload: msgpack [key, value] or [key] to delete
    WORK       opcode: what the connection owns was BEGUN (payload: its name), has ENDED or was CUT; extra: its number in
               this worker. CANCEL: other workers are to cancel it; extra 1: only what has the name in the payload
    CALL       arg: what is asked; ticket: id of the call; payload; the answer comes on the reply socket

Between the dispatcher and a worker or task worker other records travel, on a channel of their own; the number of the
task stands in `fd`. A worker counts its tasks; towards task workers the dispatcher counts all of them.

    HELLO      arg: version; fd: pid; opcode 1: it carries tasks out
    TASK       payload: msgpack value               from the worker (opcode 1: nobody waits for the result) to the
                                                    dispatcher, and on to a task worker (arg: number of the worker)
    CANCEL     nobody waits for the result any more
    PROGRESS   payload: msgpack value               from the task worker, and on to the worker
    RESULT     opcode: what became of it (Fate); payload: msgpack value, of a failure a list
    STATS      empty to the dispatcher; back with a msgpack map
    LEAVE      from a task worker, before its last result: it takes no more tasks
               from the dispatcher: it ends in order
    MESSAGE    payload: msgpack value               from any worker (arg: for which) and on to it (arg: from which)
    FULL       from the dispatcher; arg 1: it has no memory for new tasks and messages; 0: it has again

Nothing in a record is ever unpickled or evaluated.
"""

from enum import IntEnum, IntFlag

NO_TICKET = 0xFFFFFFFF
USER = b"\xff"         # begins the name of a topic that is a user: all connections bound to one user id


class Event(IntEnum):
    """Kinds of the records that go up to a worker."""

    OPEN = EV_OPEN
    MESSAGE = EV_MESSAGE
    CLOSE = EV_CLOSE
    REQUEST = EV_REQUEST
    UNCERTAIN = EV_UNCERTAIN
    SESSION = EV_SESSION
    LEAVE = EV_LEAVE
    HANDSHAKE = EV_HANDSHAKE
    DISCONNECT = EV_DISCONNECT
    ROOM = EV_ROOM
    GONE = EV_GONE
    FINISH = EV_FINISH
    BODY = EV_BODY
    QUARANTINED = EV_QUARANTINED
    FILE = EV_FILE
    HALF = EV_HALF
    WORK = EV_WORK


ATTEMPTED = ATTEMPTS


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
    BIND = CM_BIND
    PAUSE = CM_PAUSE
    DISCONNECT_USER = CM_DISCONNECT_USER
    ROOM = CM_ROOM
    MISSED = CM_MISSED
    WORK = CM_WORK
    WANT = CM_WANT
    FILE = CM_FILE


class Wants(IntFlag):
    """What an application has handlers for, as far as a gateway must know."""

    HANDSHAKE = WANTS_HANDSHAKE
    ORIGIN = WANTS_ORIGIN
    SUBPROTOCOL = WANTS_SUBPROTOCOL
    DISCONNECT = WANTS_DISCONNECT


class Work(IntEnum):
    """What a worker tells of work that a connection owns."""

    BEGUN = WORK_BEGUN
    ENDED = WORK_ENDED
    CUT = WORK_CUT
    CANCEL = WORK_CANCEL


class FileNote(IntEnum):
    """What became of a file that a gateway was asked to send."""

    LEFT = FILE_LEFT       # it can't; the worker shall
    TAKEN = FILE_TAKEN     # it will; for the worker the request is over
    OVER = FILE_OVER       # it has, or the client has left
    LATE = FILE_LATE       # that request has an answer, or no client any more


class Call(IntEnum):
    """What a worker can ask a gateway and wait for."""

    SESSION = 1
    STATS = 2
    CONNECTIONS_OF = 10
    FIND = 11
    LIST = 12
    ROWS = 13
    SUBSCRIBERS = 14
    SUBSCRIBER_COUNT = 15


class Mail(IntEnum):
    """Kinds of the records between the dispatcher and a worker or task worker."""

    HELLO = DM_HELLO
    TASK = DM_TASK
    CANCEL = DM_CANCEL
    PROGRESS = DM_PROGRESS
    RESULT = DM_RESULT
    STATS = DM_STATS
    MESSAGE = DM_MESSAGE
    LEAVE = DM_LEAVE
    FULL = DM_FULL


class Fate(IntEnum):
    """What became of a task."""

    DONE = 0      # payload: what the handler gave
    FAILED = 1    # payload: [name of the exception, its text]
    LOST = 2      # payload: [why]
    REFUSED = 3   # payload: [why]; it was never taken
