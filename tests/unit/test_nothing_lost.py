"""The checker is checked: histories with one fault each, its frames against a codec from elsewhere, and its options."""

import struct

import pytest
import wsproto
from wsproto.events import CloseConnection, Ping, Request, TextMessage

from support.tools import load

judge = load("nothing_lost_judge")
tool = load("nothing_lost")
app_notes = struct.Struct("<IIII")


@pytest.fixture
def faults():
    return dict.fromkeys(judge.FAULTS, 0)


@pytest.fixture
def history(faults):
    """Client 3, which has sent five messages."""
    one = judge.History(3, faults)
    one.texts = [one.send(f"padding {n} é") for n in range(5)]
    return one


def only(faults, name, count=1):
    return faults == {**dict.fromkeys(judge.FAULTS, 0), name: count}


def test_what_is_answered_or_reported_is_no_fault(history, faults):
    for kind, text in zip("EEUEE", history.texts, strict=True):
        history.hear(f"{kind} {text}")
    assert history.open == 0
    assert judge.judge([history], faults) == {
        "sent": 5,
        "answered": 4,
        "uncertain": 1,
        "quarantined": 0,
        "indeterminate": 0,
        "answered_and_uncertain": 0,
        "repeated": 0,
    }
    assert not any(faults.values())


def test_a_message_without_a_fate_is_lost(history, faults):
    for n in (0, 1, 3, 4):
        history.hear(f"E {history.texts[n]}")
    assert history.missing() == [2]
    judge.judge([history], faults)
    assert only(faults, "silently_lost")


def test_an_answer_that_comes_twice(history, faults):
    for n in (0, 1, 1, 2, 3, 4):
        history.hear(f"E {history.texts[n]}")
    judge.judge([history], faults)
    assert only(faults, "duplicated")


def test_where_messages_are_handled_again(faults):
    """An answer may come twice, but not out of order; three attempts are allowed, and a report ends it."""
    one = judge.History(0, faults, redeliver=True)
    texts = [one.send() for _ in range(4)]
    for kind, n in ("E0", "E0", "E1", "Q2", "E3"):
        one.hear(f"{kind} {texts[int(n)]}")
    totals = judge.judge([one], faults)
    assert (totals["answered"], totals["quarantined"], totals["repeated"]) == (3, 1, 1)
    files = [notes(*[(0, n, what) for n in (0, 1, 3) for what in (1, 2)], *[(0, 2, 1)] * 3)]
    judge.judge_notes(files, [one], faults)
    assert not any(faults.values())
    judge.judge_notes([*files, notes((0, 2, 1))], [one], faults)
    assert only(faults, "handled_twice")


def test_a_report_that_comes_twice_is_none(history, faults):
    for kind, n in ("E0", "U1", "U1", "E2", "E3", "E4"):
        history.hear(f"{kind} {history.texts[int(n)]}")
    assert judge.judge([history], faults)["uncertain"] == 1
    assert not any(faults.values())


def test_a_message_that_was_answered_and_reported_is_counted(history, faults):
    for kind, n in ("E0", "E1", "U1", "E2", "E3", "E4"):
        history.hear(f"{kind} {history.texts[int(n)]}")
    assert judge.judge([history], faults)["answered_and_uncertain"] == 1
    assert not any(faults.values())


@pytest.mark.parametrize("order", ["01324", "10234"])
def test_an_answer_that_was_overtaken(history, faults, order):
    for n in order:
        history.hear(f"E {history.texts[int(n)]}")
    judge.judge([history], faults)
    assert only(faults, "reordered")


@pytest.mark.parametrize("at", [0, 2, 5, 11, 13, -1])
def test_a_text_that_was_changed(history, faults, at):
    text = list(f"E {history.texts[0]}")
    text[at] = "#"
    assert history.hear("".join(text)) == -1
    assert only(faults, "corrupted")


@pytest.mark.parametrize("text", ["", "E", "E ", "X 1:2:3", "E 00000000::", "E \0"])
def test_a_text_that_is_none_of_ours(history, faults, text):
    assert history.hear(text) == -1
    assert only(faults, "corrupted")


def test_an_answer_meant_for_another_client(history, faults):
    history.hear(f"E {judge.seal(4, 0, '')}")
    assert only(faults, "cross_talk")


def test_an_answer_to_what_nobody_sent(history, faults):
    history.hear(f"E {judge.seal(3, 5, '')}")
    assert only(faults, "phantom")


def test_what_was_in_flight_when_the_connection_was_cut(history, faults):
    history.hear(f"E {history.texts[0]}")
    history.cut()
    assert judge.judge([history], faults)["indeterminate"] == 4
    assert not any(faults.values())


def notes(*lines):
    return b"".join(app_notes.pack(1, *line) for line in lines)


@pytest.fixture
def answered(faults):
    """Client 0, with three answers."""
    one = judge.History(0, faults)
    for text in [one.send() for _ in range(3)]:
        one.hear(f"E {text}")
    return one


def test_notes_of_handlers_that_ran_once(answered, faults):
    files = [notes((0, 0, 1), (0, 0, 2), (0, 1, 1)), notes((0, 1, 2), (0, 2, 1), (0, 2, 2))]
    assert judge.judge_notes(files, [answered], faults) == 3
    assert not any(faults.values())


def test_a_note_that_was_cut_is_left_out(answered, faults):
    assert judge.judge_notes([notes((0, 0, 1), (0, 0, 2)) + b"\1\0\0"], [answered], faults) == 1
    assert not any(faults.values())


def test_a_handler_that_ran_twice(answered, faults):
    judge.judge_notes([notes((0, 0, 1), (0, 0, 2)), notes((0, 0, 1), (0, 0, 2))], [answered], faults)
    assert only(faults, "handled_twice")


def test_a_handler_that_was_interrupted_and_not_reported(answered, faults):
    judge.judge_notes([notes((0, 0, 1), (0, 1, 1), (0, 1, 2))], [answered], faults)
    assert only(faults, "begun_and_not_reported")


def test_a_handler_that_was_interrupted_and_reported(faults):
    one = judge.History(0, faults)
    one.hear(f"U {one.send()}")
    judge.judge_notes([notes((0, 0, 1))], [one], faults)
    assert not any(faults.values())


def test_a_handler_of_what_nobody_sent(answered, faults):
    judge.judge_notes([notes((0, 3, 1)), notes((1, 0, 1))], [answered], faults)
    assert only(faults, "phantom", 2)


def test_the_identity():
    counts = {"accepted": 10, "finished": 6, "uncertain": 1, "dropped": 1, "in_flight": 2}
    assert judge.adds_up(counts)
    assert not judge.adds_up({**counts, "finished": 7})
    assert judge.adds_up({"accepted": 1, "finished": 1})


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_001])
def test_frames_against_another_codec(size):
    """What it sends is read by wsproto, and what wsproto sends is read by it, in one piece and byte by byte."""
    client, server = (
        wsproto.WSConnection(kind) for kind in (wsproto.ConnectionType.CLIENT, wsproto.ConnectionType.SERVER)
    )
    server.receive_data(client.send(Request(host="x", target="/")))
    client.receive_data(server.send(wsproto.events.AcceptConnection()))
    list(server.events())
    text = "x" * size
    server.receive_data(tool.frame(1, text.encode(), b"abcd"))
    [event] = server.events()
    assert isinstance(event, TextMessage)
    assert (event.data, event.message_finished) == (text, True)
    server.receive_data(tool.frame(1, b"a", b"\0\1\2\3", final=False) + tool.frame(0, b"b", b"\0\1\2\3"))
    assert "".join(event.data for event in server.events()) == "ab"
    stream = server.send(TextMessage(text)) + server.send(Ping(b"p")) + server.send(CloseConnection(1000))
    wanted = [(1, text.encode()), (9, b"p"), (8, b"\x03\xe8")]
    buffer = bytearray(stream)
    assert list(tool.frames(buffer)) == wanted
    assert not buffer
    if size < 1000:
        got = []
        for byte in stream:
            buffer.append(byte)
            got += tool.frames(buffer)
        assert got == wanted


@pytest.mark.parametrize("head", [b"\x81\x80", b"\x01\x00", b"\xc1\x00"], ids=["masked", "in parts", "reserved bit"])
def test_frames_that_no_server_may_send(head):
    with pytest.raises(ValueError, match="masked, in parts, or has reserved bits"):
        list(tool.frames(bytearray(head + bytes(8))))


def result(**changed):
    return {
        "verdict": "PASS",
        "nemesis": "kill",
        "mode": "process",
        "seed": 7,
        "clients": 2,
        "seconds": 60.0,
        "sent": 3_000_000,
        "answered": 2_999_990,
        "uncertain": 10,
        "indeterminate": 0,
        "quarantined": 0,
        "acts": {"kill": 60},
        "uncertain_per_kill": 0.167,
        "faults": dict.fromkeys(judge.FAULTS, 0),
        "bound": 1e-6,
        "latency_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0},
        **changed,
    }


def test_the_verdict_in_words():
    text = tool.describe(result())
    assert "PASS: nemesis kill (60 x kill), mode process, seed 7" in text
    assert "3,000,000 messages" in text
    assert "faults: none; so below 1.0e-06 per message (95 %)" in text
    bad = result(verdict="FAIL", faults={**dict.fromkeys(judge.FAULTS, 0), "silently_lost": 2})
    assert "faults: 2 silently lost" in tool.describe(bad)


def test_base_mode_needs_somebody_who_restarts(capsys):
    with pytest.raises(SystemExit):
        tool.parse(["--mode", "base", "--workers", "1"])
    assert "nobody starts a single process again" in capsys.readouterr().err


def test_a_seed_is_chosen_and_kept():
    assert isinstance(tool.parse([]).seed, int)
    assert tool.parse(["--seed", "7"]).seed == 7


def test_a_traceback_is_a_fault_unless_it_was_asked_for():
    head = "2026-01-02 03:04:05,678 ERROR   [worker 0, 12] "
    wanted = head + 'oops\nTraceback (most recent call last):\n  File "misdeeds.py", line 1\nValueError\n'
    fault = head + 'oops\nTraceback (most recent call last):\n  File "relay.pyx", line 1\nValueError\n'
    assert judge.tracebacks(wanted, but_of="misdeeds") == []
    assert len(judge.tracebacks(wanted + fault + head + "misdeeds\n" + wanted, but_of="misdeeds")) == 1


def test_a_process_that_ended_by_itself():
    killed = "worker 0 (pid 12) was ended by SIGKILL: restarting it\nworker 0 (pid 12) ended with SIGKILL when told\n"
    assert judge.ended_by_themselves(killed) == 0
    assert judge.ended_by_themselves(killed + "worker 1 (pid 3) was ended by SIGSEGV: restarting it\n") == 1
    assert judge.ended_by_themselves(killed + "worker 1 (pid 3) ended with exit code 4: restarting it\n") == 1
