PAGE_BYTES: int

class Page:
    def __init__(self, fd: int) -> None: ...
