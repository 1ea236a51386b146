from typing_extensions import disjoint_base

from mooring._core.contract import GatewayWait
from mooring._core.inlet import Inlet
from mooring._core.outlet import Outlet
from mooring._core.port import Port
from mooring._core.reactor import Source
from mooring._core.relay import Relay

@disjoint_base
class LocalPort(Port): ...

@disjoint_base
class LocalQueue(Source): ...

@disjoint_base
class ServingWait(GatewayWait): ...

@disjoint_base
class LocalOutlet(Outlet):
    def hello(self) -> None: ...
    def flush(self) -> None: ...
    def apply_all(self) -> None: ...
    def close(self) -> None: ...

ANSWER_LOOK: float
LOOK: float
CALL_TIMEOUT: float

def join(relay: Relay, inlet: Inlet, gateway: int, worker: int, generation: int) -> LocalOutlet: ...
