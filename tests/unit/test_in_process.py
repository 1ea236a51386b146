"""mooring.testing.in_process: the application in the process of the test, as the server itself would run it."""

import asyncio
import functools
import gc
import logging
import threading
import time
from typing import Any

import pytest

from mooring import ConfigError, Frame, Response, Server, StateError, TaskFailed
from mooring.journal import own_logger
from mooring.testing import Closed, HandlerFailed, NotInTime, Refused, ServerFailed, in_process
from support.descriptors import open_descriptors

LIMIT = 30.0  # seconds; for machines under load


def chat() -> Server:
    """A small application, made anew for each test."""
    server = Server("127.0.0.1", 9502, worker_num=4)

    @server.on("open")
    def joined(server, request):
        server.session(request.fd)["name"] = request.query.get("name", "anonymous")
        server.bind(request.fd, request.query.get("name", "anonymous"))
        server.subscribe(request.fd, "lobby")

    @server.on("message")
    async def said(server, frame):
        if frame.data == "raise":
            raise LookupError("on purpose")
        await asyncio.sleep(0)
        server.publish("lobby", f"{server.session(frame.fd)['name']}: {frame.data}")

    @server.on("request")
    def page(request, response):
        response.cookie("sid", request.cookies.get("sid", "") + "x")
        response.json({"query": dict(request.query), "sid": request.cookies.get("sid")})

    return server


def test_an_exchange_is_that_of_the_server_and_noted_down():
    with in_process(chat, limit=LIMIT) as running:
        with running.connect("/?name=ada") as ada, running.connect("/?name=bob") as bob:
            ada.send("hello")
            assert [ada.receive(), bob.receive()] == ["ada: hello"] * 2
            assert running.published == [("lobby", "ada: hello")]
            assert [one.arguments["fd"] for one in running.made if one.method == "subscribe"] == [ada.fd, bob.fd]
            running.server.push_user("bob", "psst")
            assert bob.receive() == "psst"
            assert running.pushed_to_users == [("bob", "psst")]
            assert running.server.push(bob.fd, b"\1\2", 2)
            assert bob.receive() == b"\1\2"
            assert running.pushed == [(bob.fd, b"\1\2")]
            assert running.server.connections_of("ada") == [ada.fd]
            assert running.stats()["in_flight"] == 0
            running.server.disconnect(bob.fd, 4001, "enough")
            assert (bob.close_code, bob.close_reason) == (4001, "enough")
            with pytest.raises(Closed, match="4001 enough") as closed:
                bob.receive()
            assert closed.value.code == 4001


def test_handlers_are_called_directly():
    server = chat()
    said = server._handlers.get("message")
    with in_process(server, limit=LIMIT) as running, running.connect("/?name=ada") as ada:
        running.call(said, server, ada.frame("direct"))
        assert running.published == [("lobby", "ada: direct")]
        assert ada.receive() == "ada: direct"
        with pytest.raises(LookupError, match="on purpose"):
            running.call(said, server, ada.frame("raise"))
        assert running.errors == [], "who calls it has its error"
        with pytest.raises(NotInTime, match="did not end within"):
            running.call(lambda: asyncio.sleep(60), limit=0.05)
        assert server.push(12345, "nobody") is False
        assert running.pushed == [], "what nobody was sent is none"
        assert running.made[-1].result is False


def test_it_runs_again_and_leaves_nothing():
    server = chat()
    threads = set(threading.enumerate())
    settings = server.settings
    for name in ("ada", "bob"):
        with in_process(server, limit=LIMIT, session_limit=2048) as running:
            assert server.settings.websocket.session_limit == 2048
            with running.connect(f"/?name={name}") as client:
                client.send("x")
                assert client.receive() == f"{name}: x"
                assert running.published == [("lobby", f"{name}: x")]
            assert running.get("/?a=1").json() == {"query": {"a": "1"}, "sid": None}
    assert server.settings is settings
    for thread in set(threading.enumerate()) - threads:
        thread.join(LIMIT)  # it was told to end, and may be about to
    assert set(threading.enumerate()) <= threads  # one of before may have ended
    with pytest.raises(StateError, match="does not run in this process"):
        server.push(1, "x")
    with pytest.raises(StateError, match="does not run in this process"):
        server.publish("lobby", "x")


def test_it_leaves_no_descriptor():
    """A file for each would end a long run of tests, some hundred tests later."""
    server = chat()
    counts = []
    for _ in range(6):
        with in_process(server, limit=LIMIT) as running, running.connect("/") as client:
            client.send("x")
            client.receive()
        gc.collect()
        counts.append(open_descriptors())
    assert counts[5] <= counts[1], counts


def test_a_server_runs_once_at_a_time():
    server = chat()
    with in_process(server, limit=LIMIT) as running:
        with pytest.raises(StateError, match="runs already"), in_process(server, limit=LIMIT):
            pass
        with running.connect("/?name=ada") as client:
            client.send("still")
            assert client.receive() == "ada: still"
            assert running.published == [("lobby", "ada: still")]


def test_a_subclass_has_a_push_of_its_own():
    """The short way to the compiled core is for who has not redefined it."""

    class Own(Server):
        def push(self, fd: int, data: Any, opcode: int | None = None) -> bool:
            return super().push(fd, f"own {data}", opcode)

    server = Own()

    @server.on("message")
    def said(server: Server, frame: Frame) -> None:
        server.push(frame.fd, frame.data)

    for _ in range(2):
        with in_process(server, limit=LIMIT) as running, running.connect("/") as client:
            client.send("x")
            assert client.receive() == "own x"
            assert running.pushed == [(client.fd, "x")]
    assert "push" not in vars(server)


def test_methods_are_looked_up_by_python_itself_where_a_server_runs():
    """A class with __getattr__ costs each look-up 200 instructions more: it helps while an application is made only."""
    server = chat()
    with pytest.raises(AttributeError, match="did you mean publish"):
        server.broadcast  # type: ignore[attr-defined]  # noqa: B018
    with in_process(lambda: server, limit=LIMIT):
        assert not any("__getattr__" in vars(kind) for kind in (*Server.__mro__, *Response.__mro__))
        assert not hasattr(server, "broadcast")
    with pytest.raises(AttributeError, match="did you mean publish"):
        server.broadcast  # type: ignore[attr-defined]  # noqa: B018


async def answers(server: Server, frame: Frame, value: object = None) -> object:
    server.push(frame.fd, "handled")
    if frame.data == '"later"':
        await asyncio.sleep(0)
    return {"answer": 42} if frame.data != '"nothing"' else None


def decorated(handler: Any) -> Any:
    @functools.wraps(handler)
    async def around(server: Server, frame: Frame) -> Any:
        return await handler(server, frame)

    return around


class Answering:
    async def answers(self, server: Server, frame: Frame) -> object:
        return await answers(server, frame)


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (answers, {}),
        (answers, {"type": str}),
        (decorated(answers), {}),
        (Answering().answers, {}),
        (functools.partial(answers, value=1), {}),
    ],
)
def test_a_coroutine_that_returns_its_answer_is_told_so(handler: Any, options: dict[str, Any]):
    server = Server()
    server.on("message", handler, **options)

    async def beside() -> dict[str, int]:  # what others return is theirs
        return {"a": 1}

    server.on("open", lambda server, request: server.spawn(request.fd, beside()) and None)
    for what, told in (("at once", 1), ("later", 1), ("nothing", 0)):
        with in_process(server, limit=LIMIT) as running, running.connect("/") as client:
            client.send(f'"{what}"')
            assert client.receive() == "handled"
            client.send('"nothing"')
            assert client.receive() == "handled"
            lines = [line for line in running.error_lines if "the 'message' handler returned a dict" in line]
            assert len(lines) == len(running.error_lines) == told


def test_what_a_handler_raises_fails_the_test():
    with pytest.raises(HandlerFailed, match="LookupError: on purpose") as failed:  # noqa: PT012
        with in_process(chat, limit=LIMIT) as running, running.connect("/") as client:
            client.send("raise")
            assert client.close_code == 1011
    assert isinstance(failed.value.__cause__, LookupError)
    with in_process(chat, limit=LIMIT, raise_errors=False) as running, running.connect("/") as client:
        client.send("raise")
        assert client.close_code == 1011
        assert [type(error) for error in running.errors] == [LookupError]
        assert "on purpose" in running.log


def test_the_error_of_a_test_has_the_log():
    with pytest.raises(ZeroDivisionError) as failed:
        with in_process(chat, limit=LIMIT):
            1 / 0  # noqa: B018
    assert any("ready, listening on" in note for note in failed.value.__notes__)
    with in_process(chat, limit=LIMIT) as running, running.connect("/") as client:
        with pytest.raises(NotInTime, match=r"no message within 0.05 s\n(?s:.*)ready, listening"):
            client.receive(0.05)


def test_visitors_have_cookies_of_their_own():
    with in_process(chat, limit=LIMIT) as running:
        with running.visitor() as ada, running.visitor() as bob:
            assert [ada.get().json()["sid"] for _ in range(3)] == [None, "x", "xx"]
            assert bob.get().json()["sid"] is None
        running.get()
        assert running.get().json()["sid"] is None


def test_a_refused_handshake_says_why():
    server = chat()

    @server.on("handshake")
    def admit(server, request):
        from mooring import Reject

        if request.headers.get("origin") != running.http_url or request.cookies.get("sid") != "x":
            return Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"})
        return None

    with in_process(server, limit=LIMIT) as running:
        with pytest.raises(Refused, match="401: who are you") as refused, running.connect("/"):
            pass
        assert refused.value.status == 401
        assert refused.value.headers["www-authenticate"] == "Bearer"
        with running.visitor() as ada:
            ada.get()
            with ada.connect("/?name=ada") as client:
                client.send("in")
                assert client.receive() == "ada: in"


def test_skip_to_and_json():
    server = Server()

    @server.on("message")
    def said(server, frame):
        for number in range(3):
            server.push(frame.fd, f'{{"type": "count", "n": {number}}}')

    with in_process(server, limit=LIMIT) as running, running.connect("/") as client:
        client.send("")
        assert client.skip_to(type="count", n=2) == {"type": "count", "n": 2}
        client.send_json({"a": 1})
        assert client.receive_json() == {"type": "count", "n": 0}
        with pytest.raises(NotInTime, match=r"no message with type='gone' within 0.2 s; meanwhile came .*'n': 1"):
            client.skip_to(0.2, type="gone")


def test_coroutines():
    async def main() -> None:
        async with in_process(chat, limit=LIMIT) as running:
            async with running.connect("/?name=ada") as ada:
                await ada.send("hello")
                assert await ada.receive() == "ada: hello"
                with pytest.raises(NotInTime):
                    await ada.receive(0.05)
                await asyncio.to_thread(running.call, running.server.disconnect, ada.fd, 4000, "")
                assert await ada.wait_closed() == 4000

    asyncio.run(main())


def test_tasks_block_nobody():
    server = Server(task_worker_num=1)
    blocked, go_on = threading.Event(), threading.Event()

    @server.on("task")
    def work(server, task):
        if task.data == "block":
            blocked.set()
            assert go_on.wait(LIMIT)
        if task.data == "raise":
            raise ValueError("no")
        task.progress(1)
        return [task.data, threading.current_thread().name]

    @server.on("message")
    async def said(server, frame):
        if frame.data == "ping":
            server.push(frame.fd, "pong")
            return
        heard = []
        try:
            server.push(frame.fd, repr([await server.task(frame.data, on_progress=heard.append), heard]))
        except TaskFailed as error:
            server.push(frame.fd, str(error))

    with in_process(server, limit=LIMIT) as running:
        with running.connect("/") as one, running.connect("/") as two:
            one.send("block")
            assert blocked.wait(LIMIT)
            two.send("ping")
            assert two.receive() == "pong"
            go_on.set()
            assert one.receive() == "[['block', 'mooring-tasks'], [1]]"
            one.send("raise")
            assert "no" in one.receive()
        assert isinstance(running.errors.pop(), ValueError)
        assert running.call(server.task_wait, "wait")[0] == "wait"


def test_a_handler_that_never_ends_is_shown():
    server, go_on = Server(), threading.Event()

    @server.on("message")
    def stuck(server, frame):
        go_on.wait(LIMIT)

    try:
        with pytest.raises(ServerFailed, match=r"did not end within 0.5 s(?s:.*)in stuck"):  # noqa: PT012
            with in_process(server, limit=0.5) as running, running.connect("/") as client:
                client.send("x")
                end = time.monotonic() + LIMIT
                while not running.stats()["in_flight"] and time.monotonic() < end:
                    time.sleep(0.01)
    finally:
        go_on.set()


def test_what_does_not_start_says_why():
    with pytest.raises(Exception, match="no handler for 'message'"):
        in_process(Server()).start()
    typed = Server(open_websocket_ping_frame=True)
    typed.on("message", lambda server, frame, value: None, type=int)
    with pytest.raises(ConfigError, match="open_websocket_ping_frame hands control frames to 'message'"):
        in_process(typed).start()
    server = chat()

    @server.on("worker_start")
    def begin(server, worker_id):
        raise OSError("no database")

    with pytest.raises(ServerFailed, match="no database"):
        in_process(server, limit=LIMIT).start()
    with pytest.raises(StateError, match="does not run in this process"):
        server.stats()
    with pytest.raises(ValueError, match="worker_num can't be set here"):
        in_process(server, worker_num=2)
    with pytest.raises(ValueError, match="takes a Server"):
        in_process(lambda: 5)


def test_connect_without_with():
    with in_process(chat, limit=LIMIT) as running:
        never = r"connect\('/\?name=ada'\) was never opened: write `with running.connect"
        with pytest.warns(RuntimeWarning, match=never):
            running.connect("/?name=ada")
        write = r"write `with running.connect\(...\) as client:`"
        with pytest.warns(RuntimeWarning, match="was never opened"), pytest.raises(AttributeError, match=write):
            running.connect("/").send("x")
    with pytest.raises(StateError, match="it does not run"):
        running.call(print)
    assert Frame("x", fd=3).fd == 3


def test_a_method_of_the_applications_comes_back():
    """One that it has put on this very Server, in place of the class's."""
    server, pushed = chat(), []

    def push(*arguments):
        pushed.append(arguments)
        return Server.push(server, *arguments)

    server.push = push  # type: ignore[method-assign]
    with in_process(server, limit=LIMIT) as running, running.connect("/") as client:
        assert server.push(client.fd, "x")
        assert client.receive() == "x"
        assert running.pushed == pushed == [(client.fd, "x")]
    assert vars(server)["push"] is push


def test_what_raises_is_not_made():
    with in_process(chat, limit=LIMIT) as running, running.connect("/") as client:
        fd, made = client.fd, len(running.made)
        with pytest.raises(TypeError):
            running.server.push(fd, {"no": "text"})
        assert len(running.made) == made


def test_a_call_that_does_not_end_is_cancelled():
    cancelled = threading.Event()

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with in_process(chat, limit=LIMIT) as running:
        with pytest.raises(NotInTime, match="endless did not end within"):
            running.call(endless, limit=0.05)
        assert cancelled.wait(LIMIT), "it goes on, and may do harm to what the test does next"


def test_what_comes_all_the_time_does_not_extend_a_limit():
    server = Server()

    @server.on("open")
    def opened(server, request):
        server.tick(0.02, lambda: server.push(request.fd, "{}"))

    server.on("message", lambda server, frame: None)
    with in_process(server, limit=LIMIT) as running, running.connect("/") as client:
        for wait in (lambda: client.skip_to(0.5, type="never"), lambda: client.wait_closed(0.5)):
            begun = time.monotonic()
            with pytest.raises(NotInTime):
                wait()
            assert time.monotonic() - begun < LIMIT


def test_the_level_of_the_log_is_as_it_was():
    own = own_logger()
    before = own.level, list(own.handlers)
    with in_process(chat, limit=LIMIT):
        assert own.level == logging.INFO
    assert (own.level, own.handlers) == before


def test_what_only_a_server_with_processes_has() -> None:
    with in_process(chat, limit=LIMIT) as running:
        with pytest.raises(AttributeError, match=r"no 'kill_worker', .* use serve\(\)"):
            running.kill_worker(0)
        with pytest.raises(AttributeError, match="no attribute 'xyzzy'"):
            running.xyzzy  # noqa: B018
        assert not hasattr(running, "reload")


def test_a_server_that_was_not_started_says_how() -> None:
    with pytest.raises(StateError, match=r"not started, as .*`with in_process\(\.\.\.\) as running:` does"):
        in_process(chat).get("/")


@pytest.mark.parametrize("raised", [NotInTime, LookupError])
def test_the_log_stands_once_in_an_error(raised: type[Exception]) -> None:
    def fails() -> None:
        with in_process(chat, limit=LIMIT) as running, running.connect("/?name=ada") as ada:
            if raised is NotInTime:
                ada.receive(limit=0.01)
            raise LookupError("of the test's own")

    with pytest.raises(raised) as caught:
        fails()
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert text.count("the server's log:") == 1


def test_a_dict_is_sent_as_json_only() -> None:
    with in_process(chat, limit=LIMIT) as running, running.connect("/?name=ada") as ada:
        message: Any = {"text": "hello"}
        with pytest.raises(TypeError, match=r"send_json\(\) sends it as JSON"):
            ada.send(message)
