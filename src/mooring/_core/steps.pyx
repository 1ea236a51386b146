"""Handlers that are coroutines: the first step runs where the handler was called; what is not over then is a task.

A *step* is what a coroutine does between two awaits. Most handlers need one, and an `asyncio.Task` for each of them
costs ten times what a plain function does: it is made, named, registered, put into the loop's queue and forgotten. Yet
code that runs in a step relies on its task: `asyncio.timeout()` and `TaskGroup` cancel the task that `current_task()`
was when they were entered, libraries keep weak references to it, and an application cancels it from outside. So there
must be a real one, and it must be the same one when the handler goes on later.

Therefore a task is kept ready here, suspended, and *one after the other lends it to its first step*:

* A `HandlerTask` is an `asyncio.Task`. What it runs is no coroutine but a `Driver`, which holds the task's next step:
  calling that is a step of the task, at once, without the loop. Up to Python 3.11 it is the task's first one, taken
  from the loop's queue. From 3.12 on a task can do its first step when it is made: there the task awaits its driver,
  which has its wake-up.
* For the first step of a handler the task is only made the current one, and the coroutine is called. When it has ended,
  and nobody can have noticed which task it ran in, that is all: the task is as it was, ready for the next handler.
* Else the task's step is called, and the driver gives it what the first step has come to: what is to be awaited, a
  result, an error. It is this handler's own from now on, and the loop goes on with it as with any task.
* Noticed is: an attribute was looked up or set, or its hash taken (`HandlerTask` sees these); or it was cancelled; or
  there is one reference to it more than while it was ready, or a weak one.

So what a step may await, when callbacks run and what cancels what is decided by asyncio's own code. One thing has to be
told to it: a task that was cancelled in its first step wakes with that, and not with what the step has come to; it is
cancelled again when it awaits that. While it is ready the task is in no `all_tasks()`.

A loop keeps only weak references to tasks. Until the coroutine is over, `Steps.tasks` keeps the handler's.

Each step runs in the context that the handler was called in, not in the task's: that is fixed when a task is made.
"""

from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

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
    ctypedef struct PyAsyncMethods:
        int (*am_send)(object, object, PyObject**) except -1
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async
        object (*tp_getattro)(object, object)
        int (*tp_setattro)(object, object, PyObject*) except -1
        Py_hash_t (*tp_hash)(object) except -1
    void PyType_Modified(PyTypeObject* kind)
    ctypedef struct PyGetSetDef:
        object (*get)(object, void*)
        void* closure
    ctypedef struct PyGetSetDescrObject:
        PyGetSetDef* d_getset

cdef object _current_task = asyncio.current_task
cdef object _running_loop = asyncio.get_running_loop
cdef object _waiter = asyncio.Task._fut_waiter.__get__
cdef object _must_cancel = asyncio.Task._must_cancel
# whether a task says that it was destroyed while pending
cdef object _complain = asyncio.Task._log_destroy_pending.__set__
cdef bint EAGER = sys.version_info >= (3, 12)          # a task can be told to do its first step when it is made
# all_tasks() asks a task of ours whether it is done; `python -m asyncio ps`, from 3.14 on, reads the list from outside
cdef bint LISTED = sys.version_info >= (3, 14)
# up to Python 3.11 current_task() is a function of Python over this dict
cdef dict _current_tasks = None if EAGER else asyncio.tasks._current_tasks
cdef int lent = 0    # tasks that handlers have for their first steps: only these are watched


class HandlerTask(asyncio.Task):
    """The task of one handler. `failure_of()` says what has come of it."""

    __slots__ = ()

    def done(self):
        """Also while it is nobody's: that keeps it out of all_tasks()."""
        cdef Driver driver = _driver_of(self)
        return (driver is not None and driver.step is not None and not driver.first) or asyncio.Task.done(self)

    @property
    def _fut_waiter(self):
        waiter = _waiter(self)
        return None if type(waiter) is Driver else waiter

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
    cdef Driver driver
    if lent:
        driver = _driver_of(task)
        if driver is not None:
            driver.noticed = True
    return 0


cdef bint _is_cancelled(object task) except -1:
    """Its next step is to raise that."""
    cdef PyGetSetDef* read = (<PyGetSetDescrObject*> _must_cancel).d_getset
    return read.get(task, read.closure) is True


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
        """A step of the task, as its coroutine does it: what it shall await. `error` is thrown into the coroutine."""
        cdef PyObject* value = NULL
        cdef int status = self.advance(error, &value)
        outcome = <object> value
        Py_DECREF(outcome)
        if status == PYGEN_RETURN:
            raise StopIteration(outcome)
        return outcome

    cdef int advance(self, object error, PyObject** value) except -1:
        """A step of the task. What it shall await is a PYGEN_NEXT, what the coroutine has returned a PYGEN_RETURN."""
        cdef bint known = self.known
        cdef int status
        if self.coro is None:                # when the task is made; or it is nobody's, and was cancelled
            if error is not None:
                raise error
            self._asyncio_future_blocking = True
            Py_INCREF(self)
            value[0] = <PyObject*> self
            return PYGEN_NEXT
        if known:
            self.known = False
        else:
            self.run(error)
        status = self.status
        outcome, self.outcome = self.outcome, None
        if status == PYGEN_NEXT:
            if known and error is not None:
                self.cancellation = error
        else:
            self.steps.tasks.discard(self.task)
            self.task = None
            if status == PYGEN_ERROR:
                raise outcome
            if known and error is not None:  # it was cancelled in its last step
                raise error
        Py_INCREF(outcome)
        value[0] = <PyObject*> outcome
        return status

    cdef int run(self, object error) except -1:
        """A step of the coroutine: what came of it is in `status` and `outcome`."""
        cdef PyObject* value = NULL
        try:
            PyContext_Enter(self.context)
            try:
                if error is None:
                    self.status = <int> PyIter_Send(self.coro, None, &value)
                    self.outcome = <object> value
                    Py_DECREF(self.outcome)
                else:
                    try:
                        self.outcome = self.coro.throw(error)
                        self.status = PYGEN_NEXT
                    except StopIteration as stop:
                        self.outcome = stop.value
                        self.status = PYGEN_RETURN
            finally:
                PyContext_Exit(self.context)
            if self.status == PYGEN_RETURN:
                if self.steps.child:
                    self.steps.host.end_child(None)
                if self.outcome is not None:
                    self.steps.host.on_result(self.outcome, self.kind)
        except BaseException as raised:
            self.outcome = self._failure(raised)
            self.status = PYGEN_ERROR
        return 0

    cdef object _failure(self, object error):
        """What to raise. A SystemExit or KeyboardInterrupt that leaves a task ends the loop, or would; a task that was
        cancelled does not tell where."""
        if self.steps.child:
            self.steps.host.end_child(error)
        kind = type(error)                   # not what it says it is, see mooring.app.foreign
        if issubclass(kind, asyncio.CancelledError):
            self.failure = StateError("the handler was cancelled")
            self.failure.__cause__ = error
            return error
        if issubclass(kind, SystemExit):
            failure = StateError("a handler called sys.exit(); to stop the server, call shutdown()")
        elif issubclass(kind, KeyboardInterrupt):
            failure = StateError("a handler raised KeyboardInterrupt; to stop the server, call shutdown()")
        else:
            return error
        failure.__cause__ = error
        return failure

    # ------------------------------------------------------------------ as a future

    def get_loop(self):
        return self.loop

    def add_done_callback(self, wakeup, *, context=None):
        self.step = wakeup

    def remove_done_callback(self, wakeup):
        return 0

    def cancel(self, msg=None):
        return False                         # the task notes it, and is cancelled in its next step

    def result(self):
        pass


cdef int _send(object driver, object value, PyObject** outcome) except -1:
    return (<Driver> driver).advance(None, outcome)


# what a generator has: a task need not catch a StopIteration then
(<PyTypeObject*> Driver).tp_as_async.am_send = _send
PyType_Modified(<PyTypeObject*> Driver)


cdef object _taken(object queue, object task):
    """The step that was to begin this task, out of the loop's queue. Another thread may have put something behind
    it."""
    cdef Py_ssize_t place
    for place in range(len(queue) - 1, -1, -1):
        step = queue[place]._callback
        if getattr(step, "__self__", None) is task:
            del queue[place]
            return step
    return None


async def _awaited(running):
    return await running


async def _nothing():
    pass


cdef class Steps:
    """Runs the first steps of handlers in one loop. `host` is a mooring.worker.Worker: `on_result(result, kind)` is
    told what a handler has returned, unless that is None, and may raise; `end_child(error)` ends this process if it
    was forked off in a handler, which is over."""

    def __cinit__(self, host: object) -> None:
        self.host = host
        self.tasks = set()

    cpdef object begin(self, object coro, object context, bint keep=False, int kind=0):
        """Runs the first step of a coroutine in this context. Returns its task; None if it has ended without an error
        and without anybody having seen one. With `keep` there is always a task. `kind`: of the event that it handles,
        for the host."""
        cdef Driver driver = self.ready
        self.ready = None
        if driver is not None and _is_cancelled(driver.task):        # somebody has found it all the same
            self._call(driver)
            driver = None
        if driver is None:
            driver = self._new(_running_loop())
            if driver is None:
                return self._slowly(_running_loop(), coro, context, kind)
        driver.kind = kind
        if not self._first(driver, coro, context) and not keep:
            driver.coro = driver.context = driver.outcome = None
            driver.known = False
            self.ready = driver
            return None
        return self._give(driver)

    def task_of(self, running: object, context: object, kind: int = 0) -> asyncio.Task:
        """The task of anything that can be awaited; its first step has run."""
        return self.begin(running if type(running) is CoroutineType else _awaited(running), context, True, kind)

    cdef bint _first(self, Driver driver, object coro, object context) except -1:
        """The first step of a handler; whether it needs its task from now on."""
        cdef object loop = driver.loop
        cdef object current = _current_task(loop) if EAGER else _current_tasks.get(loop)
        cdef Py_ssize_t references
        driver.coro = coro
        driver.context = context
        driver.noticed = False
        driver.first = True
        global lent
        lent += 1
        if LISTED:
            _register_task(driver.task)
        if current is not None:              # a handler, or something else, has led to this one
            _leave_task(loop, current)
        _enter_task(loop, driver.task)
        try:
            driver.run(None)
        finally:
            _leave_task(loop, driver.task)
            if current is not None:
                _enter_task(loop, current)
            driver.first = False
            lent -= 1
        driver.known = True
        if driver.status == PYGEN_RETURN and not driver.noticed and not _is_cancelled(driver.task):
            references = Py_REFCNT(<PyObject*> driver.task)
            if self.references == 0:
                self.references = references
                self.weak = _count_weak(driver.task)
            if references == self.references and _count_weak(driver.task) == self.weak:
                if LISTED:
                    _unregister_task(driver.task)
                return False
        return True

    cdef object _give(self, Driver driver):
        """The task is this handler's: it does for asyncio what the first step has done."""
        cdef object task = driver.task
        _complain(task, True)
        self.tasks.add(task)
        self._call(driver)
        if driver.cancellation is not None:  # as it would have been when it came to await what it now awaits
            error, driver.cancellation = driver.cancellation, None
            asyncio.Task.cancel(task, *error.args[:1])
            asyncio.Task.uncancel(task)
        return task

    cdef int _call(self, Driver driver) except -1:
        """The next step of a task that was ready. Another may be in the middle of one, and have led to this."""
        cdef object loop = driver.loop
        cdef object current = _current_task(loop) if EAGER else _current_tasks.get(loop)
        step, driver.step = driver.step, None
        if current is not None:
            _leave_task(loop, current)
        try:
            step(driver) if EAGER else step()
        finally:
            if current is not None:
                _enter_task(loop, current)
        return 0

    cdef Driver _new(self, object loop):
        """A task that is ready; None if the loop can't be kept from calling it later."""
        cdef Driver driver = Driver()
        driver.steps = self
        driver.loop = loop
        if EAGER:
            driver.task = HandlerTask(driver, loop=loop, context=PyContext_CopyCurrent(), eager_start=True)
        elif hasattr(loop, "_ready"):
            driver.task = HandlerTask(driver, loop=loop, context=PyContext_CopyCurrent())
            driver.step = _taken(loop._ready, driver.task)
        else:
            return None
        if driver.step is None:
            raise RuntimeError("the loop has not begun a task that was to begin at once")
        _complain(driver.task, False)
        if LISTED:
            _unregister_task(driver.task)
        if self.references == 0:
            self._first(driver, _nothing(), PyContext_CopyCurrent())     # so they are counted
        return driver

    cdef object _slowly(self, object loop, object coro, object context, int kind):
        """As other servers do it: the first step comes with the loop's next turn."""
        cdef Driver driver = Driver()
        driver.steps = self
        driver.loop = loop
        driver.coro = coro
        driver.context = context
        driver.kind = kind
        driver.task = HandlerTask(driver, loop=loop, context=context.copy())
        self.tasks.add(driver.task)
        return driver.task
