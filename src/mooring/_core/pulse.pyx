"""What the supervisor can read of a process, whatever state that is in.

One small memory file per process, made by the supervisor, written by the process, never locked: a beat, which a timer
of its reactor writes and which therefore stands still when the loop does; and the event whose handler was called last,
which says after a crash what it was about. The words are read one at a time by somebody who can wait: torn pairs do no
harm.
"""

from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

import mmap
import os
import time

PULSE_BYTES = 4096


cdef class Pulse:
    """`Pulse(file)` maps that memory file, which stays the caller's; `Pulse()` is read by nobody."""

    def __cinit__(self, file: int = -1) -> None:
        cdef Py_buffer view
        self.data = &self.own
        if file >= 0:
            if os.fstat(file).st_size < PULSE_BYTES:
                raise ValueError(f"a pulse of {os.fstat(file).st_size} bytes: it has {PULSE_BYTES}")
            self.memory = mmap.mmap(file, PULSE_BYTES)
            PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
            self.data = <PulseData*> view.buf
            PyBuffer_Release(&view)

    def beat(self) -> None:
        """The loop turns."""
        self.data.beat = <uint64_t> (time.monotonic() * 1000)

    def freeze(self) -> None:
        """Keeps what it says now and gives the memory back."""
        if self.memory is not None:
            self.own = self.data[0]
            self.data = &self.own
            self.memory.close()
            self.memory = None

    @property
    def last_beat(self) -> float:
        """Monotonic seconds; 0: its loop has not turned yet."""
        return self.data.beat / 1000

    @property
    def begun(self) -> int:
        """How many events had their handler called."""
        return self.data.begun

    @property
    def fd(self) -> int:
        """The connection of the last of them."""
        return self.data.fd

    @property
    def kind(self) -> int:
        """Its kind, a mooring._core.wire.Event."""
        return self.data.kind
