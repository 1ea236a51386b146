"""A worker's end of the link to the dispatcher: tasks and their results, progress, messages between workers."""

import os
from collections.abc import Callable
from typing import Protocol

from mooring._core.channel import BadRecord
from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import TO_WORKER, Mail, Notice
from mooring.journal import own_logger
from mooring.worker.pipe import Pipe
from mooring.worker.tasks import TaskBench, TaskDesk

log = own_logger("mooring.worker")


class LinkHost(Protocol):
    """Who is told that a channel carries nonsense; see mooring.worker.Worker."""

    def on_bad_record(self, whose: str, problem: Exception) -> None: ...
    def on_broken(self, whose: str, why: str) -> None: ...


class DispatcherLink(MailContract):
    """This process's end of the link to the dispatcher. A record comes to the function of its name."""

    def __init__(
        self, reactor: Reactor, channel: int, desk: TaskDesk, bench: TaskBench | None, pipe: Pipe, host: LinkHost
    ) -> None:
        """Takes the descriptor over."""
        self._host = host
        self._desk = desk
        self._bench = bench
        self._pipe = pipe
        self._left = False  # it has said that it ends
        self._taken: dict[int, Callable[[Notice], None]] = {
            mail: getattr(self, f"_on_{mail.name.lower()}") for mail in TO_WORKER
        }
        self._channel = RecordChannel(reactor, channel, self)
        desk.connect(self._channel)
        pipe.connect(self._channel)

    def hello(self) -> None:
        """This process is ready, a task worker for tasks."""
        self._channel.send(Notice(Mail.HELLO, os.getpid(), opcode=self._bench is not None))
        self._channel.flush_now()

    def hang_up(self) -> None:
        """The dispatcher has ended."""
        self._channel.hang_up()

    def abandon(self) -> None:
        """In a forked child: see Channel.abandon."""
        self._channel.abandon()

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        if not self._left:
            log.warning("the channel to the dispatcher has ended: %s; what it kept is lost", why)
        self._desk.on_lost(channel, why)

    def on_bad(self, channel: RecordChannel, problem: Exception) -> None:
        self._host.on_bad_record("the dispatcher", problem)

    def on_broken(self, channel: RecordChannel, why: str) -> None:
        self._host.on_broken("the dispatcher", why)

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        taken = self._taken.get(notice.kind)
        if taken is None:
            raise BadRecord(f"unknown kind {notice.kind}")
        taken(notice)

    def _on_task(self, notice: Notice) -> None:
        if self._bench is None:
            raise BadRecord("a task for a worker, which carries none out")
        self._bench.on_task(self._channel, notice)

    def _on_progress(self, notice: Notice) -> None:
        self._desk.on_progress(notice)

    def _on_result(self, notice: Notice) -> None:
        self._desk.on_result(notice)

    def _on_stats(self, notice: Notice) -> None:
        self._desk.on_stats(notice)

    def _on_message(self, notice: Notice) -> None:
        self._pipe.receive(notice.arg, notice.payload)

    def _on_depart(self, _notice: Notice) -> None:
        self._left = True

    def _on_full(self, notice: Notice) -> None:
        self._desk.full = self._pipe.full = notice.arg == 1
