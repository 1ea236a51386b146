"""The gateway: owns the connections, judges handshakes, keeps sessions, applies commands.

What runs per message is compiled (connections, hub, relay); here is what happens once per connection, per request or
more rarely. The relay calls the `on_...` methods and `apply`.
"""

import logging
import math
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec

from mooring._core.acceptor import Acceptor
from mooring._core.commands import Commands
from mooring._core.contract import GatewayContract
from mooring._core.finder import Finder
from mooring._core.http_exchange import cause_of
from mooring._core.http_request import HttpError, ParsedRequest
from mooring._core.hub import Hub
from mooring._core.reactor import Reactor
from mooring._core.registry import Cause
from mooring._core.relay import Relay
from mooring._core.room import Rooms
from mooring._core.table import Table
from mooring._core.websocket import WebSockets
from mooring._core.wire import RARE, USER, Call, Event, Notice, Wants
from mooring._core.worker_end import WorkerEnd
from mooring.app.request_record import RequestRecord, encode_request
from mooring.app.search import Search
from mooring.config import Settings
from mooring.counters import Part, zeros
from mooring.gateway.closed import CloseRecords
from mooring.gateway.degraded import DegradedPool
from mooring.gateway.drain import STOPS, Drain
from mooring.gateway.extensions import Agreed
from mooring.gateway.handshake import Accepted, answer, judge
from mooring.gateway.pending import PendingHandshake, PendingHandshakes
from mooring.gateway.rules import Rules, buffer_limit, profile
from mooring.gateway.topics import Topics
from mooring.journal import own_logger
from mooring.link.engine import EngineLink
from mooring.link.policy import Client, new_policy
from mooring.net.listener import overflows
from mooring.net.log import dropped_lines
from mooring.net.refusals import RefusalLog, say_bad
from mooring.net.tls import Certificates, shown_certificate
from mooring.types import ClientCertificate, CloseCode

log = own_logger("mooring.gateway")

CERTIFICATE_LOOK = 1.0  # seconds between two looks whether a certificate has changed
NO_WORKER = "no worker serves: they end again and again, try again later"
OVERDUE_LOOK = 1.0  # seconds between two looks for handlers that do not end
ROOM_SAID = 0.5  # seconds between two times that it is said how many clients this gateway can take; see room.pyx
LATER = (("Retry-After", "5"),)


class SessionEntry(msgspec.Struct, array_like=True):
    """One change of a session; without a value the key goes. The value is kept as it came."""

    key: str
    value: msgspec.Raw = msgspec.Raw(b"")


_entry = msgspec.msgpack.Decoder(SessionEntry)
_acceptance = msgspec.msgpack.Decoder(tuple[str | None, list[tuple[str, str]]])
_fds = msgspec.msgpack.Decoder(list[int])
_search = msgspec.msgpack.Decoder(Search)


class Gateway(GatewayContract):
    """One gateway; `on_retired(worker_end)` is told when a worker that retires has nothing in flight here,
    `on_broken(worker_end, why)` when one has to be replaced because it speaks nonsense."""

    def __init__(
        self,
        reactor: Reactor,
        settings: Settings,
        *,
        number: int,
        table: Table,
        first_serial: int,
        on_retired: Callable[[WorkerEnd], None] = lambda _worker_end: None,
        on_broken: Callable[[WorkerEnd, str], None] = lambda _worker_end, _why: None,
        engine: EngineLink | None = None,
    ) -> None:
        self.reactor = reactor
        self.settings = settings
        self.number = number
        self._tell_retired = on_retired
        self._tell_broken = on_broken
        flow, websocket = settings.flow, settings.websocket
        # behind proxies many clients share an address, unless the proxies tell it before anything else
        shared = settings.http.trusted_proxies and settings.listen.proxy_protocol == "off"
        self._refusals = RefusalLog(reactor.call_later, log)
        self.connections = WebSockets(
            reactor,
            table,
            number,
            first_serial,
            *[profile(one, self._refusals) for one in settings.per_listener],
            address_limit=0 if shared else flow.max_connections_per_address,
            fresh_limit=0 if shared else flow.max_unfinished_per_address,
            ceiling=buffer_limit(settings),
        )
        self.connections.on_tls_failed = self._on_tls_failed
        self.connections.on_file_failed = partial(self._refusals.say, logging.INFO, "%s")
        self.connections.on_cut = partial(self._refusals.say, logging.INFO, "connection %d ended: %s")
        self._certificates = Certificates([one.tls for one in settings.per_listener], self.connections.use_context)
        if self._certificates:
            reactor.call_later(CERTIFICATE_LOOK, self._look_at_certificates)
        self.relay = Relay(
            self.connections,
            Hub(self.connections, websocket.max_topics),
            flow.in_flight_messages,
            flow.in_flight_bytes,
            flow.worker_messages,
            flow.worker_bytes,
        )
        self._rare: dict[int, Callable[[WorkerEnd, Notice], None]] = {
            command: getattr(self, f"_on_{command.name.lower()}") for command in RARE
        }
        self.relay.gateway = self
        self.relay.commands = Commands(self.relay)
        self.relay.grace = int(settings.process.graceful_timeout * 1000)
        self._finder = Finder(self.connections, self.relay.hub)
        dispatch = settings.process.dispatch
        self.relay.policy = new_policy(dispatch, self._client)
        self.relay.by_key = dispatch != "connection"
        self.relay.by_user = dispatch not in ("connection", "address")
        self.relay.redeliver = [one.flow.redeliver for one in settings.per_listener]
        if settings.process.overdue_after:
            reactor.call_later(min(OVERDUE_LOOK, settings.process.overdue_after), self._look_for_overdue)
        self._records = CloseRecords(number, settings.per_listener, reactor.call_later)
        self.connections.on_ended = self._records.ended
        self._rules = [Rules(one) for one in settings.per_listener]
        self._shown: dict[int, ClientCertificate | None] = {}
        self.counters = zeros(Part.GATEWAY)
        link = engine or EngineLink(reactor)
        self._topics = link.follower = Topics(self.relay, link, self._refusals, self.counters, self.on_topic_limit)
        self._pending = [
            PendingHandshakes(reactor, one.websocket.handshake_timeout, self._on_handshake_late)
            for one in settings.per_listener
        ]
        process = settings.process
        self._retry_after = (("Retry-After", str(max(1, math.ceil(process.restart_backoff_max)))),)
        self.pool = DegradedPool(
            reactor, self.relay, process.degraded_hold_time, self._refuse_unserved, self._close_unserved
        )
        self._acceptors: list[Acceptor] = []
        self._listeners: list[socket.socket] = []
        self._drain: Drain | None = None

    def listen(self, listeners: list[socket.socket]) -> None:
        """Accepts clients of these sockets, one for each listener, from now on; they stay the caller's."""
        self._listeners = listeners
        for index, listener in enumerate(listeners):
            address = listener.getsockname()
            port = address[1] if isinstance(address, tuple) else 0  # a Unix socket has none
            rate = self._rules[index].connection_rate
            self._acceptors.append(
                Acceptor(self.reactor, self.connections, listener.fileno(), port, index, rate, self._refusals.say)
            )

    def share_room(self, rooms: Rooms) -> None:
        """Tells the gateways that accept from the same listeners how many clients this one can take, from now on."""
        self.connections.rooms = rooms
        self._say_room()

    def _say_room(self) -> None:
        self.connections.say_room()
        for acceptor in self._acceptors:
            acceptor.look()
        self.reactor.call_later(ROOM_SAID, self._say_room)

    def read_certificates(self) -> None:
        """Reads those that have changed: a reload was asked for."""
        self._certificates.look()

    def _look_at_certificates(self) -> None:
        self._certificates.look()
        self.reactor.call_later(CERTIFICATE_LOOK, self._look_at_certificates)

    def _look_for_overdue(self) -> None:
        """A loop that turns while one handler never ends is no hang, and its worker is not ended."""
        after = self.settings.process.overdue_after
        for kind, fd, age, worker_end in self.relay.take_overdue(int(after * 1000)):
            self._refusals.say(
                logging.WARNING,
                "the %r handler of connection %d has not ended after %.1f s, in worker %d (pid %d)",
                Event(kind).name.lower(),
                fd,
                age / 1000,
                worker_end.worker,
                worker_end.pid,
            )
        self.reactor.call_later(min(OVERDUE_LOOK, after), self._look_for_overdue)

    def _on_tls_failed(self, address: str, why: str) -> None:
        self._refusals.say(logging.INFO, "TLS with %s: %s", address or "a client", why)

    def _client(self, fd: int) -> Client:
        """What a policy may look at."""
        ip, _, server_port = self.connections.peer(fd)
        return Client(fd, ip, server_port, self.relay.user_of(fd))

    @property
    def refuses_all(self) -> bool:
        """Whether a request is answered here, whatever it asks: none has to wait for a worker."""
        return (self._drain is not None and self._drain.refuses) or self.pool.hopeless

    # ------------------------------------------------------------------ requests and handshakes

    def on_request(self, fd: int, number: int, request: ParsedRequest) -> None:
        """A whole request: a handshake is judged here, anything else goes to a worker."""
        listener, head_only = self.connections.listener(fd), request.method == "HEAD"
        if self._records.keeps:
            self._records.requested(fd, listener, request.target)
        if self._drain is not None and self._drain.refuses:
            self._refuse_drained(fd, head_only=head_only)
            return
        if self.pool.hopeless:
            self._refuse_unserved(fd, head_only=head_only)
            return
        rules = self._rules[listener]
        peer, port, server_port = self.connections.peer(fd)
        if not rules.allows_host(request.headers):
            self.counters["hosts_refused"] += 1
            self._refusals.say(logging.INFO, "request of %s refused with 421: its Host is not in allowed_hosts", peer)
            self._refuse(fd, 421, "this host is not served here", Cause.BAD_HOST, head_only=head_only)
            return
        ip, scheme = rules.proxies.client(peer, rules.policy.scheme, request.headers)
        record = RequestRecord(
            request.method,
            request.target,
            request.minor,
            request.headers,
            ip,
            port if ip == peer else 0,
            server_port,
            scheme,
            time.time(),
            number,
            request.streamed,
            self._certificate(fd) if rules.asks_certificates else None,
        )
        if not request.upgrade:
            self.relay.event(Notice(Event.REQUEST, fd, encode_request(record, request.body), arg=number))
            return
        wants = self.relay.wants(fd)
        verdict = judge(request, rules.policy, scheme, ask_origin=bool(wants & Wants.ORIGIN))
        if not isinstance(verdict, Accepted):
            self.counters["handshakes_refused"] += 1
            why = f"{verdict.reason} ({verdict.advice})" if verdict.advice else verdict.reason
            self._refusals.say(
                logging.INFO, "handshake of %s refused with %d: %s", ip or "a client", verdict.status, why
            )
            self._refuse(fd, verdict.status, verdict.reason, Cause.BAD_HANDSHAKE, verdict.headers, head_only=head_only)
            return
        self._finder.note_path(fd, unquote(request.target.partition("?")[0]).encode())  # as `request.path`
        self.relay.sessions.pop(fd, None)  # of requests before: a WebSocket begins with an empty session
        payload = encode_request(record, b"")
        if wants & Wants.HANDSHAKE or verdict.foreign or (verdict.offers and wants & Wants.SUBPROTOCOL):
            self._pending[listener].add(fd, verdict, payload)
            self.relay.event(Notice(Event.HANDSHAKE, fd, payload, opcode=verdict.foreign))
        else:
            self._open(fd, verdict.response, verdict, payload, verdict.subprotocol)

    def _certificate(self, fd: int) -> ClientCertificate | None:
        """What the client of this connection has shown; read once."""
        if fd not in self._shown:
            session = self.connections.tls_session(fd)
            self._shown[fd] = None if session is None else shown_certificate(session)
        return self._shown[fd]

    def _open(self, fd: int, response: bytes, verdict: Accepted, request: bytes, subprotocol: str | None) -> None:
        """The client becomes a WebSocket, and its worker hears of it."""
        if not self.connections.upgrade(fd, response, self._terms(fd, verdict.compression)):
            return
        if self._records.keeps:
            compressed = verdict.compression is not None
            self._records.opened(fd, self.connections.listener(fd), subprotocol, compressed=compressed)
        session = self.relay.sessions.get(fd)
        if session:
            self.relay.tell(fd, Event.SESSION, 1, self.encode_session(session))
        self.relay.event(Notice(Event.OPEN, fd, request, opcode=bool(session)))

    def _on_handshake(self, _worker_end: WorkerEnd, command: Notice) -> None:
        """A worker says what the application makes of a handshake."""
        fd, status, payload = command.fd, command.arg, command.payload
        subprotocol, headers = _acceptance.decode(payload) if status == 101 else (None, [])
        waiting = self._waiting(fd)
        if waiting is None:
            return  # it was late, or the client has left
        if status != 101:
            self.counters["handshakes_refused"] += 1
            reason = f"{status}: the handshake was refused".encode()
            self.connections.answer(fd, payload, status, reason, Cause.HANDSHAKE_REFUSED)
        elif self.draining:
            self._refuse_drained(fd)
        else:
            verdict = waiting.verdict
            chosen = verdict.subprotocol if subprotocol is None else subprotocol
            self._open(fd, verdict.switching(chosen, headers), verdict, waiting.request, chosen)

    def _waiting(self, fd: int) -> PendingHandshake | None:
        """A handshake that waits for the application; it does not any more."""
        for pending in self._pending:
            waiting = pending.take(fd)
            if waiting is not None:
                return waiting
        return None

    def _on_handshake_late(self, fd: int) -> None:
        self.counters["handshakes_timed_out"] += 1
        if any(worker_end is not None and worker_end.usable for worker_end in self.relay.worker_ends):
            status, reason = 504, "the application did not decide about this handshake in time"
            cause = Cause.HANDSHAKE_TIMEOUT
        else:
            status, reason = 503, "there is no worker to decide about this handshake"
            cause = Cause.NO_WORKER
        self._refusals.say(logging.WARNING, "handshake on connection %d refused with %d: %s", fd, status, reason)
        self._refuse(fd, status, reason, cause)

    def on_handshake_lost(self, fd: int) -> None:
        """Its worker ended while its handler ran."""
        if self._waiting(fd) is not None:
            self._refuse(fd, 502, "the worker that was judging this handshake has ended", Cause.WORKER_LOST)

    def _terms(self, fd: int, agreed: Agreed | None) -> tuple[object, ...] | None:
        if agreed is None:
            return None
        sides = (agreed.server_bits, agreed.client_bits, agreed.server_takeover, agreed.client_takeover)
        return (*sides, self._rules[self.connections.listener(fd)].deflate)

    def _refuse(
        self,
        fd: int,
        status: int,
        reason: str,
        cause: int,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        head_only: bool = False,
    ) -> None:
        named = self._rules[self.connections.listener(fd)].server_header
        data = answer(status, reason, headers, head_only=head_only, server_header=named)
        self.connections.answer(fd, data, status, f"{status}: {reason}".encode(), cause)

    def _refuse_drained(self, fd: int, *, head_only: bool = False) -> None:
        self._waiting(fd)
        headers = (("Retry-After", "1"),)
        self._refuse(fd, 503, "the server is shutting down", Cause.SHUTDOWN, headers, head_only=head_only)

    def _refuse_unserved(self, fd: int, *, head_only: bool = False) -> None:
        self._waiting(fd)
        self.counters["unserved_refused"] += 1
        self._refusals.say(logging.WARNING, "request on connection %d refused with 503: %s", fd, NO_WORKER)
        self._refuse(fd, 503, NO_WORKER, Cause.NO_WORKER, self._retry_after, head_only=head_only)

    def _close_unserved(self, fd: int) -> None:
        self.counters["unserved_closed"] += 1
        reason = b"try again later: no worker serves"
        self.connections.disconnect(fd, CloseCode.TRY_AGAIN_LATER, reason, Cause.NO_WORKER)

    def on_bad_request(self, fd: int, error: HttpError) -> None:
        """Bytes that are no acceptable request: one answer, and the connection ends."""
        self.counters["requests_refused"] += 1
        self._refusals.say(logging.INFO, "request refused with %d: %s", error.status, error.reason)
        headers = LATER if error.status in (429, 503) else ()
        self._refuse(fd, error.status, error.reason, cause_of(error.status), headers)

    def on_request_lost(self, fd: int, number: int) -> None:
        """Its worker ended while its handler ran: the client is told, unless the answer has begun."""
        if self.connections.is_answered(fd, number):
            return  # the rest of it may be a file, which needs no worker
        if not self.connections.answer_begun(fd):
            reason = "the worker that was handling this request has ended; it may have had an effect"
            self._refuse(fd, 502, reason, Cause.WORKER_LOST)
        else:
            self.connections.cut(fd, b"the worker ended in the middle of the answer", Cause.WORKER_LOST)

    def on_gone(self, fd: int, code: int, reason: bytes) -> None:
        """A connection has ended."""
        self._waiting(fd)
        self._shown.pop(fd, None)
        if self._drain is not None:
            self._drain.on_gone()

    def on_failed(self, fd: int, code: int, reason: bytes) -> None:
        """A WebSocket was ended by us, for a limit or a fault of the peer."""
        self._refusals.say(logging.INFO, "connection %d closed with %d: %s", fd, code, reason.decode(errors="replace"))

    def on_topic_limit(self, fd: int, topic: bytes) -> None:
        """A subscription too many."""
        self.counters["topics_refused"] += 1
        self._refusals.say(
            logging.WARNING,
            "connection %d is in %d topics and cannot join %s: raise max_topics",
            fd,
            self.settings.websocket.max_topics,
            topic.decode(errors="replace"),
        )

    # ------------------------------------------------------------------ workers

    def on_retired(self, worker_end: WorkerEnd) -> None:
        """A worker that retires has finished everything here and was told so."""
        self._tell_retired(worker_end)

    def on_worker_lost(self, worker_end: WorkerEnd) -> None:
        """A worker is gone; if it was retiring, it has retired, and was perhaps told so before."""
        if worker_end.retiring and not worker_end.departed:
            self._tell_retired(worker_end)

    def on_worker_broken(self, worker_end: WorkerEnd, why: str) -> None:
        """A worker speaks nonsense; its end will settle what it was at."""
        log.error("worker %d (pid %d): %s", worker_end.worker, worker_end.pid, why)
        self._tell_broken(worker_end, why)

    def on_bad_record(self, worker_end: WorkerEnd, problem: Exception) -> None:
        """A record of a worker had no effect."""
        say_bad(self._refusals, f"worker {worker_end.worker}", problem)

    def depart(self) -> None:
        """This gateway ends in order: its workers, who see their channels end, are told, and before that of the
        connections that are left: a drain may be cut short."""
        for fd in self.connections.table.connections():
            self.connections.cut(fd, STOPS, Cause.SHUTDOWN)
        self.reactor.flush()
        for worker_end in self.relay.worker_ends:
            if worker_end is not None and not worker_end.departed:
                worker_end.depart()

    # ------------------------------------------------------------------ sessions and calls

    def apply(self, worker_end: WorkerEnd, command: Notice) -> None:
        """The commands that are not compiled."""
        self._rare[command.kind](worker_end, command)

    def _on_follow(self, worker_end: WorkerEnd, command: Notice) -> None:
        self._topics.take(worker_end, command)

    def _on_tail(self, worker_end: WorkerEnd, _command: Notice) -> None:
        self._records.watch(worker_end)

    def _on_call(self, worker_end: WorkerEnd, command: Notice) -> None:
        worker_end.reply(command.ticket, self.call(command.arg, command.fd, command.payload))

    def _on_session(self, worker_end: WorkerEnd, command: Notice) -> None:
        fd, payload = command.fd, command.payload
        entry = _entry.decode(payload)
        value = bytes(entry.value)
        if not self.connections.table.exists(fd):
            return
        session = self.relay.sessions.setdefault(fd, {})
        if not value:
            session.pop(entry.key, None)
        else:
            size = sum(len(key) + len(kept) for key, kept in session.items() if key != entry.key)
            if size + len(entry.key) + len(value) > self.settings.websocket.session_limit:
                self.counters["sessions_refused"] += 1
                self._refusals.say(logging.WARNING, "session of connection %d is full: %s is not kept", fd, entry.key)
                return
            session[entry.key] = value
        if self.connections.table.owner(fd) != worker_end.pid:
            change = {entry.key: msgspec.Raw(value) if value else None}
            self.relay.tell(fd, Event.SESSION, 0, msgspec.msgpack.encode(change))

    def encode_session(self, session: dict[str, bytes]) -> bytes:
        """A session as one msgpack map."""
        return msgspec.msgpack.encode({key: msgspec.Raw(value) for key, value in session.items()})

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        """What a worker waits for."""
        if what == Call.SESSION:
            return self.encode_session(self.relay.sessions.get(fd, {}))
        if what == Call.STATS:
            return msgspec.msgpack.encode(self.stats())
        if what == Call.CONNECTIONS_OF:
            return msgspec.msgpack.encode(self.relay.hub.all_subscribers(USER + payload))
        if what == Call.SUBSCRIBERS:
            return self.relay.hub.subscribers(payload, before=fd)
        if what == Call.SUBSCRIBER_COUNT:
            return msgspec.msgpack.encode(self.relay.hub.subscriber_count(payload))
        if what == Call.FIND:
            # fd: 0, or the only one that is asked about
            return msgspec.msgpack.encode(self._finder.find(fd=fd, **_search.decode(payload).terms()))
        if what == Call.LIST:
            return msgspec.msgpack.encode(self._finder.find(brief=True, **_search.decode(payload).terms()))
        if what == Call.ROWS:
            return msgspec.msgpack.encode(self._finder.rows(_fds.decode(payload)))
        return b"\xc0"

    def stats(self) -> dict[str, Any]:
        """Counters of this gateway, see mooring.counters; which one it is, and what workers it has."""
        return {
            "gateway": self.number,
            **self.connections.stats(),
            **self.relay.stats(),
            **self.counters,
            "listen_overflows": sum(map(overflows, self._listeners)),
            "log_lines_dropped": dropped_lines(),
            "topics": len(self.relay.hub),
            "users": self.relay.hub.users,
        }

    # ------------------------------------------------------------------ drain

    def drain(self, timeout: float, code: int, done: Callable[[dict[str, int]], None]) -> None:
        """Accepts nobody any more, closes every connection with `code`, lets handlers finish, then `done(counts)`; see
        Drain. After `timeout` seconds it is done in any case: what is not finished then is counted as in_flight."""
        if self._drain is None:
            for acceptor in self._acceptors:
                acceptor.stop()
            self._drain = Drain(
                self.reactor,
                self.connections,
                self.relay,
                timeout,
                code,
                self._refuse_drained,
                lambda: done(self.counts()),
            )
            self._topics.drain()
            self._drain.begin()

    @property
    def draining(self) -> bool:
        """Whether a drain has begun; it may be over."""
        return self._drain is not None

    @property
    def drained(self) -> bool:
        """Whether a drain is over: workers that have nothing in hand may end, as all do at a stop."""
        return self._drain is not None and self._drain.over

    def hurry(self) -> None:
        """A drain shall be over: those that are still to be closed are closed now."""
        if self._drain is not None:
            self._drain.hurry()

    def counts(self) -> dict[str, int]:
        """The balance: accepted = finished + uncertain + dropped + in_flight."""
        stats = self.relay.stats()
        return {key: stats[key] for key in ("accepted", "finished", "uncertain", "dropped", "in_flight")}
