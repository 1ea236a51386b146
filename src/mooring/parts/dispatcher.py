"""The dispatcher's part."""

from typing import Any

from mooring.boot import LinkEnd
from mooring.dispatcher.dispatcher import Dispatcher
from mooring.parts import Drained, Host, OpenLink, Part


class DispatcherPart(Part):
    """Hands tasks and messages of workers on."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        limit = host.settings.tasks.dispatcher_memory_limit
        self._dispatcher = Dispatcher(host.reactor, host.controller.retired, host.controller.broken, limit)

    def link(self, end: LinkEnd) -> OpenLink | None:
        assert end.worker is not None
        return self._dispatcher.attach(end.channel, worker=end.worker, generation=end.peer_generation)

    def retire(self, worker: int, generation: int) -> None:
        self._dispatcher.retire(worker, generation)

    def drain(self, timeout: float, code: int, drained: Drained) -> None:
        self._dispatcher.drain(timeout, drained)

    def counts(self) -> dict[str, int]:
        return self._dispatcher.counts()

    def stats(self) -> dict[str, Any]:
        return self._dispatcher.stats()

    def depart(self) -> None:
        self._dispatcher.depart()
