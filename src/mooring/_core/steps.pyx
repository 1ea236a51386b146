"""Handlers that are coroutines: the first step is run where the handler was called, and what is not over then is a task.

A *step* is what a coroutine does between two awaits. Most handlers need one, and an `asyncio.Task` for each of them costs ten
times what a plain function does: it is made, named, registered, put into the loop's queue and forgotten. Yet code that runs
in a step relies on its task: `asyncio.timeout()` and `TaskGroup` cancel the task that `current_task()` was when they were
entered, libraries keep weak references to it, and an application cancels it from outside. So there must be a real one, and it
must be the same one when the handler goes on later.

Therefore a task is kept ready here, suspended, and *one after the other lends it to its first step*:

* A `HandlerTask` is an `asyncio.Task`. What it runs is no coroutine but a `Driver`, which is at the same time what it awaits
  while nobody needs it: the task has given it its wake-up. Calling that is a step of the task, at once, without the loop;
  the task makes itself the current one and asks the driver for the next thing to await.
* The driver has the handler's coroutine do its step. If that awaits something, the task gets it and is from now on this
  handler's own; the loop goes on with it as with any task. If the coroutine has ended, and nobody can have noticed which
  task it ran in, the driver has the task await the driver again: it is ready for the next handler.
* If somebody can have noticed, the task ends, with what the handler has returned. Noticed is: an attribute was looked up, set
  or its hash taken (`HandlerTask` sees these), there is one reference to it more than while it was ready, or a weak one.

Everything that asyncio decides (cancellation that was asked for during the step, what a step may await, when callbacks run) is
thus decided by asyncio's own code. While it is ready the task is in no `all_tasks()`.

Each step runs in the context that the handler was called in, not in the task's: that is fixed when a task is made.
"""

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

import asyncio
import sys
from asyncio import _enter_task, _leave_task, _register_task, _unregister_task
from types import CoroutineType
from weakref import getweakrefcount as _count_weak

from mooring.errors import StateError

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object coroutine, object value, PyObject** result) except? PYGEN_ERROR
    Py_ssize_t Py_REFCNT(PyObject* value)
    object PyObject_GenericGetAttr(object value, object name)
    int PyObject_GenericSetAttr(object value, object name, PyObject* attribute) except -1
    ctypedef struct PyTypeObject:
        object (*tp_getattro)(object, object)
        int (*tp_setattro)(object, object, PyObject*) except -1
        Py_hash_t (*tp_hash)(object) except -1
    void PyType_Modified(PyTypeObject* kind)

cdef object _current_task = asyncio.current_task
cdef object _running_loop = asyncio.get_running_loop
cdef bint EAGER = sys.version_info >= (3, 12)          # a task can be told to do its first step when it is made
cdef bint LISTED = sys.version_info >= (3, 14)         # all_tasks() does not ask the tasks whether they are done
# up to Python 3.11 current_task() is a function of Python over this dict
cdef object _current_tasks = None if EAGER else asyncio.tasks._current_tasks


class HandlerTask(asyncio.Task):
    """The task of one handler. `failure_of()` says what has come of it."""

    __slots__ = ()

    def done(self):
        """Also while it is nobody's: that keeps it out of all_tasks()."""
        cdef Driver driver = _driver_of(self)
        return (driver is not None and driver.wakeup is not None) or asyncio.Task.done(self)

    def get_coro(self):
        """The handler's coroutine."""
        cdef Driver driver = _driver_of(self)
        return driver.coro if driver is not None else None

    if EAGER:
        def get_context(self):
            """The context that the handler was called in."""
            cdef Driver driver = _driver_of(self)
            return driver.context if driver is not None else asyncio.Task.get_context(self)


cdef Driver _driver_of(object task):
    """None: it has none any more."""
    cdef object driver = PyObject_GenericGetAttr(task, "_coro")
    return <Driver> driver if type(driver) is Driver else None


cdef int _notice(object task) except -1:
    cdef Driver driver = _driver_of(task)
    if driver is not None:
        driver.noticed = True
    return 0


cdef object _get_attribute(object task, object name):
    _notice(task)
    return PyObject_GenericGetAttr(task, name)


cdef int _set_attribute(object task, object name, PyObject* value) except -1:
    _notice(task)
    return PyObject_GenericSetAttr(task, name, value)


cdef Py_hash_t _hash(object task) except -1:
    _notice(task)
    return <Py_hash_t> (<size_t> <PyObject*> task >> 4)


# what `__getattribute__` and its like would be, without the ten calls that it takes to come to a method of Python
(<PyTypeObject*> HandlerTask).tp_getattro = _get_attribute
(<PyTypeObject*> HandlerTask).tp_setattro = _set_attribute
(<PyTypeObject*> HandlerTask).tp_hash = _hash
PyType_Modified(<PyTypeObject*> HandlerTask)


def failure_of(task: asyncio.Task) -> BaseException | None:
    """What a task has ended with, if it is a failure; a StateError when it was cancelled, its cause says where."""
    cdef Driver driver = _driver_of(task) if type(task) is HandlerTask else None
    if driver is not None and driver.failure is not None and task.cancelled():
        return driver.failure
    return StateError("the handler was cancelled") if task.cancelled() else task.exception()


cdef class Driver:
    """What a HandlerTask runs, as its coroutine, and awaits, as its future, while it is ready."""

    # ------------------------------------------------------------------ as a coroutine

    def __next__(self):
        return self._step(None)

    def send(self, value):
        return self._step(None)

    def throw(self, kind, value=None, traceback=None):
        if self.coro is None:                # it is ready, and was cancelled
            raise kind
        return self._step(kind if value is None else value)

    def close(self):
        if self.coro is not None:
            self.coro.close()

    def __await__(self):
        return self

    def __getattr__(self, name):
        # repr() and get_stack() of a task look at its coroutine
        if self.coro is not None and (name.startswith("cr_") or name == "__name__" or name == "__qualname__"):
            return getattr(self.coro, name)
        raise AttributeError(name)

    cdef object _step(self, object error):
        cdef PyObject* value = NULL
        cdef PySendResult status
        cdef object result
        if self.coro is None:                # the first time, when the task is made
            return self._wait()
        try:
            PyContext_Enter(self.context)
            try:
                if error is None:
                    status = PyIter_Send(self.coro, None, &value)
                    result = <object> value
                    Py_DECREF(result)
                else:
                    try:
                        result = self.coro.throw(error)
                        status = PYGEN_NEXT
                    except StopIteration as stop:
                        result = stop.value
                        status = PYGEN_RETURN
            finally:
                PyContext_Exit(self.context)
            if status == PYGEN_NEXT:
                self.first = False
                return result
            if self.steps.child:
                self.steps.host.leave_child(None)
            if result is not None:
                self.steps.host.refuse_odd(result)
        except BaseException as raised:
            self._ended(raised)
            raise
        if self.first and not self.keep and not self._is_known():
            return self._wait()
        raise StopIteration(result)

    cdef bint _is_known(self) except -1:
        """Whether somebody can tell that the step had a task."""
        cdef Py_ssize_t references = Py_REFCNT(<PyObject*> self.task)
        if self.steps.references == 0:
            self.steps.references = references
            self.steps.weak = _count_weak(self.task)
        return self.noticed or references != self.steps.references or _count_weak(self.task) != self.steps.weak

    cdef int _ended(self, object error) except -1:
        """A SystemExit or KeyboardInterrupt that leaves a task ends the loop, or would; a task that was cancelled does not
        tell where."""
        if self.steps.child:
            self.steps.host.leave_child(error)
        kind = type(error)                   # not what it says it is, see mooring.app.foreign
        if issubclass(kind, SystemExit):
            raise StateError("a handler called sys.exit(); to stop the server, call shutdown()") from error
        if issubclass(kind, KeyboardInterrupt):
            raise StateError("a handler raised KeyboardInterrupt; to stop the server, call shutdown()") from error
        if issubclass(kind, asyncio.CancelledError):
            self.failure = StateError("the handler was cancelled")
            self.failure.__cause__ = error
        return 0

    # ------------------------------------------------------------------ as a future

    cdef object _wait(self):
        self.coro = self.context = None
        self._asyncio_future_blocking = True
        return self

    def get_loop(self):
        return self.loop

    def add_done_callback(self, wakeup, *, context=None):
        self.wakeup = wakeup

    def remove_done_callback(self, wakeup):
        return 0

    def cancel(self, msg=None):
        self.cancelled = True
        return True

    def result(self):
        if self.cancelled:
            raise asyncio.CancelledError


async def _awaited(running):
    return await running


async def _nothing():
    pass


cdef class Steps:
    """Runs the first steps of handlers in one loop, see mooring.worker.Worker: `host.refuse_odd(result)` raises TypeError for a result that
    nobody can have meant; `host.leave_child(error)` ends this process when it was forked off in a handler that is over."""

    def __cinit__(self, host: object) -> None:
        self.host = host

    cpdef object begin(self, object coro, object context, bint keep=False):
        """Runs the first step of a coroutine in this context. Returns its task; None if it has ended without an error and
        without anybody having seen one. With `keep` there is always a task."""
        cdef Driver driver = self.ready
        cdef object task
        if driver is None:
            driver = self._new(_running_loop())
            if driver is None:
                return self._slowly(_running_loop(), coro, context)
        self.ready = None
        driver.coro = coro
        driver.context = context
        driver.keep = keep
        driver.first = True
        driver.noticed = False
        self._wake(driver)
        if driver.wakeup is not None:
            self.ready = driver
            return None
        task, driver.task = driver.task, None
        driver.first = False
        if not asyncio.Task.done(task):
            task._log_destroy_pending = True
        return task

    def spawn(self, running: object, context: object) -> asyncio.Task:
        """The task of anything that can be awaited; its first step has run."""
        return self.begin(running if type(running) is CoroutineType else _awaited(running), context, True)

    cdef int _wake(self, Driver driver) except -1:
        """One step of a task that is ready."""
        cdef object wakeup
        if LISTED:
            _register_task(driver.task)
        wakeup, driver.wakeup = driver.wakeup, None
        self._call(driver.loop, wakeup, driver)
        if driver.cancelled and driver.wakeup is not None:
            wakeup, driver.wakeup = driver.wakeup, None
            self._call(driver.loop, wakeup, driver)
        if LISTED and driver.wakeup is not None:
            _unregister_task(driver.task)
        return 0

    cdef int _call(self, object loop, object step, Driver awaited) except -1:
        """One step of a task. Another may be in the middle of one, and have led to this."""
        cdef object current = _current_task(loop) if EAGER else _current_tasks.get(loop)
        if current is None:
            step(awaited) if awaited is not None else step()
            return 0
        _leave_task(loop, current)
        try:
            step(awaited) if awaited is not None else step()
        finally:
            _enter_task(loop, current)
        return 0

    cdef Driver _new(self, object loop):
        """A task that is ready; None if the loop can't be kept from calling it later."""
        cdef Driver driver = Driver()
        cdef object queue = None
        cdef object current
        driver.steps = self
        driver.loop = loop
        if EAGER:
            driver.task = HandlerTask(driver, loop=loop, context=PyContext_CopyCurrent(), eager_start=True)
        else:
            queue = getattr(loop, "_ready", None)
            if queue is None:
                return None
            driver.task = HandlerTask(driver, loop=loop, context=PyContext_CopyCurrent())
            self._call(loop, queue.pop()._callback, None)      # what the loop would call in its next turn
        if driver.wakeup is None:
            raise RuntimeError("the loop has not begun a task that was to begin at once")
        driver.task._log_destroy_pending = False
        if LISTED:
            _unregister_task(driver.task)
        if self.references == 0:
            driver.coro = _nothing()             # so it is counted
            driver.context = PyContext_CopyCurrent()
            driver.first = True
            driver.noticed = False
            self._wake(driver)
        return driver

    cdef object _slowly(self, object loop, object coro, object context):
        """As other servers do it: the first step comes with the loop's next turn."""
        cdef Driver driver = Driver()
        driver.steps = self
        driver.loop = loop
        driver.coro = coro
        driver.context = context
        return HandlerTask(driver, loop=loop, context=context.copy())
