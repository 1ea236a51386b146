"""A process's end of its link to the engine, for the worker and the gateway that may be in it."""

import os
from collections.abc import Callable
from typing import Protocol

from mooring._core.channel import BadRecord
from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import FROM_ENGINE, VERSION, Mail, Notice
from mooring.journal import own_logger

log = own_logger("mooring.engine")

UNSENT_LIMIT = 64 << 20  # bytes that the engine has not taken yet


class Asker(Protocol):
    """Who publishes and asks for histories; see mooring.worker.topics. No handler may be called here."""

    def on_appended(self, number: int, payload: bytes) -> None: ...
    def on_past(self, number: int, payload: bytes) -> None: ...
    def on_engine_lost(self, why: str) -> None: ...


class Follower(Protocol):
    """Who follows topics for its clients; see mooring.gateway.topics."""

    def on_engine(self) -> None: ...
    def on_followed(self, number: int, payload: bytes) -> None: ...
    def on_published(self, offset: int, payload: bytes) -> None: ...
    def on_judged(self, number: int, payload: bytes) -> None: ...


class EngineLink(MailContract):
    """There is one for each process, whether there is an engine or not. A record comes to the function of its name."""

    def __init__(self, reactor: Reactor) -> None:
        self.asker: Asker | None = None
        self.follower: Follower | None = None
        self._reactor = reactor
        self._channel: RecordChannel | None = None
        self._taken: dict[int, Callable[[Notice], None]] = {
            mail: getattr(self, f"_on_{mail.name.lower()}") for mail in FROM_ENGINE
        }

    def open(self, channel: int) -> "EngineLink":
        """An engine is there; takes the descriptor over."""
        old = self._channel
        if old is not None:  # it has ended, and that may not have been read yet: first things first
            old.hang_up()
            while old.open:
                old.pump(0)
        self._channel = RecordChannel(self._reactor, channel, self)
        self._channel.send(Notice(Mail.ENGINE_HELLO, os.getpid(), arg=VERSION))
        if self.follower is not None:
            self.follower.on_engine()
        return self

    @property
    def is_open(self) -> bool:
        return self._channel is not None and self._channel.open

    @property
    def is_full(self) -> bool:
        """So much waits for the engine that nothing more shall."""
        return self._channel is not None and self._channel.waiting > UNSENT_LIMIT

    def send(self, mail: Mail, number: int, payload: bytes) -> bool:
        """False: there is no engine at this moment."""
        if self._channel is None or not self._channel.open:
            return False
        self._channel.send(Notice(mail, number, payload))
        return True

    def flush(self) -> None:
        """Hands over what the kernel takes."""
        if self._channel is not None:
            self._channel.flush_now()

    def hang_up(self) -> None:
        """The engine has ended."""
        if self._channel is not None:
            self._channel.hang_up()

    def abandon(self) -> None:
        """In a forked child: see Channel.abandon."""
        if self._channel is not None:
            self._channel.abandon()

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        taken = self._taken.get(notice.kind)
        if taken is None:
            raise BadRecord(f"unknown kind {notice.kind}")
        taken(notice)

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        if channel is self._channel:
            self._channel = None
            if self.asker is not None:
                self.asker.on_engine_lost(why)

    def on_bad(self, channel: RecordChannel, problem: Exception) -> None:
        log.error("a record of the engine made no sense and was ignored: %s", problem)

    def on_broken(self, channel: RecordChannel, why: str) -> None:
        log.error("what comes from the engine means nothing any more: %s; restart the server", why)
        channel.hang_up()  # so that nobody waits for what will not come

    def _on_appended(self, notice: Notice) -> None:
        if self.asker is not None:
            self.asker.on_appended(notice.number, notice.payload)

    def _on_past(self, notice: Notice) -> None:
        if self.asker is not None:
            self.asker.on_past(notice.number, notice.payload)

    def _on_followed(self, notice: Notice) -> None:
        if self.follower is not None:
            self.follower.on_followed(notice.number, notice.payload)

    def _on_judged(self, notice: Notice) -> None:
        if self.follower is not None:
            self.follower.on_judged(notice.number, notice.payload)

    def _on_behind(self, _notice: Notice) -> None:
        if self.follower is not None:
            self.follower.on_engine()

    def _on_published(self, notice: Notice) -> None:
        if self.follower is not None:
            self.follower.on_published(notice.number, notice.payload)
