"""What every engine does, whatever keeps the histories: see mooring.engine.contract."""

import asyncio
import random

import pytest

from mooring.engine.contract import Refused
from mooring.engine.history import Since
from mooring.engine.letters import MOST
from mooring.types import Position, Verdict
from support.nodes import START


def data(since):
    return [one.data for one in since.publications]


def test_publications_of_a_topic_are_numbered_in_the_order_of_the_calls(engines, run):
    async def test():
        async with engines(1) as (node,):
            places = await asyncio.gather(*(node.publish("a", b"%d" % i) for i in range(300)))
            assert [one.offset for one in places] == list(range(1, 301))
            assert len({one.epoch for one in places}) == 1
            other = await node.publish("b", b"x")
            assert other.offset == 1

    run(test())


def test_who_follows_is_told_what_is_published_on_any_node(engines, run):
    async def test():
        async with engines(2) as (one, other):
            found = await other.follow("a")
            nowhere = Position(found.position.epoch, 0)
            assert found == Since(Verdict.RECOVERED, nowhere, [], nowhere)
            places = [await one.publish("a", b"%d" % i) for i in range(5)]
            await other.until(lambda: len(other.told["a"]) == 5)
            assert other.told["a"] == [(place.epoch, place.offset, b"%d" % i) for i, place in enumerate(places)]
            assert places[0].offset == 1

    run(test())


def test_who_comes_with_a_position_gets_what_is_behind_it_and_then_what_is_new(engines, run):
    async def test():
        async with engines(2) as (one, other):
            first = await one.publish("a", b"1")
            for i in range(2, 6):
                await one.publish("a", b"%d" % i)
            found = await other.follow("a", first)
            assert (found.verdict, found.position) == (Verdict.RECOVERED, first)
            assert [kept.offset for kept in found.publications] == [2, 3, 4, 5]
            assert data(found) == [b"2", b"3", b"4", b"5"]
            assert other.told["a"] == []
            await one.publish("a", b"6")
            await other.until(lambda: other.data("a") == [b"6"])

    run(test())


def test_several_who_follow_a_topic_have_one_line(engines, run):
    """Each answer ends where the line is at that moment, while others publish all the time."""

    async def test():
        async with engines(3) as (one, other, reader):
            epoch = (await one.publish("a", b"0", size=10_000)).epoch
            sent = {b"0"}
            line = {}  # of the reader, by offset: what was told and what was in answers

            async def publish(node, name):
                for i in range(200):
                    text = b"%b%d" % (name, i)
                    sent.add(text)
                    await node.publish("a", text, size=10_000)
                    await asyncio.sleep(0)

            async def come(number):
                at = number % 7
                ends = asyncio.get_running_loop().create_future()

                def answered(found):
                    told = reader.told["a"]
                    ends.set_result((found, told[-1][1] if told else None))

                reader.engine.follow("a", Position(epoch, at), MOST, answered)
                found, end = await ends
                assert found.verdict is Verdict.RECOVERED
                offsets = [kept.offset for kept in found.publications]
                assert offsets == list(range(at + 1, at + 1 + len(offsets)))
                assert end is None or offsets[-1] == end
                for kept in found.publications:
                    assert line.setdefault(kept.offset, kept.data) == kept.data

            publishing = asyncio.gather(publish(one, b"x"), publish(other, b"y"))
            number = 0
            while not publishing.done():
                await come(number)
                number += 1
                await asyncio.sleep(0)
            await publishing
            await reader.until(lambda: reader.told["a"][-1][1] == 401)
            for _, offset, text in reader.told["a"]:
                assert line.setdefault(offset, text) == text
            offsets = [offset for _, offset, _ in reader.told["a"]]
            assert offsets == list(range(offsets[0], 402))
            assert set(line) == set(range(1, 402))
            assert set(line.values()) == sent
            assert number > 3

    run(test())


def test_what_is_not_kept_so_far_back_is_trimmed(engines, run):
    async def test():
        async with engines(1) as (node,):
            places = [await node.publish("a", b"%d" % i, size=3) for i in range(10)]
            epoch = places[0].epoch
            found = await node.since("a", places[2])
            assert (found.verdict, found.position, found.end) == (Verdict.TRIMMED, (epoch, 7), places[-1])
            assert data(found) == [b"7", b"8", b"9"]
            assert data(await node.since("a", places[6])) == [b"7", b"8", b"9"]
            assert (await node.follow("a", places[0])).verdict is Verdict.TRIMMED
            await node.publish("a", b"new", size=3)
            await node.until(lambda: node.data("a") == [b"new"])

    run(test())


@pytest.mark.parametrize("size", [3, 50])
def test_batches_are_trimmed_within(engines, run, size):
    """However many came together: exactly so many are kept."""

    async def test():
        async with engines(1) as (node,):
            places = await asyncio.gather(*(node.publish("a", b"%d" % i, size=size) for i in range(100)))
            everything = await node.since("a", START)
            assert data(everything) == [b"%d" % i for i in range(100 - size, 100)]
            assert everything.position == Position(places[0].epoch, 100 - size)
            assert (await node.since("a", places[99 - size])).verdict is Verdict.RECOVERED
            assert (await node.since("a", places[98 - size])).verdict is Verdict.TRIMMED

    run(test())


def test_a_position_at_the_end_is_recovered_even_if_nothing_is_kept(engines, run):
    async def test():
        async with engines(1) as (node,):
            for i in range(3):
                place = await node.publish("a", b"%d" % i, ttl=0.05)
            while data(await node.since("a", START)):
                await asyncio.sleep(0.02)
            found = await node.since("a", place)
            assert (found.verdict, list(found.publications)) == (Verdict.RECOVERED, [])
            assert (await node.since("a", Position(place.epoch, 2))).verdict is Verdict.TRIMMED
            await node.publish("a", b"3", size=5)
            assert data(await node.since("a", Position(place.epoch, 3))) == [b"3"]
            assert (await node.since("a", Position(place.epoch, 2))).verdict is Verdict.TRIMMED

    run(test())


def test_other_lines_are_unknown_and_places_ahead_are_rolled_back(engines, run):
    async def test():
        async with engines(1) as (node,):
            place = await node.publish("a", b"1")
            assert await node.since("a", Position("other", 1)) == Since(Verdict.UNKNOWN_EPOCH, place, [], place)
            assert await node.since("a", Position(place.epoch, 2)) == Since(Verdict.ROLLED_BACK, place, [], place)
            assert await node.since("a") == Since(Verdict.RECOVERED, place, [], place)

    run(test())


def test_a_topic_that_nobody_has_published_in_has_a_place_before_the_first(engines, run):
    async def test():
        async with engines(2) as (one, other):
            end = (await one.since("quiet")).end
            assert end.offset == 0
            assert (await other.since("quiet")).end == end
            assert (await other.since("quiet", end)).verdict is Verdict.RECOVERED
            for i in range(5):
                await one.publish("quiet", b"%d" % i, size=3)
            assert (await other.since("quiet", end)).verdict is Verdict.TRIMMED
            assert data(await other.since("quiet", START)) == [b"2", b"3", b"4"]

    run(test())


def test_a_part_of_what_is_behind_a_position(engines, run):
    async def test():
        async with engines(1) as (node,):
            places = await asyncio.gather(*(node.publish("a", b"%d" % i) for i in range(20)))
            assert data(await node.since("a", places[4], 3)) == [b"5", b"6", b"7"]
            for i in range(20, 25):
                await node.publish("a", b"%d" % i)
            assert data(await node.since("a", places[17], 4)) == [b"18", b"19", b"20", b"21"]
            assert data(await node.since("a", places[17], 0)) == []
            assert data(await node.since("a", places[4], 100, 1)) == [b"5"]
            assert data(await node.since("a", places[4], 100, 4)) == [b"5", b"6", b"7", b"8"]
            assert (await node.since("a", places[4], 3)).end.offset == 25

    run(test())


def test_who_has_missed_much_gets_it_in_parts(engines, run):
    """Each is asked for, from where the last one ended; what is new comes behind the last one."""

    async def test():
        async with engines(2) as (one, other):
            for i in range(100):
                await one.publish("a", b"%03d" % i)
            line, position = [], START
            while True:
                found = await other.follow("a", position, 60)
                assert found.verdict is Verdict.RECOVERED
                line += data(found)
                if len(line) == 60:
                    await one.publish("a", b"new")
                if len(line) == found.end.offset:
                    break
                position = Position(found.position.epoch, len(line))
            await one.publish("a", b"newer")
            await other.until(lambda: b"newer" in other.data("a"))
            assert line == [b"%03d" % i for i in range(100)] + [b"new"]
            assert other.data("a")[-1] == b"newer"

    run(test())


def test_what_is_too_old_is_not_kept(engines, run):
    async def test():
        async with engines(1) as (node,):
            first = await node.publish("a", b"1", ttl=0.2)
            second = await node.publish("a", b"2", ttl=0.2)
            while (await node.since("a", first)).verdict is Verdict.RECOVERED:
                await asyncio.sleep(0.02)
            assert (await node.since("a", first)).verdict is Verdict.TRIMMED
            assert (await node.since("a", second)).verdict is Verdict.RECOVERED
            third = await node.publish("a", b"3", ttl=30.0)
            assert third == Position(first.epoch, 3)
            assert data(await node.since("a", second)) == [b"3"]

    run(test())


def test_nothing_is_told_after_the_last_one_has_gone(engines, run):
    async def test():
        async with engines(2) as (one, other):
            await other.follow("a")
            await other.follow("b")
            await one.publish("a", b"1")
            await other.until(lambda: other.data("a") == [b"1"])
            other.engine.unfollow("a")
            await one.publish("a", b"2")
            await one.publish("b", b"3")
            await other.until(lambda: other.data("b") == [b"3"])
            assert other.data("a") == [b"1"]
            found = await other.follow("a", Position(other.told["a"][0][0], 1))
            assert data(found) == [b"2"]

    run(test())


def test_only_the_node_that_has_published_is_told_whom_to_leave_out(engines, run):
    async def test():
        async with engines(2) as (one, other):
            await asyncio.gather(one.follow("a"), other.follow("a"))
            await one.publish("a", b"1", exclude=b"12345678")
            await asyncio.gather(*(node.until(lambda node=node: node.data("a")) for node in (one, other)))
            assert one.excluded[:1] == [b"12345678"]
            if one is not other:
                assert other.excluded == []

    run(test())


def test_odd_names_and_contents(engines, run):
    names = ["a b", "ü", "a\nb", "{x}", "*", "a:b", "x" * 300, "\0"]
    contents = [b"", b"\n", bytes(range(256)), b"x" * 100_000]

    async def test():
        async with engines(2) as (one, other):
            for name in names:
                await other.follow(name)
                for content in contents:
                    await one.publish(name, content)
            for name in names:
                await other.until(lambda name=name: len(other.told[name]) == len(contents))
                assert other.data(name) == contents
                assert data(await other.since(name, START)) == contents

    run(test())


def test_many_topics_at_once(engines, run):
    async def test():
        async with engines(2, partitions=16) as (one, other):
            names = [f"t{i}" for i in range(500)]
            chance = random.Random(1)
            await asyncio.gather(*(other.follow(name) for name in names))
            sent = [(chance.choice(names), b"%d" % i) for i in range(2000)]
            await asyncio.gather(*(one.publish(name, text) for name, text in sent))
            await other.until(lambda: sum(map(len, other.told.values())) == len(sent))
            for name in names:
                assert other.data(name) == [text for topic, text in sent if topic == name]

    run(test())


def test_after_its_end_everybody_is_told(engines, run):
    async def test():
        async with engines(1) as (node,):
            await node.follow("a")
            outcomes = []
            if engines.kind != "memory":
                await node.publish("a", b"1")
                node.engine.follow("b", None, MOST, outcomes.append)
                node.engine.since("c", START, MOST, MOST, outcomes.append)
                await node.engine.close()
                assert all(isinstance(one, Refused) for one in outcomes)
                assert len(outcomes) == 2

    run(test())
