"""A process that is told by a supervisor what it does, on its child socket, and says there how it is.

Without the supervisor it ends, in order: nobody would start again what ends here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mooring.boot import Boot
from mooring.config import Settings
from mooring.journal import own_logger
from mooring.net import messages
from mooring.net.child_socket import ChildSocket, ChildSocketError, MessageRefused, close_all
from mooring.net.log import reopen_logs
from mooring.net.signals import SignalSocket, handle_in_loop
from mooring.parts import ORPHANED, Peer, Server
from mooring.process_host import ProcessHost
from mooring.types import CloseCode

if TYPE_CHECKING:
    import asyncio

log = own_logger("mooring.runtime")

ORPHAN_GRACE = 2.0  # seconds a process goes on without its supervisor
RETRY = 0.05  # seconds until a child message that had no room is sent again
STARTED = 0  # the number of the event `start`; those of the supervisor are others


class Supervised:
    """The controller of a child of the supervisor."""

    can_reload = True

    def __init__(self, boot: Boot, server: Server | None) -> None:
        self._boot = boot
        self._socket = ChildSocket(boot.control, messages.to_child)
        self._socket.reserve()  # a link to a new worker must arrive, however many clients there are
        self._orphaned = False
        self._vitals: asyncio.Future[list[dict[str, Any]]] | None = None  # asked for, for the desk
        self.host = ProcessHost(boot, Settings.from_options(boot.settings), server, self)

    def starting(self) -> None:
        """Nothing is heard until the application has started."""

    def started(self) -> None:
        if self.host.loop is not None:
            self.host.loop.add_reader(self._socket.fileno(), self._hear)
        else:
            self.host.reactor.add_reader(self._socket.fileno(), self._hear)

    def ready(self) -> None:
        if self.host.loop is not None:
            handle_in_loop(self.host.loop, signal.SIGTERM, self._terminate)
        else:
            signals = SignalSocket((signal.SIGTERM,))
            self.host.reactor.add_reader(signals.fileno(), partial(self._on_signal, signals))
        self._tell(messages.Ready())

    def departed(self) -> None:
        """The end of the process says it."""

    def abandon(self) -> None:
        self._socket.close()

    # ------------------------------------------------------------------ what the supervisor is told

    def ask_reload(self) -> None:
        self._tell(messages.Reload())

    def ask_shutdown(self) -> None:
        self._tell(messages.Shutdown())

    def ask_replacement(self, why: str) -> None:
        self._tell(messages.Replace(why))

    def end(self, reason: str) -> None:
        self.host.end(reason)

    def retired(self, worker: Peer) -> None:
        self._tell(messages.Retired(worker.worker, worker.generation, worker.pid))

    def broken(self, worker: Peer, why: str) -> None:
        self._tell(messages.Broken(worker.worker, worker.generation, worker.pid, why))

    def handled(self, answer: int) -> None:
        if answer != STARTED:
            self._tell(messages.Handled(answer))

    def drained(self, counts: dict[str, int]) -> None:
        self._tell(messages.Drained(dict(counts)))
        if self._orphaned:
            self.host.end(ORPHANED)

    async def processes(self) -> list[dict[str, Any]]:
        import asyncio

        if self._vitals is None:
            self._vitals = asyncio.get_running_loop().create_future()
            self._tell(messages.Vitals())
        return await asyncio.shield(self._vitals)

    def _tell(self, message: messages.ToSupervisor) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            self._socket.send(message)
            self._push_out()
        except OSError:
            return  # the supervisor is gone, and the end of the socket says so next
        except ChildSocketError as error:
            log.error("the supervisor was not told %r: %s", messages.op_of(message), error)

    def _push_out(self) -> None:
        if self._socket.pending and not self._socket.flush():
            self.host.reactor.call_later(RETRY, self._push_out)

    # ------------------------------------------------------------------ what the supervisor says

    def _hear(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                received = self._socket.receive()
            except BlockingIOError:
                return
            except MessageRefused as error:
                log.error("%s", error)
                continue
            except (ChildSocketError, OSError) as error:
                log.error("the child socket: %s", error)
                received = None
            if received is None:
                self._orphan()
                return
            message, fds = received
            if isinstance(message, messages.Attach):
                self._attach(message, fds)
            else:
                close_all(fds)  # no other one carries any
                self._heed(message)

    def _attach(self, message: messages.Attach, fds: Sequence[int]) -> None:
        try:
            end = self._boot.attach(message, fds)
        except ValueError as error:
            log.error("the child message 'attach' is refused: %s", error)
            close_all(fds)
        else:
            self.host.link(end)

    def _heed(self, message: messages.ToChild) -> None:
        match message:
            case messages.Gone():
                self.host.hang_up(message.link)
            case messages.Serve():
                self.host.serve()
                if message.started:
                    self.host.hear(messages.Event("start", [], STARTED))
            case messages.Retire():
                self.host.retire(message.worker, message.generation)
            case messages.Drain():
                self.host.drain(message.timeout, message.code)
            case messages.Stop():
                if self.host.draining:
                    self.host.hurry()
                    self._tell(messages.Drained(dict(self.host.counts())))  # as they are now: for the last line
                self.host.end(message.reason, last=message.last)
            case messages.Reopen():
                reopen_logs()
            case messages.Processes():
                asked, self._vitals = self._vitals, None
                if asked is not None and not asked.done():
                    asked.set_result(message.processes)
            case messages.Place():
                log.error("the child message 'place' is refused: this process is no spare")
            case _:
                self.host.hear(message)

    def _on_signal(self, signals: SignalSocket) -> None:
        if signal.SIGTERM in signals.take():
            self._terminate()

    def _terminate(self) -> None:
        """SIGTERM, or nobody there to serve for."""
        if not self._orphaned:
            self._tell(messages.Terminated())  # the supervisor says how, and has another one start
        else:
            self.host.drain(ORPHAN_GRACE, CloseCode.GOING_AWAY)

    def _orphan(self) -> None:
        """The supervisor is gone: nobody would restart anything here, so clients had better go elsewhere."""
        log.error("the supervisor is gone: ending")
        self._orphaned = True
        if self.host.loop is not None:
            self.host.loop.remove_reader(self._socket.fileno())
        else:
            self.host.reactor.remove_reader(self._socket.fileno())
        self._socket.close()
        self._terminate()
        # a handler may never end
        self.host.reactor.call_later(ORPHAN_GRACE + 1, partial(os._exit, 1))
