from typing import Self

from typing_extensions import disjoint_base

from mooring._core.port import Receiver
from mooring._core.relay import Relay

MISSED_CODE: int

@disjoint_base
class Commands(Receiver):
    def __new__(cls, relay: Relay) -> Self: ...
