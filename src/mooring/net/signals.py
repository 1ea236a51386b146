"""Signals in a process whose loop is the reactor alone."""

import signal
import socket


class SignalSocket:
    """Signals as bytes that a reactor can wait for."""

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda _number, _frame: None)

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> bytes:
        return self._reader.recv(4096)
