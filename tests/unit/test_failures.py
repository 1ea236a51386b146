"""What becomes of what a handler has raised: a line in the log, perhaps the end of a connection, and who is told."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest

from mooring import BadMessage, BadRequest
from mooring._core.channel import BadRecord
from mooring._core.wire import MAX_ATTEMPTS, Event, Notice
from mooring.errors import WorkLost
from mooring.types import Failure, Opcode
from mooring.worker.failures import Failures

FD, SERVER = 7, "the server"


class Bench:
    """Failures of a worker with one listener; what they ask for is noted, and what they want run is run at once."""

    def __init__(self, *, keeps_failed: bool = False, on_invalid: str = "answer", **handlers: Any) -> None:
        site: Any = SimpleNamespace(handlers=handlers, keeps_failed=keeps_failed, on_invalid=on_invalid)
        self.site = site
        self.outbox, self.refusals, self.on_bad_record = Mock(), Mock(), Mock()
        self.failures = Failures(SERVER, [site], self.outbox, self.refusals, self.call, self.on_bad_record)

    def call(self, function: Callable[[], Any], context: object) -> None:
        asyncio.run(function())

    def fail(self, error: BaseException, kind: Event = Event.MESSAGE) -> None:
        told = self.failures.failed(kind, 0, FD, error)
        if told is not None:
            asyncio.run(told)

    @property
    def sent(self) -> list[Any]:
        return self.outbox.mock_calls

    @property
    def said(self) -> list[str]:
        return [one.args[1] % one.args[2:] for one in self.refusals.say.call_args_list]


def both(into: list[Any]) -> list[Any]:
    """A handler as a function and as a coroutine; it keeps what it is told."""

    def error(*told: Any) -> None:
        into.append(told)

    async def later(*told: Any) -> None:
        await asyncio.sleep(0)
        into.append(told)

    return [error, later]


@pytest.mark.parametrize("kind", [Event.MESSAGE, Event.OPEN])
def test_a_failure_of_a_websocket_closes_it_and_names_the_line_in_the_log(
    kind: Event, caplog: pytest.LogCaptureFixture
):
    told: list[Any] = []
    for handler in both(told):
        bench, error = Bench(error=handler), ValueError("no")
        bench.fail(error, kind)
        ((server, fd, failure),) = told
        told.clear()
        assert (server, fd) == (SERVER, FD)
        assert failure == Failure(failure.id, kind.name.lower(), error)
        assert bench.sent == [call.fail_client(FD, 1011, f"error {failure.id}")]
        line = f"error {failure.id}: the '{kind.name.lower()}' handler failed on connection {FD}"
        assert line in caplog.text
        assert "ValueError: no" in caplog.text


def test_where_websockets_stay_open_the_application_is_told_all_the_same():
    told: list[Any] = []
    bench = Bench(keeps_failed=True, error=both(told)[0])
    bench.fail(ValueError("no"))
    bench.fail(BadRequest(400, "no"))
    assert not bench.sent
    assert [failure.event for _, _, failure in told] == ["message", "message"]


def test_the_failure_of_a_close_has_nothing_left_to_close(caplog: pytest.LogCaptureFixture):
    bench = Bench()
    bench.fail(ValueError("no"), Event.CLOSE)
    assert not bench.sent
    assert "the 'close' handler failed" in caplog.text


@pytest.mark.parametrize("reason", ["short", "ä" * 100])
def test_what_the_client_got_wrong_is_its_own_fault(reason: str, caplog: pytest.LogCaptureFixture):
    """1008, a reason that fits into a close frame and is whole UTF-8, and a short line without a traceback."""
    told: list[Any] = []
    bench = Bench(error=both(told)[0])
    bench.fail(BadRequest(400, reason))
    ((name, (fd, code, sent), _),) = bench.sent
    assert (name, fd, code) == ("fail_client", FD, 1008)
    assert reason.startswith(sent)
    assert len(reason.encode()) - 123 <= len(sent.encode()) <= 123
    assert sent
    assert bench.said == [f"connection {FD} closed with 1008, its 'message' handler refuses what came: {reason}"]
    assert told[0][2].id == "", "nothing of it is in the log under an id"
    assert not caplog.records


@pytest.mark.parametrize("on_invalid", ["answer", "close", "ignore"])
def test_a_message_that_is_not_what_the_application_takes(on_invalid: str):
    told: list[Any] = []
    bench = Bench(on_invalid=on_invalid, invalid=both(told)[1], error=both(told)[0])
    problem = BadMessage("no such room", "$.room")
    bench.fail(problem)
    refused, *more = bench.sent
    assert refused == call.refuse_message(FD), "it is counted"
    if on_invalid == "answer":
        ((name, (fd, text, opcode), _),) = more
        assert (name, fd, opcode) == ("push", FD, Opcode.TEXT)
        assert json.loads(text) == {"error": {"reason": "no such room", "path": "$.room"}}
    else:
        assert more == ([call.fail_client(FD, 1008, "no such room, at $.room")] if on_invalid == "close" else [])
    assert told == [(SERVER, FD, problem)], "`invalid` alone: it is no failure"


def test_a_record_that_can_not_be_is_no_failure_of_a_handler():
    bench, problem = Bench(error=Mock()), BadRecord("too short")
    assert bench.failures.failed(Event.MESSAGE, 0, FD, problem) is None
    bench.on_bad_record.assert_called_once_with("a gateway", problem)
    assert not bench.sent
    bench.site.handlers["error"].assert_not_called()


@pytest.mark.parametrize("kind", [Event.MESSAGE, Event.CLOSE])
def test_the_failure_of_the_error_handler_is_one_of_its_own(kind: Event, caplog: pytest.LogCaptureFixture):
    """Of which nobody is told, else it would have no end."""
    calls: list[Any] = []

    def error(*told: Any) -> None:
        calls.append(told)
        raise SystemExit("again")

    bench = Bench(keeps_failed=True, error=error)
    bench.fail(ValueError("no"), kind)
    assert len(calls) == 1
    assert "the 'error' handler failed" in caplog.text
    closes = [one.args[1] for one in bench.sent]
    assert closes == ([1011] if kind == Event.MESSAGE else []), "nobody knows what it has left undone"


def test_a_failure_that_is_told_in_an_answer_closes_nothing():
    told: list[Any] = []
    bench, error = Bench(error=both(told)[1]), ValueError("no")
    number = bench.failures.answered(bench.site, Event.REQUEST, FD, error)
    assert told == [(SERVER, FD, Failure(number, "request", error))]
    assert not bench.sent


def test_work_that_a_connection_owns_is_named(caplog: pytest.LogCaptureFixture):
    told: list[Any] = []
    bench, error = Bench(error=both(told)[0]), ValueError("no")
    bench.failures.work_failed(0, FD, "poll", error)
    failure = told[0][2]
    assert failure == Failure(failure.id, "spawn", error, "poll")
    assert bench.sent == [call.fail_client(FD, 1011, f"error {failure.id}")]
    assert f"error {failure.id}: 'poll', spawned for connection {FD}, failed" in caplog.text


def test_work_that_was_cut_is_lost_and_the_connection_stays():
    told: list[Any] = []
    bench = Bench(error=both(told)[1])
    bench.failures.work_cut(0, FD, "poll", "the worker leaves")
    failure = told[0][2]
    assert (failure.event, failure.name, type(failure.exception)) == ("spawn", "poll", WorkLost)
    assert str(failure.exception) == "poll: the worker leaves"
    assert bench.said == [f"'poll', spawned for connection {FD}, is lost: the worker leaves"]
    assert not bench.sent


# ------------------------------------------------------------------ what the end of a worker has left


def lost(kind: Event, of: Event, data: bytes = b"", opcode: int = 0) -> Notice:
    reason = b"worker 3 has ended"
    return Notice(kind, FD, len(reason).to_bytes(2, "little") + reason + data, opcode=opcode, arg=of)


@pytest.mark.parametrize(
    ("kind", "attempt"), [(Event.UNCERTAIN, 1), (Event.QUARANTINED, MAX_ATTEMPTS)], ids=["uncertain", "quarantined"]
)
@pytest.mark.parametrize(("opcode", "data"), [(Opcode.TEXT, "ä"), (Opcode.BINARY, b"\xff")], ids=["text", "binary"])
def test_a_message_whose_handler_had_started_is_handed_over(kind: Event, attempt: int, opcode: Opcode, data: Any):
    told: list[Any] = []
    bench = Bench(**{kind.name.lower(): lambda *given: told.append(given)})
    payload = data.encode() if isinstance(data, str) else data
    assert bench.failures.lost(bench.site, lost(kind, Event.MESSAGE, payload, opcode)) is None
    ((server, frame, reason),) = told
    assert (server, reason) == (SERVER, "worker 3 has ended")
    assert (frame.fd, frame.data, frame.opcode, frame.attempt) == (FD, data, opcode, attempt)


def test_of_other_events_and_without_a_handler_a_line_tells(caplog: pytest.LogCaptureFixture):
    bench = Bench(uncertain=Mock())
    bench.failures.lost(bench.site, lost(Event.UNCERTAIN, Event.OPEN))
    bench.failures.lost(Bench().site, lost(Event.QUARANTINED, Event.MESSAGE, b"a", Opcode.TEXT))
    bench.site.handlers["uncertain"].assert_not_called()
    assert [record.message for record in caplog.records] == [
        f"uncertain: open of connection {FD}: worker 3 has ended",
        f"quarantined: message of connection {FD}: worker 3 has ended",
    ]


def test_work_of_a_worker_that_has_ended_is_lost():
    told: list[Any] = []
    bench = Bench(error=both(told)[0])
    running = bench.failures.lost(bench.site, lost(Event.UNCERTAIN, Event.WORK, "pöll".encode()))
    assert running is not None
    asyncio.run(running)  # type: ignore[arg-type]
    assert str(told[0][2].exception) == "pöll: worker 3 has ended"
    assert not bench.sent
