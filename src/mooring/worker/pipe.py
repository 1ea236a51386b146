"""Messages between workers: `send_message` here, the `pipe_message` event there. The dispatcher carries them."""

import asyncio
from collections.abc import Callable
from typing import Any

from mooring._core.records import RecordChannel
from mooring._core.wire import Mail, Notice
from mooring.app.values import pack, unpack
from mooring.errors import PipeFull, StateError

SIZE_LIMIT = 16 << 20  # bytes of one message; more would stand in the way of tasks
UNSENT_LIMIT = 64 << 20  # bytes that have not left this process, as in a handler that sends without a turn of the loop


class Pipe:
    """This worker's end; `deliver(source, data)` calls the handler."""

    def __init__(self, number: int, count: int, deliver: Callable[[int, Any], None], *, handled: bool) -> None:
        """`count` is the number of processes that can be written to; `handled`: there is a handler."""
        self._number = number
        self._count = count
        self._deliver = deliver
        self._handled = handled
        self._channel: RecordChannel | None = None
        self._alone: asyncio.AbstractEventLoop | None = None
        self.full = False  # the dispatcher has no memory for more

    def connect(self, channel: RecordChannel) -> None:
        """The dispatcher can be reached through this one from now on."""
        self._channel = channel
        self.full = False

    def open_alone(self) -> None:
        """There is one process, and nobody else to write to."""
        self._alone = asyncio.get_running_loop()

    def send(self, data: object, worker_id: int) -> bool:
        if not self._handled:
            raise StateError("there is no handler for 'pipe_message': register one before start()")
        if isinstance(worker_id, bool) or not isinstance(worker_id, int):
            raise TypeError(f"{worker_id!r} is no number of a worker")
        if not 0 <= worker_id < self._count:
            raise ValueError(f"there is no worker {worker_id}: their numbers go from 0 to {self._count - 1}")
        payload = pack(data, "a message to another worker")
        if len(payload) > SIZE_LIMIT:
            raise ValueError(f"a message of {len(payload)} bytes: at most {SIZE_LIMIT} can be sent to another worker")
        if self._alone is not None:
            self._alone.call_soon_threadsafe(self.receive, worker_id, payload)
            return True
        if self._channel is None or not self._channel.open:
            return False
        if self.full:
            raise PipeFull(
                "what waits in the dispatcher, for all workers, is as much as it may keep: send later, have the "
                "'pipe_message' handlers be faster, or raise dispatcher_memory_limit"
            )
        if self._channel.waiting > UNSENT_LIMIT:
            raise PipeFull(
                f"{self._channel.waiting} bytes have not left this worker: send less at once, so that its loop can turn"
            )
        self._channel.send(Notice(Mail.MESSAGE, 0, payload, arg=worker_id))
        return True

    def receive(self, source: int, payload: bytes) -> None:
        """A message has come; its handler is called when the loop turns."""
        asyncio.get_running_loop().call_soon(self._deliver, source, unpack(payload))
