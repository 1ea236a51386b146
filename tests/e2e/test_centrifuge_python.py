"""Sessions against `centrifuge-python`, a client that nobody here wrote, in both encodings."""

import asyncio
import json
import random
import time

import jwt
import pytest
from centrifuge import Client, ClientEventHandler, ReplyError, StreamPosition, SubscriptionEventHandler
from msgspec import Raw

from e2e.peers import in_loop
from mooring.centrifuge.commands import Disconnect
from mooring.centrifuge.limits import Timing
from mooring.centrifuge.tokens import Key, Tokens
from support.centrifuge_host import Host, now


class Seen(ClientEventHandler, SubscriptionEventHandler):
    """What a client has told, in order; `of` awaits the next of a kind, and lets others pass."""

    def __init__(self):
        self.events = asyncio.Queue()

    async def of(self, *kinds):
        while True:
            kind, context = await self.events.get()
            if kind in kinds:
                return context

    async def data(self, count):
        """The data of so many publications."""
        return [(await self.of("publication")).pub.data for _ in range(count)]


def _teller(kind):
    async def tell(self, context):
        self.events.put_nowait((kind, context))

    return tell


for _name in [name for name in dir(Seen) if name.startswith("on_")]:
    setattr(Seen, _name, _teller(_name.removeprefix("on_")))


@pytest.fixture(params=["json", "protobuf"])
def protobuf(request):
    return request.param == "protobuf"


class Pair:
    """A client with what it has seen. With protobuf its data are bytes, which are JSON here."""

    def __init__(self, host, protobuf, **options):
        self.protobuf = protobuf
        self.seen = Seen()
        self.client = Client(
            host.url, events=self.seen, use_protobuf=protobuf, proxy=None, max_reconnect_delay=0.2, timeout=10,
            **({"data": self.out(options.pop("data"))} if "data" in options else {}), **options,
        )  # fmt: skip

    async def __aenter__(self):
        await self.client.connect()
        return self

    async def __aexit__(self, *_):
        await self.client.disconnect()

    def out(self, value):
        return json.dumps(value).encode() if self.protobuf else value

    def back(self, value):
        return json.loads(value) if self.protobuf and isinstance(value, bytes) else value

    async def subscribe(self, channel, **options):
        seen = Seen()
        subscription = self.client.new_subscription(channel, events=seen, **options)
        await subscription.subscribe()
        return subscription, seen


@in_loop()
async def test_connect_subscribe_publish(protobuf):
    async with Host() as host, Pair(host, protobuf, data={"user": "ann"}) as ann:
        connected = await ann.seen.of("connected")
        assert (connected.client, ann.back(connected.data)) == ("client-1", {"hello": "ann"})
        news, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        await news.publish(ann.out({"text": "tschüß ✓"}))
        publication = (await seen.of("publication")).pub
        assert ann.back(publication.data) == {"text": "tschüß ✓"}
        assert (publication.info.user, publication.info.client, publication.offset) == ("ann", "client-1", 1)
        host.publish("news", [1, 2])
        assert ann.back((await seen.of("publication")).pub.data) == [1, 2]


@in_loop()
async def test_recovery_after_a_cut(protobuf):
    """What was published while the client was away comes once, in order, ahead of what is new."""
    async with Host() as host, Pair(host, protobuf) as ann:
        _, seen = await ann.subscribe("news")
        first = await seen.of("subscribed")
        assert (first.recoverable, first.positioned, first.was_recovering) == (True, True, False)
        host.publish("news", 1)
        assert await seen.data(1) == [ann.out(1)]
        host.cut()
        for n in (2, 3, 4):
            host.publish("news", n)
        again = await seen.of("subscribed")
        assert (again.was_recovering, again.recovered) == (True, True)
        host.publish("news", 5)
        assert [ann.back(data) for data in await seen.data(4)] == [2, 3, 4, 5]


@in_loop()
async def test_what_is_lost_is_said(protobuf):
    """A history that was trimmed, and one that has begun anew: the client is told, and goes on from there."""
    async with Host() as host, Pair(host, protobuf) as ann:
        _, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        host.publish("news", 1)
        await seen.data(1)
        host.cut()
        for n in (2, 3, 4):
            host.publish("news", n)
        del host.topic("news").log[:2]
        again = await seen.of("subscribed")
        assert (again.was_recovering, again.recovered) == (True, False)
        host.publish("news", 5)
        assert [ann.back(data) for data in await seen.data(1)] == [5]
        host.cut()
        host.topics["news"].log.clear()
        host.topics["news"].epoch, host.topics["news"].offset = "two", 0
        host.publish("news", 6)
        again = await seen.of("subscribed")
        assert (again.was_recovering, again.recovered) == (True, False)
        assert (again.stream_position.epoch, again.stream_position.offset) == ("two", 1)


@in_loop()
async def test_a_gap_is_repaired_by_the_client(protobuf):
    """The engine has lost a delivery: with the next one the client learns of it, and recovers both."""
    async with Host() as host, Pair(host, protobuf) as ann:
        _, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        host.publish("news", 1)
        host.publish("news", 2, lost=True)
        host.publish("news", 3)
        assert [ann.back(data) for data in await seen.data(1)] == [1]
        assert (await seen.of("subscribing")).code == 2500
        assert (await seen.of("subscribed")).recovered
        assert [ann.back(data) for data in await seen.data(2)] == [2, 3]


@in_loop()
async def test_presence_joins_and_leaves(protobuf):
    async with Host() as host, Pair(host, protobuf, data={"user": "ann"}) as ann:
        room, seen = await ann.subscribe("room", join_leave=True)
        await seen.of("subscribed")
        assert (await seen.of("join")).info.user == "ann"
        async with Pair(host, protobuf, data={"user": "bob"}) as bob:
            _, bobs = await bob.subscribe("room")
            await bobs.of("subscribed")
            assert (await seen.of("join")).info.user == "bob"
            assert {one.user for one in (await room.presence()).clients.values()} == {"ann", "bob"}
            stats = await room.presence_stats()
            assert (stats.num_clients, stats.num_users) == (2, 2)
        assert (await seen.of("leave")).info.user == "bob"
        assert list((await ann.client.presence("room")).clients) == ["client-1"]


@in_loop()
async def test_an_empty_presence(protobuf):
    async with Host() as host, Pair(host, protobuf) as ann:
        assert (await ann.client.presence("nobody")).clients == {}
        stats = await ann.client.presence_stats("nobody")
        assert (stats.num_clients, stats.num_users) == (0, 0)


@in_loop()
async def test_history(protobuf):
    async with Host() as host, Pair(host, protobuf) as ann:
        for n in range(5):
            host.publish("news", n)
        history = await ann.client.history("news")
        assert (history.publications, history.offset, history.epoch) == ([], 5, "one")
        history = await ann.client.history("news", limit=-1)
        assert [ann.back(one.data) for one in history.publications] == [0, 1, 2, 3, 4]
        history = await ann.client.history("news", limit=2, since=StreamPosition(2, "one"))
        assert [ann.back(one.data) for one in history.publications] == [2, 3]
        history = await ann.client.history("news", limit=2, reverse=True)
        assert [one.offset for one in history.publications] == [5, 4]
        assert (await ann.client.history("none", limit=-1)).offset == 0


@in_loop()
async def test_rpc_and_errors(protobuf):
    async with Host() as host, Pair(host, protobuf) as ann:
        assert ann.back((await ann.client.rpc("echo", ann.out({"a": [1, None]}))).data) == {"a": [1, None]}
        with pytest.raises(ReplyError) as raised:
            await ann.client.rpc("nothing", ann.out(1))
        assert (raised.value.code, raised.value.temporary) == (104, False)
        with pytest.raises(ReplyError) as raised:
            await ann.client.publish("forbidden", ann.out(1))
        assert raised.value.code == 103
        with pytest.raises(ReplyError) as raised:
            await ann.client.history("n" * 256)
        assert raised.value.code == 106
        _, seen = await ann.subscribe("forbidden")
        assert (await seen.of("unsubscribed")).code == 103


@in_loop()
async def test_a_refused_connect(protobuf):
    async with Host() as host:
        async with Pair(host, protobuf, data={"refuse": 101}) as ann:
            assert (await ann.seen.of("disconnected")).code == 101
        async with Pair(host, protobuf, data={"refuse": 100, "temporary": True}) as ann:
            assert (await ann.seen.of("error")).error.code == 100
            assert len([ask for ask in host.asked if ask.ticket]) >= 2
        async with Pair(host, protobuf, data={"end": 4501}) as ann:
            gone = await ann.seen.of("disconnected")
            assert (gone.code, gone.reason) == (4501, "ended as asked")


@in_loop()
async def test_ends_by_the_server(protobuf):
    """By a code after which the client comes back, and by one after which it does not."""
    async with Host() as host, Pair(host, protobuf) as ann:
        await ann.seen.of("connected")
        end(host, 3001, "the server stops")
        again = await ann.seen.of("connecting", "disconnected")
        while again.code != 3001:
            again = await ann.seen.of("connecting", "disconnected")
        assert again.reason == "the server stops"
        await ann.seen.of("connected")
        end(host, 3503, "enough")
        gone = await ann.seen.of("disconnected")
        assert (gone.code, gone.reason) == (3503, "enough")


@pytest.mark.parametrize("push", [True, False])
@in_loop()
async def test_ends_that_only_the_close_frame_or_a_push_tells(protobuf, push):
    async with Host(push_disconnect=push) as host, Pair(host, protobuf) as ann:
        await ann.seen.of("connected")
        end(host, 4999, "17")  # as a close reason it would be read as JSON
        gone = await ann.seen.of("disconnected")
        assert (gone.code, gone.reason) == (4999, "reason: 17")


def end(host, code, reason):
    for connection in host.clients:
        connection.session.disconnect(now(), Disconnect(code, reason))
        connection.work()


@in_loop()
async def test_unsubscribed_by_the_server(protobuf):
    async with Host() as host, Pair(host, protobuf) as ann:
        _, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        [connection] = host.clients
        connection.session.unsubscribe("news", now())
        connection.work()
        gone = await seen.of("unsubscribed")
        assert gone.code == 2000
        assert not host.topic("news").followers


@in_loop()
async def test_the_client_unsubscribes_and_subscribes_again(protobuf):
    async with Host() as host, Pair(host, protobuf) as ann:
        news, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        host.publish("news", 1)
        await seen.data(1)
        await news.unsubscribe()
        await ann.client.rpc("echo", ann.out(1))  # behind it, so it is done now
        assert not host.topic("news").followers
        host.publish("news", 2)
        await news.subscribe()
        assert (await seen.of("subscribed")).recovered
        assert [ann.back(data) for data in await seen.data(1)] == [2]


@in_loop()
async def test_server_side_subscriptions(protobuf):
    """With the connection, added later, recovered after a cut, taken away."""
    async with Host(subs=("news", "plain")) as host, Pair(host, protobuf) as ann:
        channels = {(await ann.seen.of("subscribed")).channel for _ in range(2)}
        assert channels == {"news", "plain"}
        host.publish("news", 1)
        host.publish("plain", 2)
        got = [await ann.seen.of("publication") for _ in range(2)]
        assert {(one.channel, ann.back(one.pub.data)) for one in got} == {("news", 1), ("plain", 2)}
        host.cut()
        host.publish("news", 3)
        back = {one.channel: one for one in [await ann.seen.of("subscribed") for _ in range(2)]}
        assert (back["news"].was_recovering, back["news"].recovered) == (True, True)
        assert ann.back((await ann.seen.of("publication")).pub.data) == 3
        [connection] = host.clients
        connection.session.subscribe("more", host.options_of("more"), now())
        connection.work()
        assert (await ann.seen.of("subscribed")).channel == "more"
        host.publish("more", 4)
        assert ann.back((await ann.seen.of("publication")).pub.data) == 4
        connection.session.unsubscribe("more", now())
        connection.work()
        assert (await ann.seen.of("unsubscribed")).channel == "more"


@in_loop()
async def test_a_gap_of_a_server_side_subscription_has_the_client_come_back(protobuf):
    async with Host(subs=("news",)) as host, Pair(host, protobuf) as ann:
        await ann.seen.of("subscribed")
        host.publish("news", 1)
        host.publish("news", 2, lost=True)
        host.publish("news", 3)
        assert [ann.back(data) for data in await ann.seen.data(3)] == [1, 2, 3]
        assert (await host.ended.get())[0] == 3010


@in_loop()
async def test_pings_go_on_and_are_answered(protobuf):
    timing = Timing(ping_interval=1, pong_timeout=5)
    async with Host(timing=timing, spread=0.0) as host, Pair(host, protobuf, max_server_ping_delay=1.5) as ann:
        await ann.seen.of("connected")
        [connection] = host.clients
        beats = 0
        while beats < 4:  # 3.5 s, which is more than the client's patience
            await connection.ponged.get()
            beats += 1
        assert ann.client.state.value == "connected"
        assert host.ended.empty()


@in_loop()
async def test_more_time_by_the_application(protobuf):
    """The client asks for more when the time is over that it was told."""

    async def token(*_):
        return "given"

    async with Host() as host:
        host.ttl = host.sub_ttl = 1
        async with Pair(host, protobuf, get_token=token) as ann:
            _, seen = await ann.subscribe("news", get_token=token)
            await seen.of("subscribed")
            requests = set()
            while requests < {"RefreshRequest", "SubRefreshRequest"}:
                ask = await host.questions.get()
                requests.add(type(ask.request).__name__)
            assert ann.client.state.value == "connected"


@in_loop()
async def test_time_that_is_over(protobuf):
    async with Host(timing=Timing(grace=0.1)) as host:
        host.ttl = 1
        async with Pair(host, protobuf) as ann:
            await ann.seen.of("connected")
            assert (await host.ended.get())[0] == 3005


SECRET = "a secret that is long enough for HS256"


def signed(**claims):
    return jwt.encode(claims, SECRET, "HS256")


def tokens():
    return Tokens([Key("HS256", SECRET)], time.time)


@in_loop()
async def test_tokens(protobuf):
    """A good one, one whose time is over, a wrong one; for the connection and for a subscription."""
    issued = []

    async def fresh():
        issued.append(1)
        return signed(sub="ann", exp=time.time() + 60, info={"name": "Ann"})

    async with Host(tokens=tokens()) as host:
        old = signed(sub="ann", exp=time.time() - 1)
        async with Pair(host, protobuf, token=old, get_token=fresh) as ann:
            assert ann.back((await ann.seen.of("connected")).data) == {"hello": "ann"}
            assert issued == [1]
            mine = signed(sub="ann", channel="mine", info={"place": 3})
            room, seen = await ann.subscribe("mine", token=mine)
            await seen.of("subscribed")
            [me] = (await room.presence()).clients.values()
            assert (ann.back(me.conn_info), ann.back(me.chan_info)) == ({"name": "Ann"}, {"place": 3})
            _, seen = await ann.subscribe("old", token=signed(sub="ann", channel="old", exp=time.time() - 1))
            assert (await seen.of("unsubscribed")).code in (1, 109)
            _, seen = await ann.subscribe("others", token=signed(sub="bob", channel="others"))
            assert (await seen.of("unsubscribed")).code == 103
        async with Pair(host, protobuf, token=signed(sub="ann") + "x") as ann:
            assert (await ann.seen.of("disconnected")).code == 3500


@in_loop()
async def test_tokens_are_refreshed(protobuf):
    answers = asyncio.Queue()

    async def fresh(*channel):
        answers.put_nowait(channel)
        claims = {"channel": channel[0]} if channel else {}
        return signed(sub="ann", exp=time.time() + 1.9, **claims)

    async with Host(tokens=tokens()) as host, Pair(host, protobuf, get_token=fresh) as ann:
        _, seen = await ann.subscribe("news", get_token=fresh)
        await seen.of("subscribed")
        kinds = [await answers.get() for _ in range(6)]  # two to begin with, and two rounds
        assert set(kinds) == {(), ("news",)}
        host.publish("news", 1)
        await seen.data(1)
        assert host.ended.empty()


@in_loop()
async def test_data_that_is_no_json(protobuf):
    """It reaches who speaks protobuf, and ends with a word who speaks JSON."""
    async with Host() as host, Pair(host, protobuf) as ann:
        _, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        host.publish("news", Raw(b"\xff{"))
        if protobuf:
            assert (await seen.of("publication")).pub.data == b"\xff{"
        else:
            assert (await ann.seen.of("disconnected")).code == 3506


@in_loop()
async def test_data_of_many_lines_and_of_many_bytes(protobuf):
    async with Host() as host, Pair(host, protobuf) as ann:
        _, seen = await ann.subscribe("news")
        await seen.of("subscribed")
        host.publish("news", Raw(b'{"a":\n  [1,\r\n 2]}\n'))
        assert ann.back((await seen.of("publication")).pub.data) == {"a": [1, 2]}
        host.publish("news", "x" * 2_000_000)
        assert len(ann.back((await seen.of("publication")).pub.data)) == 2_000_000


@pytest.mark.parametrize("seed", range(3))
@in_loop()
async def test_nothing_lost_under_cuts_and_gaps(protobuf, seed):
    """300 publications, while connections are cut and deliveries lost: each reaches both clients once and in order, one
    of which has asked for the channel and the other was given it."""
    chance = random.Random(seed)
    channels = ("asked", "given")

    async def all_there(host):
        while not all(host.topic(channel).followers for channel in channels):
            await host.joined.get()

    async with Host(subs=("given",)) as host, Pair(host, protobuf) as ann:
        _, asked = await ann.subscribe("asked")
        await asked.of("subscribed")
        await ann.seen.of("subscribed")
        for n in range(300):
            for channel in channels:
                host.publish(channel, n, lost=chance.random() < 0.05)
            if chance.random() < 0.06:
                host.cut()
            if chance.random() < 0.1:
                await all_there(host)
            await host.turn(chance.randrange(4))
        await all_there(host)
        for channel in channels:
            host.publish(channel, 300)
        for seen in (asked, ann.seen):
            assert [ann.back(data) for data in await seen.data(301)] == list(range(301))
        assert len(host.asked) > 10, "there were cuts"
