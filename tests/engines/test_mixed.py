"""All faults mixed, in an order that chance gives: kills, snapshots, freezes, cuts, black holes, lost answers."""

import asyncio
import os
import random

import pytest

from support.brokers import SERVERS, Broker
from support.middle import DROP, HOLD, PASS
from support.trial import Trial

pytestmark = [
    pytest.mark.long,
    pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS),
]

SEED = int(os.environ.get("MIXED_SEED", "0")) or random.randrange(1, 1 << 30)
FAULTS = int(os.environ.get("MIXED_FAULTS", "25"))


class Nemesis:
    def __init__(self, trial, broker, chance):
        self.trial = trial
        self.broker = broker
        self.chance = chance

    def places(self):
        return self.chance.sample(self.trial.places, self.chance.randint(1, 4))

    async def cut(self):
        for place in self.places():
            self.chance.choice([place.cut, place.asks.cut, place.listens.cut])()

    async def lost_answers(self):
        hit = self.places()
        for place in hit:
            place.asks.down = HOLD
        await self.pause(0.2)
        for place in hit:
            place.cut()
            place.asks.down = PASS

    async def held(self):
        """Everything comes, and late."""
        hit = [(place, self.chance.choice(["asks", "listens"])) for place in self.places()]
        for place, which in hit:
            getattr(place, which).both(HOLD)
        await self.pause(0.4)
        for place, which in hit:
            getattr(place, which).both(PASS)

    async def black_hole(self):
        hit = self.places()
        for place in hit:
            place.both(DROP)
        await self.pause(0.8)
        for place in hit:
            place.cut()
            place.both(PASS)

    async def freeze(self):
        self.broker.freeze()
        await self.pause(1.2)
        self.broker.thaw()

    async def snapshot(self):
        self.broker.ask("SAVE")

    async def kill(self):
        self.broker.kill()
        await self.pause(0.3)
        await asyncio.to_thread(self.broker.start)

    async def forget_scripts(self):
        self.broker.ask("SCRIPT", "FLUSH")

    async def another_generation(self):
        self.broker.ask("REPLICAOF", "127.0.0.1", "1")
        await self.pause(0.1)
        self.broker.ask("REPLICAOF", "NO", "ONE")

    async def pause(self, most):
        await self.trial.goes_on(self.chance.uniform(0.01, most))

    async def rages(self, number):
        actions = [
            self.cut, self.lost_answers, self.held, self.black_hole, self.freeze,
            self.snapshot, self.snapshot, self.kill, self.forget_scripts, self.another_generation,
        ]  # fmt: skip
        for _ in range(number):
            await self.chance.choice(actions)()
            await self.pause(0.4)


def test_all_faults_mixed(program, run):
    print("MIXED_SEED =", SEED)

    async def test():
        with Broker(program) as broker:
            async with Trial(broker.path) as trial:
                await Nemesis(trial, broker, random.Random(SEED)).rages(FAULTS)
                await trial.goes_on(0.5)
                await trial.ends(patience=10.0)
                assert trial.faults() == [], f"MIXED_SEED={SEED}"

    run(test(), 100)
