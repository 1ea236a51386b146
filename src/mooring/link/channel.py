"""The seam between processes: a stream socket for records, a second one for answers to calls, a page of marks.

Both functions take over the descriptors they are given.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who opens none need not load them
    from mooring._core.channel_link import ChannelOutlet, ChannelPort
    from mooring._core.inlet import Inlet
    from mooring._core.reactor import Reactor
    from mooring._core.relay import Relay
    from mooring._core.table import Table


def open_port(
    relay: Relay,
    reactor: Reactor,
    *,
    worker: int,
    generation: int,
    serves: bool,
    channel: int,
    reply: int,
    page: int,
) -> ChannelPort:
    """The gateway's end. `serves`: whether the worker may be given connections of this gateway."""
    from mooring._core.channel_link import ChannelPort

    answers = socket.socket(fileno=reply)
    port = ChannelPort(relay.commands, worker, generation, serves, reactor, channel, answers, page)
    relay.attach(port)
    return port


def open_outlet(
    inlet: Inlet, reactor: Reactor, *, gateway: int, table: Table, channel: int, reply: int, page: int
) -> ChannelOutlet:
    """The worker's end; `table` is that gateway's table of connections."""
    from mooring._core.channel_link import ChannelOutlet

    return ChannelOutlet(gateway, table, inlet, reactor, channel, socket.socket(fileno=reply), page)
