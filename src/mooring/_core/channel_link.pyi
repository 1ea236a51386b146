from typing_extensions import disjoint_base

from mooring._core.channel import Channel
from mooring._core.contract import Taker
from mooring._core.gateway_end import GatewayEnd
from mooring._core.reactor import Reactor
from mooring._core.table import Table
from mooring._core.worker_end import Receiver, WorkerEnd

ANSWER_AGAIN: float
ANSWER_PART: int
CALL_TIMEOUT: float

@disjoint_base
class ChannelWorkerEnd(WorkerEnd):
    @property
    def channel(self) -> GatewayChannel: ...
    def hang_up(self) -> None: ...
    def abandon(self) -> None: ...
    def __init__(
        self,
        receiver: Receiver,
        worker: int,
        generation: int,
        serves: bool,
        reactor: Reactor,
        channel: int,
        reply_socket: object,
        page: int,
    ) -> None: ...

@disjoint_base
class GatewayChannel(Channel): ...

@disjoint_base
class ChannelGatewayEnd(GatewayEnd):
    eager: bool
    @property
    def channel(self) -> WorkerChannel: ...
    def __init__(
        self, gateway: int, table: Table, inlet: Taker, reactor: Reactor, channel: int, reply_socket: object, page: int
    ) -> None: ...
    def hello(self) -> None: ...
    def hang_up(self) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def send_acks(self) -> None: ...

@disjoint_base
class WorkerChannel(Channel): ...
