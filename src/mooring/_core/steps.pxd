"""Handlers that are coroutines. Theory in steps.pyx."""

from cpython.object cimport PyObject


cdef class Driver:
    cdef Steps steps
    cdef object loop
    cdef object task             # until the coroutine is over: they refer to each other
    cdef object coro             # the handler's; None: it is nobody's
    cdef object context          # in which that runs
    cdef int kind                # of the event that it handles; 0: none
    cdef object step             # the task's next one, to be called by us: it is ready
    cdef int status              # what the last step of the coroutine has come to, a PySendResult
    cdef object outcome          # ... what it awaits, has returned or has raised
    cdef object failure          # what says that and where it was cancelled
    cdef object cancellation     # what the task woke with behind a first step in which it was cancelled
    cdef bint first              # this is the first step
    cdef bint known              # it was, and asyncio does not know yet what it has come to
    cdef bint noticed            # somebody has seen the task in it
    cdef public bint _asyncio_future_blocking

    cdef object _step(self, object error)
    cdef int advance(self, object error, PyObject** value) except -1
    cdef int run(self, object error) except -1
    cdef object _failure(self, object error)


cdef class Steps:
    cdef object host
    cdef readonly set tasks          # of handlers that are suspended
    cdef Driver ready                # a task that is ready for a handler
    cdef Py_ssize_t references       # to a task that nobody knows of, when its step is over; 0: not counted yet
    cdef Py_ssize_t weak             # the same for weak ones
    cdef bint child                  # this process was forked off in a handler

    cpdef object begin(self, object coro, object context, bint keep=*, int kind=*)
    cdef bint _first(self, Driver driver, object coro, object context) except -1
    cdef object _give(self, Driver driver)
    cdef int _call(self, Driver driver) except -1
    cdef Driver _new(self, object loop)
    cdef object _slowly(self, object loop, object coro, object context, int kind)
