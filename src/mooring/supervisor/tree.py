"""The children that exist, and the loop that hears of them.

This is mechanism: it spawns, links, tells, signals and reaps. It decides nothing: what happens to children it tells the
plan that is followed at the moment, which its owner sets. What holds here at all times:

* a child is in `children` from its spawn until it is reaped, and its descriptors are ours no longer;
* its last messages are delivered before its end is;
* whoever has a link to a process that is gone is told so: the end of file may not come, see links.py;
* two processes are linked when each is, or will be, serving; an end goes to its process in the boot
  payload when the peer is known already, else by `attach` when both serve. So a process that serves has a
  link to every peer that serves, and nobody hears of a process that never became ready.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from mooring._core.pulse import Pulse
from mooring._core.room import Rooms
from mooring.journal import own_logger
from mooring.net import messages
from mooring.net.child_socket import ChildSocket, ChildSocketError, MessageRefused, close_all
from mooring.net.messages import ToChild, ToSupervisor
from mooring.roles import ProcessSpec
from mooring.supervisor.child import PEERS, Child, ChildState, Exit
from mooring.supervisor.deadlines import Deadlines
from mooring.supervisor.links import End, Link, Links, new_order, new_pulse, new_rooms, new_table
from mooring.supervisor.scores import Scores

log = own_logger("mooring.supervisor")

BootPayload = Callable[[ProcessSpec, int], Mapping[str, Any]]

KILL_AFTER = 1.0  # seconds from SIGTERM to SIGKILL
MUTE_AFTER = 2.0  # seconds a process may live after it closed its child socket
MESSAGES_A_TURN = 64  # of one process; one that never stops talking must not keep the others from being heard
MARGIN = 0.5  # seconds that an answer may take to come, or a tenth of the timeout if that is less


class Owner(Protocol):
    """Who is told what children say beyond their life, and how they end."""

    def on_message(self, child: Child, message: ToSupervisor) -> None: ...
    def on_refused(self, child: Child, problem: MessageRefused) -> None: ...
    def on_distrust(self) -> None: ...
    def on_end(self, child: Child, how: Exit, asked: bool) -> None: ...


class Plan(Protocol):
    """Who is told how far the children are; see plans.py."""

    @property
    def phase(self) -> Any: ...
    def on_ready(self, child: Child) -> None: ...
    def on_retired(self, child: Child) -> None: ...
    def on_drained(self, child: Child, counts: Mapping[str, Any]) -> None: ...
    def on_failure(self, child: Child, why: str) -> None: ...


class Tree:
    """The children, their links and the loop; see the file's theory."""

    def __init__(
        self,
        owner: Owner,
        argv: Sequence[str],
        listener_fds: Sequence[int],
        boot: BootPayload,
        boot_timeout: float,
        control_fd: int = -1,
        scores: Scores | None = None,
    ) -> None:
        self.plan: Plan
        self.children: list[Child] = []
        self.deadlines = Deadlines()
        self._links = Links()
        self._owner = owner
        self._argv = argv
        self._listener_fds = listener_fds
        self._boot = boot
        self._boot_timeout = boot_timeout
        self._scores = scores or Scores()
        self._control_fd = control_fd  # of the socket that worker 0 answers on; -1: there is none
        self._rooms_file = -1  # what they say of their room, and our view of it
        self._rooms: Rooms | None = None
        self._order = -1  # what several gateways share to agree on the order of publishes
        self._selector = selectors.DefaultSelector()

    # -- the loop

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Call `action` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, action)

    def _unwatch(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def turn(self) -> None:
        """Wait for the next events or deadline, and handle them."""
        for key, _ in self._selector.select(self.deadlines.timeout()):
            key.data()
        self.deadlines.run()

    def close(self) -> None:
        """Kill and reap whatever is left. After a plan that went well nothing is."""
        for child in list(self.children):
            child.signal(signal.SIGKILL)
        limit = time.monotonic() + 2.0
        while self.children and time.monotonic() < limit:
            with selectors.PollSelector() as selector:  # which needs nothing of the kernel's that may have run out
                for child in self.children:
                    selector.register(child.pidfd, selectors.EVENT_READ)
                selector.select(limit - time.monotonic())
            for child in list(self.children):
                if child.reap() is not None:
                    self._forget(child)
        self._selector.close()
        for fd in (self._order, self._rooms_file):
            if fd >= 0:
                os.close(fd)
        self._order = self._rooms_file = -1

    # -- spawning

    def spawn(self, batch: Sequence[Child]) -> None:
        """Start processes that shall begin to serve together.

        Raises OSError when one can't be started; those of the batch before it run and are in `children`.
        """
        try:
            for child in batch:  # all tables first: a worker's payload names those of its whole batch
                if child.spec.gateway is not None:
                    child.table = new_table(child.spec.gateway)
            if self._order < 0 and sum(child.spec.gateway is not None for child in batch) > 1:
                self._order = new_order()
                self._rooms_file = new_rooms()
                self._rooms = Rooms(self._rooms_file)
            for child in batch:
                self._launch(child, batch)
        except OSError:
            for child in batch:
                if child not in self.children:
                    self._forget(child)
            raise

    def _launch(self, child: Child, batch: Sequence[Child]) -> None:
        spec = child.spec
        theirs: ChildSocket[ToChild] | None = None
        pulse = -1
        ends: list[End] = []
        try:
            entries, tables = self._join(child, batch, ends)
            child.control, theirs = ChildSocket.pair()
            pulse = new_pulse()
            child.pulse = Pulse(pulse)
            listeners = [] if spec.gateway is None else list(self._listener_fds)
            order = [] if spec.gateway is None or self._order < 0 else [self._order, self._rooms_file]
            desk = [self._control_fd] if spec.worker == 0 and self._control_fd >= 0 else []
            scores = self._scores.payload(child)
            payload = {
                **self._boot(spec, child.generation),
                **scores,
                "role": spec.role,
                "number": spec.number,
                "gateway": spec.gateway,
                "worker": spec.worker,
                "generation": child.generation,
                "incarnation": child.incarnation,
                "control": theirs.fileno(),
                "listeners": listeners,
                "pulse": pulse,
                "desk": desk,
                "order": self._order if order else -1,
                "rooms": self._rooms_file if order else -1,
                "tables": tables,
                "links": entries,
            }
            own = [theirs.fileno(), pulse, *listeners, *desk, *order, *tables.values()]
            own += {scores["scoreboard"], scores["metrics"]} - {-1}
            fds = [*own, *(fd for end in ends for fd in end.descriptors())]
            child.launch(self._argv, payload, fds)
        finally:
            for end in ends:
                end.close()
            if theirs is not None:
                theirs.close()
            if pulse >= 0:
                os.close(pulse)
        self.children.append(child)
        try:
            self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._reap, child))
            self._selector.register(child.control.fileno(), selectors.EVENT_READ, partial(self._talk, child))
        except OSError:  # the kernel has no room for one more: a child that nobody would hear
            child.end()
            self._forget(child)
            raise
        self._limit_boot(child)

    def _join(
        self, child: Child, batch: Sequence[Child], ends: list[End]
    ) -> tuple[list[dict[str, Any]], dict[int, int]]:
        """Links it with peers that serve, and with those that start with it. What it is told: of each link, and the
        descriptors of the tables that it sees. Its ends go into `ends`, also of a call that fails midway."""
        entries = []
        tables = {} if child.spec.gateway is None else {child.spec.gateway: child.table}
        for peer in dict.fromkeys([*self.children, *batch]):
            for link in self._connect(child, peer):
                if peer not in batch and peer.state is not ChildState.SERVING:
                    continue  # by attach, when both serve
                end = link.take(child)
                ends.append(end)
                entries.append(link.describe(child, end))
                if link.worker is child and link.gateway.spec.gateway is not None:
                    tables[link.gateway.spec.gateway] = link.gateway.table
        return entries, tables

    def _connect(self, child: Child, peer: Child) -> list[Link]:
        """The links of two processes, made when they shall have some and have none."""
        links = [link for link in self._links.of(child) if link.peer_of(child) is peer]
        # Two incarnations of one slot are not peers: one replaces the other.
        if not links and peer.spec != child.spec and peer.state in PEERS:
            for worker, gateway in ((child, peer), (peer, child)):
                if _linked(worker.spec, gateway.spec):
                    links.append(self._links.make(worker, gateway))
        return links

    def place(self, child: Child) -> None:
        """A spare has taken a slot: tell it which one, and attach it to the peers that serve, as `spawn` does.

        Raises OSError when it can't be linked; it is killed then.
        """
        spec = child.spec
        self._limit_boot(child)
        try:
            for peer in list(self.children):
                for link in self._connect(child, peer):
                    if peer.state is ChildState.SERVING:
                        self._attach(link, child)
        except OSError:
            self.kill(child)
            raise
        desk = [self._control_fd] if spec.worker == 0 and self._control_fd >= 0 else []
        assert spec.worker is not None
        place = messages.Place(spec.role, spec.number, spec.worker, child.generation, child.incarnation)
        self.tell(child, place, desk)

    def _limit_boot(self, child: Child) -> None:
        late = partial(self._late, child, child.state)
        child.deadlines.append(self.deadlines.after(self._boot_timeout, late))

    def _late(self, child: Child, state: ChildState) -> None:
        if child.state is state:
            self.terminate(child)
            self.plan.on_failure(child, f"was not ready within {self._boot_timeout:g} s")

    # -- telling

    def announce(self, batch: Iterable[Child], *, started: bool = False) -> None:
        """These are ready: attach them to their peers and let them serve. `started`: for the first time, of which
        worker 0 tells the application."""
        batch = list(batch)
        for child in batch:
            child.become(ChildState.SERVING)
        for child in batch:
            for link in self._links.of(child):
                peer = link.peer_of(child)
                if peer.state is ChildState.SERVING:
                    for side in (peer, child):
                        if link.holds(side):
                            self._attach(link, side)
                elif peer.state is ChildState.RETIRING:
                    self._tell_retired(link.gateway, peer)
        for child in batch:
            self.tell(child, messages.Serve(started=started and child.spec.worker == 0))

    def _attach(self, link: Link, side: Child) -> None:
        peer = link.peer_of(side)
        end = link.take(side)
        fds = end.descriptors()
        if peer is link.gateway and peer.table >= 0:
            fds.append(peer.table)
        worker, gateway = link.worker.spec.worker, link.gateway.spec.gateway
        told = messages.Attach(worker, gateway, peer.generation, peer.pid, link.number, link.service)
        self.tell(side, told, fds)
        end.close()

    def retire(self, worker: Child) -> None:
        """Have every gateway move the worker's connections away; ends in `on_retired`."""
        worker.become(ChildState.RETIRING)
        self._tell_retired(worker, worker)
        for link in self._links.of(worker):
            if link.holds(link.gateway):
                self._links.close(link)  # that gateway never heard of it
            elif link.gateway.state is ChildState.SERVING:
                self._tell_retired(link.gateway, worker)
        if self._links.settled(worker):
            self.plan.on_retired(worker)

    def _tell_retired(self, child: Child, worker: Child) -> None:
        assert worker.spec.worker is not None
        self.tell(child, messages.Retire(worker.spec.worker, worker.generation))

    def _retired(self, gateway: Child, message: messages.Retired) -> None:
        for link in self._links.of(gateway):
            worker = link.worker
            if link.gateway is gateway and worker.is_named(message) and worker.state is ChildState.RETIRING:
                link.settled = True
                if self._links.settled(worker):
                    self.plan.on_retired(worker)

    def drain(self, child: Child, timeout: float, code: int) -> None:
        """Have a process with a gateway close its clients; it answers `drained`.

        `timeout` is the owner's. The process is given a little less, because an answer that comes with the
        limit comes too late.
        """
        child.become(ChildState.DRAINING)
        self.tell(child, messages.Drain(max(0.0, timeout - min(MARGIN, timeout / 10)), code))

    def stop(self, child: Child, reason: str, *, last: bool = False) -> None:
        """Ask a process to end; `reason` is for the application."""
        child.become(ChildState.STOPPING)
        self.tell(child, messages.Stop(reason, last))

    def tell(self, child: Child, message: ToChild, fds: Sequence[int] = ()) -> None:
        """Send a child message; a process that is ending does not hear it, and need not."""
        if child.control is None:
            return
        try:
            child.control.send(message, fds)
        except ConnectionError:
            return  # its end is on its way to us
        except (ChildSocketError, OSError) as problem:
            # Also when it is we who have no descriptors left: a process that missed a message is not what
            # its state says, and a fresh one will be.
            self.distrust(child, str(problem))
        else:
            self._arm(child)

    # -- ending

    def terminate(self, child: Child) -> None:
        """End a process by SIGTERM, and by SIGKILL a second later."""
        if child.state is not ChildState.STOPPING:
            child.become(ChildState.STOPPING)
        child.killed = True
        child.signal(signal.SIGTERM)
        # A stopped (SIGSTOP) process takes no SIGTERM; SIGKILL it does.
        child.deadlines.append(self.deadlines.after(KILL_AFTER, partial(child.signal, signal.SIGKILL)))

    def kill(self, child: Child) -> None:
        """End a process now."""
        if child.state is not ChildState.STOPPING:
            child.become(ChildState.STOPPING)
        child.killed = True
        child.signal(signal.SIGKILL)

    def distrust(self, child: Child, why: str) -> None:
        """It can't be talked to: it is killed, and its end repairs what there is to repair."""
        if child.state not in (ChildState.STOPPING, ChildState.GONE):
            self.kill(child)
            self._owner.on_distrust()
            self.plan.on_failure(child, f"can't be talked to: {why}")

    # -- hearing

    def _arm(self, child: Child) -> None:
        if child.control is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.control.pending else 0)
            if self._selector.get_key(child.control.fileno()).events != wanted:
                self._selector.modify(child.control.fileno(), wanted, partial(self._talk, child))

    def _talk(self, child: Child, *, all_of_it: bool = False) -> None:
        """The child socket of `child` can be read or written."""
        if child.control is not None and child.control.pending:
            try:
                child.control.flush()
            except OSError:
                child.control.drop()
            self._arm(child)
        heard = 0
        while child.control is not None and (all_of_it or heard < MESSAGES_A_TURN):
            heard += 1
            try:
                received = child.control.receive()
            except BlockingIOError:
                return
            except MessageRefused as problem:
                self._owner.on_refused(child, problem)
                continue
            except ChildSocketError as problem:
                self.distrust(child, str(problem))
                continue
            if received is None:
                self._unwatch(child.control.fileno())
                child.control.close()
                child.control = None
                # Mostly it is ending and the pidfd says so next; else nobody could tell it anything again.
                child.deadlines.append(self.deadlines.after(MUTE_AFTER, partial(self._mute, child)))
                return
            message, fds = received
            close_all(fds)  # no message of a child carries any
            self._hear(child, message)

    def _hear(self, child: Child, message: ToSupervisor) -> None:
        match message:
            case messages.Ready():
                if child.state is ChildState.STARTING:
                    child.become(ChildState.READY)
                    self.plan.on_ready(child)
            case messages.Warm():
                if child.state is ChildState.WARMING:  # else it has taken a slot already
                    child.become(ChildState.WARM)
                    self.plan.on_ready(child)
            case messages.Retired():
                self._retired(child, message)
            case messages.Drained():
                if child.state is ChildState.DRAINING:
                    child.become(ChildState.DRAINED)
                self.plan.on_drained(child, message.counts)
            case _:
                self._owner.on_message(child, message)

    def _mute(self, child: Child) -> None:
        self.distrust(child, "it closed its child socket and lives on")

    def sweep(self) -> None:
        """Reap every child process that ended, strangers too.

        Strangers are ours to reap as PID 1 or a subreaper, and when the program had children before it
        became the supervisor. Each is looked at first (WNOWAIT), so that the end of one of ours is never
        taken by the wrong hand.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                for child in self.children:
                    if child.pid == ended.si_pid:
                        self._reap(child)
                        break
                else:
                    os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return

    def _reap(self, child: Child) -> None:
        if child.state is ChildState.GONE:
            return  # by a sweep, earlier in this turn
        how = child.reap()
        if how is None:
            return
        if child.control is not None:
            child.control.hang_up()
        self._talk(child, all_of_it=True)  # its last words
        asked = child.state is ChildState.STOPPING
        if self._rooms is not None and child.spec.gateway is not None:
            self._rooms.expect(child.spec.gateway)  # its successor will have room
        self._forget(child)
        self._owner.on_end(child, how, asked)

    def _forget(self, child: Child) -> None:
        child.become(ChildState.GONE)
        if child in self.children:
            self.children.remove(child)
            self._unwatch(child.pidfd)
            if child.control is not None:
                self._unwatch(child.control.fileno())
        peers = [link.worker for link in self._links.of(child) if link.worker.state is ChildState.RETIRING]
        for link in self._links.of(child):
            peer = link.peer_of(child)
            knows = not link.holds(peer) and peer.state is not ChildState.GONE
            self._links.close(link)
            if knows:
                self.tell(peer, messages.Gone(link.number))
        child.forget()
        self._scores.give_back(child)
        for worker in peers:
            if self._links.settled(worker):
                self.plan.on_retired(worker)


def _linked(one: ProcessSpec, service: ProcessSpec) -> bool:
    """Whether the one has a link that the other takes."""
    row = service.row
    return row.takes_links and (one.worker is not None or (row.links_gateways and one.gateway is not None))
