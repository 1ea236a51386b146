"""Finds connections for whoever asks on the control socket: asks each gateway, and puts the answers into one order."""

from collections.abc import Iterator
from itertools import islice

import msgspec

from mooring._core.gateway_end import GatewayEnd, Outbox
from mooring._core.wire import Call
from mooring.app.search import Brief, Briefs, Found, FoundConnection, Search, in_order, merged

PAGE = 64  # connections whose rows are asked for at once: about two milliseconds of work
_rows = msgspec.msgpack.Decoder(list[FoundConnection])


class Finder:
    """Asks the gateways that `outbox` reaches. Every question waits; StateError when a gateway does not answer within
    5 seconds, ValueError for what can't be meant."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def search(self, search: Search, fd: int = 0) -> Found:
        """The connections that are wanted, as their gateways know them; with `fd` that one only."""
        search.terms()
        what = msgspec.msgpack.encode(search)
        gateway_ends = [
            gateway_end
            for gateway_end in self._outbox.all()
            if search.gateway in (None, gateway_end.gateway) and (not fd or gateway_end is self._outbox.find(fd))
        ]
        answers = [gateway_end.call(Call.FIND, fd, what) for gateway_end in gateway_ends]
        return merged(
            (msgspec.msgpack.decode(answer, type=Found) for answer in answers), search.limit, reverse=search.reverse
        )

    def listing(self, search: Search) -> tuple[int, Iterator[list[FoundConnection]]]:
        """The same for many: how many there are, and those that come first, a page each time, whose rows are as its
        gateway has them when it is taken. Taking one waits, and raises, likewise."""
        search.terms()
        what = msgspec.msgpack.encode(search)
        gateway_ends = {one.gateway: one for one in self._outbox.all() if search.gateway in (None, one.gateway)}
        answers = [msgspec.msgpack.decode(one.call(Call.LIST, 0, what), type=Briefs) for one in gateway_ends.values()]
        total = sum(answer.total for answer in answers)
        return total, _pages(in_order(answers, search.limit, reverse=search.reverse), gateway_ends)


def _pages(briefs: Iterator[Brief], gateway_ends: dict[int, GatewayEnd]) -> Iterator[list[FoundConnection]]:
    while page := list(islice(briefs, PAGE)):
        of_gateway: dict[int, list[int]] = {}
        for brief in page:
            of_gateway.setdefault(brief.fd >> 57, []).append(brief.fd)
        rows = {
            row.fd: row
            for gateway, fds in of_gateway.items()
            for row in _rows.decode(gateway_ends[gateway].call(Call.ROWS, 0, msgspec.msgpack.encode(fds)))
        }
        yield [_with_rates(rows[brief.fd], brief) for brief in page if brief.fd in rows]


def _with_rates(row: FoundConnection, brief: Brief) -> FoundConnection:
    if brief.message_rate < 0:
        return row
    return msgspec.structs.replace(row, message_rate=brief.message_rate, byte_rate=brief.byte_rate)
