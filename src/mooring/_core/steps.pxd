"""Handlers that are coroutines. Theory in steps.pyx."""


cdef class Driver:
    cdef Steps steps
    cdef object loop
    cdef object task             # until it is known whether it is needed: they refer to each other
    cdef object coro             # the handler's
    cdef object context          # in which that runs
    cdef object wakeup           # the task waits, and has given this
    cdef object failure          # what says that and where it was cancelled
    cdef bint first              # this is the first step
    cdef bint keep               # the task is wanted, whatever happens in the step
    cdef bint noticed            # somebody has seen the task in it
    cdef bint cancelled          # ... or has cancelled it behind our back
    cdef public bint _asyncio_future_blocking

    cdef object _step(self, object error)
    cdef bint _is_known(self) except -1
    cdef int _ended(self, object error) except -1
    cdef object _wait(self)


cdef class Steps:
    cdef object host
    cdef Driver ready                # a task that is ready for a handler
    cdef Py_ssize_t references       # to a task that nobody knows of, when its step is over; 0: not counted yet
    cdef Py_ssize_t weak             # the same for weak ones
    cdef bint child                  # this process was forked off in a handler

    cpdef object begin(self, object coro, object context, bint keep=*)
    cdef int _wake(self, Driver driver) except -1
    cdef int _call(self, object loop, object step, Driver awaited) except -1
    cdef Driver _new(self, object loop)
    cdef object _slowly(self, object loop, object coro, object context)
