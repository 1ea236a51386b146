"""A replica is promoted that has not all of it; the old master lives on, or not."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from mooring.engine.redis import engine
from mooring.engine.redis.engine import RedisEngine
from mooring.engine.redis.servers import OneServer, resolver_of
from mooring.types import Verdict
from support.brokers import SERVERS, Broker, Sentinel
from support.middle import HOLD, PASS, Middle
from support.nodes import START, Node
from support.trial import QUICK, Trial

pytestmark = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS)


@pytest.fixture
def pair(program):
    with Broker(program, "--repl-ping-replica-period", "1") as master, Broker(program) as replica:
        yield master, replica


def facts(broker):
    lines = broker.ask("INFO", "replication").decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


@asynccontextmanager
async def replication(master, replica):
    """Through a proxy, which can hold it."""
    async with Middle(master.path) as between:
        await follow(replica, between)
        yield between


async def follow(replica, between):
    await asyncio.to_thread(replica.ask, "REPLICAOF", "127.0.0.1", between.port)
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(facts, replica)).get("master_link_status") != "up":
            await asyncio.sleep(0.02)


def test_the_master_is_lost_with_what_the_replica_has_not_got(pair, run):
    """One follower is cut off all the while; one is away."""

    async def test():
        master, replica = pair
        async with replication(master, replica) as between, Trial(master.path) as trial:
            await trial.goes_on(0.3)
            await replicated(master, replica)
            cut_off = trial.followers[1]
            cut_off.asks.refuse = cut_off.listens.refuse = True
            cut_off.cut()
            between.down = HOLD
            await trial.goes_on(0.5)
            master.kill()
            await trial.goes_on(0.2)
            replica.ask("REPLICAOF", "NO", "ONE")
            for place in (*trial.places, trial.gone):
                place.leads_to(replica.path)
            trial.target = replica.path
            await trial.goes_on(0.3)
            cut_off.asks.refuse = cut_off.listens.refuse = False
            await trial.goes_on(0.3)
            await trial.ends()
            assert trial.faults() == []
            assert trial.counted("publications_sent_again") > 0
            assert trial.counted("engine_doubles") > 0
            assert trial.verdicts == {Verdict.ROLLED_BACK}
            assert not cut_off.node.judged_as  # it had read nothing of what was lost
            assert set(trial.returned.values()) == {Verdict.RECOVERED}

    run(test())


def test_who_has_read_what_was_lost_is_told_where_it_goes_on(pair, run):
    """Without anybody who sends it again."""

    async def test():
        master, replica = pair
        async with replication(master, replica) as between, Trial(master.path) as trial:
            await trial.goes_on(0.2)
            await trial.stops()
            publisher = trial.publishers[0].node
            kept = await publisher.publish("lost", b"kept")
            await replicated(master, replica)
            between.down = HOLD
            lost = await publisher.publish("lost", b"lost")
            await trial.publishers[0].node.engine.close()
            replica.ask("REPLICAOF", "NO", "ONE")
            for place in trial.places:
                place.leads_to(replica.path)
                place.cut()
            reader = trial.publishers[1].node
            await reader.until(lambda: len(reader.why) == 1 and reader.connections == 2)
            assert (await reader.since("lost", kept)).verdict is Verdict.RECOVERED
            found = await reader.since("lost", lost)  # also before anybody has published on the new master
            assert (found.verdict, found.position) == (Verdict.ROLLED_BACK, kept)
            new = await reader.publish("lost", b"new")
            assert new.offset == lost.offset
            assert new.epoch != lost.epoch
            found = await reader.since("lost", lost)
            assert (found.verdict, found.position) == (Verdict.ROLLED_BACK, (new.epoch, kept.offset))
            assert [one.data for one in found.publications] == [b"new"]
            found = await reader.since("lost", kept)
            assert (found.verdict, [one.data for one in found.publications]) == (Verdict.RECOVERED, [b"new"])

    run(test())


async def replicated(master, replica):
    """The replica has what the master has now."""
    offset = int(facts(master)["master_repl_offset"])
    async with asyncio.timeout(30):
        while int((await asyncio.to_thread(facts, replica))["slave_repl_offset"]) < offset:
            await asyncio.sleep(0.02)


def test_there_are_two_masters_for_a_while(pair, run):
    """A publisher and a follower stay with the old one, until it is told that it is none."""

    async def test():
        master, replica = pair
        async with replication(master, replica) as between, Trial(master.path) as trial:
            await trial.goes_on(0.3)
            await replicated(master, replica)
            between.down = HOLD
            replica.ask("REPLICAOF", "NO", "ONE")
            moved = (trial.publishers[0], trial.followers[0])
            stayed = (trial.publishers[1], trial.followers[1])
            for place in moved:
                place.leads_to(replica.path)
                place.cut()
            await trial.goes_on(0.5)
            for place in stayed:
                place.leads_to(replica.path)
            async with Middle(replica.path) as back:
                await follow(master, back)  # the connections to it stay: only its role tells
                await trial.goes_on(0.5)
                trial.target = replica.path
                await trial.ends()
            assert trial.faults() == []
            assert all(place.node.why for place in stayed)
            assert Verdict.ROLLED_BACK in trial.verdicts

    run(test())


def test_the_old_master_stands_still_and_goes_on_later(pair, run):
    """What lies in its sockets it carries out then, and nobody hears of it."""

    async def test():
        master, replica = pair
        async with replication(master, replica), Trial(master.path) as trial:
            await trial.goes_on(0.3)
            await replicated(master, replica)
            master.freeze()
            await trial.goes_on(0.3)
            replica.ask("REPLICAOF", "NO", "ONE")
            for place in trial.places:
                place.leads_to(replica.path)
            trial.target = replica.path
            await trial.goes_on(0.7)
            master.thaw()
            await trial.goes_on(0.5)
            await trial.ends()
            assert trial.faults() == []

    run(test())


def test_sentinels_tell_who_is_the_master(pair, program, run):
    """The master stands still, another one is promoted, the old one comes back and is told that it is none."""

    async def test():
        master, replica = pair
        async with Middle(master.path) as first, Middle(replica.path) as second:
            for broker, middle in ((master, first), (replica, second)):
                broker.ask("CONFIG", "SET", "replica-announce-ip", "127.0.0.1")
                broker.ask("CONFIG", "SET", "replica-announce-port", middle.port)
            await follow(replica, first)
            with Sentinel(program, "chat", first.port) as sentinel:
                async with Middle(sentinel.path) as asked:
                    await known(sentinel)
                    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{asked.port}/chat"
                    async with Node(RedisEngine(resolver_of(url), QUICK)) as node:
                        await node.follow("a")
                        before = await node.publish("a", b"1")
                        await replicated(master, replica)
                        master.freeze()
                        await node.until(lambda: node.connections == 2)
                        after = await node.publish("a", b"2")
                        assert after.epoch != before.epoch
                        assert after.offset == before.offset + 1
                        assert (await asyncio.to_thread(facts, replica))["role"] == "master"
                        master.thaw()
                        await node.publish("a", b"3")
                        await node.until(lambda: node.data("a") == [b"1", b"2", b"3"])
                        assert not node.judged_as

    run(test())


def test_a_master_that_others_have_left_is_left(pair, run, monkeypatch):
    """It is alive and knows nothing, and so do the nodes that are connected to it: the sentinels tell."""
    monkeypatch.setattr(engine, "WATCH", 0.1)

    async def test():
        master, replica = pair
        resolver = Moving(master.url)
        async with Node(RedisEngine(resolver, QUICK)) as node:
            before = await node.publish("a", b"1")
            resolver.url = replica.url
            await node.until(lambda: node.connections == 2)
            assert node.why == ["another server is the master now"]
            assert (await node.publish("a", b"2")).epoch != before.epoch
            found = await node.since("a", START)
            assert [one.data for one in found.publications] == [b"1", b"2"]  # the first one was sent again

    run(test())


class Moving:
    def __init__(self, url):
        self.url = self.given = url

    async def connection(self):
        self.given = self.url
        return await OneServer(self.url).connection()

    async def has_moved(self):
        return self.url != self.given


async def known(sentinel):
    """It has found the replica."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(sentinel.ask, "SENTINEL", "REPLICAS", "chat"):
            await asyncio.sleep(0.05)


@pytest.mark.long
def test_one_failover_after_the_other(pair, run):
    """Each loses an end, of another length; nodes come late to the new master, or are cut off meanwhile."""
    chance = random.Random()
    seed = random.randrange(1 << 30)
    chance.seed(seed)

    async def test():
        master, replica = pair
        async with Middle(master.path) as first, Middle(replica.path) as second, Trial(master.path) as trial:
            between = {master: first, replica: second}
            await follow(replica, first)
            for _ in range(5):
                await trial.goes_on(chance.uniform(0.1, 0.4))
                await replicated(master, replica)
                between[master].down = HOLD
                await trial.goes_on(chance.uniform(0.0, 0.4))
                late = chance.sample(trial.places, chance.randint(0, 2))
                for place in late:
                    place.cut()
                    place.asks.refuse = True
                await trial.goes_on(chance.uniform(0.0, 0.2))
                replica.ask("REPLICAOF", "NO", "ONE")
                for place in trial.places:
                    place.leads_to(replica.path)
                    if chance.random() < 0.7:
                        place.cut()
                trial.target = replica.path
                await trial.goes_on(chance.uniform(0.0, 0.3))
                between[master].cut()
                between[master].down = PASS
                await follow(master, between[replica])
                for place in late:
                    place.asks.refuse = False
                master, replica = replica, master
            await trial.goes_on(0.5)
            await trial.ends(patience=10.0)
            assert trial.faults() == [], seed
            assert trial.counted("publications_sent_again") > 0

    run(test(), 100)
