from typing_extensions import disjoint_base

PAGE_BYTES: int

@disjoint_base
class Page:
    def __init__(self, fd: int) -> None: ...
