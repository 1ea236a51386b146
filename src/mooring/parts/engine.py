"""The engine's part."""

import time
from typing import Any

from mooring.boot import LinkEnd
from mooring.engine.service import EngineService
from mooring.parts import Host, OpenLink, Part


class EnginePart(Part):
    """Numbers what is published in topics with a history, and keeps it, or has a broker do so."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._service = EngineService(host.reactor, host.controller.broken)
        self._url = host.settings.topics.engine
        self.needs_asyncio = self._url != "memory"
        if not self.needs_asyncio:
            from mooring.engine.local import LocalEngine
            from mooring.engine.memory import MemoryEngine

            memory = MemoryEngine(time.monotonic, host.settings.topics.history_memory_limit)
            self._service.use(LocalEngine(memory, host.reactor.call_later))

    async def start(self) -> None:
        if self.needs_asyncio:
            from mooring.engine.redis.options import Options
            from mooring.engine.redis.several import engine_at

            self._service.use(engine_at(self._url, Options(prefix=self.host.settings.topics.engine_prefix)))

    async def finish(self, reason: str, *, last: bool) -> None:
        await self._service.close()

    def link(self, end: LinkEnd) -> OpenLink | None:
        return self._service.attach(end.channel, worker=end.worker, generation=end.peer_generation)

    def retire(self, worker: int, generation: int) -> None:
        for peer in self._service.peers(worker, generation):  # nothing of it waits here
            self.host.controller.retired(peer)

    def stats(self) -> dict[str, Any]:
        return self._service.stats()
