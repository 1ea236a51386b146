"""What a worker tells a gateway to do: one function for each command. Which one applies which command follows from the
table of records (wire.toml).

Commands of one worker are applied in the order given. One can be refused for now (1): a publish whose turn has not
come (see order.pyx, turns.pyx). The worker end offers it again, and nothing behind it before that. One that makes no
sense raises BadRecord and has no effect.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from mooring._core.files cimport FileClaim
from mooring._core.registry cimport (
    BY_APPLICATION, BY_SERVER, MOVES, NO_WORKER_END, OPEN, PAUSED, W_STANDSTILL, Connection, blame,
)
from mooring._core.relay cimport Relay
from mooring._core.table cimport user_mark
from mooring._core.wire cimport (
    ACK_ENDED, CM_HELLO, EV_FILE, EV_GONE, EXCLUDED_LIMIT, FILE_LATE, MISSED_CLIENT, MISSED_PUBLISHES, MISSED_TOPIC,
    MISSED_TOPICS, RESPOND_ASKS, RESPOND_REFUSES, VERSION, Record, make_record, new_notice,
)
from mooring._core.worker_end cimport Receiver, WorkerEnd
from mooring._core.ws cimport OP_BINARY, OP_PING, OP_PONG, OP_TEXT, is_utf8, may_send_close_code

from mooring._core.channel import BadRecord
from mooring._core.wire import USER as _USER

MISSED_CODE = 1013           # try again later: RFC 6455 section 7.4.2, the registry of IANA
cdef bytes _MISSED = b"a process of the server stood still, and you have missed something"

ctypedef int (*Apply)(Relay, WorkerEnd, const Record*, const uint8_t*) except -1


cdef class Commands(Receiver):
    """What the workers of a gateway tell it."""

    cdef Relay relay

    def __cinit__(self, relay: Relay) -> None:
        self.relay = relay
        self.books = relay.books
        self.reactor = relay.connections.reactor

    cdef int on_command(self, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
        return TABLE[record.kind - CM_HELLO](self.relay, worker_end, record, payload)

    cdef int on_lost(self, WorkerEnd worker_end, str why) except -1:
        return self.relay.lost(worker_end, why)

    cdef int on_bad(self, WorkerEnd worker_end, object problem) except -1:
        self.relay.bad_records += 1
        if self.relay.publish_order is not None:
            self.relay.publish_order.forget(worker_end)
        self.relay.gateway.on_bad_record(worker_end, problem)
        return 0

    cdef int on_broken(self, WorkerEnd worker_end, str why) except -1:
        self.relay.bad_records += 1
        self.relay.gateway.on_worker_broken(worker_end, why)
        return 0


cdef bytes bytes_of(const uint8_t* data, size_t size):
    return PyBytes_FromStringAndSize(<const char*> data, size)


cdef int on_hello(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    if record.arg != VERSION:
        relay.lost(worker_end, f"it speaks version {record.arg} of the channel, not {VERSION}: restart the server")
    elif not worker_end.usable:
        if relay.publish_order is not None:
            relay.publish_order.meet(worker_end, record.fd)
        relay.greet(worker_end, record.extra, record.opcode)
    return 0


cdef int on_ack(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef uint32_t i, unknown = 0
    if record.ticket >= worker_end.ledger.size or record.extra > worker_end.ledger.size or record.opcode > ACK_ENDED:
        raise BadRecord(f"{record.extra} tickets from {record.ticket} on are acknowledged, of {worker_end.ledger.size}")
    for i in range(record.extra):
        unknown += relay.settle(worker_end, (record.ticket + i) % worker_end.ledger.size, record.opcode)
    if unknown:
        raise BadRecord(f"{unknown} tickets are acknowledged that are not in use")
    return 0


cdef int on_send(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    if record.opcode not in (OP_TEXT, OP_BINARY, OP_PING, OP_PONG):
        raise BadRecord(f"a message with opcode {record.opcode}")
    c = relay.connections.find(record.fd)
    if c != NULL:
        relay.connections.send(c, record.opcode, payload, record.size)
    return 0


cdef int on_publish(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef uint32_t skipped = record.extra * sizeof(uint64_t)
    if record.arg > record.size or record.opcode != OP_TEXT and record.opcode != OP_BINARY:
        raise BadRecord(f"a message with opcode {record.opcode} for a topic of {record.arg} bytes")
    if record.extra > EXCLUDED_LIMIT or record.extra * sizeof(uint64_t) > record.size - record.arg:
        raise BadRecord(f"{record.extra} subscribers are left out, in {record.size - record.arg} bytes")
    if worker_end.pid and record.fd >> 32 != <uint64_t> worker_end.pid:
        raise BadRecord(f"a publish of process {record.fd >> 32} from {worker_end.pid}")
    if not relay.turns.may_copy(worker_end):
        return 1
    if relay.publish_order is not None and not relay.publish_order.admit(worker_end, record.fd):
        return 1
    relay.turns.note_copies(record.size, relay.hub.publish(
        bytes_of(payload, record.arg), record.opcode, payload + record.arg + skipped,
        record.size - record.arg - skipped, payload + record.arg, record.extra))
    return 0


cdef int on_respond(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    if record.opcode == RESPOND_REFUSES:
        if record.arg:
            relay.gateway.counters["messages_invalid"] += 1
        else:
            relay.gateway.counters["requests_refused"] += 1
        return 0
    c = relay.connections.find(record.fd)
    if c == NULL or not relay.connections.respond(c, record.extra, record.opcode, payload, record.size):
        return _over(worker_end, record) if record.opcode & RESPOND_ASKS else 0
    return 0


cdef int on_want(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = relay.connections.find(record.fd)
    if c == NULL or not relay.connections.want(c, record.extra):
        return _over(worker_end, record)
    return 0


cdef int _over(WorkerEnd worker_end, const Record* asked) except -1:
    """Whoever asks waits for an answer, also about a request that is over or whose client has left."""
    return worker_end.say(EV_GONE, asked.extra, b"", asked.fd)


cdef int on_disconnect(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    _check_close_code(record)
    c = relay.connections.find(record.fd)
    if c != NULL:
        relay.connections.dismiss(c, record.arg, bytes_of(payload, record.size), record.opcode != 0)
    return 0


cdef int on_disconnect_user(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    _check_close_code(record)
    if record.extra > record.size:
        raise BadRecord(f"a user id of {record.extra} bytes in {record.size}")
    reason = bytes_of(payload + record.extra, record.size - record.extra)
    for fd in relay.hub.all_subscribers(_USER + bytes_of(payload, record.extra)):
        c = relay.connections.find(fd)
        if c != NULL:
            relay.connections.close(c, record.arg, reason, BY_APPLICATION)
    return 0


cdef int _check_close_code(const Record* record) except -1:
    if not may_send_close_code(record.arg):
        raise BadRecord(f"close code {record.arg}")
    return 0


cdef int on_drop(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = relay.connections.find(record.fd)
    if c != NULL:
        relay.connections.drop(c)
    return 0


cdef int on_subscribe(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = relay.connections.find(record.fd)
    if c != NULL and c.phase == OPEN:
        name = bytes_of(payload, record.size)
        if not relay.hub.subscribe(c, name):
            relay.gateway.on_topic_limit(record.fd, name)
    return 0


cdef int on_unsubscribe(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = relay.connections.find(record.fd)
    if c != NULL and c.phase == OPEN:
        relay.hub.unsubscribe(c, bytes_of(payload, record.size))
    return 0


cdef int on_bind(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c
    if not is_utf8(payload, record.size):
        raise BadRecord("a user id that is not UTF-8")
    c = relay.connections.find(record.fd)
    if c != NULL and c.phase == OPEN:
        relay.hub.bind(c, bytes_of(payload, record.size))
        c.entry.user = user_mark(payload, record.size)
        if (relay.by_user and c.worker_end != NO_WORKER_END
                and relay.any_worker_end(c.fd) is not relay.worker_ends[c.worker_end]):
            c.flags |= MOVES
    return 0


cdef int on_pause(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    cdef Connection* c = relay.connections.find(record.fd)
    if c == NULL or c.phase != OPEN:
        return 0
    if record.arg:
        c.flags |= PAUSED
    else:
        c.flags &= ~PAUSED
        relay.connections.wake(c)
    return 0


cdef int rare(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    """A command that Python applies."""
    relay.gateway.apply(worker_end, new_notice(record, payload))
    return 0


cdef int on_file(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    """FILE. Whoever sent it waits to hear whether it is taken, whatever has become of the connection."""
    cdef Connection* c = relay.connections.find(record.fd)
    cdef FileClaim claim
    cdef Record answer = make_record(EV_FILE, record.fd, 1)
    cdef size_t head = sizeof(claim) + record.arg
    cdef uint8_t note = FILE_LATE
    if record.size < head:
        raise BadRecord(f"a file with a path of {record.arg} bytes in {record.size}")
    if c != NULL:
        memcpy(&claim, payload, sizeof(claim))
        path = PyBytes_FromStringAndSize(<const char*> payload + sizeof(claim), record.arg)
        note = relay.connections.respond_file(c, record.extra, record.opcode, &claim, path, payload + head,
                                              record.size - head)
    answer.extra = record.extra
    return worker_end.transmit(&answer, &note)


cdef int on_missed(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    """MISSED: whom it concerns is closed, by name."""
    cdef Connection* c
    cdef uint32_t slot
    if record.opcode != MISSED_CLIENT and worker_end.pid and record.fd and record.fd >> 32 != <uint64_t> worker_end.pid:
        raise BadRecord(f"publishes of process {record.fd >> 32} are missed by {worker_end.pid}")
    if record.opcode == MISSED_CLIENT:
        _has_missed(relay, relay.connections.find(record.fd))
        return 0
    if record.opcode == MISSED_TOPIC:
        for fd in relay.hub.all_subscribers(PyBytes_FromStringAndSize(<const char*> payload, record.size)):
            _has_missed(relay, relay.connections.find(fd))
    elif record.opcode == MISSED_TOPICS:
        for slot in range(relay.connections.used):
            c = relay.connections.slots[slot]
            if c != NULL and c.topic_count:
                _has_missed(relay, c)
    elif record.opcode != MISSED_PUBLISHES:
        raise BadRecord(f"something of kind {record.opcode} was missed")
    if relay.publish_order is not None and record.fd:
        relay.publish_order.meet(worker_end, record.fd)  # those up to it will not come
    return 0


cdef int _has_missed(Relay relay, Connection* c) except -1:
    if c == NULL:
        return 0
    relay.missed += 1
    blame(c, W_STANDSTILL)
    if c.phase == OPEN:
        relay.connections.close(c, MISSED_CODE, _MISSED, BY_SERVER)
    else:
        relay.connections.drop(c)
    return 0


cdef int on_room(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    return relay.asking.ask(worker_end, record.fd)


cdef int on_work(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    relay.owned.note(worker_end, record, bytes_of(payload, record.size))
    return relay.let_go(worker_end)


include "commands_table.pxi"
