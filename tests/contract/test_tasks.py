"""Tasks: handed over by a worker, run by a task worker, in every mode."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Asker, Raised, dial
from support.serving import Serving, eventually


@pytest.fixture(scope="session")
def place(tasked: Serving) -> Path:
    """Where the server's processes run."""
    return Path(f"/proc/{tasked.pid}/cwd").resolve()


def raised(ask: Asker, code: str, **options: Any) -> Raised:
    with pytest.raises(Raised) as caught:
        ask(code, **options)
    return caught.value


WAYS = {
    "task": ("server.task({})", {}),
    "wait": ("server.task_wait({})", {}),
    "wait-in-thread": ("server.task_wait({})", {"in_thread": True}),
}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, ask: Asker) -> Any:
    """Runs a task in each way there is to wait for one; extra arguments as text."""
    code, options = WAYS[request.param]
    return lambda arguments: ask(code.format(arguments), **options)


@pytest.mark.parametrize(
    "value", [None, True, -5, 2**63 - 1, 0.5, "grüße", [1, [2, "x"]], {"a": {"b": [None]}}, [[], {}]], ids=repr
)
def test_values_come_back(run: Any, value: object):
    assert run(f"[{value!r}]") == [value]


def test_bytes_come_back_as_bytes(ask: Asker):
    assert ask("repr(await server.task([b'\\xff\\x00']))") == "[b'\\xff\\x00']"


def test_it_runs_in_a_task_worker(tasked: Serving, mode: dict[str, Any], run: Any, ask: Asker):
    number, is_task_worker, pid, source = run("'server.worker_id, server.task_worker, os.getpid(), task.worker_id'")
    assert is_task_worker
    assert mode["worker_num"] <= number < mode["worker_num"] + 2
    assert tasked.titles()[pid] == f"mooring: task worker {number - mode['worker_num']}"
    assert 0 <= source < mode["worker_num"]
    assert not ask("server.task_worker")


def test_large_values(run: Any):
    assert run("'len(task.data)' + ' ' * 5_000_000") == 5_000_014
    assert len(run("\"'x' * 5_000_000\"")) == 5_000_000


def test_a_handler_may_be_a_coroutine(run: Any):
    assert run("'asyncio.sleep(0.01, \"slept\")'") == "slept"


def test_what_the_handler_raises(tasked: Serving, run: Any):
    mark = tasked.mark()
    with pytest.raises(Raised) as caught:
        run("\"fail('grüße')\"")
    assert caught.value.kinds[:3] == ["TaskFailed", "TaskError", "MooringError"]
    assert caught.value.message == "Boom: grüße"
    tasked.wait_log(r"the 'task' handler failed on task \d+ of worker", since=mark)
    with pytest.raises(Raised, match=r"SystemExit: 3"):
        run("'sys.exit(3)'")
    with pytest.raises(Raised, match="TypeError: the result of a task can't be sent to another process"):
        run("'object()'")
    assert run("5") == 5


def test_a_timeout(ask: Asker, run: Any, place: Path):
    file = place / "go on"
    before = ask("server.stats()")["tasks_cancelled"]
    with pytest.raises(Raised) as caught:
        run("'block_until(\"go on\")', timeout=0.2")
    assert caught.value.kinds[:2] == ["TaskTimeout", "TaskError"]
    assert "TimeoutError" in caught.value.kinds
    assert caught.value.message == "no result within 0.2 s"
    file.touch()
    eventually(lambda: ask("server.stats()")["tasks_running"] == 0)
    file.unlink()
    assert ask("server.stats()")["tasks_cancelled"] == before  # it had begun, and was done for nobody


def test_one_that_has_not_begun_is_taken_back(ask: Asker, place: Path):
    file, trace = place / "go on", place / "it ran"
    ask("[server.task_async('block_until(\"go on\")') for _ in range(2)] and None")
    before = ask("server.stats()")["tasks_cancelled"]
    assert "TaskTimeout" in raised(ask, 'server.task(\'open("it ran", "w")\', timeout=0.1)').kinds
    file.touch()
    eventually(lambda: ask("server.stats()")["tasks_running"] == 0)
    file.unlink()
    assert ask("server.stats()")["tasks_cancelled"] == before + 1
    assert not trace.exists()


def test_progress(run: Any, ask: Asker):
    ask("kept.__setitem__('told', [])")
    code = "'[task.progress(n) for n in range(3)] and \"done\"', on_progress=kept['told'].append"
    assert run(code) == "done"
    assert eventually(lambda: len(ask("kept['told']")) == 3)
    assert ask("kept['told']") == [0, 1, 2]


def test_progress_arrives_while_the_task_runs(ask: Asker, place: Path):
    """It is what lets the task go on here."""
    code = "'(task.progress(1), block_until(\"told\"), \"done\")[2]', on_progress=lambda _: open('told', 'w').close()"
    for way in ("task", "task_wait"):
        assert ask(f"server.{way}({code})") == "done"
        (place / "told").unlink()


def test_fire_and_forget(tasked: Serving, ask: Asker):
    mark = tasked.mark()
    number = ask("server.task_async('1 + 1')")
    tasked.wait_log(rf"report finish {ask.worker} {number} 2$", since=mark)
    number = ask("server.task_async('fail()')", in_thread=True)
    tasked.wait_log(rf'report finish {ask.worker} {number} "Boom: on purpose"', since=mark)


def test_several_at_once(ask: Asker):
    assert ask("server.task_map(range(8), at_once=8)") == list(range(8))
    assert ask("server.task_map(range(50))") == list(range(50))
    assert ask("server.task_map([], at_once=3)") == []
    both = ask("server.task_map(['time.sleep(0.2) or server.worker_id'] * 2)")
    assert len(set(both)) == 2, "one waited for the other"
    assert raised(ask, "server.task_map(['1', 'fail()', '3'])").kinds[0] == "TaskFailed"
    assert "at_once=0" in raised(ask, "server.task_map([1], at_once=0)").message


def test_f39_a_full_queue_is_an_error_at_once(tasked: Serving, ask: Asker, place: Path):
    file = place / "go on"
    mark = tasked.mark()
    ask("[server.task_async('block_until(\"go on\")') for _ in range(8)] and None")
    for code in ("server.task(1)", "server.task_wait(1)", "server.task_async(1)"):
        error = raised(ask, code)
        assert error.kinds[:2] == ["TaskQueueFull", "TaskError"]
        assert "task_queue_limit" in error.message
    file.touch()
    tasked.wait_log(rf"report finish {ask.worker} ", since=mark, count=8)
    file.unlink()
    assert ask("server.task(1)") == 1


def test_too_many_bytes(ask: Asker):
    code = "server.task_map(['len(task.data)' + ' ' * 9_000_000] * 2)"
    assert "task_queue_bytes" in raised(ask, code).message
    assert ask("server.task('len(task.data)' + ' ' * 17_000_000)") == 17_000_014  # one is always let through


def test_data_that_cannot_be_sent(ask: Asker):
    for code in ("server.task(object())", "server.task_wait(2**64)", "server.task_async(object())"):
        error = raised(ask, code)
        assert error.kinds[0] == "TypeError"
        assert error.message.startswith("the data of a task can't be sent to another process: ")


async def test_a_task_pushes_and_publishes(tasked: Serving, ask: Asker, place: Path):
    """At once, while it is still running; and to any connection."""
    async with dial(tasked, "/eval", open="server.subscribe(fd, 'news')") as peer, dial(tasked) as other:
        code = f"server.push({peer.fd}, 'from a task'), server.publish('news', 'to all'), block_until('go on')"
        await asyncio.to_thread(ask, f"server.task_async({code!r})")
        assert await peer.take(2) == ["from a task", "to all"]
        (place / "go on").touch()
        assert await asyncio.to_thread(ask, f"server.task('server.disconnect({other.fd}, 4000)')")
        assert (await other.ended())[0] == 4000
    (place / "go on").unlink()


async def test_a_worker_goes_on_meanwhile(tasked: Serving, place: Path):
    """Messages of one connection wait for its handler, those of others don't."""
    async with dial(tasked, "/eval") as peer, dial(tasked) as other:
        await peer.send("server.task('block_until(\"go on\")')")
        for n in range(10):
            await other.send(str(n))
        assert await other.take(10) == [str(n) for n in range(10)]
        (place / "go on").touch()
        assert '"value": null' in await peer.recv()
    (place / "go on").unlink()


def test_a_cancelled_wait_takes_the_task_back(ask: Asker, place: Path):
    before = ask("server.stats()")["tasks_cancelled"]
    ask("[server.task_async('block_until(\"go on\")') for _ in range(2)] and None")
    error = raised(ask, "asyncio.wait_for(server.task('5'), 0.05)")
    assert error.kinds[0] == "TimeoutError"
    (place / "go on").touch()
    eventually(lambda: ask("server.stats()")["tasks_running"] == 0)
    (place / "go on").unlink()
    assert ask("server.stats()")["tasks_cancelled"] == before + 1


def test_every_task_is_counted(ask: Asker):
    ask("server.task_map(range(10))")
    counts = ask("server.stats()", in_thread=True)
    parts = ("done", "failed", "lost", "cancelled", "queued", "running")
    assert counts["tasks_accepted"] == sum(counts[f"tasks_{part}"] for part in parts) > 10


def test_without_task_workers(workers: list[Asker]):
    for code in ("server.task(1)", "server.task_wait(1)", "server.task_async(1)", "server.task_map([1])"):
        error = raised(workers[0], code)
        assert error.kinds[0] == "StateError"
        assert "task_worker_num" in error.message
