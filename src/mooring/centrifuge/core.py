"""What every command of a session goes through: its turn, the ticket it waits on, its one reply; and the session's end.

Commands begin in the order in which they came. One that concerns a channel waits for those before it that concern the
same one (a lane for each channel that is being asked about); others do not wait, so that a slow call holds up nothing
but itself.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mooring.centrifuge import codes
from mooring.centrifuge.actions import Action, Answer, Ask, Close, Question, Refusal, Send
from mooring.centrifuge.claims import Claims
from mooring.centrifuge.codec import Codec
from mooring.centrifuge.commands import Disconnect, Error, Push, Reply, Request


class State(Enum):
    """Where a session is in its life. It changes in `Core.enter`, forward only."""

    NEW = 0
    CONNECTING = 1
    CONNECTED = 2
    REFUSED = 3
    CLOSED = 4


Accepted = Callable[[Any], None]
Refused = Callable[[Error], None]


@dataclass(slots=True)
class _Pending:
    """What goes on when a ticket is answered."""

    expects: type
    accepted: Accepted
    refused: Refused


class Core:
    """`now` is the clock, in s, as of the last call from outside. `run` carries out a command whose turn has come, and
    `leave` gives up what the session has; whoever makes a core sets both."""

    run: Callable[[int, Request], None]
    leave: Callable[[], None]

    def __init__(self, codec: Codec, now: float, push_disconnect: bool) -> None:
        self.codec = codec
        self.now = now
        self.state = State.NEW
        self.unanswered = 0
        self._push_disconnect = push_disconnect
        self._lanes: dict[str, deque[tuple[int, Request]]] = {}
        self._pending: dict[int, _Pending] = {}
        self._ticket = 0
        self._actions: list[Action] = []
        self._frames: list[bytes] = []  # what is to be sent behind these actions, as one frame

    def enter(self, state: State) -> None:
        assert state.value >= self.state.value, f"{self.state} -> {state}"
        self.state = state

    # -------------------------------------------------------------------------------------------- turns

    def queue(self, id: int, request: Request) -> None:
        """Runs a command, or has it wait for its turn."""
        lane = self._lanes.get(getattr(request, "channel", ""))
        if lane is not None:
            lane.append((id, request))
        else:
            self.run(id, request)

    def done(self, channel: str) -> None:
        """What was asked about a channel has been answered: the next command of it."""
        waiting = self._lanes.pop(channel, None)
        while waiting and self.state is State.CONNECTED:
            self.run(*waiting.popleft())
            if channel in self._lanes:
                self._lanes[channel] = waiting
                return

    # -------------------------------------------------------------------------------------------- tickets

    def ask(
        self,
        request: Question,
        expects: type,
        accepted: Accepted,
        refused: Refused,
        claims: Claims | None = None,
        subscribed: bool = False,
    ) -> None:
        """Commands of the same channel wait until one of the two callbacks has led to `done`."""
        channel = getattr(request, "channel", None)
        if channel is not None:
            self._lanes.setdefault(channel, deque())
        ticket = self.ticket(expects, accepted, refused)
        self.act(Ask(ticket, request, claims, subscribed))

    def ticket(self, expects: type, accepted: Accepted, refused: Refused) -> int:
        self._ticket += 1
        self._pending[self._ticket] = _Pending(expects, accepted, refused)
        return self._ticket

    def settle(self, ticket: int, answer: Answer) -> None:
        """Goes on with what waits on a ticket, if anything does. Raises `TypeError` for an answer to something else."""
        pending = self._pending.get(ticket)
        if pending is None:
            return
        if not isinstance(answer, (Refusal, pending.expects)):
            given, wanted = type(answer).__name__, pending.expects.__name__
            raise TypeError(f"{given} is no answer to this: give a {wanted} or a Refusal")
        del self._pending[ticket]
        if not isinstance(answer, Refusal):
            pending.accepted(answer)
        elif isinstance(answer.why, Disconnect):
            self.close(answer.why)
        else:
            pending.refused(answer.why)

    def forget(self) -> None:
        """Nothing is waited for any more."""
        self._lanes.clear()
        self._pending.clear()

    # -------------------------------------------------------------------------------------------- what goes out

    def reply(self, id: int, **result: Any) -> None:
        self.unanswered -= 1
        try:
            self.send(self.codec.encode([Reply(id, **result)]))
        except codes.NotJson:
            if "connect" in result or "subscribe" in result:
                self.close(codes.NOT_JSON)
            else:
                error = Error(codes.NOT_AVAILABLE.code, "this is not JSON, connect with protobuf")
                self.send(self.codec.encode([Reply(id, error=error)]))

    def push(self, push: Push) -> None:
        try:
            self.send(self.codec.encode([Reply(push=push)]))
        except codes.NotJson:
            self.close(codes.NOT_JSON)

    def send(self, frame: bytes) -> None:
        self._frames.append(frame)

    def act(self, action: Action) -> None:
        self._flush()
        self._actions.append(action)

    def take(self) -> list[Action]:
        self._flush()
        actions, self._actions = self._actions, []
        return actions

    def _flush(self) -> None:
        if self._frames:
            self._actions.append(Send(self.codec.join(self._frames)))
            self._frames = []

    def close(self, why: Disconnect) -> None:
        """The end, for a reason that the client is told; only the first one counts."""
        if self.state is State.CLOSED:
            return
        why = Disconnect(why.code, codes.as_reason(why.reason))
        if self._push_disconnect:
            self.push(Push(disconnect=why))
        self.lost()
        self.act(Close(why.code, why.reason))

    def lost(self) -> None:
        """The end, without a client to tell of it."""
        self.leave()
        self.forget()
        self.enter(State.CLOSED)
