"""Messages between workers and task workers, in every mode."""

from typing import Any

import pytest

from contract.clients import Asker, Raised, all_askers
from support.serving import Serving


def test_from_each_to_each(tasked: Serving, mode: dict[str, Any]):
    """Workers, task workers and oneself: what comes is what was sent, in that order."""
    count = mode["worker_num"] + 2
    with all_askers(tasked, mode) as askers:
        for asker in askers:
            for target in range(count):
                mark = tasked.mark()
                for n in range(5):
                    assert asker(f"server.send_message({{'n': {n}}}, {target})") is True
                tasked.wait_log(rf"report pipe {asker.worker} {target} ", since=mark, count=5)
                told = tasked.reports(f"pipe {asker.worker} {target}", since=mark)
                assert told == [f'{{"n": {n}}}' for n in range(5)]


def test_an_answer(tasked: Serving, mode: dict[str, Any], ask: Asker):
    mark = tasked.mark()
    task_worker = mode["worker_num"]
    assert ask(f"server.send_message('answer me', {task_worker})", in_thread=True)
    tasked.wait_log(rf'report pipe {task_worker} {ask.worker} "here you are"', since=mark)


def test_from_a_task(tasked: Serving, ask: Asker):
    mark = tasked.mark()
    number = ask("server.task('server.send_message(task.id, task.worker_id) and server.worker_id')")
    tasked.wait_log(rf"report pipe {number} {ask.worker} \d+", since=mark)


def test_large_ones(tasked: Serving, mode: dict[str, Any], ask: Asker):
    mark = tasked.mark()
    assert ask("server.send_message('x' * 1_000_000, 0)")
    tasked.wait_log(rf'report pipe {ask.worker} 0 "x{{1000000}}"', since=mark)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("server.send_message(1, 99)", "ValueError", "there is no worker 99: their numbers go from 0 to"),
        ("server.send_message(1, -1)", "ValueError", "there is no worker -1"),
        ("server.send_message(1, '0')", "TypeError", "'0' is no number of a worker"),
        ("server.send_message(object(), 0)", "TypeError", "a message to another worker can't be sent"),
        ("server.send_message('x' * (17 << 20), 0)", "ValueError", "at most 16777216 can be sent"),
    ],
)
def test_what_cannot_be_sent(ask: Asker, code: str, kind: str, text: str):
    with pytest.raises(Raised) as caught:
        ask(code)
    assert caught.value.kinds[0] == kind
    assert text in caught.value.message


def test_without_a_handler(workers: list[Asker]):
    with pytest.raises(Raised, match="no handler for 'pipe_message'"):
        workers[0]("server.send_message(1, 0)")
