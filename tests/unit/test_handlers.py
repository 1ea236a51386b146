"""The table of callbacks: a mistake is found when the handler is registered."""

import functools
import inspect
import os
import re
from typing import Any

import pytest

from mooring.app.handlers import EVENTS, OF_WEBSOCKETS, Handlers
from mooring.errors import ConfigError


def message(server: Any, frame: Any) -> None: ...


async def later(server: Any, frame: Any) -> None: ...


class Plain:
    def __call__(self, server: Any, frame: Any) -> None: ...

    def method(self, server: Any, frame: Any) -> None: ...

    @classmethod
    def of_class(cls, server: Any, frame: Any) -> None: ...

    @staticmethod
    async def static(server: Any, frame: Any) -> None: ...


class Later:
    async def __call__(self, server: Any, frame: Any) -> None: ...

    async def method(self, server: Any, frame: Any) -> None: ...


class Made:
    """A class can be a handler, too: calling it makes one."""

    def __init__(self, server: Any, frame: Any) -> None: ...


async def with_more(extra: Any, server: Any, frame: Any) -> None: ...


@functools.wraps(later)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return later(*args, **kwargs)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(message, id="def"),
        pytest.param(later, id="async def"),
        pytest.param(lambda server, frame: None, id="lambda"),
        pytest.param(lambda *args: None, id="any arguments"),
        pytest.param(lambda server, frame, extra=1, *, more=2: None, id="defaults"),
        pytest.param(Plain(), id="object"),
        pytest.param(Later(), id="object with async __call__"),
        pytest.param(Plain().method, id="method"),
        pytest.param(Later().method, id="async method"),
        pytest.param(Plain.of_class, id="class method"),
        pytest.param(Plain.static, id="async static method"),
        pytest.param(Made, id="class"),
        pytest.param(functools.partial(message), id="partial"),
        pytest.param(functools.partial(with_more, 1), id="partial of async"),
        pytest.param(functools.partial(functools.partial(Later()), 1), id="partial of partial of object"),
        pytest.param(max, id="builtin"),
    ],
)
def test_what_can_be_a_handler(handler: Any) -> None:
    handlers = Handlers()
    if isinstance(handler, functools.partial) and isinstance(handler.func, Later):
        handlers.register("start", handler)  # one parameter is bound: one is left
        assert handlers.get("start") is handler
        return
    handlers.register("message", handler)
    assert handlers.get("message") is handler


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("lambda frame: 0", "(frame) takes 1 parameter, not 2"),
        ("lambda: 0", "() takes 0 parameters, not 2"),
        ("lambda a, b, c, d=1: 0", "(a, b, c, d=1) takes 3 to 4 parameters, not 2; the value of a typed message is"),
        ("lambda a, b, c, d, e, *rest: 0", "takes 5 or more parameters, not 2"),
        ("lambda server, frame, *, more: 0", "(server, frame, *, more) has a keyword that must be given: give it a"),
    ],
)
def test_how_many_parameters_it_takes(source: str, says: str) -> None:
    with pytest.raises(ConfigError, match="called as message\\(server, frame\\), but .*" + re.escape(says)):
        Handlers().register("message", eval(source))


def test_a_wrapper_that_gives_a_coroutine() -> None:
    """functools.wraps does not make a function async; its signature is the wrapped one's."""
    handlers = Handlers()
    handlers.register("message", wrapped)
    with pytest.raises(ConfigError):
        handlers.register("close", wrapped)


@pytest.mark.parametrize("name", EVENTS)
def test_every_event(name: str) -> None:
    handlers = Handlers()
    assert handlers.get(name) is None
    wanted = EVENTS[name]
    scope: dict[str, Any] = {}
    exec(f"def good({', '.join(wanted)}): ...\nasync def too_many({', '.join(wanted)}, more): ...", scope)
    exec(f"def too_few({', '.join(wanted[1:])}): ...", scope)
    handlers.register(name, scope["good"])
    assert handlers.get(name) is scope["good"]
    for bad in ("too_many", "too_few"):
        with pytest.raises(ConfigError, match=bad) as error:
            handlers.register(name, scope[bad])
        assert f"{name}({', '.join(wanted)})" in str(error.value)
    assert handlers.get(name) is scope["good"]


def test_an_event_has_one_handler() -> None:
    """The second one is refused, with the names of both and where they are; the first one stays."""
    handlers = Handlers()
    handlers.register("message", later)
    with pytest.raises(ConfigError) as error:
        handlers.register("message", message)
    one, other = (
        f"{fn.__name__} ({os.path.relpath(__file__)}:{inspect.getsourcelines(fn)[1]})" for fn in (later, message)
    )
    assert str(error.value).startswith(f"two handlers for 'message', {one} and {other}, and an event has one: ")
    assert handlers.get("message") is later
    handlers.register("message", later)
    made = [lambda server, frame, n=n: n for n in range(2)]
    for first, second in (
        (Plain().method, Plain().method),
        (functools.partial(message), functools.partial(message)),
        (Plain(), Plain()),
        made,
        (max, min),
    ):
        apart = Handlers()
        apart.register("message", first)
        with pytest.raises(ConfigError, match="two handlers"):
            apart.register("message", second)


@pytest.mark.parametrize("types", [(int, None), (None, int), (int, str)])
def test_a_second_type_of_messages_is_a_union(types: tuple[Any, Any]) -> None:
    handlers = Handlers()
    handlers.register("message", lambda server, frame, value=0: None, types[0])
    with pytest.raises(ConfigError, match=r"take a union, on\(.message., type=Move \| Say\)"):
        handlers.register("message", lambda server, frame, value=1: None, types[1])


def test_a_module_that_is_loaded_once_more_registers_its_handlers_again(tmp_path: Any) -> None:
    handlers = Handlers()
    text = "def said(server, frame): ...\nasync def left(server, fd, code, reason): ...\n"
    for _ in range(2):
        scope: dict[str, Any] = {"__name__": "chat"}
        exec(compile(text, tmp_path / "chat.py", "exec"), scope)
        handlers.register("message", scope["said"])
        handlers.register("close", scope["left"])
        assert handlers.get("message") is scope["said"]


def test_a_listener_has_handlers_of_its_own() -> None:
    server = Handlers()
    server.register("message", message)
    listener = Handlers(server)
    listener.register("message", later)
    assert (listener.get("message"), server.get("message")) == (later, message)


@pytest.mark.parametrize("name", ["task", "finish"])
def test_handlers_of_tasks_need_task_workers(name: str) -> None:
    handlers = Handlers()
    for event in {"message", "task", name}:
        handlers.register(event, message)
    handlers.check(tasks=True)
    with pytest.raises(ConfigError, match="no task worker that would run tasks: set task_worker_num to 1 or more"):
        handlers.check(tasks=False)


def closed(server: Any, fd: int, code: int, reason: str) -> None: ...


def close(server: Any, fd: int, code: int, reason: str) -> None: ...


@pytest.mark.parametrize(
    ("handler", "event"),
    [(message, "message"), (closed, "close"), (close, "close"), (lambda a, b: None, "message"), (Plain(), "message")],
)
def test_a_bare_decorator(handler: Any, event: str) -> None:
    with pytest.raises(ConfigError) as error:
        Handlers().on(handler)
    assert f"write @server.on({event!r}) above it" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mesage", "did you mean 'message'"),
        ("Message", "did you mean 'message'"),
        ("on_open", "did you mean 'open'"),
        ("worker-start", "did you mean 'worker_start'"),
        ("WorkerStart", "did you mean 'worker_start'"),
        ("connect", "did you mean 'open'"),
        ("connection", "did you mean 'open'"),
        ("on_connect", "did you mean 'open'"),
        ("onmessage", "did you mean 'message'"),
        ("disconnected", "did you mean 'close'"),
        ("receive", "did you mean 'message'"),
        ("zzzzzz", "there are start, shutdown"),
        ("", "there are"),
        (None, ""),
        (1, "there are"),
    ],
)
def test_unknown_events(name: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match="no event is called") as error:
        Handlers().register(name, message)
    assert hint in str(error.value)


@pytest.mark.parametrize("handler", [None, 1, "message", [], object()])
def test_what_can_not_be_called(handler: Any) -> None:
    with pytest.raises(ConfigError, match="can't be called"):
        Handlers().register("message", handler)


def generator(server: Any, frame: Any) -> Any:
    yield


async def async_generator(server: Any, frame: Any) -> Any:
    yield


class Generates:
    def __call__(self, server: Any, frame: Any) -> Any:
        yield


@pytest.mark.parametrize(
    "handler", [generator, async_generator, Generates(), functools.partial(generator), Generates().__call__]
)
def test_generators(handler: Any) -> None:
    """Calling one would run nothing of it."""
    with pytest.raises(ConfigError, match="yield"):
        Handlers().register("message", handler)


@pytest.mark.parametrize(
    "handler",
    [
        lambda: None,
        lambda server: None,
        lambda server, frame, more: None,
        lambda *, server, frame: None,
        lambda server, frame, *, needed: None,
        Plain.method,  # not bound
        functools.partial(message, 1),
        Plain,  # takes nothing
    ],
)
def test_parameters(handler: Any) -> None:
    with pytest.raises(ConfigError, match=r"called as message\(server, frame\)"):
        Handlers().register("message", handler)


def request(request: Any, response: Any) -> None: ...


def test_check_wants_a_handler_of_messages_or_requests() -> None:
    handlers = Handlers()
    with pytest.raises(ConfigError, match=r'(?s)@server\.on\("message"\).*@server\.on\("request"\)'):
        handlers.check()
    handlers.check(files=True)
    handlers.register("request", request)
    handlers.check()
    handlers = Handlers()
    handlers.register("message", message)
    handlers.check()


def test_a_listener_may_be_the_one_that_speaks() -> None:
    handlers = Handlers()
    listener = Handlers(handlers)
    listener.register("request", request)
    handlers.check([listener])
    handlers.register("open", lambda server, request: None)
    with pytest.raises(ConfigError, match="'open', which only WebSockets have"):
        handlers.check([listener])
    listener.register("message", message)  # the server's `open` is for its clients
    handlers.check([listener, Handlers(handlers)])


@pytest.mark.parametrize("event", OF_WEBSOCKETS)
def test_what_only_websockets_have_wants_a_message_handler(event: str) -> None:
    handlers = Handlers()
    handlers.register("request", request)
    listener = Handlers(handlers)
    handlers.check([listener])
    for one in (listener, handlers):
        one.register(event, lambda *_: None)
        with pytest.raises(ConfigError, match=f"'{event}'.*none for 'message'"):
            handlers.check([listener])
    handlers.register("message", message)
    handlers.check([listener])


def test_tables_share_nothing() -> None:
    one, other = Handlers(), Handlers()
    one.register("message", later)
    assert other.get("message") is None


def test_what_is_said_of_events_at_the_wrong_place() -> None:
    with pytest.raises(ConfigError, match="'task' is an event of the whole server: register it there"):
        Handlers(Handlers()).register("task", lambda server, task: None)
    with pytest.raises(ConfigError, match=r'handed over with on\("message", type=...\)'):
        Handlers().register("message", lambda server, frame, value: None)
