"""The worker's half of the seam, downwards: commands to gateways.

A worker has one gateway end per gateway and finds the right one by the bits of the fd; a publish goes to each of them
once, however many subscribers there are. Whether a gateway end is a channel to another process or a call in this one
is known to whoever made it.

What a gateway does with a command is seen in its table (table.pyx), and in another process that takes a moment. A
handler must see at once what it has decided: that a connection is closing, whose it is. So a gateway end remembers such
decisions until the gateway has applied the commands up to there, and what is asked of the table is answered with them
in mind (`GatewayEnd.state_of`). They are few, and gone as soon as the gateway has caught up, whatever it made of them.
"""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

import os
from operator import index

from mooring._core.order cimport stamp_of
from mooring._core.reactor cimport monotonic_ms
from mooring._core.table cimport GATEWAY_SHIFT, ST_CLOSING, ST_HTTP, ST_OPEN, Entry, user_mark
from mooring._core.wire cimport (
    ACK_ENDED, ACK_FAILED, ACK_HANDLED, CM_BIND, CM_DISCONNECT, CM_DISCONNECT_USER, CM_DROP, CM_FILE, CM_FOLLOW,
    CM_HANDSHAKE, CM_PAUSE, CM_PUBLISH, CM_RESPOND, CM_ROOM, CM_SEND, CM_SESSION, CM_SUBSCRIBE, CM_TAIL,
    CM_UNSUBSCRIBE, CM_WANT, CM_WORK, EXCLUDED_LIMIT, RESPOND_CLOSE, RESPOND_LAST, RESPOND_REFUSES, Record, make_record,
)
from mooring._core.ws cimport (
    CONTROL_LIMIT, OP_BINARY, OP_CLOSE, OP_CONTINUATION, OP_PING, OP_PONG, OP_TEXT, CloseFrame, Frame, is_utf8,
)

from mooring._core.wire import USER as _USER
from mooring._core.ws import close_payload
from mooring.types import Opcode

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    TOPIC_LIMIT = 255
    FEW = 1024                       # connections in Outbox.ended, before it is looked whether all of them have to be

cdef object TEXT = Opcode.TEXT
cdef object BINARY = Opcode.BINARY
cdef str NO_FD = "an fd is an int, such as frame.fd or request.fd, not {} of type {}"
cdef str NO_MESSAGE = "a message is a str, bytes or a Frame, not {}; {}"
cdef str AS_JSON = "push_json() and publish_json() send others as JSON"
cdef str NOT_AWAITED = "what a coroutine gives is there when it was awaited: `await` it, in an `async def` handler"

cdef uint64_t LONG_MS = 60000        # after which the last events of a connection that is gone have been handled


cdef object _no_message(object data):
    """The error for what can't be sent."""
    advice = NOT_AWAITED if hasattr(type(data), "__await__") else AS_JSON
    return TypeError(NO_MESSAGE.format(type(data).__name__, advice))


cdef uint64_t _number(object fd) except? 0:
    """An fd in C; 0, which no connection has, when it is out of range."""
    if not isinstance(fd, int):
        try:
            fd = index(fd)           # as of numpy's
        except TypeError:
            raise TypeError(NO_FD.format(_shown(fd), type(fd).__name__)) from None
    try:
        return fd
    except OverflowError:
        return 0


cdef str _shown(object given):
    """For a message: what was given in place of something else, whatever it is."""
    try:
        text = repr(given)
    except Exception:
        return "something"
    return text if len(text) <= 60 else f"{text[:57]}..."


cpdef bytes fds_of(object exclude):
    """One fd or several, as they stand in a record."""
    cdef uint64_t number
    cdef bytearray packed = bytearray()
    if isinstance(exclude, (int, str, bytes)) or not hasattr(exclude, "__iter__"):
        exclude = (exclude,)
    for fd in exclude:
        if isinstance(fd, bool):
            raise TypeError(f"exclude is the fd that is left out, or several, not {fd}")
        number = _number(fd)
        if len(packed) == 8 * EXCLUDED_LIMIT:          # before the end is reached, which there may be none of
            raise ValueError(f"exclude has more than {EXCLUDED_LIMIT} fds, and no more can be left out: "
                             "let those who are to hear it have a topic of their own")
        packed += (<uint8_t*> &number)[:sizeof(uint64_t)]
    return bytes(packed)


cdef bytes _message(object data, object opcode, int* code):
    """What is published, and its opcode. ValueError, TypeError for what can't be."""
    cdef bytes payload
    if isinstance(data, Frame):
        if not (<Frame> data).finish:
            raise ValueError("messages are sent whole: a frame with finish=False cannot be published")
        code[0] = (<Frame> data).code_of_opcode
        data = (<Frame> data).data
    elif opcode is None:
        code[0] = OP_TEXT if isinstance(data, str) else OP_BINARY
    else:
        code[0] = _opcode(opcode)
    if code[0] != OP_TEXT and code[0] != OP_BINARY:
        raise ValueError(f"opcode {code[0]}: text or binary messages can be published")
    if not isinstance(data, str) and not PyObject_CheckBuffer(data):
        raise _no_message(data)
    # through a memoryview: bytes(5) would be five zeros
    payload = str.encode(data) if isinstance(data, str) else bytes(memoryview(data))
    if code[0] == OP_TEXT and not isinstance(data, str) and not is_utf8(payload, len(payload)):
        raise ValueError("text must be UTF-8; publish other bytes without opcode=Opcode.TEXT, as binary")
    _check_size(code[0], len(payload))
    return payload


def message_of(data: object, opcode: object) -> tuple[int, bytes]:
    """The opcode and payload of what is published. ValueError, TypeError for what can't be."""
    cdef int code
    payload = _message(data, opcode, &code)
    return code, payload


cdef class GatewayEnd:
    """The way to one gateway. `table` is that gateway's table of connections."""

    def __cinit__(self, *args: object, **options: object) -> None:
        self.closing = set()
        self.users = {}

    cdef int decide(self, uint64_t fd) except -1:
        """A command was given that closes this connection, if anything can."""
        cdef uint64_t position = self.position()
        if position and not self.is_applied(position):
            self.closing.add(fd)
            self.decided = position
        return 0

    cdef bint is_open_question(self) except -1:
        """Whether there are decisions that the gateway has not heard of yet."""
        if self.decided and self.is_applied(self.decided):
            self.decided = 0
            self.closing.clear()
            self.users.clear()
        return self.decided != 0

    cdef int state_of(self, uint64_t fd) except -1:
        """The state of a connection for this worker, as in its entry; 0: it is gone."""
        cdef const Entry* entry
        # before the entry is read
        cdef bint closing = self.decided and self.is_open_question() and fd in self.closing
        entry = self.table.find(fd)
        return 0 if entry == NULL else ST_CLOSING if closing else entry.state

    cdef list of_user(self, uint64_t user):
        """The connections that are this user's for this worker."""
        cdef bint asked = self.decided and self.is_open_question()
        cdef list found = self.table.of_user(user)
        if not asked or not self.users:
            return found
        return [fd for fd in found if self.users.get(fd, user) == user] + [
            fd for fd, whose in self.users.items() if whose == user and fd not in found]

    cdef uint64_t position(self) noexcept:
        return 0

    cdef bint is_applied(self, uint64_t position) noexcept:
        return True

    cdef int command(self, Record* record, const uint8_t* payload) except -1:
        return 0

    cdef int make_room(self) except -1:
        return 0

    cdef int begin(self, uint32_t ticket) noexcept:
        return 0

    cdef uint64_t waited(self, uint32_t ticket, uint64_t now) noexcept:
        return 0

    cdef int settle(self, uint32_t ticket) except -1:
        return 0

    cdef int give_back(self, uint32_t ticket, int why) except -1:
        return 0

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        """Asks the gateway and waits for its answer. StateError when none comes in time."""
        raise NotImplementedError

    def hello(self) -> None:
        """Tells the gateway that this worker is ready for events."""

    def beat(self) -> None:
        """The loop of this worker turns."""

    def flush(self) -> None:
        """Hands everything queued over, waiting for room if need be."""

    def close(self) -> None:
        """Gives the seam up; the gateway takes back what is not finished."""


cpdef bytes topic_name(object topic):
    """The name of a topic as gateways know it. TypeError, ValueError for what can be none."""
    if not isinstance(topic, str):       # bytes could look like a user's name: those begin with what is no UTF-8
        raise TypeError(f"a topic's name is a str, not {type(topic).__name__}")
    name = str.encode(topic)
    if not 0 < len(name) <= TOPIC_LIMIT:
        raise ValueError(f"a topic's name has 1 to {TOPIC_LIMIT} bytes in UTF-8, not {len(name)}")
    return name


def user_name(user: str | int) -> bytes:
    """A user id as gateways know it. TypeError, ValueError for what can be none."""
    if isinstance(user, int):
        user = str(user)
    if not isinstance(user, str):
        raise TypeError(f"a user id is a str or an int, not {type(user).__name__}")
    name = str.encode(user)
    if not 0 < len(name) < TOPIC_LIMIT:
        raise ValueError(f"a user id has 1 to {TOPIC_LIMIT - 1} bytes in UTF-8, not {len(name)}")
    return name


cdef class Outbox:
    """All gateway ends of a worker, and what can be said through them.

    What the methods take is checked here, in the worker, where the error has a traceback that shows the caller.
    """

    def __cinit__(self) -> None:
        self.gateway_ends = [None] * 64
        self.pid = os.getpid()
        self.ended = {}
        self.ended_limit = FEW

    def connect(self, gateway_end: GatewayEnd) -> None:
        """Takes a gateway end into use, in the place of an earlier one to the same gateway."""
        gateway_end.outbox = self
        self.gateway_ends[gateway_end.gateway] = gateway_end

    cdef uint64_t stamp(self) noexcept:
        """Which publish of which process was the last one."""
        return stamp_of(self.pid, self.published)

    def disconnect(self, gateway_end: GatewayEnd) -> None:
        """Its gateway is gone."""
        if self.gateway_ends[gateway_end.gateway] is gateway_end:
            self.gateway_ends[gateway_end.gateway] = None

    def abandon(self) -> None:
        """In a forked child, which can send nothing."""
        self.gateway_ends = [None] * 64

    def all(self) -> list[GatewayEnd]:
        """The gateway ends there are."""
        return [gateway_end for gateway_end in self.gateway_ends if gateway_end is not None]

    cdef GatewayEnd gateway_end_of(self, uint64_t fd):
        return self.gateway_ends[(fd >> GATEWAY_SHIFT) & 63]

    def find(self, fd: object) -> GatewayEnd | None:
        """The gateway end for a connection."""
        cdef uint64_t number = _number(fd)
        return self.gateway_end_of(number) if number else None

    def state(self, fd: object) -> int:
        """A ConnectionState, as far as the gateway and this worker have decided; 0: there is no such connection."""
        cdef uint64_t number = _number(fd)
        cdef GatewayEnd gateway_end = self.gateway_end_of(number)
        return gateway_end.state_of(number) if gateway_end is not None else 0

    # ------------------------------------------------------------------ whose messages are not handled any more

    cdef int why_ended(self, uint64_t fd) except -1:
        """ACK_FAILED or ACK_ENDED; ACK_HANDLED: they are."""
        found = self.ended.get(fd)
        return ACK_HANDLED if found is None else found[0]

    cdef int end(self, uint64_t fd, int why) except -1:
        """From now on; the first reason counts. `forget` is called at the last event of this connection."""
        cdef uint64_t now
        if fd not in self.ended:
            now = monotonic_ms()
            if len(self.ended) >= self.ended_limit:
                # of one that another worker serves meanwhile, the last event comes there
                self.ended = {fd: found for fd, found in self.ended.items()
                              if now - found[1] < LONG_MS or self._serves(fd)}
                self.ended_limit = max(<Py_ssize_t> FEW, 2 * len(self.ended))
            self.ended[fd] = (why, now)
        return 0

    def _serves(self, fd: int) -> bool:
        """Whether the gateway hands the events of this connection to this worker."""
        cdef GatewayEnd gateway_end = self.gateway_end_of(fd)
        return gateway_end is not None and gateway_end.table.owner(fd) == self.pid

    def forget(self, fd: int) -> None:
        """Its last event is about to be handled."""
        self.ended.pop(fd, None)

    def ended_count(self) -> int:
        """For tests: how many connections are kept in mind."""
        return len(self.ended)

    def deciding(self) -> list[int]:
        """For tests: gateways that have not applied yet what was decided."""
        return [(<GatewayEnd> gateway_end).gateway for gateway_end in self.gateway_ends
                if gateway_end is not None and (<GatewayEnd> gateway_end).is_open_question()]

    # ------------------------------------------------------------------ what is said

    cpdef bint push(self, object fd, object data, object opcode=None):
        """Sends one whole message; False when the connection is no open WebSocket. See Server.push."""
        cdef int code
        cdef uint64_t number = _number(fd)
        cdef GatewayEnd gateway_end = self.gateway_end_of(number)
        cdef Record record
        cdef const char* text
        cdef Py_ssize_t size
        cdef Py_buffer view
        if gateway_end is None or gateway_end.state_of(number) != ST_OPEN:
            return False
        if isinstance(data, Frame):
            if isinstance(data, CloseFrame):
                return self.disconnect_client(fd, (<CloseFrame> data).code, (<CloseFrame> data).reason)
            if not (<Frame> data).finish:
                raise ValueError("messages are sent whole: a frame with finish=False cannot be pushed")
            code = (<Frame> data).code_of_opcode
            data = (<Frame> data).data
        elif opcode is None:
            code = OP_TEXT if PyUnicode_Check(data) else OP_BINARY
        else:
            code = _opcode(opcode)
        if code != OP_TEXT and code != OP_BINARY and code != OP_PING and code != OP_PONG:
            _refuse_opcode(code)
        if PyUnicode_Check(data):
            text = PyUnicode_AsUTF8AndSize(data, &size)
            record = make_record(CM_SEND, number, <uint32_t> size)
            record.opcode = code
            _check_size(code, size)
            gateway_end.command(&record, <const uint8_t*> text)
            return True
        if not PyObject_CheckBuffer(data):
            raise _no_message(data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            _check_size(code, view.len)
            if code == OP_TEXT and not is_utf8(<const uint8_t*> view.buf, view.len):
                raise ValueError("text must be UTF-8; push other bytes without opcode=Opcode.TEXT, as binary")
            record = make_record(CM_SEND, number, <uint32_t> view.len)
            record.opcode = code
            gateway_end.command(&record, <const uint8_t*> view.buf)
        finally:
            PyBuffer_Release(&view)
        return True

    cpdef bint disconnect_client(self, object fd, object code, object reason):
        """Begins the closing handshake. ValueError for a code or reason that may not be sent."""
        cdef bytes payload = close_payload(code, reason)
        return self._close(_number(fd), code, payload[2:], False)

    def fail_client(self, fd: int, code: int, reason: str) -> bool:
        """Closes it, because its handler has raised. No message of it is handled any more, also when it is
        closing already: what a client has sent behind one that failed may rely on that."""
        self.end(fd, ACK_FAILED)
        return self._close(fd, code, reason.encode(), True)

    cdef bint _close(self, uint64_t number, int code, bytes reason, bint failed) except -1:
        cdef GatewayEnd gateway_end = self.gateway_end_of(number)
        cdef Record record = make_record(CM_DISCONNECT, number, <uint32_t> len(reason))
        record.arg = code
        record.opcode = failed
        if gateway_end is None or gateway_end.state_of(number) != ST_OPEN:
            return False
        return self._end_client(gateway_end, &record, reason, self._serves(number))

    def drop(self, fd: object) -> bool:
        """Ends a connection, whatever it speaks."""
        cdef uint64_t number = _number(fd)
        cdef GatewayEnd gateway_end = self.gateway_end_of(number)
        cdef Record record = make_record(CM_DROP, number, 0)
        cdef int state = gateway_end.state_of(number) if gateway_end is not None else 0
        if state == 0:
            return False
        return self._end_client(gateway_end, &record, b"", state == ST_OPEN and self._serves(number))

    cdef bint _end_client(self, GatewayEnd gateway_end, Record* record, bytes payload, bint serves) except -1:
        """By this command, which may end it at once; `serves`: its messages come to this worker."""
        gateway_end.command(record, payload)
        gateway_end.decide(record.fd)
        if serves:
            self.end(record.fd, ACK_ENDED)
        return True

    def respond(self, fd: int, number: int, flags: int, data: bytes) -> bool:
        """Bytes of the answer to an HTTP request; False when its client is gone, or was cut and will be."""
        cdef GatewayEnd gateway_end = self.gateway_end_of(fd)
        cdef Record record = make_record(CM_RESPOND, fd, <uint32_t> len(data))
        record.opcode = flags
        if gateway_end is None or gateway_end.state_of(fd) != ST_HTTP:
            return False
        record.extra = number
        gateway_end.command(&record, data)
        if flags & (RESPOND_LAST | RESPOND_CLOSE) == RESPOND_LAST | RESPOND_CLOSE:
            gateway_end.decide(fd)
        return True

    def refuse_message(self, fd: int) -> None:
        """Has the gateway count a message that is not what the application takes."""
        cdef GatewayEnd gateway_end = self.gateway_end_of(fd)
        cdef Record record = make_record(CM_RESPOND, fd, 0)
        record.opcode = RESPOND_REFUSES
        record.arg = 1
        if gateway_end is not None:
            gateway_end.command(&record, NULL)

    def send_file(self, fd: int, number: int, flags: int, claim: bytes, path: bytes, head: bytes) -> bool:
        """The rest of the answer to an HTTP request: its head, and a part of a file that the gateway sends."""
        cdef bytes payload = claim + path + head
        cdef Record record = make_record(CM_FILE, fd, <uint32_t> len(payload))
        record.opcode = flags
        record.arg = <uint16_t> len(path)
        record.extra = number
        return self._tell_any(&record, payload)

    def handshake(self, fd: int, status: int, payload: bytes) -> bool:
        """Says what shall become of a handshake: 101 with msgpack [sub-protocol, header fields], or any other status
        with the bytes of the answer."""
        cdef Record record = make_record(CM_HANDSHAKE, fd, <uint32_t> len(payload))
        record.arg = status
        if not self._tell_any(&record, payload):
            return False
        if status != 101:
            self.gateway_end_of(fd).decide(fd)
        return True

    def want(self, fd: int, number: int) -> bool:
        """Asks for the next part of the body of an HTTP request."""
        cdef Record record = make_record(CM_WANT, fd, 0)
        record.extra = number
        return self._tell_any(&record, b"")

    def subscribe(self, fd: object, topic: object, *, leave: bool = False) -> bool:
        cdef bytes name = topic_name(topic)
        cdef int kind = CM_UNSUBSCRIBE if leave else CM_SUBSCRIBE
        cdef Record record = make_record(kind, _number(fd), <uint32_t> len(name))
        return self._tell_open(&record, name)

    def follow(self, fd: object, number: int, payload: bytes, *, leave: bool = False) -> bool:
        """The same of a topic with a history; the answer comes under `number`, unless that is 0."""
        cdef uint64_t whose = _number(fd)
        cdef GatewayEnd gateway_end = self.gateway_end_of(whose)
        cdef Record record = make_record(CM_FOLLOW, whose, <uint32_t> len(payload))
        if gateway_end is None or gateway_end.state_of(whose) != ST_OPEN:
            return False
        record.opcode = leave
        record.extra = number
        gateway_end.command(&record, payload)
        return True

    def publish(self, topic: object, data: object, opcode: object = None, exclude: object = None) -> None:
        """One message for all subscribers but `exclude`, told once to each gateway."""
        self._publish(topic_name(topic), data, opcode, exclude)

    def push_user(self, user: str | int, data: object, opcode: object = None, exclude: object = None) -> None:
        """One message for all connections of a user but `exclude`."""
        self._publish(_USER + user_name(user), data, opcode, exclude)

    cdef int _publish(self, bytes name, object data, object opcode, object exclude) except -1:
        cdef int code
        cdef GatewayEnd gateway_end
        cdef Record record
        cdef bytes excluded = b"" if exclude is None else fds_of(exclude)
        cdef bytes payload = _message(data, opcode, &code)
        payload = name + excluded + payload if excluded else name + payload
        record = make_record(CM_PUBLISH, 0, <uint32_t> len(payload))
        record.opcode = code
        record.arg = <uint16_t> len(name)
        record.extra = <uint32_t> (len(excluded) // sizeof(uint64_t))
        for gateway_end in self.gateway_ends:
            if gateway_end is not None:
                gateway_end.make_room()
        # from here on nothing waits, so that no other thread of this worker publishes in between
        self.published += 1
        record.fd = self.stamp()
        for gateway_end in self.gateway_ends:
            if gateway_end is not None:
                gateway_end.command(&record, payload)

    def bind(self, fd: object, user: str | int | None) -> bool:
        """Makes a connection one of this user's; None: of nobody's."""
        cdef bytes name = b"" if user is None else user_name(user)
        cdef uint64_t number = _number(fd)
        cdef GatewayEnd gateway_end = self.gateway_end_of(number)
        cdef Record record = make_record(CM_BIND, number, <uint32_t> len(name))
        cdef uint64_t position
        if not self._tell_open(&record, name):
            return False
        position = gateway_end.position()
        if position and not gateway_end.is_applied(position):
            gateway_end.users[number] = user_mark(name, len(name))
            gateway_end.decided = position
        return True

    def pause(self, fd: object, paused: bool) -> bool:
        """Whether its messages are to wait."""
        cdef Record record = make_record(CM_PAUSE, _number(fd), 0)
        record.arg = paused
        return self._tell_open(&record, b"")

    def room(self, fd: object) -> bool:
        """Asks for ROOM or GONE."""
        cdef Record record = make_record(CM_ROOM, _number(fd), 0)
        return self._tell_open(&record, b"")

    cdef bint _tell_open(self, Record* record, bytes payload) except -1:
        """A command that concerns an open WebSocket; False when it is none."""
        cdef GatewayEnd gateway_end = self.gateway_end_of(record.fd)
        if gateway_end is None or gateway_end.state_of(record.fd) != ST_OPEN:
            return False
        gateway_end.command(record, payload)
        return True

    cdef bint _tell_any(self, Record* record, bytes payload) except -1:
        """A command that concerns a connection, whatever it speaks; False when it is gone."""
        cdef GatewayEnd gateway_end = self.gateway_end_of(record.fd)
        if gateway_end is None or gateway_end.table.find(record.fd) == NULL:
            return False
        gateway_end.command(record, payload)
        return True

    def disconnect_user(self, user: str | int, code: int, reason: object) -> None:
        """Closes all connections of a user. ValueError for a code or reason that may not be sent."""
        cdef bytes name = user_name(user)
        cdef bytes payload = name + close_payload(code, reason)[2:]
        cdef GatewayEnd gateway_end
        cdef Record record = make_record(CM_DISCONNECT_USER, 0, <uint32_t> len(payload))
        record.arg = code
        record.extra = <uint32_t> len(name)
        for gateway_end in self.gateway_ends:
            if gateway_end is not None:
                closed = [(fd, self._serves(fd)) for fd in gateway_end.of_user(user_mark(name, len(name)))
                          if gateway_end.state_of(fd) == ST_OPEN]
                gateway_end.command(&record, payload)
                for fd, serves in closed:
                    gateway_end.decide(fd)
                    if serves:
                        self.end(fd, ACK_ENDED)

    def work(self, fd: int, what: int, extra: int, name: bytes) -> None:
        """Tells of work that a connection owns (Work), also of one that has gone."""
        cdef uint64_t number = _number(fd)
        cdef GatewayEnd gateway_end = self.gateway_end_of(number)
        cdef Record record = make_record(CM_WORK, number, <uint32_t> len(name))
        record.opcode = what
        record.extra = extra
        if gateway_end is not None:
            gateway_end.command(&record, name)

    def tail(self) -> None:
        """Has all gateways tell of their close records, for some seconds."""
        cdef Record record = make_record(CM_TAIL, 0, 0)
        for one in self.all():
            (<GatewayEnd> one).command(&record, NULL)

    def session(self, fd: int, entry: bytes) -> bool:
        """One change of a session: msgpack [key, value], or [key] to delete."""
        cdef Record record = make_record(CM_SESSION, _number(fd), <uint32_t> len(entry))
        return self._tell_any(&record, entry)


cdef inline int _check_size(int opcode, Py_ssize_t size) except -1:
    return 0 if size <= CONTROL_LIMIT or opcode < 8 and size <= 0x3FFFFF00 else _refuse_size(opcode, size)


cdef int _refuse_size(int opcode, Py_ssize_t size) except -1:
    if opcode >= 8:
        raise ValueError(f"a control frame holds at most 125 bytes, not {size} (RFC 6455 section 5.5)")
    raise ValueError(f"a message of {size} bytes: at most 1 GiB can be sent")


cdef int _opcode(object opcode) except? -1:
    if opcode is TEXT:               # as a frame has it: its class is not asked
        return OP_TEXT
    if opcode is BINARY:
        return OP_BINARY
    if isinstance(opcode, int):
        try:
            return opcode
        except OverflowError:
            pass
    raise TypeError(f"opcode {_shown(opcode)}: an Opcode is wanted there, such as Opcode.BINARY; who is left out of a "
                    "publish is exclude=fd")


cdef int _refuse_opcode(int opcode) except -1:
    if opcode == OP_CLOSE:
        raise ValueError("to close, push a CloseFrame or call disconnect()")
    if opcode == OP_CONTINUATION:
        raise ValueError("messages are sent whole: a continuation frame cannot be pushed")
    raise ValueError(f"opcode {opcode}: RFC 6455 knows 0, 1, 2, 8, 9 and 10")
