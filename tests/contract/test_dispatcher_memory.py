"""What the dispatcher keeps for all workers has a limit: the sender hears of it, and nothing is lost in silence."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import Raw, get
from support.serving import Serving, eventually

LIMIT = 1 << 20
SIZE = 50_000

APP = """
import asyncio

SIZE = 50_000


@server.on("message")
def message(server, frame): ...

@server.on("task")
def work(server, task):
    while not os.path.exists("go"):
        time.sleep(0.01)
    return task.data[:1]

@server.on("finish")
def finished(server, outcome):
    report("finish", type(outcome.error).__name__)

@server.on("pipe_message")
def told(server, source, data):
    report("told", server.worker_id, len(data))

async def until_refused(hand_over):
    for number in range(1000):
        try:
            hand_over()
        except MooringError as error:
            return [number, type(error).__name__, str(error)]
        await asyncio.sleep(0.01)

@server.on("request")
async def page(request, response):
    worker = int(request.query.get("worker", 0))
    if request.path == "/fill":
        response.json(await until_refused(lambda: server.task_async("x" * SIZE)))
    elif request.path == "/tell":
        response.json(await until_refused(lambda: server.send_message("x", worker)))
    elif request.path == "/burst":
        given = await asyncio.gather(*[server.task("x" * SIZE) for _ in range(60)], return_exceptions=True)
        response.json([one if isinstance(one, str) else f"{type(one).__name__}: {one}" for one in given])
    elif request.path == "/messages":
        for number in range(200):
            try:
                server.send_message("x" * 1_000_000, 0)
            except PipeFull as error:
                response.json([number, str(error)])
                return
    elif request.path == "/stats":
        response.json({name: n for name, n in server.stats().items() if isinstance(n, int)})
"""


@pytest.fixture
def limited(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, task_worker_num=1, dispatcher_memory_limit=LIMIT) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def fetch(limited: Serving, path: str) -> Any:
    with Raw(limited, get(path)) as raw:
        answer = raw.answer()
        assert answer.status == 200, answer
        return json.loads(answer.body)


def test_who_hands_over_too_much_is_told_until_there_is_room(limited: Serving) -> None:
    count, kind, text = fetch(limited, "/fill")
    assert kind == "TaskQueueFull"
    assert "dispatcher_memory_limit" in text
    # one is being done; how much the kernel keeps for the task worker is the kernel's matter
    assert LIMIT // 4 * 3 - SIZE < count * SIZE < LIMIT
    assert fetch(limited, "/tell")[1:2] == ["PipeFull"], "the limit is one for tasks and messages"
    limited.wait_log(r"WARNING .*\d+ bytes wait in the dispatcher: .*dispatcher_memory_limit=1048576")
    stats = fetch(limited, "/stats")
    assert stats["dispatcher_full"] == 1
    assert LIMIT // 2 < stats["dispatcher_bytes"] <= LIMIT
    assert stats["tasks_refused"] == stats["pipe_messages_dropped"] == 0, "all were refused where they came from"
    limited.script.with_name("go").touch()
    limited.wait_log("report finish NoneType", count=count)
    limited.wait_log("the dispatcher takes tasks and messages again")
    stats = eventually(lambda: (found := fetch(limited, "/stats"))["dispatcher_bytes"] < SIZE and found)
    assert isinstance(stats, dict)
    assert (stats["tasks_accepted"], stats["tasks_done"]) == (count, count)
    assert fetch(limited, "/burst")[0] == "x"


def test_what_is_on_its_way_when_it_is_full_is_refused_with_the_reason(limited: Serving) -> None:
    with Raw(limited, get("/burst")) as raw:
        eventually(lambda: fetch(limited, "/stats")["tasks_refused"])
        stats = fetch(limited, "/stats")
        assert stats["dispatcher_bytes"] <= LIMIT
        limited.script.with_name("go").touch()
        results = json.loads(raw.answer().body)
    refused = [one for one in results if one != "x"]
    assert all(one.startswith("TaskQueueFull: a task of 500") for one in refused), refused
    stats = fetch(limited, "/stats")
    assert stats["tasks_refused"] == len(refused) > 20
    assert stats["tasks_accepted"] == stats["tasks_done"] == 60 - len(refused) > 10


def test_messages_that_do_not_leave_the_worker_are_limited_and_those_dropped_are_counted(limited: Serving) -> None:
    sent, text = fetch(limited, "/messages")
    assert 64 <= sent < 80
    assert "have not left this worker: send less at once" in text
    eventually(lambda: fetch(limited, "/stats")["pipe_messages"] == sent)
    dropped = fetch(limited, "/stats")["pipe_messages_dropped"]
    if dropped < sent:
        limited.wait_log("report told 0 1000000", count=sent - dropped)
    assert len(limited.reports("told")) == sent - dropped
    if dropped:
        limited.wait_log("messages were dropped; the last one was for worker 0, which")
