"""The dispatcher: workers hand tasks to it, and it hands each to a task worker that has nothing to do.

Theory
    A star: every worker and every task worker has one channel, to this process. So W workers and T task workers have
    W + T channels and not W * T; there is one queue, first come, first served, and no task waits behind a long one
    while a task worker is idle. It is a process of its own because all others may stand still in a handler.

    A task worker has at most one task. So what a dead one was at is known without a page of marks: the task that it had
    is lost, since nobody knows how far it came, and whoever waits is told so. It is not run again.

    Every task ends in exactly one way, which is counted: finished (done or failed), lost, or cancelled. The worker that
    handed it over keeps the limits (task_queue_limit, task_queue_bytes), because only there can a refusal be immediate;
    so what waits here is bounded by them, for one worker. What is kept for all of them has a limit of its own
    (dispatcher_memory_limit): at three quarters of it everybody is told (FULL), and refuses what is new where the
    caller is; the last quarter is for what is on its way then, and what does not fit there either is refused here.

    A task whose worker is gone is cancelled when somebody waited for its result, and run when nobody did.

    Messages between workers go the same way. One for a worker that is not there is held until its successor is, within
    limits; so is none for one that retires, since its successor is there already.

    At a reload both generations are here. A task worker that retires gets nothing new; a worker that retires is gone
    when what it had handed over by then is done.

    It runs nothing of the application and ends only with the server. When it dies, its tasks are lost, their callers
    hear of it by the end of the channel, and the supervisor starts another one. At a stop it starts nobody: when no
    task worker is left, the tasks that wait are lost at once.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from mooring._core.channel import BadRecord
from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import TO_DISPATCHER, Fate, Mail, Notice, TaskFlag
from mooring.counters import Part, zeros
from mooring.journal import own_logger
from mooring.net.refusals import RefusalLog, say_bad

log = own_logger("mooring.dispatcher")

UNREAD_LIMIT = 256 << 20  # bytes of results that a worker may leave unread, as one that stands still does
HELD_MESSAGES = 1000  # for one worker that is not there
HELD_BYTES = 16 << 20
LOOK = 0.02  # seconds between looks whether a drain is over, or whether there is memory again
SMALL = 4096  # bytes of a result for which there is always room: somebody waits for it


class Peer(MailContract):
    """A worker or task worker, from its link on."""

    def __init__(self, dispatcher: "Dispatcher", worker: int, generation: int) -> None:
        self.worker = worker
        self.generation = generation
        self.pid = 0
        self.takes = False  # it carries tasks out
        self.retiring = False
        self.retired = False
        self.task: QueuedTask | None = None  # what it is at
        self.given: dict[int, QueuedTask] = {}  # what it has handed over, by its own numbers
        self.waits_for: set[QueuedTask] = set()  # when it retires
        self._dispatcher = dispatcher

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        self._dispatcher.take(self, notice)

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        self._dispatcher.on_lost(self, why)

    def on_bad(self, channel: RecordChannel, problem: Exception) -> None:
        self._dispatcher.on_bad(self, problem)

    def on_broken(self, channel: RecordChannel, why: str) -> None:
        self._dispatcher.on_broken(self, why)


class QueuedTask:
    """A task that is not over."""

    __slots__ = ("flags", "key", "number", "payload", "source", "worker")

    def __init__(self, source: Peer, number: int, payload: bytes, flags: int) -> None:
        self.source: Peer | None = source  # None: nobody waits for it any more
        self.worker = source.worker
        self.number = number  # its worker's
        self.key = 0  # ours, once it runs
        self.payload = payload
        self.flags = flags

    @property
    def unawaited(self) -> bool:
        """Nobody waits for its result."""
        return self.flags & TaskFlag.UNAWAITED != 0


class Dispatcher:
    """See the module's text. `on_retired` is called when nothing of a worker that retires is left here, `on_broken`
    when one has to be replaced because it speaks nonsense."""

    def __init__(
        self,
        reactor: Reactor,
        on_retired: Callable[[Peer], None],
        on_broken: Callable[[Peer, str], None],
        memory_limit: int,
    ) -> None:
        self._reactor = reactor
        self._limit = memory_limit
        self._unread_limit = min(UNREAD_LIMIT, memory_limit // 2)  # one that stands still leaves something to others
        self._full = False
        self._queued_bytes = 0
        self._held_bytes = 0
        self._on_retired = on_retired
        self._tell_broken = on_broken
        self._refusals = RefusalLog(reactor.call_later, log)
        self._channels: dict[Peer, RecordChannel] = {}
        self._idle: deque[Peer] = deque()
        self._queue: deque[QueuedTask] = deque()
        self._running: dict[int, QueuedTask] = {}  # by our numbers
        self._held: dict[int, list[tuple[int, bytes]]] = {}  # messages, by worker
        self._count = 0
        self._awaits = True  # task workers may come
        self._counters = zeros(Part.DISPATCHER)
        self._taken: dict[int, Callable[[Peer, Notice], None]] = {
            mail: getattr(self, f"_on_{mail.name.lower()}") for mail in TO_DISPATCHER
        }

    def attach(self, channel: int, *, worker: int, generation: int) -> RecordChannel:
        """A link to a worker or task worker; takes the descriptor over."""
        peer = Peer(self, worker, generation)
        opened = self._channels[peer] = RecordChannel(self._reactor, channel, peer)
        return opened

    def stats(self) -> dict[str, int]:
        """Counters; accepted = done + failed + lost + cancelled + queued + running."""
        return {
            **self._counters,
            "tasks_queued": len(self._queue),
            "tasks_running": len(self._running),
            "dispatcher_bytes": self._kept(),
        }

    # ------------------------------------------------------------------ memory

    def _kept(self) -> int:
        """Bytes that wait here, for whomever."""
        return self._queued_bytes + self._held_bytes + sum([channel.waiting for channel in self._channels.values()])

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes more can be kept; if there is nothing else, any number."""
        kept = self._kept()
        if not self._full and kept + size > self._limit // 4 * 3:
            self._counters["dispatcher_full"] += 1
            message = (
                "%d bytes wait in the dispatcher: new tasks and messages between workers are refused until there are "
                "fewer; see dispatcher_memory_limit=%d"
            )
            self._refusals.say(logging.WARNING, message, kept + size, self._limit)
            self._tell_full(full=True)
            self._reactor.call_later(LOOK, self._look_for_room)
        return kept == 0 or kept + size <= self._limit

    def _look_for_room(self) -> None:
        if self._kept() > self._limit // 2:
            self._reactor.call_later(LOOK, self._look_for_room)
        else:
            self._refusals.say(logging.INFO, "the dispatcher takes tasks and messages again")
            self._tell_full(full=False)

    def _tell_full(self, *, full: bool) -> None:
        self._full = full
        for peer, channel in self._channels.items():
            if peer.pid:
                channel.send(Notice(Mail.FULL, 0, arg=full))

    # ------------------------------------------------------------------ what they say

    def take(self, peer: Peer, notice: Notice) -> None:
        """A record comes to the function of its name. Raises ValueError for one that makes no sense."""
        taken = self._taken.get(notice.kind)
        if taken is None:
            raise BadRecord(f"unknown kind {notice.kind}")
        taken(peer, notice)

    def _on_hello(self, peer: Peer, notice: Notice) -> None:
        if peer.pid:
            raise BadRecord("a second HELLO")
        peer.pid = notice.number
        peer.takes = notice.opcode == 1
        self._free(peer)
        channel = self._channels[peer]
        if self._full:
            channel.send(Notice(Mail.FULL, 0, arg=True))
        for source, held in self._held.pop(peer.worker, ()):
            self._held_bytes -= len(held)
            channel.send(Notice(Mail.MESSAGE, 0, held, arg=source))

    def _on_depart(self, peer: Peer, _notice: Notice) -> None:
        peer.takes = False
        if peer in self._idle:
            self._idle.remove(peer)

    def _on_stats(self, peer: Peer, notice: Notice) -> None:
        self._channels[peer].send(Notice(Mail.STATS, notice.number, msgspec.msgpack.encode(self.stats())))

    def on_bad(self, peer: Peer, problem: Exception) -> None:
        """A record had no effect."""
        self._counters["bad_records"] += 1
        say_bad(self._refusals, f"worker {peer.worker}", problem)

    def on_broken(self, peer: Peer, why: str) -> None:
        """It speaks nonsense; its end will settle what it was at."""
        self._counters["bad_records"] += 1
        log.error("worker %d (pid %d): %s", peer.worker, peer.pid, why)
        self._tell_broken(peer, why)

    def on_lost(self, peer: Peer, why: str) -> None:
        """The process is gone."""
        del self._channels[peer]
        if peer in self._idle:
            self._idle.remove(peer)
        # what it waited for comes first: it may be at a task that it has given itself, whose end it can't be told
        for task in list(peer.given.values()):
            self._cancel(peer, task.number, unawaited_too=False)
        for task in peer.given.values():
            task.source = None  # it was not to be waited for, and runs
        peer.given.clear()
        begun = peer.task
        if begun is not None:
            del self._running[begun.key]
            peer.task = None
            log.warning(
                "task worker %d (pid %d) is gone, and the task that it was at is lost: %s", peer.worker, peer.pid, why
            )
            text = f"task worker {peer.worker} (pid {peer.pid}) ended while it was at this task: {why}"
            self._over(begun, Fate.LOST, msgspec.msgpack.encode([text]))
        if peer.retiring:
            self._look(peer)
        self._give_up()

    # ------------------------------------------------------------------ messages

    def _on_message(self, peer: Peer, notice: Notice) -> None:
        source, worker, payload = peer.worker, notice.arg, notice.payload
        self._counters["pipe_messages"] += 1
        there = [one for one in self._channels if one.worker == worker and one.pid]
        why = "does not read them" if there else "is not there"
        if not self._has_room(len(payload)):
            why = "gets no more while the dispatcher is full"
        elif there:
            channel = self._channels[max(there, key=lambda one: (not one.retiring, one.generation))]
            if channel.waiting + len(payload) <= self._unread_limit:
                channel.send(Notice(Mail.MESSAGE, 0, payload, arg=source))
                return
        else:
            held = self._held.setdefault(worker, [])
            if len(held) < HELD_MESSAGES and sum(len(one) for _, one in held) + len(payload) <= HELD_BYTES:
                held.append((source, payload))
                self._held_bytes += len(payload)
                return
        self._counters["pipe_messages_dropped"] += 1
        dropped = self._counters["pipe_messages_dropped"]
        if dropped & (dropped - 1) == 0:  # not a line for each
            log.error("%d messages were dropped; the last one was for worker %d, which %s", dropped, worker, why)

    # ------------------------------------------------------------------ tasks

    def _on_task(self, peer: Peer, notice: Notice) -> None:
        number, payload = notice.number, notice.payload
        if number in peer.given:
            raise BadRecord(f"task {number} is handed over twice")
        if not self._has_room(len(payload)):
            self._counters["tasks_refused"] += 1
            text = f"a task of {len(payload)} bytes, and {self._kept()} are kept already, see dispatcher_memory_limit"
            why = msgspec.msgpack.encode([text])
            self._channels[peer].send(Notice(Mail.RESULT, number, why, opcode=Fate.REFUSED))
            return
        task = peer.given[number] = QueuedTask(peer, number, payload, notice.opcode)
        self._counters["tasks_accepted"] += 1
        self._queue.append(task)
        self._queued_bytes += len(payload)
        self._dispatch()

    def _free(self, peer: Peer) -> None:
        if peer.takes and not peer.retiring and peer in self._channels:
            self._idle.append(peer)
            self._dispatch()

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            task, peer = self._queue.popleft(), self._idle.popleft()
            self._queued_bytes -= len(task.payload)
            self._count += 1
            task.key = self._count
            self._running[task.key] = task
            peer.task = task
            told = Notice(Mail.TASK, task.key, task.payload, opcode=task.flags & TaskFlag.TRACED, arg=task.worker)
            self._channels[peer].send(told)
            task.payload = b""
        self._give_up()

    def _await_nobody(self) -> None:
        """At a stop nobody comes any more."""
        self._awaits = False
        self._give_up()

    def _give_up(self) -> None:
        """What waits when no task worker is left is lost, if none will come; who waits for it is told now, not when the
        time of the stop is up."""
        if not self._awaits and self._queue and not any(peer.takes and not peer.retiring for peer in self._channels):
            text = "no task worker is left to do it, and the server stops"
            while self._queue:
                task = self._queue.popleft()
                self._queued_bytes -= len(task.payload)
                self._over(task, Fate.LOST, msgspec.msgpack.encode([text]))

    def _on_progress(self, peer: Peer, notice: Notice) -> None:
        task = self._running.get(notice.number)
        if task is not None and task is peer.task and task.source is not None:
            if self._has_room(len(notice.payload)):
                self._channels[task.source].send(Notice(Mail.PROGRESS, task.number, notice.payload))
            else:
                self._counters["task_progress_dropped"] += 1

    def _on_result(self, peer: Peer, notice: Notice) -> None:
        number, fate = notice.number, notice.opcode
        task = self._running.get(number)
        if task is None or task is not peer.task:
            raise BadRecord(f"the result of task {number}, which it has not got")
        if fate not in (Fate.DONE, Fate.FAILED, Fate.LOST):
            raise BadRecord(f"a task that ended with {fate}")
        del self._running[number]
        peer.task = None
        self._over(task, fate, notice.payload)
        self._free(peer)
        if peer.retiring:
            self._look(peer)

    def _on_cancel(self, peer: Peer, notice: Notice) -> None:
        self._cancel(peer, notice.number)

    def _cancel(self, peer: Peer, number: int, *, unawaited_too: bool = True) -> None:
        """Nobody waits any more: one that has not begun never will; one that has goes on, for nobody."""
        task = peer.given.get(number)
        if task is None or (task.unawaited and not unawaited_too):
            return
        try:
            self._queue.remove(task)
        except ValueError:
            task.source = None
        else:
            self._counters["tasks_cancelled"] += 1
            self._queued_bytes -= len(task.payload)
        del peer.given[number]
        self._settle(peer, task)

    def _over(self, task: QueuedTask, fate: int, payload: bytes) -> None:
        """The one place where a task ends that is not cancelled."""
        name = {Fate.DONE: "tasks_done", Fate.FAILED: "tasks_failed"}.get(Fate(fate), "tasks_lost")
        self._counters[name] += 1
        source = task.source
        if source is None:
            self._counters["task_results_unread"] += 1
            return
        del source.given[task.number]
        unread = self._channels[source].waiting + len(payload) > self._unread_limit
        if len(payload) > SMALL and (unread or not self._has_room(len(payload))):
            self._counters["task_results_unread"] += 1
            why = "the worker leaves too many results unread" if unread else "the dispatcher is full"
            text = f"the result of {len(payload)} bytes was dropped: {why}, see dispatcher_memory_limit"
            fate, payload = Fate.LOST, msgspec.msgpack.encode([text])
        self._channels[source].send(Notice(Mail.RESULT, task.number, payload, opcode=fate))
        self._settle(source, task)

    # ------------------------------------------------------------------ its end

    def retire(self, worker: int, generation: int) -> None:
        """That worker retires: nothing new for it, and `on_retired` when what there is is done."""
        for peer in list(self._channels):
            if (peer.worker, peer.generation) == (worker, generation) and not peer.retiring:
                peer.retiring = True
                peer.waits_for = set(peer.given.values())
                if peer in self._idle:
                    self._idle.remove(peer)
                self._look(peer)

    def _settle(self, peer: Peer, task: QueuedTask) -> None:
        if peer.retiring:
            peer.waits_for.discard(task)
            self._look(peer)

    def _look(self, peer: Peer) -> None:
        gone = peer not in self._channels
        if not peer.retired and (gone or (peer.task is None and not peer.waits_for)):
            peer.retired = True
            if not gone:
                self._channels[peer].flush_now()  # the supervisor, who is told next, tells the worker by another way
            self._on_retired(peer)

    def depart(self) -> None:
        """This process ends in order."""
        for channel in self._channels.values():
            channel.send(Notice(Mail.DEPART, 0))

    def drain(self, timeout: float, done: Callable[[dict[str, int]], None]) -> None:
        """`done(counts)` when there are no tasks, or after `timeout` seconds in any case."""
        self._reactor.call_later(LOOK, self._await_nobody)  # who is ready has said so by then
        looks = max(1, int(timeout / LOOK))

        def look() -> None:
            nonlocal looks
            looks -= 1
            if looks <= 0 or not (self._queue or self._running):
                done(self.counts())
            else:
                self._reactor.call_later(LOOK, look)

        look()

    def counts(self) -> dict[str, int]:
        """For the last line of the log."""
        stats = self.stats()
        left = stats["tasks_queued"] + stats["tasks_running"]
        counts: dict[str, Any] = {
            "tasks": stats["tasks_accepted"],
            "tasks_lost": stats["tasks_lost"],
            "tasks_left": left,
        }
        return {name: value for name, value in counts.items() if value}
