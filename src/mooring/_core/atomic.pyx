"""Integers in memory that several processes share; every operation is one instruction of the processor, so there is no
lock that a process could take with it when it is killed."""

from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t

cdef extern from *:
    """
    static inline int64_t mooring_load(int64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline int64_t mooring_swap(int64_t *at, int64_t v) { return __atomic_exchange_n(at, v, __ATOMIC_SEQ_CST); }
    static inline int64_t mooring_add(int64_t *at, int64_t by) {
        /* in two's complement, also past the ends: signed overflow is undefined only for the type's own operators */
        return (int64_t) __atomic_add_fetch((uint64_t *) at, (uint64_t) by, __ATOMIC_SEQ_CST);
    }
    static inline int mooring_cas(int64_t *at, int64_t old, int64_t new_) {
        return __atomic_compare_exchange_n(at, &old, new_, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    int64_t mooring_load(int64_t* at) nogil
    int64_t mooring_swap(int64_t* at, int64_t value) nogil
    int64_t mooring_add(int64_t* at, int64_t by) nogil
    bint mooring_cas(int64_t* at, int64_t old, int64_t new) nogil


cdef class Cells:
    """The integers in a writable buffer, such as an mmap; by number, from 0."""

    cdef object memory
    cdef Py_buffer view
    cdef int64_t* cells
    cdef readonly Py_ssize_t count

    def __cinit__(self, memory: object) -> None:
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.memory = memory
        self.cells = <int64_t*> self.view.buf
        self.count = self.view.len // sizeof(int64_t)

    def __dealloc__(self) -> None:
        if self.memory is not None:
            PyBuffer_Release(&self.view)

    cdef int64_t* _at(self, Py_ssize_t number) except NULL:
        if not 0 <= number < self.count:
            raise IndexError(f"there are {self.count} cells, and none of number {number}")
        return self.cells + number

    def load(self, number: int) -> int:
        return mooring_load(self._at(number))

    def swap(self, number: int, value: int) -> int:
        """Sets it; what it was."""
        return mooring_swap(self._at(number), value)

    def add(self, number: int, by: int) -> int:
        """What it is then; past 2**63 - 1 it goes on from -2**63."""
        return mooring_add(self._at(number), by)

    def compare_and_set(self, number: int, old: int, new: int) -> bool:
        """Sets it if it is `old`; whether it was."""
        return mooring_cas(self._at(number), old, new)
