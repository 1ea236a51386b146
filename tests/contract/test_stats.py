"""stats(): what is counted, and that it adds up; pack() and unpack()."""

import json
from typing import Any

import pytest

from contract.clients import TEXT, Asker, Raised, Raw, crowd, gateways_of, get, websocket
from frames import frame
from mooring import Frame, Opcode, Server, counters
from support.serving import Serving, eventually

PARTS = ("finished", "uncertain", "dropped", "in_flight")


def balanced(counts: dict[str, Any]) -> bool:
    return counts["accepted"] == sum(counts[part] for part in PARTS)


def test_the_balance(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    """accepted = finished + uncertain + dropped + in_flight, in sum and for each gateway, from every worker."""
    for asker in workers:
        counts = asker("server.stats()")
        assert balanced(counts)
        assert counts["in_flight"] >= 1  # the request that asks
        assert counts["uncertain"] == 0
        dropped = [sum(one["dropped_reasons"].values()) for one in counts["gateways"]]  # by tests before this one
        assert counts["dropped"] == sum(dropped)
        assert counts["worker_id"] == asker.worker
        assert counts["generation"] == 1
        assert [one["gateway"] for one in counts["gateways"]] == list(range(gateways_of(mode)))
        assert all(balanced(one) for one in counts["gateways"])
        for name in (*PARTS, "accepted", "connections", "websockets", "requests", "messages_received", "bytes_sent"):
            assert counts[name] == sum(one[name] for one in counts["gateways"])


def test_the_table_has_every_counter(workers: list[Asker]):
    """What processes count is in the table (mooring.counters), and the other way round."""

    def names(part: counters.Part) -> set[str]:
        return {row.name for row in counters.rows(part) if row.kind is not counters.Kind.HISTOGRAM}

    stats = workers[0]("server.stats()")
    for gateway in stats["gateways"]:
        assert set(gateway) - {"gateway", "workers"} == names(counters.ANY_GATEWAY)
    assert set(stats["tree"]) - {"degraded"} == names(counters.Part.TREE)
    own = {"gateways", "tree", "gateways_silent", "worker_id", "generation"}
    everywhere = names(counters.ANY_GATEWAY | counters.Part.WORKER) - {"dropped_reasons"}
    assert set(stats) - own - names(counters.Part.DISPATCHER) | {"bad_records"} == everywhere
    for gateway in stats["gateways"]:
        wrong = {name for name in names(counters.ANY_GATEWAY) if not isinstance(gateway[name], int | float | dict)}
        assert not wrong


def test_in_a_thread(workers: list[Asker]):
    for asker in workers:
        assert balanced(asker("server.stats()", in_thread=True))


async def test_what_is_counted(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    """Messages and requests when they are accepted, handlers when they are done."""
    asker = workers[-1]

    def quiet() -> Any:  # of those who were here before, some may be about to end
        stats = asker("server.stats()")
        there = stats["connections"], stats["websockets"], stats["in_flight"]
        return stats if there == (len(workers), 0, 1) else None

    before: Any = eventually(quiet)
    async with crowd(server, mode) as peers:
        for peer in peers:
            for n in range(10):
                await peer.send(f"message {n}")
            assert len(await peer.take(10)) == 10
        count = len(peers)

        def settled() -> Any:  # what has finished is acknowledged a little later; this request itself is in flight
            stats = asker("server.stats()")
            return stats if stats["in_flight"] == 1 else None

        after: Any = eventually(settled)
        assert after["websockets"] - before["websockets"] == count
        assert after["connections"] - before["connections"] == count
    requests = after["requests"] - before["requests"] - count  # those that opened the WebSockets are no events
    assert after["accepted"] - before["accepted"] == 10 * count + requests
    assert after["finished"] - before["finished"] == 10 * count + requests
    assert after["messages_received"] - before["messages_received"] == 10 * count
    assert after["messages_sent"] - before["messages_sent"] == 11 * count  # each was told its fd
    assert after["websockets_opened"] - before["websockets_opened"] == count
    eventually(lambda: asker("server.stats()")["websockets"] == before["websockets"])


def test_what_waits_is_in_flight(server: Serving, workers: list[Asker], folder):
    """One handler is suspended, and two messages wait behind it."""
    go_on = folder / "what waits"
    before = 1  # the request that asks
    eventually(lambda: workers[0]("server.stats()")["in_flight"] == before)
    with websocket(server, "/eval") as (raw, fd):
        raw.send(frame(TEXT, f"await seen({go_on.name!r})".encode()) + frame(TEXT, b"1") + frame(TEXT, b"2"))
        for asker in workers:
            eventually(lambda asker=asker: asker("server.stats()")["in_flight"] == before + 3)
            counts = asker("server.stats()")
            assert balanced(counts)
            assert asker(f"server.get_client_info({fd}).in_flight") == 3
        go_on.touch()
        for value in (None, 1, 2):
            assert json.loads(raw.text())["value"] == value
        for asker in workers:
            eventually(lambda asker=asker: asker("server.stats()")["in_flight"] == before)


def test_faults_and_refusals_are_counted(server: Serving, workers: list[Asker]):
    before = workers[0]("server.stats()")
    with websocket(server) as (raw, _):
        raw.send(frame(3, b"x"))
        assert raw.close_frame()[0] == 1002
        assert raw.rest() == b""
    with Raw(server, b"no http at all\r\n\r\n") as raw:
        assert raw.answer().status == 400
    after = workers[0]("server.stats()")
    assert after["failed"] - before["failed"] == 2
    assert balanced(after)


def test_workers_in_stats(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    """Each gateway tells of its workers: number, process, connections."""
    for gateway in workers[0]("server.stats()")["gateways"]:
        told = {one["worker"]: one["pid"] for one in gateway["workers"]}
        expected = {asker.worker: asker.pid for asker in workers}
        if mode["mode"] == "process":
            assert told == expected
        else:
            assert told.items() >= {gateway["gateway"]: expected[gateway["gateway"]]}.items()


# ---------------------------------------------------------------------------------------------- pack, unpack


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("server.pack('grüße').hex()", frame(1, "grüße".encode(), key=None).hex()),
        (r"server.pack(b'\xff').hex()", frame(2, b"\xff", key=None).hex()),
        ("server.pack(b'x', Opcode.PING).hex()", frame(9, b"x", key=None).hex()),
        ("server.pack(CloseFrame(4000, 'bye')).hex()", frame(8, b"\x0f\xa0bye", key=None).hex()),
        ("server.pack('z' * 70000).hex()[:20]", frame(1, b"z" * 70_000, key=None).hex()[:20]),
    ],
)
def test_pack_in_a_handler(workers: list[Asker], code: str, expected: str):
    assert workers[0](code) == expected


def test_pack_and_unpack_without_a_server():
    """They are about bytes only, so they work everywhere; here against frames that were made by other code."""
    for opcode, data in (
        (Opcode.TEXT, "grüße"),
        (Opcode.BINARY, b"\xff" * 200),
        (Opcode.PING, b""),
        (Opcode.PONG, b"x"),
    ):
        payload = data.encode() if isinstance(data, str) else data
        assert Server.pack(data, opcode) == frame(opcode, payload, key=None)
        for key in (None, b"\x01\x02\x03\x04"):
            found = Server.unpack(frame(opcode, payload, key=key))
            assert (found.opcode, found.data, found.finish) == (opcode, data, True)
    assert Server.unpack(Server.pack(Frame("again"))).data == "again"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        frame(1, b"x") + b"x",
        frame(3, b"x"),
        frame(1, b"\xff"),
        frame(9, b"x" * 126),
        frame(1, b"x", fin=False),
    ],
)
def test_what_is_not_one_good_frame_is_a_value_error(data: bytes):
    with pytest.raises(ValueError):
        Server.unpack(data)


def test_unpack_errors_reach_the_application(workers: list[Asker]):
    with pytest.raises(Raised) as raised:
        workers[0]("server.unpack(b'')")
    assert "ValueError" in raised.value.kinds


REFUSING = """
@server.on("message")
def said(server, frame): ...

@server.on("request")
async def page(request, response):
    if request.path == "/stats":
        response.json(server.stats())
    elif request.path == "/read":
        response.json(len(await request.read(10)))
    elif request.path == "/mine":
        raise HttpError(409, "no limit of the server's")
    else:
        response.json([request.form_list, request.query_list])
"""


def test_requests_that_are_refused_are_counted(mode: dict[str, Any]):
    """Whether the gateway refuses, or a limit that is known in the worker, when the handler looks at the form."""
    multipart = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n"
    cases = [
        (413, "/", "text/plain", b"x" * 1001),
        (413, "/", "application/x-www-form-urlencoded", b"a&b&c&d"),
        (413, "/", "multipart/form-data; boundary=x", multipart * 3 + b"--x--\r\n"),
        (413, "/", "multipart/form-data; boundary=x", multipart.replace(b"1", b"1" * 200) + b"--x--\r\n"),
        (400, "/", "multipart/form-data", multipart),
        (400, "/?" + "a&" * 1001, "text/plain", b""),
        (413, "/read", "text/plain", b"x" * 300),
    ]
    limits = {"form_field_limit": 3, "multipart_part_limit": 2, "form_memory": 100, "body_limit": 1000}
    streaming = {"stream_request_body": True, "stream_body_above": 280}
    with Serving(REFUSING, **mode, **limits, **streaming) as server:

        def refused() -> int:
            with Raw(server, get("/stats")) as raw:
                return raw.answer().json()["requests_refused"]

        assert refused() == 0
        for number, (status, path, kind, body) in enumerate(cases, 1):
            fields = (f"Content-Type: {kind}", f"Content-Length: {len(body)}")
            with Raw(server, get(path, *fields, method="POST", body=body)) as raw:
                assert raw.answer("POST").status == status, (path, kind)
            assert refused() == number, (path, kind)
        with Raw(server, get("/mine")) as raw:
            assert raw.answer().status == 409
        assert refused() == len(cases)
        assert server.stop() == 0
