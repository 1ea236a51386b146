"""Sessions against `centrifuge-python`, a client that nobody here wrote, in both encodings."""

import asyncio
import json

import pytest
from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from e2e.peers import in_loop
from support.centrifuge_host import Host


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
