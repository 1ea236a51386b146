"""Close records: what is left of a connection when it has ended, and who is told.

The relay gives each connection of a listener with `close_records` one last look, and here that becomes a record, for
those who want it:

    the log        a line of the logger `mooring.closed`, with close_records="log"
    a worker       behind the close, if the application has a handler for `ended`
    `mooring tail` in batches, to the worker that has asked within LEASE seconds

Nobody is waited for. What nobody wants is not even made. A tail gets what was kept since the last batch: up to KEPT
records; how many more there were it is told, as it is when so much waits for its worker that nothing is sent. If that
worker goes, what is kept waits for the next one to ask, as long as the lease lasts.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from mooring._core.registry import Cause
from mooring._core.wire import Event
from mooring._core.worker_end import WorkerEnd
from mooring.config import Settings
from mooring.net.closed import log_record
from mooring.types import CAUSES, PHASES, TLS_VERSIONS, CloseRecord

KEPT = 1000  # records between two batches
BATCH = 0.1  # seconds between two batches
LEASE = 5.0  # seconds for which one who has asked is told
ROOM = 1 << 20  # bytes that may wait for the worker that is told
_PATH = 255  # bytes

Later = Callable[[float, Callable[[], None]], object]


class LastLook(NamedTuple):
    """What mooring._core.closed gives."""

    fd: int
    listener: int
    cause: int
    stage: int
    code: int
    reason: bytes
    upgraded: bool
    tls_version: int
    remote_ip: str
    remote_port: int
    path: bytes
    user: bytes
    worker: int  # its number + 1; 0: none
    connect_time: float
    duration: float
    requests: int
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    round_trip: int  # microseconds, 0: none
    least_round_trip: int
    most_queued: int


class CloseRecords:
    """Of one gateway."""

    def __init__(self, number: int, listeners: Sequence[Settings], call_later: Later) -> None:
        self._number = number
        self._call_later = call_later
        self._keeps = [one.flow.close_records != "off" for one in listeners]
        self.keeps = any(self._keeps)
        self._logs = [one.flow.close_records == "log" for one in listeners]
        self._as_json = listeners[0].operation.log_format == "json"
        self._paths: dict[int, str] = {}  # of the last request, of connections that speak HTTP
        self._agreed: dict[int, tuple[str, str]] = {}  # subprotocol and compression of a WebSocket
        self._tail: WorkerEnd | None = None
        self._until = 0.0  # the end of its lease, by the monotonic clock
        self._kept: deque[CloseRecord] = deque()
        self._missed = 0
        self._posted = False

    def requested(self, fd: int, listener: int, target: str) -> None:
        """A request has come."""
        if self._keeps[listener]:
            path = target.partition("?")[0]
            self._paths[fd] = path if len(path) <= _PATH else path[:_PATH]

    def opened(self, fd: int, listener: int, subprotocol: str | None, *, compressed: bool) -> None:
        """It is a WebSocket now."""
        if self._keeps[listener] and (subprotocol or compressed):
            self._agreed[fd] = (subprotocol or "", "permessage-deflate" if compressed else "")

    def ended(self, seen: tuple[Any, ...], wanted: bool) -> bytes | None:
        """A connection has ended. The record for its worker, packed, if that wants it."""
        look = LastLook._make(seen)
        path = self._paths.pop(look.fd, "")
        agreed = self._agreed.pop(look.fd, ("", ""))
        watched = self._until and time.monotonic() < self._until
        if not watched:
            self._until = 0.0
            self._tail = None
            self._kept.clear()
            self._missed = 0
            if not wanted and not self._logs[look.listener]:
                return None
        record = self._record(look, path, *agreed)
        if self._logs[look.listener]:
            log_record(record, as_json=self._as_json)
        if watched:
            self._keep(record)
        return msgspec.msgpack.encode(record) if wanted else None

    def _record(self, look: LastLook, path: str, subprotocol: str, compression: str) -> CloseRecord:
        cause = Cause(look.cause).name.lower()
        code = look.code if look.upgraded or look.code < 1000 else None
        return CloseRecord(
            fd=look.fd,
            cause=cause,
            by=CAUSES[cause][0],
            code=code,
            reason=look.reason.decode(errors="replace"),
            phase=PHASES[look.stage],
            protocol="websocket" if look.upgraded else "http",
            tls=TLS_VERSIONS[look.tls_version],
            subprotocol=subprotocol,
            compression=compression,
            listener=look.listener,
            remote_ip=look.remote_ip,
            remote_port=look.remote_port,
            path=look.path.decode(errors="replace") or path,
            user=look.user.decode(errors="replace"),
            gateway=self._number,
            worker_id=look.worker - 1 if look.worker else None,
            connect_time=look.connect_time,
            duration=look.duration,
            requests=look.requests,
            messages_received=look.messages_received,
            messages_sent=look.messages_sent,
            bytes_received=look.bytes_received,
            bytes_sent=look.bytes_sent,
            round_trip=look.round_trip / 1e6 if look.round_trip else None,
            least_round_trip=look.least_round_trip / 1e6 if look.least_round_trip else None,
            most_queued=look.most_queued,
        )

    # ------------------------------------------------------------------ for `mooring tail`

    def watch(self, worker_end: WorkerEnd) -> None:
        """Its worker is told of records for LEASE seconds from now on; at once of those that are kept, or of none."""
        self._tail = worker_end
        self._until = time.monotonic() + LEASE
        self._send()

    def _keep(self, record: CloseRecord) -> None:
        if len(self._kept) >= KEPT:
            self._missed += 1
        else:
            self._kept.append(record)
        if not self._posted:
            self._posted = True
            self._call_later(BATCH, self._send_batch)

    def _send_batch(self) -> None:
        self._posted = False
        if self._kept or self._missed:
            self._send()

    def _send(self) -> None:
        if self._tail is None or not self._tail.usable or self._tail.unsent() > ROOM:
            return  # until it asks again
        told = msgspec.msgpack.encode((self._missed, list(self._kept)))
        self._kept.clear()
        self._missed = 0
        self._tail.say(Event.TAIL, 0, told)
