from typing_extensions import disjoint_base

from mooring._core.channel import Channel
from mooring._core.contract import Taker
from mooring._core.outlet import Outlet
from mooring._core.port import Port, Receiver
from mooring._core.reactor import Reactor
from mooring._core.table import Table

ANSWER_AGAIN: float
ANSWER_PART: int
CALL_TIMEOUT: float

@disjoint_base
class ChannelPort(Port):
    @property
    def channel(self) -> PortChannel: ...
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
class PortChannel(Channel): ...

@disjoint_base
class ChannelOutlet(Outlet):
    eager: bool
    @property
    def channel(self) -> WorkerChannel: ...
    def __init__(
        self,
        gateway: int,
        table: Table,
        inlet: Taker,
        reactor: Reactor,
        channel: int,
        reply_socket: object,
        page: int,
    ) -> None: ...
    def hello(self) -> None: ...
    def hang_up(self) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def send_acks(self) -> None: ...

@disjoint_base
class WorkerChannel(Channel): ...
