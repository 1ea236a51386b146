"""What a worker makes of close records: the handler of `ended` gets them behind the close, whoever looks on the control
socket as they come, and those that a gateway can't write any more are written here.

A gateway that is killed takes with it what it knew. Its workers know from its table which connections each of them
served, and write their records (`gateway_lost`), with what the table shows: no path and no user. Worker 0 writes those
that no worker had served yet.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from mooring._core.gateway_end import Outbox
from mooring._core.table import Table
from mooring.app.foreign import running_of
from mooring.net.closed import log_record
from mooring.types import CAUSES, CloseRecord, ConnectionState
from mooring.worker.site import Site

ASK = 1.0  # seconds after which the gateways are asked to go on telling; mooring.gateway.closed has LEASE
HEARD = 1.0  # seconds that gateways have to say that they will; one that stands still tells what ends later
KEPT = 1000  # records that wait for one who looks
LOST = "gateway_lost"

_record = msgspec.msgpack.Decoder(CloseRecord)
_batch = msgspec.msgpack.Decoder(tuple[int, list[CloseRecord]])


class Tail:
    """What one who looks has not been given yet. If that becomes too much, more is only counted."""

    def __init__(self, wants: Callable[[CloseRecord], bool]) -> None:
        self._wants = wants
        self._records: deque[CloseRecord] = deque()
        self._missed = 0
        self._more = asyncio.Event()
        self.over = False

    def add(self, missed: int, records: Sequence[CloseRecord]) -> None:
        """Some have come; so many others have not."""
        self._missed += missed
        for record in records:
            if not self._wants(record):
                continue
            if len(self._records) < KEPT:
                self._records.append(record)
            else:
                self._missed += 1
        if self._records or self._missed:
            self._more.set()

    def end(self) -> None:
        """Nothing more is wanted: who looks has left, or this process ends."""
        self.over = True
        self._more.set()

    async def take(self, most: int, timeout: float) -> tuple[int, list[CloseRecord]]:
        """How many were missed, and what has come; nothing after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._more.wait()
        except TimeoutError:
            return 0, []
        missed, self._missed = self._missed, 0
        taken = [self._records.popleft() for _ in range(min(most, len(self._records)))]
        if not self._records and not self.over:
            self._more.clear()
        return missed, taken


class Ends:
    """Of one worker. `failed(site, fd, error)` is told what a handler of `ended` has raised; what it gives is run."""

    def __init__(
        self,
        server: object,
        sites: Sequence[Site],
        outbox: Outbox,
        failed: Callable[[Site, int, BaseException], Coroutine[Any, Any, None] | None],
    ) -> None:
        self._server = server
        self._sites = sites
        self._outbox = outbox
        self._failed = failed
        self._tails: set[Tail] = set()
        self._unheard: set[int] = set()  # gateways that may not have heard yet that somebody looks
        self._heard = asyncio.Event()  # they have
        self._asking: asyncio.TimerHandle | None = None

    async def tell(self, site: Site, fd: int, close: Callable[[], Awaitable[Any] | None], record: bytes) -> None:
        """Runs the handler of `close` or `disconnect`, and behind it that of `ended`, whatever became of it."""
        try:
            running = close()
            if running is not None:
                await running
        finally:
            handler = site.handlers.get("ended")
            if handler is not None:
                try:
                    running = running_of(handler(self._server, _record.decode(record)), "the 'ended' handler")
                    if running is not None:
                        await running
                except BaseException as error:
                    told = self._failed(site, fd, error)
                    if told is not None:
                        await told

    # ------------------------------------------------------------------ those who look

    def keeps(self, listener: int | None) -> bool:
        """Whether there are records of that listener; None: of any."""
        return any(
            site.close_records != "off"
            for number, site in enumerate(self._sites)
            if listener is None or listener == number
        )

    def open_tail(self, wants: Callable[[CloseRecord], bool]) -> Tail:
        """From now on it is given the records that fit, of all gateways that have heard of it."""
        tail = Tail(wants)
        self._tails.add(tail)
        if self._asking is None:
            self._unheard = {gateway_end.gateway for gateway_end in self._outbox.all()}
            self._heard.clear()
            self._ask()
        return tail

    async def heard(self) -> None:
        """Waits until all gateways have, for HEARD seconds at the most."""
        if self._unheard:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARD):
                    await self._heard.wait()

    def close_tail(self, tail: Tail) -> None:
        """Nobody takes from it any more."""
        self._tails.discard(tail)

    def end_tails(self) -> None:
        """This process ends."""
        for tail in self._tails:
            tail.end()

    def on_records(self, gateway: int, payload: bytes) -> None:
        """A gateway tells what has ended there; first, and whenever it is asked, that it does."""
        self._unheard.discard(gateway)
        if not self._unheard:
            self._heard.set()
        missed, records = _batch.decode(payload)
        for tail in self._tails:
            tail.add(missed, records)

    def _ask(self) -> None:
        self._asking = None
        if self._tails:
            self._asking = asyncio.get_running_loop().call_later(ASK, self._ask)
            self._outbox.tail()

    # ------------------------------------------------------------------ in a gateway's place

    def lost(self, gateway: int, table: Table, fd: int, *, opened: bool) -> bytes:
        """The record of a connection that was lost with its gateway, packed; empty: none is kept."""
        info = table.info(fd)
        if info is None or self._sites[info.listener].close_records == "off":
            return b""
        record = CloseRecord(
            fd=fd,
            cause=LOST,
            by=CAUSES[LOST][0],
            code=1006 if opened else None,
            reason=f"gateway {gateway} has ended",
            phase=_phase(info.state, busy=info.in_flight > 0),
            protocol="websocket" if opened else "http",
            listener=info.listener,
            remote_ip=info.remote_ip,
            remote_port=info.remote_port,
            gateway=gateway,
            worker_id=info.worker_id,
            connect_time=info.connect_time,
            duration=table.age(fd),
            messages_received=info.messages_received,
            messages_sent=info.messages_sent,
            bytes_received=info.bytes_received,
            bytes_sent=info.bytes_sent,
            round_trip=info.round_trip,
        )
        site = self._sites[info.listener]
        if site.close_records == "log":
            log_record(record, as_json=site.as_json)
        for tail in self._tails:
            tail.add(0, [record])
        return msgspec.msgpack.encode(record) if site.handlers.get("ended") is not None else b""


def _phase(state: ConnectionState, *, busy: bool) -> str:
    if state == ConnectionState.HTTP:
        return "handling" if busy else "idle"
    return "open" if state == ConnectionState.OPEN else "closing"
