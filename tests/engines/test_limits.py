"""Servers that are not there, are full, or are somebody else's: everybody gets an answer, in time, that says why."""

import asyncio
import gc
import ssl
from dataclasses import replace

import pytest
import trustme

from mooring.engine.contract import Refused, Uncertain
from mooring.engine.letters import Append
from mooring.engine.redis import follower
from mooring.engine.redis.engine import RedisEngine
from mooring.engine.redis.options import Options
from mooring.engine.redis.servers import resolver_of
from mooring.types import Position, Verdict
from support.brokers import SERVERS, Broker
from support.middle import HOLD, PASS, Middle
from support.nodes import START, Node, asked
from support.trial import QUICK, TOPICS, Place, Trial

pytestmark = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS)

HASTY = replace(QUICK, patience=0.4)


@pytest.fixture
def broker(program):
    with Broker(program) as one:
        yield one


def test_who_waits_for_a_server_that_is_gone_is_told_so(broker, run):
    async def test():
        async with Node(RedisEngine(resolver_of(broker.url), HASTY)) as node:
            first = await node.publish("a", b"1")
            await node.follow("a")
            broker.kill()
            await node.until(lambda: node.why)
            outcomes = await asyncio.gather(
                node.publish("a", b"2"), node.since("a", first), node.since("a"), node.follow("b"), node.follow("a")
            )
            assert all(isinstance(one, Refused) for one in outcomes), outcomes
            assert all("Redis can't be used" in one.reason for one in outcomes), outcomes
            await asyncio.to_thread(broker.start)
            await node.until(lambda: node.connections == 2)
            place = await node.publish("a", b"3")
            assert place.epoch != first.epoch
            await node.until(lambda: b"3" in node.data("a"))  # who followed does so without asking again
            assert (await node.since("a", first)).verdict is Verdict.UNKNOWN_EPOCH

    run(test())


def test_what_was_sent_and_has_no_answer_is_uncertain_and_there_once(broker, run):
    async def test():
        async with Place(broker.path, replace(HASTY, call_limit=10.0, beat_limit=10.0)) as place:
            node = place.node
            await node.publish("a", b"1")
            place.asks.down = HOLD
            outcome = await node.publish("a", b"2")
            assert isinstance(outcome, Uncertain)
            late = await node.publish("a", b"3")
            assert isinstance(late, Refused)  # it was never sent
            place.cut()
            place.asks.down = PASS
            assert await node.publish("a", b"4") == Position((await node.since("a")).end.epoch, 3)
            found = await node.since("a", START)
            assert [one.data for one in found.publications] == [b"1", b"2", b"4"]

    run(test())


def test_a_full_server_refuses_and_nothing_is_told(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            broker.ask("CONFIG", "SET", "maxmemory", "1")
            await trial.goes_on(0.3)
            for topic in (TOPICS[0], "unknown"):
                assert (await trial.places[0].node.since(topic, START)).verdict is Verdict.RECOVERED
            broker.ask("CONFIG", "SET", "maxmemory", "0")
            await trial.goes_on(0.2)
            await trial.ends()
            assert trial.faults() == []
            assert trial.refused
            assert all("maxmemory" in reason for _, reason in trial.refused)
            assert not trial.uncertain

    run(test())


def test_a_batch_of_unknown_outcome_is_not_refused_but_waits(broker, run):
    """Its numbers may be taken: the server that stands still has it, and carries it out later."""

    async def test():
        async with Trial(broker.path) as trial:
            for place in trial.publishers:
                place.asks.up = HOLD
            await trial.goes_on(0.2)
            broker.ask("CONFIG", "SET", "maxmemory", "1")
            for place in trial.publishers:
                place.cut()
                place.asks.up = PASS
            await trial.goes_on(0.5)
            broker.ask("CONFIG", "SET", "maxmemory", "0")
            await trial.goes_on(0.2)
            await trial.ends()
            assert trial.faults() == []

    run(test())


def test_a_subscriber_that_the_server_cuts_for_its_slowness(broker, run):
    broker.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 0 0")

    async def test():
        options = replace(QUICK, beat_limit=20.0)  # it is not the heartbeat that finds it
        async with Trial(broker.path, options, padding=2000) as trial:
            trial.followers[0].listens.down = HOLD
            await trial.goes_on(1.0)
            trial.followers[0].listens.down = PASS
            await trial.goes_on(0.3)
            await trial.ends()
            assert trial.faults() == []
            assert trial.followers[0].node.engine.stats()["engine_repairs"] > 0

    run(test())


def nodes(faults):
    """Of followers alone: who was away, and histories, miss what was taken away."""
    return [one for one in faults if one.startswith("node")]


def test_a_quiet_topic_is_not_forgotten_while_somebody_follows_it(broker, run):
    """Neither one that has had publications, nor one that has had none."""

    async def test():
        options = replace(QUICK, idle=2.0, prefix="quiet")
        async with Node(RedisEngine(resolver_of(broker.url), options)) as node:
            first = await node.publish("a", b"1", ttl=0.1)
            forgotten = await node.publish("c", b"1", ttl=0.1)
            nothing = (await node.follow("b")).end
            await node.follow("a")
            async with asyncio.timeout(30):
                while broker.ask("EXISTS", "quiet:m:c"):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(options.idle)
            assert await node.publish("a", b"2") == Position(first.epoch, 2)
            await node.publish("b", b"1")
            await node.until(lambda: node.told["a"] and node.told["b"])
            assert not node.judged_as
            assert (await node.since("c", forgotten)).verdict is Verdict.UNKNOWN_EPOCH
            assert (await node.since("b", nothing)).verdict is Verdict.UNKNOWN_EPOCH  # that is too long ago

    run(test())


@pytest.mark.parametrize(("what", "verdict"), [("m", Verdict.UNKNOWN_EPOCH), ("s", Verdict.TRIMMED)])
def test_facts_or_a_stream_are_evicted(broker, run, what, verdict):
    """Who was there has lost nothing; who was away is told."""

    async def test():
        async with Trial(broker.path) as trial:
            await trial.goes_on(0.2)
            for topic in TOPICS:
                assert broker.ask("DEL", f"{trial.options.prefix}:{what}:{topic}") == 1
            await trial.goes_on(0.3)
            await trial.ends()
            assert nodes(trial.faults()) == []
            assert set(trial.returned.values()) == {verdict}
            assert trial.verdicts <= {verdict}

    run(test())


def test_counters_or_scripts_are_taken_away(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            broker.ask("DEL", f"{trial.options.prefix}:parts")
            broker.ask("SCRIPT", "FLUSH")
            await trial.goes_on(0.3)
            await trial.ends()
            assert trial.faults() == []
            assert not trial.verdicts

    run(test())


def test_a_server_that_evicts_what_it_likes(broker, run):
    """Not a way to run it. Who is connected has each publication once, whatever is gone."""
    broker.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")

    async def test():
        async with Trial(broker.path, padding=500) as trial:
            used = int(broker.ask("INFO", "memory").decode().partition("used_memory:")[2].split()[0])
            broker.ask("CONFIG", "SET", "maxmemory", used + 500_000)
            await trial.goes_on(1.0)
            broker.ask("CONFIG", "SET", "maxmemory", 0)
            await trial.ends()
            evicted = int(broker.ask("INFO", "stats").decode().partition("evicted_keys:")[2].split()[0])
            assert evicted > 0
            assert nodes(trial.faults()) == []

    run(test())


def test_what_was_taken_is_sent_before_the_end(broker, run):
    async def test():
        outcomes = []
        async with Node(RedisEngine(resolver_of(broker.url), HASTY)) as node:
            for i in range(1000):
                node.engine.publish(Append("a", 0, 1, b"%d" % i, 2000, 0.0), outcomes.append)
        assert len(outcomes) == 1000
        assert all(isinstance(one, Position) for one in outcomes)
        async with Node(RedisEngine(resolver_of(broker.url), HASTY)) as node:
            assert len((await node.since("a", START)).publications) == 1000

    run(test())


def test_who_is_behind_sets_little_aside(broker, run, monkeypatch):
    """What has no room is asked for again."""
    monkeypatch.setattr(follower, "ASIDE", 1000)

    async def test():
        async with Trial(broker.path, padding=100) as trial:
            for _ in range(3):
                trial.followers[0].asks.down = HOLD
                trial.followers[0].node.engine._follower.refresh()
                await trial.goes_on(0.2)
                trial.followers[0].asks.down = PASS
                await trial.goes_on(0.2)
            await trial.ends()
            assert trial.faults() == []
            assert all(place.node.engine._follower._aside == 0 for place in trial.places)

    run(test())


def test_a_replica_is_no_server_for_a_node(broker, program, run):
    async def test():
        broker.ask("REPLICAOF", "127.0.0.1", "1")  # nobody is there
        engine = RedisEngine(resolver_of(broker.url), HASTY)
        engine.start(node := Node(engine))
        assert "replica" in (await node.publish("a", b"1")).reason.lower()
        broker.ask("REPLICAOF", "NO", "ONE")
        await node.until(lambda: node.connections)
        assert isinstance(await node.publish("a", b"2"), Position)
        broker.ask("REPLICAOF", "127.0.0.1", "1")
        await node.until(lambda: node.why)
        await engine.close()

    run(test())


def test_nodes_have_to_agree_on_the_number_of_partitions(broker, run):
    async def test():
        async with Node(RedisEngine(resolver_of(broker.url), HASTY)):
            engine = RedisEngine(resolver_of(broker.url), replace(HASTY, partitions=9))
            engine.start(Node(engine))
            outcome = await asked(engine.publish, Append("a", 0, 1, b"", 1, 0.0))
            assert isinstance(outcome, Refused)
            assert "other nodes use 8 partitions, and this one 9" in outcome.reason
            await engine.close()

    run(test())


def test_a_key_that_is_somebody_elses_holds_up_its_topic_alone(broker, run):
    async def test():
        options = replace(HASTY, prefix="mine")
        async with Node(RedisEngine(resolver_of(broker.url), options)) as node:
            broker.ask("SET", "mine:m:bad", "theirs")
            bad = asyncio.create_task(node.follow("bad", START))
            assert (await node.follow("good", START)).verdict is Verdict.RECOVERED
            for i in range(20):
                await node.publish("good", b"%d" % i)
            await node.until(lambda: len(node.data("good")) == 20)
            assert not bad.done()
            assert "WRONGTYPE" in (await bad).reason
            assert "WRONGTYPE" in (await node.since("bad", START)).reason
            assert "WRONGTYPE" in (await node.publish("bad", b"1")).reason
            broker.ask("DEL", "mine:m:bad")
            assert (await node.follow("bad", START)).verdict is Verdict.RECOVERED
            assert isinstance(await node.publish("bad", b"1"), Position)
            await node.until(lambda: node.data("bad") == [b"1"])

    run(test())


def test_a_password_is_wrong(broker, run):
    async def test():
        broker.ask("CONFIG", "SET", "requirepass", "right")
        engine = RedisEngine(resolver_of(broker.url), HASTY)
        engine.start(Node(engine))
        assert "uthentication" in (await asked(engine.publish, Append("a", 0, 1, b"", 1, 0.0))).reason
        await engine.close()
        async with Node(RedisEngine(resolver_of(broker.url + "?password=right"), HASTY)) as node:
            assert isinstance(await node.publish("a", b"1"), Position)

    run(test())


def test_over_tls(broker, run, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def test():
        async with Middle(broker.path, context) as middle:
            url = f"rediss://127.0.0.1:{middle.port}/0?ssl_ca_certs="
            async with Node(RedisEngine(resolver_of(url + str(tmp_path / "ca.pem")), HASTY)) as node:
                await node.follow("a")
                await node.publish("a", b"1")
                await node.until(lambda: node.data("a") == [b"1"])
            engine = RedisEngine(resolver_of(url), HASTY)
            engine.start(Node(engine))
            refused = await asked(engine.publish, Append("a", 0, 1, b"", 1, 0.0))
            assert "certificate" in refused.reason
            await engine.close()

    run(test())


def test_more_than_may_wait_is_refused_at_once(broker, run):
    async def test():
        async with Node(RedisEngine(resolver_of(broker.url), Options(queue_bytes=10_000))) as node:
            broker.freeze()
            outcomes = []
            for _ in range(20):
                node.engine.publish(Append("a", 0, 1, b"x" * 1000, 100, 0.0), outcomes.append)
            assert len(outcomes) == 12
            assert all("too much waits" in one.reason for one in outcomes)
            broker.thaw()
            await node.until(lambda: node.connections)
            assert isinstance(await node.publish("a", b"1"), Position)

    run(test())


def test_an_outage_is_logged_once_and_so_is_its_end(broker, run, caplog):
    caplog.set_level("INFO", "mooring.engine")

    async def test():
        async with Node(RedisEngine(resolver_of(broker.url), HASTY)) as node:
            broker.kill()
            assert isinstance(await node.publish("a", b"1"), Refused | Uncertain)
            assert isinstance(await node.publish("a", b"2"), Refused)  # there were many tries meanwhile
            await asyncio.to_thread(broker.start)
            await node.until(lambda: node.connections == 2)

    run(test())
    said = [one.getMessage() for one in caplog.records]
    assert said[-1] == "Redis answers"
    assert 1 <= len(said[:-1]) <= 3  # that it is gone; that nobody listens; that it is loading
    assert all(one.startswith("Redis can't be used: ") for one in said[:-1])


def test_an_engine_that_ends_at_any_moment_leaves_nothing_open(broker, run):
    async def test():
        for i in range(60):
            engine = RedisEngine(resolver_of(broker.url), HASTY)
            engine.start(Node(engine))
            for _ in range(i):
                await asyncio.sleep(0)
            await engine.close()
        gc.collect()

    run(test())
