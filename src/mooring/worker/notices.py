"""What gateways tell a worker without waiting for an answer: one method for each event that takes no ticket."""

from collections.abc import Callable

from mooring._core.channel import BadRecord
from mooring._core.gateway_end import GatewayEnd
from mooring._core.wire import TICKETED, Event, Notice
from mooring.journal import own_logger
from mooring.worker.ends import Ends
from mooring.worker.graceful_end import GracefulEnd
from mooring.worker.session import Sessions
from mooring.worker.streams import Streams
from mooring.worker.topics import TopicDesk
from mooring.worker.works import Works

log = own_logger("mooring.worker")

MOVED = 2  # of SESSION: another worker serves that connection now


class Notices:
    """Those of one worker. An event of the table of records (_core/wire.toml) comes to the method of its name."""

    def __init__(
        self,
        sessions: Sessions,
        streams: Streams,
        works: Works,
        graceful_end: GracefulEnd,
        ends: Ends,
        topics: TopicDesk,
    ) -> None:
        self._sessions = sessions
        self._streams = streams
        self._works = works
        self._graceful_end = graceful_end
        self._ends = ends
        self._topics = topics
        self._taken: dict[int, Callable[[GatewayEnd, Notice], None]] = {
            event: getattr(self, event.name.lower()) for event in Event if event not in TICKETED
        }

    def take(self, gateway_end: GatewayEnd, notice: Notice) -> None:
        """Raises BadRecord for what takes a ticket and has none."""
        taken = self._taken.get(notice.kind)
        if taken is None:
            raise BadRecord(f"unknown kind {notice.kind}")
        taken(gateway_end, notice)

    def session(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        if notice.extra == MOVED:
            self._sessions.forget(notice.fd)
        else:
            self._sessions.learn(notice.fd, notice.payload, replace=notice.extra == 1)

    def depart(self, gateway_end: GatewayEnd, _notice: Notice) -> None:
        log.debug("nothing more comes from gateway %d", gateway_end.gateway)
        gateway_end.departed = True

    def room(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._streams.on_room(notice.fd, notice.extra)

    def gone(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._streams.on_gone(notice.fd, notice.extra)

    def end_streams(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._graceful_end.within(notice.extra / 1000)

    def body(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._streams.on_part(notice.fd, notice.extra, notice.payload)

    def file(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._streams.on_file(notice.fd, notice.extra, notice.payload)

    def peer_ended(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._streams.on_peer_ended(notice.fd, notice.extra)

    def work(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._works.on_cancel(notice.fd, notice.payload.decode() if notice.extra else None)

    def followed(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        self._topics.on_followed(notice.extra, notice.payload)

    def tail(self, gateway_end: GatewayEnd, notice: Notice) -> None:
        self._ends.on_records(gateway_end.gateway, notice.payload)
