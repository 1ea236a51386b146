"""The engine's part."""

import time
from typing import Any

from mooring.boot import LinkEnd
from mooring.engine.memory import MemoryEngine
from mooring.engine.service import EngineService
from mooring.parts import Host, OpenLink, Part


class EnginePart(Part):
    """Keeps the histories of topics."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        engine = MemoryEngine(time.monotonic, host.settings.topics.history_memory_limit)
        self._service = EngineService(host.reactor, engine, host.controller.broken)

    def link(self, end: LinkEnd) -> OpenLink | None:
        return self._service.attach(end.channel, worker=end.worker, generation=end.peer_generation)

    def retire(self, worker: int, generation: int) -> None:
        for peer in self._service.peers(worker, generation):  # nothing of it waits here
            self.host.controller.retired(peer)

    def stats(self) -> dict[str, Any]:
        return self._service.stats()
