"""The seam inside one process: both ends are joined, and every event and command is a plain call."""

from mooring._core.inlet import Inlet
from mooring._core.local import LocalGatewayEnd, join
from mooring._core.relay import Relay


def open_local(relay: Relay, inlet: Inlet, *, gateway: int, worker: int, generation: int) -> LocalGatewayEnd:
    """The worker's gateway end; the gateway's worker end is attached to its relay."""
    return join(relay, inlet, gateway, worker, generation)
