from typing import Self

from typing_extensions import disjoint_base

from mooring._core.relay import Relay
from mooring._core.worker_end import Receiver

MISSED_CODE: int

@disjoint_base
class Commands(Receiver):
    def __new__(cls, relay: Relay) -> Self: ...
