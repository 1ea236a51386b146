"""The desk's part: answers other programs on the control socket, in whichever process was given it."""

import socket

from mooring.admin.desk import Desk
from mooring.admin.finder import Finder
from mooring.parts import Drained, Host, Part


class DeskPart(Part):
    """Made in every worker; worker 0 has the socket."""

    needs_asyncio = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        assert host.worker is not None
        assert host.server is not None
        self._desk: Desk | None = None
        for fd in host.boot.desk:
            self._desk = Desk(
                socket.socket(fileno=fd),
                host.server,
                Finder(host.worker.outbox),
                host.worker,
                can_reload=host.controller.can_reload,
                processes=host.controller.processes,
            )

    def serve(self) -> None:
        if self._desk is not None:
            self._desk.open()

    def retire(self, worker: int, generation: int) -> None:
        if worker == self.host.boot.worker:
            self._close()

    def drain(self, timeout: float, code: int, drained: Drained) -> None:
        self._close()
        drained({})

    def _close(self) -> None:
        if self._desk is not None:
            self._desk.close()

    async def finish(self, reason: str, *, last: bool) -> None:
        if self._desk is not None:
            await self._desk.finish()

    def abandon(self) -> None:
        if self._desk is not None:
            self._desk.abandon()
