"""The seam between processes: a stream socket for records, a second one for answers to calls, a page of marks.

Both functions take over the descriptors they are given.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who opens none need not load them
    from mooring._core.channel_link import ChannelGatewayEnd, ChannelWorkerEnd
    from mooring._core.inlet import Inlet
    from mooring._core.reactor import Reactor
    from mooring._core.relay import Relay
    from mooring._core.table import Table


def open_worker_end(
    relay: Relay, reactor: Reactor, *, worker: int, generation: int, serves: bool, channel: int, reply: int, page: int
) -> ChannelWorkerEnd:
    """The gateway's end. `serves`: whether the worker may be given connections of this gateway."""
    from mooring._core.channel_link import ChannelWorkerEnd

    answers = socket.socket(fileno=reply)
    worker_end = ChannelWorkerEnd(relay.commands, worker, generation, serves, reactor, channel, answers, page)
    relay.attach(worker_end)
    return worker_end


def open_gateway_end(
    inlet: Inlet, reactor: Reactor, *, gateway: int, table: Table, channel: int, reply: int, page: int
) -> ChannelGatewayEnd:
    """The worker's end; `table` is that gateway's table of connections."""
    from mooring._core.channel_link import ChannelGatewayEnd

    return ChannelGatewayEnd(gateway, table, inlet, reactor, channel, socket.socket(fileno=reply), page)
