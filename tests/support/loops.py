"""Loops of asyncio for tests: one as workers have, and one whose time goes as fast as there is nothing to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from mooring._core.reactor import Reactor
from mooring.net.loop import new_event_loop

LIMIT = 20.0  # seconds that a test may take


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it in a loop as workers have."""

    async def bounded() -> None:
        async with asyncio.timeout(LIMIT):
            await test()

    with asyncio.Runner(loop_factory=lambda: new_event_loop(Reactor())) as runner:
        runner.run(bounded())


class _Jump(selectors.DefaultSelector):
    """Instead of waiting for a time it moves the clock there; what else is waited for has to come within LIMIT."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(LIMIT if timeout is None else 0)
        if timeout is None and not found:
            raise TimeoutError("nothing goes on, and nothing is due")
        if timeout is not None and not found:
            self.now += timeout
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time stands still while there is something to do, and else is at once that of the next timer."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def stand_still(self, seconds: float) -> None:
        """As if something had kept the loop for that long."""
        self._jump.now += seconds


def in_jumping_loop(test: Callable[[JumpingLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs it in a loop in which nobody has to wait for a time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, JumpingLoop)
        runner.run(test(loop))
