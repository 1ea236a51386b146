"""What the two halves of the seam ask of those they belong to: a relay of its gateway, an inlet of its worker.

Both are compiled and run per message; gateway and worker are Python, and hear of what happens once per connection or
per request. What is written here is all that is asked. Nobody makes an object of these classes: mooring.gateway.Gateway
and mooring.worker.Worker are such, and so is whatever a test puts in their place.
"""

from libc.stdint cimport uint8_t

import select

from mooring._core.channel cimport Channel
from mooring._core.gateway_end cimport GatewayEnd
from mooring._core.wire cimport Notice, Record


cdef class GatewayContract:
    """What a relay asks. `counters`: those of the table of counters, by name."""

    @property
    def refuses_all(self) -> bool:
        """Whether a request is answered by the gateway, whatever it asks: none has to wait for a worker."""
        raise NotImplementedError

    @property
    def drained(self) -> bool:
        """Whether a drain is over: workers that have nothing in hand may end, as all do at a stop."""
        raise NotImplementedError

    def on_request(self, fd: int, number: int, request: object) -> None:
        """A whole request (http.ParsedRequest), the `number`th of its connection."""
        raise NotImplementedError

    def on_bad_request(self, fd: int, error: Exception) -> None:
        """Bytes that are no acceptable request (http.HttpError): nothing more comes from that client."""
        raise NotImplementedError

    def on_request_lost(self, fd: int, number: int) -> None:
        """The worker of a request ended while its handler ran."""
        raise NotImplementedError

    def on_handshake_lost(self, fd: int) -> None:
        """The same of a handshake."""
        raise NotImplementedError

    def on_gone(self, fd: int, code: int, reason: bytes) -> None:
        """A connection has ended; last of all that is told of it."""
        raise NotImplementedError

    def on_failed(self, fd: int, code: int, reason: bytes) -> None:
        """A WebSocket was ended by us, for a limit or a fault of the peer."""
        raise NotImplementedError

    def on_topic_limit(self, fd: int, topic: bytes) -> None:
        """A subscription too many, which was not made."""
        raise NotImplementedError

    def on_retired(self, worker_end: object) -> None:
        """A worker (worker_end.WorkerEnd) that retires has nothing here any more, and was told so."""
        raise NotImplementedError

    def on_worker_lost(self, worker_end: object) -> None:
        """A worker is gone, and its events are taken back."""
        raise NotImplementedError

    def on_worker_broken(self, worker_end: object, why: str) -> None:
        """What still comes from this worker means nothing; its end will settle what it was at."""
        raise NotImplementedError

    def on_bad_record(self, worker_end: object, problem: Exception) -> None:
        """A record of this worker had no effect."""
        raise NotImplementedError

    def apply(self, worker_end: object, command: Notice) -> None:
        """A command that is `rare` in the table of records. Raises ValueError for one that makes no sense."""
        raise NotImplementedError

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        """The answer to a question (wire.Call) of the worker in the same process."""
        raise NotImplementedError

    def encode_session(self, session: dict[str, bytes]) -> bytes:
        """A session as the payload of the event SESSION."""
        raise NotImplementedError


cdef class WorkerContract:
    """What an inlet asks."""

    def cold(self, event: Notice) -> object:
        """Calls the handler of an event on a ticket that is no message; what is still to be awaited, or None."""
        raise NotImplementedError

    def running_of(self, result: object, kind: int) -> object:
        """What is still to be awaited of what a handler returned, or None. TypeError for what runs nothing."""
        raise NotImplementedError

    def failed(self, kind: int, listener: int, fd: int, error: BaseException) -> object:
        """A handler has raised. What is still to be awaited before the event is over, or None."""
        raise NotImplementedError

    def note(self, gateway_end: object, notice: Notice) -> None:
        """What a gateway (gateway_end.GatewayEnd) tells without waiting. Raises ValueError for what makes no sense."""
        raise NotImplementedError

    def limit_reached(self) -> None:
        """As many messages and requests have begun as `Inlet.observe` was told."""
        raise NotImplementedError

    def on_bad_record(self, whose: str, problem: Exception) -> None:
        """A record had no effect."""
        raise NotImplementedError

    def on_broken(self, whose: str, why: str) -> None:
        """What still comes from this gateway means nothing."""
        raise NotImplementedError

    def on_standstill(self, gateway: int, over: bool) -> None:
        """Too much waits for this gateway, and from here on its clients miss something; `over`: not any more."""
        raise NotImplementedError

    def gateway_lost(self, gateway_end: object, why: str) -> None:
        """This gateway (gateway_end.GatewayEnd) is gone, and its connections with it."""
        raise NotImplementedError

    def end_child(self, error: BaseException | None) -> None:
        """In a child that a handler has forked, when that handler is over: ends the process."""
        raise NotImplementedError

    def came_back(self) -> None:
        """In such a child, when its handler is suspended: it will not come to its end."""
        raise NotImplementedError


cdef class Taker:
    """What the worker's end of a link asks of its inlet: a gateway, which has no inlet, loads both ends without it."""

    def __cinit__(self, *args: object) -> None:
        self.channels = []
        self.waiting = GatewayWait()
        self.output_limit = 64 << 20

    cdef int deliver(self, GatewayEnd gateway_end, const Record* record, const uint8_t* payload) except -1:
        """One event, whose head `is_event`."""
        raise NotImplementedError

    cdef int send_all(self) except -1:
        """Hands over what the kernel takes. Always to all gateways: what some have and others don't, these wait for."""
        cdef Channel channel
        for channel in self.channels:
            channel.flush()
        return 0


cdef class GatewayWait:
    """How this worker waits for a gateway while its loop stands still. Where the process is itself a gateway, it must
    go on as one meanwhile: local.pyx has that kind."""

    def readable(self, fd: int, timeout: float) -> bool:
        """Until there is something to read; False: there was nothing in `timeout` seconds."""
        return _ready(fd, select.POLLIN, timeout)

    def writable(self, fd: int, timeout: float) -> bool:
        """Until there is room to write; False: there was none in `timeout` seconds."""
        return _ready(fd, select.POLLOUT, timeout)

    def readable_now(self, fd: int) -> bool:
        """Without waiting."""
        return _ready(fd, select.POLLIN, 0.0)

    def acquire(self, lock: object) -> None:
        """Until the lock is this thread's, which others hold for the length of one call."""
        lock.acquire()


def _ready(fd: int, events: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout * 1000))
