"""The table of callbacks: which events there are, and which function was registered for each.

A mistake in a name or in the parameters is found when the handler is registered, not when the first
client arrives.
"""

import functools
import inspect
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from mooring.app.foreign import text_of
from mooring.app.typed import decoder_for, typed
from mooring.errors import ConfigError
from mooring.near import EVENTS as OTHER_WORDS
from mooring.near import nearest

Handler = Callable[..., Any]

EVENTS: dict[str, tuple[str, ...]] = {
    "start": ("server",),
    "shutdown": ("server",),
    "worker_start": ("server", "worker_id"),
    "worker_stop": ("server", "worker_id"),
    "worker_exit": ("server", "worker_id", "reason"),
    "before_reload": ("server", "reason"),
    "after_reload": ("server", "succeeded", "reason"),
    "worker_error": ("server", "worker_id", "pid", "exit_code", "signal", "reason"),
    "origin": ("server", "request"),
    "handshake": ("server", "request"),
    "subprotocol": ("server", "request"),
    "open": ("server", "request"),
    "message": ("server", "frame"),
    "close": ("server", "fd", "code", "reason"),
    "disconnect": ("server", "fd", "reason"),
    "ended": ("server", "record"),
    "request": ("request", "response"),
    "error": ("server", "fd", "failure"),
    "invalid": ("server", "fd", "problem"),
    "uncertain": ("server", "frame", "reason"),
    "quarantined": ("server", "frame", "reason"),
    "task": ("server", "task"),
    "finish": ("server", "outcome"),
    "pipe_message": ("server", "src_worker_id", "data"),
}
"""Each event with the parameters its handler is called with, by position."""


CONNECTION_EVENTS = frozenset(
    {
        "origin",
        "handshake",
        "subprotocol",
        "open",
        "message",
        "close",
        "disconnect",
        "ended",
        "request",
        "error",
        "invalid",
        "uncertain",
    }
)
"""Those that concern one connection, for which a listener can have handlers of its own."""

OF_WEBSOCKETS = ("origin", "handshake", "subprotocol", "open", "close")
"""Those that are of no use without a handler of `message`."""

_MESSAGE = """\
    @server.on("message")
    def message(server, frame): ..."""


class Handlers:
    """The handlers of one server, or of one listener, which has those of its server (`fallback`) where it has none.

    An event has one handler. The same function may be registered again, also after its module was loaded anew."""

    __slots__ = ("_fallback", "_given", "_handlers", "_typed", "processes")

    def __init__(self, fallback: "Handlers | None" = None) -> None:
        self._given: dict[str, Handler] = {}  # as they were registered
        self._handlers: dict[str, Handler] = {}  # as they are called
        self._typed: set[str] = set()
        self._fallback = fallback
        self.processes: list[tuple[Handler, tuple[object, ...]]] = []
        """Functions that run in processes of their own, with what they are given behind the server."""

    def on(self, name: str, fn: Handler | None = None, type: object = None) -> Handler:
        """Registers `fn` and returns it; without one, returns a decorator that does so."""
        if fn is None and callable(name):
            event = nearest(_name(name).rpartition(".")[2], EVENTS, OTHER_WORDS) or "message"
            raise ConfigError(f"on() has no event for {described(name)}: write @server.on({event!r}) above it")

        def add(function: Handler) -> Handler:
            self.register(name, function, type)
            return function

        return add if fn is None else add(fn)

    def register(self, name: str, fn: Handler, type: object = None) -> None:
        """Make `fn` the handler of the event. With `type`, messages are JSON of that type, and it is called with the
        value, too. Raises ConfigError for an unknown name, for something that can't be called, for a function that
        can't take the event's parameters, for a second one, and for a type that is none of JSON."""
        if not isinstance(name, str) or name not in EVENTS:
            near = nearest(name, EVENTS, OTHER_WORDS, 0.5) if isinstance(name, str) else None
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(EVENTS)}"
            raise ConfigError(f"no event is called {text_of(name, repr, 100)}; {hint}")
        if self._fallback is not None and name not in CONNECTION_EVENTS:
            raise ConfigError(f"{name!r} is an event of the whole server: register it there, not at a listener")
        parameters = EVENTS[name]
        decoder = None if type is None else decoder_for(name, type)
        if decoder is not None:
            parameters = (*parameters, "value")
        wanted = f"{name}({', '.join(parameters)})"
        if not callable(fn):
            raise ConfigError(f"the handler of {name!r} is {fn!r}, which can't be called; it is called as {wanted}")
        if _yields(fn):
            raise ConfigError(f"the handler of {name!r} is a generator: calling it would run nothing. Remove `yield`")
        misfit = _misfit(fn, parameters)
        if misfit is not None:
            if name == "message" and type is None and _misfit(fn, (*parameters, "value")) is None:
                misfit += '; the value of a typed message is handed over with on("message", type=...)'
            raise ConfigError(f"the handler of {name!r} is called as {wanted}, but {_name(fn)}{misfit}")
        held = self._given.get(name)
        if held is not None and held is not fn and not _again(held, fn):
            instead = "call one from the other, or remove it"
            if decoder is not None or name in self._typed:
                instead = 'for several types take a union, on("message", type=Move | Say), see docs/json.md'
            raise ConfigError(
                f"two handlers for {name!r}, {described(held)} and {described(fn)}, and an event has one: {instead}"
            )
        self._given[name] = fn
        self._handlers[name] = fn if decoder is None else typed(fn, decoder)
        self._typed.discard(name)
        if decoder is not None:
            self._typed.add(name)

    def get(self, name: str) -> Handler | None:
        """The handler of the event; None when there is none."""
        handler = self._handlers.get(name)
        return self._fallback.get(name) if handler is None and self._fallback is not None else handler

    def falls_back(self, name: str) -> bool:
        """Whether the event's handler is that of the server, and this is a listener."""
        return self._fallback is not None and name not in self._handlers

    def is_typed(self, name: str) -> bool:
        """Whether the event's handler takes JSON of a type."""
        if self._fallback is not None and name not in self._handlers:
            return self._fallback.is_typed(name)
        return name in self._typed

    def check(self, listeners: Sequence["Handlers"] = (), *, tasks: bool = False, files: bool = False) -> None:
        """Raise ConfigError when a handler is missing that the server can't do without. `listeners`: those of further
        listeners; with `tasks`, there are task workers; with `files`, a folder is served."""
        if tasks and "task" not in self._handlers:
            raise ConfigError(
                "there are task workers (task_worker_num) and no handler for 'task'; register one before start():\n"
                '    @server.on("task")\n'
                "    def task(server, task): ..."
            )
        idle = next((name for name in ("task", "finish") if name in self._handlers), None)
        if idle is not None and not tasks:
            raise ConfigError(
                f"there is a handler for {idle!r} and no task worker that would run tasks: set task_worker_num to 1 or "
                "more, or remove the handler"
            )
        every = [self, *listeners]
        speaks = any(one.get("message") is not None for one in every)
        if not speaks and not files and all(one.get("request") is None for one in every):
            raise ConfigError(
                "no handler for 'message' (of WebSockets), and none for 'request' (of HTTP); "
                f"register one before start():\n{_MESSAGE}\n"
                '    @server.on("request")\n'
                "    def request(request, response): ..."
            )
        for one in every:
            event = next((name for name in OF_WEBSOCKETS if name in one._handlers), None)
            if event is not None and one.get("message") is None and not (one is self and speaks):
                raise ConfigError(
                    f"a handler for {event!r}, which only WebSockets have, and none for 'message'; "
                    f"register one before start():\n{_MESSAGE}"
                )


def _misfit(fn: Handler, parameters: tuple[str, ...]) -> str | None:
    """Why it can't be called with these, behind its name; None if it can be."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return None  # some callables written in C tell nothing of their parameters
    try:
        signature.bind(*parameters)
    except TypeError:
        pass
    else:
        return None
    least, most = 0, 0.0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            least += parameter.default is parameter.empty
            most += 1
    if least <= len(parameters) <= most:
        return f"{signature} has a keyword that must be given: give it a default"
    count = str(least) if least == most else f"{least} or more" if most == math.inf else f"{least} to {most:.0f}"
    return f"{signature} takes {count} parameter{'s' * (count != '1')}, not {len(parameters)}"


def _target(fn: Handler) -> Any:
    """The function that runs when `fn` is called, without partials and instances around it."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isroutine(fn) or inspect.isclass(fn):
        return fn
    return type(fn).__call__


def _yields(fn: Handler) -> bool:
    target = _target(fn)
    return inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target)


def _again(one: Handler, other: Handler) -> bool:
    """Whether it is the same function of a module that was loaded once more."""
    of_module = all(inspect.isfunction(fn) and "<" not in fn.__qualname__ for fn in (one, other))
    return of_module and _place(one) == _place(other)


def _place(fn: Handler) -> tuple[str, int, str] | None:
    """Where a function is written: file, line, name; None for what has no such place."""
    target = inspect.unwrap(_target(fn))
    code = getattr(target, "__code__", None)
    return (
        None
        if code is None or isinstance(fn, functools.partial)
        else (code.co_filename, code.co_firstlineno, _name(fn))
    )


def described(fn: Handler) -> str:
    """A function for people: its name, and where it is written."""
    place = _place(fn)
    if place is None:
        return _name(fn)
    file = os.path.relpath(place[0]) if place[0].startswith(os.getcwd() + os.sep) else place[0]
    return f"{place[2]} ({file}:{place[1]})"


def _name(fn: Handler) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__
