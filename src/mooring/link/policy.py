"""Which worker gets a connection. It keeps that worker until it leaves or dies, so its messages stay in order."""

from collections.abc import Sequence

from mooring._core.relay import Port


def least_loaded(ports: Sequence[Port]) -> Port:
    """The worker with the fewest messages in flight, then with the fewest connections."""
    return min(ports, key=lambda port: (port.in_flight // 16, port.bound))
