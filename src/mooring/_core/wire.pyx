"""Records of the channel between a gateway and a worker, sans-IO.

A channel is a Unix stream socket pair. What crosses it is a sequence of records: a fixed head in host byte order (both
ends are processes of one machine and one version, which HELLO checks), then `size` bytes of payload.

     0        4     5       6      8        12       16                24
     | size   | kind| opcode| arg  | ticket | extra  | fd              | payload ...

Which records there are, and what their fields mean, is a table: `wire.toml`. The enums and predicates here, the stub,
the dispatch and the manual's page follow from it (tools/records.py).

Events go up, gateway to worker, and commands down, worker to gateway. A ticket other than NO_TICKET says that the
gateway's ledger waits for an ACK of the event. Between the dispatcher and a worker or task worker other records travel
("mail"), on a channel of their own.

Nothing in a record is ever unpickled or evaluated.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

RECORD_MARK = b"\xff"  # between a reason and a close record: no octet of UTF-8
USER = b"\xff"         # begins the name of a topic that is a user: all connections bound to one user id

include "wire_names.pxi"


cdef class Notice:
    """A record as an object, for what happens once per connection, request or task: Python handles it."""

    def __init__(self, kind: int, fd: int, payload: bytes = b"", *, opcode: int = 0, arg: int = 0,
                 extra: int = 0) -> None:
        if len(payload) > RECORD_LIMIT:
            raise ValueError(f"{len(payload)} bytes: at most 1 GiB can be sent to another process")
        self.record = make_record(kind, fd, len(payload))
        self.record.opcode = opcode
        self.record.arg = arg
        self.record.extra = extra
        self.payload = payload

    @property
    def kind(self) -> int:
        return self.record.kind

    @property
    def opcode(self) -> int:
        return self.record.opcode

    @property
    def arg(self) -> int:
        return self.record.arg

    @property
    def ticket(self) -> int:
        return self.record.ticket

    @property
    def extra(self) -> int:
        return self.record.extra

    @property
    def listener(self) -> int:
        """Of an event on a ticket: index of the listener that its connection came from."""
        return self.record.extra & LISTENER_MASK

    @property
    def fd(self) -> int:
        return self.record.fd

    @property
    def number(self) -> int:
        """Of mail, which is about no connection: the number of a task, or a pid."""
        return self.record.fd


cdef Notice new_notice(const Record* record, const uint8_t* payload):
    cdef Notice notice = Notice.__new__(Notice)
    notice.record = record[0]
    notice.payload = PyBytes_FromStringAndSize(<const char*> payload, record.size)
    return notice
