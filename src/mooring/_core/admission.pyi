from typing import Self

from typing_extensions import disjoint_base

@disjoint_base
class Admission:
    def __new__(cls, limit: int, fresh_limit: int) -> Self: ...
