from typing_extensions import disjoint_base

from mooring._core.contract import GatewayWait
from mooring._core.gateway_end import GatewayEnd
from mooring._core.inlet import Inlet
from mooring._core.reactor import Source
from mooring._core.relay import Relay
from mooring._core.worker_end import WorkerEnd

@disjoint_base
class LocalWorkerEnd(WorkerEnd): ...

@disjoint_base
class LocalQueue(Source): ...

@disjoint_base
class ServingWait(GatewayWait): ...

@disjoint_base
class LocalGatewayEnd(GatewayEnd):
    def hello(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...

ANSWER_LOOK: float
LOOK: float
CALL_TIMEOUT: float

def join(relay: Relay, inlet: Inlet, gateway: int, worker: int, generation: int) -> LocalGatewayEnd: ...
