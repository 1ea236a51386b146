"""A gateway that has clients, and an engine that a test plays, letter by letter."""

import socket
from typing import Any

import msgspec

from fuzz.targets.gateway_channel import PID, UPGRADE, hello, read
from fuzz.world import Client, Front, Loop, new_server, records, short
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import Command, Event, Mail, Notice
from mooring.engine.letters import Ask, Follow, Found, Published
from mooring.types import Verdict

COUNT = 4
HEAD = 24  # bytes of a record before its payload
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
Missed = tuple[tuple[int, int, bytes], ...]


class Engine(MailContract):
    """The other end of a gateway's channel to it."""

    def __init__(self, room: "Room") -> None:
        self._room = room
        self._heard: list[tuple[Mail, int, Any]] = []
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.channel = RecordChannel(room.loop.reactor, ours.detach(), self)
        room.topics._link.open(theirs.detach())
        room.loop.turn()

    def asked(self) -> list[tuple[Mail, int, Any]]:
        """What has been asked since."""
        self._room.loop.turn()
        heard, self._heard = self._heard, []
        return heard

    def follows(self) -> list[Ask]:
        """The same, where nothing but FOLLOW can be."""
        asked = self.asked()
        assert [mail for mail, _, _ in asked] == [Mail.FOLLOW] * len(asked)
        return [letter for _, _, letter in asked]

    def say(self, mail: Mail, number: int, letter: object) -> None:
        self.channel.send(Notice(mail, number, encode(letter)))
        self._room.loop.turn()

    def found(
        self,
        number: int,
        offset: int,
        *missed: bytes,
        verdict: Verdict = Verdict.RECOVERED,
        epoch: str = "e",
        top: int = 0,
    ) -> None:
        """FOLLOWED: that comes behind `offset`, and there are publications up to `top`, if not only these."""
        publications: Missed = tuple((offset + n, 1, data) for n, data in enumerate(missed, 1))
        self.say(Mail.FOLLOWED, number, Found(verdict, epoch, offset, top or offset + len(missed), publications))

    def behind(self) -> None:
        self.channel.send(Notice(Mail.BEHIND, 0))
        self._room.loop.turn()

    def publish(self, offset: int, data: bytes, topic: str = "a", exclude: bytes = b"") -> None:
        self.say(Mail.PUBLISHED, offset, Published(topic, "e", 1, data, exclude))

    def end(self) -> None:
        self.channel.close()
        self._room.loop.turn()

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        if notice.kind == Mail.FOLLOW:
            self._heard.append((Mail.FOLLOW, notice.number, decode(notice.payload, type=Ask)))
        elif notice.kind != Mail.ENGINE_HELLO:
            self._heard.append((Mail(notice.kind), notice.number, notice.payload.decode()))

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        pass


class Room:
    """A gateway with clients, and a worker that says what they shall hear. It has an engine when a test makes one."""

    def __init__(self, max_topics: int = 128) -> None:
        self.loop = Loop()
        self.front = Front(self.loop, new_server(max_connections=16, max_topics=max_topics).settings)
        self.worker_end, self._ours, self._answers = self.front.attach(0)
        self.worker_end.channel.feed(hello(PID))
        self.clients = [Client() for _ in range(COUNT)]
        self.fds: list[int] = []
        for client in self.clients:
            client.send(UPGRADE)
            self.loop.turn(2)
            self.fds += set(self.front.gateway.connections.table.connections()) - set(self.fds)
        self._read = [len(client.receive()) for client in self.clients]
        self.topics = self.front.gateway._topics
        self.said: list[str] = []
        self.topics._refusals.say = lambda _level, message, *values: self.said.append(message % values)
        read(self._ours)
        self.engines: list[Engine] = []

    def engine(self) -> Engine:
        self.engines.append(Engine(self))
        return self.engines[-1]

    def follow(
        self,
        who: int,
        topic: str = "a",
        position: tuple[str, int] | None = None,
        question: int = 0,
        *,
        positions: bool = False,
    ) -> None:
        self._tell(who, Follow(topic, *position or (None, 0), positions), question)

    def leave(self, who: int, topic: str = "a") -> None:
        self._tell(who, Follow(topic), 0, leave=1)

    def tell_plain(self, who: int, topic: str) -> None:
        """It hears a topic without a history."""
        record = short(Command.SUBSCRIBE, 0, 0, topic.encode())
        self.worker_end.channel.feed(records(b"\1" + record, self.fds[who : who + 1]))

    @property
    def gaps(self) -> int:
        """Topics in which something may be missing."""
        return self.front.gateway.counters["topic_gaps"]

    def _tell(self, who: int, letter: Follow, question: int, leave: int = 0) -> None:
        payload = encode(letter)
        record = short(Command.FOLLOW, leave, 0, payload, extra=question)
        self.worker_end.channel.feed(records(b"\1" + record, self.fds[who : who + 1]))
        self.loop.turn()

    def heard(self, who: int) -> list[bytes]:
        """The messages that this client has got since; short ones."""
        self.loop.turn()
        data = self.clients[who].receive()
        at, found = self._read[who], []
        while at < len(data):
            assert data[at] in (0x81, 0x82)
            found.append(data[at + 2 : at + 2 + data[at + 1]])
            at += 2 + data[at + 1]
        self._read[who] = at
        return found

    def answers(self) -> list[tuple[int, int, Any]]:
        """What FOLLOWED has told the worker: of which client, the question, and what."""
        self.loop.turn()
        data, found = read(self._ours), []
        while data:
            size = int.from_bytes(data[:4], "little")
            if data[4] == Event.FOLLOWED:
                fd, question = int.from_bytes(data[16:24], "little"), int.from_bytes(data[12:16], "little")
                payload = data[HEAD : HEAD + size]
                found.append((self.fds.index(fd), question, decode(payload) if payload else None))
            data = data[HEAD + size :]
        return found

    def gone(self, who: int) -> None:
        """It has closed its connection."""
        self.clients[who].close()
        self.loop.turn()

    def close(self) -> None:
        for engine in self.engines:
            engine.channel.close()
        self.front.end(self.clients)
        for end in (self._ours, self._answers):
            end.close()
        self.loop.turn()
        self.loop.close()
