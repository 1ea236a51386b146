"""The engine's part."""

import time
from typing import Any

from mooring.boot import LinkEnd
from mooring.engine.contract import Engine
from mooring.engine.service import EngineService
from mooring.parts import Host, OpenLink, Part


class EnginePart(Part):
    """Numbers what is published in topics with a history, and keeps it, or has a broker do so."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        topics = host.settings.topics
        self.needs_asyncio = topics.engine != "memory"
        engine: Engine
        if self.needs_asyncio:
            from mooring.engine.redis.options import Options
            from mooring.engine.redis.several import engine_at

            engine = engine_at(topics.engine, Options(prefix=topics.engine_prefix))
        else:
            from mooring.engine.local import LocalEngine
            from mooring.engine.memory import MemoryEngine

            engine = LocalEngine(MemoryEngine(time.monotonic, topics.history_memory_limit), host.reactor.call_later)
        self._service = EngineService(host.reactor, engine, host.controller.broken)
        if self.needs_asyncio:
            host.reactor.post(self._service.start)  # in the loop, and before any part waits for what is published
        else:
            self._service.start()

    async def finish(self, reason: str, *, last: bool) -> None:
        await self._service.close()

    def link(self, end: LinkEnd) -> OpenLink | None:
        return self._service.attach(end.channel, worker=end.worker, generation=end.peer_generation)

    def retire(self, worker: int, generation: int) -> None:
        for peer in self._service.peers(worker, generation):  # nothing of it waits here
            self.host.controller.retired(peer)

    def stats(self) -> dict[str, Any]:
        return self._service.stats()
