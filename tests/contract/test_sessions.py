"""The session of a connection: one small mapping, the same for every worker, from `open` to the end of `close`."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from contract.clients import Asker, Raised, crowd, dial, get
from contract.modes import only
from support.serving import Serving, eventually

THREADS = pytest.mark.parametrize("in_thread", [False, True], ids=["in the loop", "in a thread"])


def agree(askers: list[Asker], fd: int, expected: dict[str, Any]) -> None:
    """Soon every worker reads that: word of a change travels through the gateway."""
    for asker in askers:
        eventually(
            lambda asker=asker: asker(f"dict(server.session({fd}))") == expected, 10, f"{expected} in {asker.worker}"
        )


async def test_a_session_is_a_mapping(server: Serving):
    async with dial(server, "/eval", name="mapping") as peer:
        assert await peer.ask("dict(server.session(fd))") == {}
        assert await peer.ask("server.session(fd).update(a=1, b='two')") is None
        assert await peer.ask("server.session(fd).__setitem__('c', [3, {'d': None}])") is None
        assert await peer.ask("dict(server.session(fd))") == {"a": 1, "b": "two", "c": [3, {"d": None}]}
        assert await peer.ask("[server.session(fd)['a'], server.session(fd).get('x', 'none')]") == [1, "none"]
        assert await peer.ask("['a' in server.session(fd), 'x' in server.session(fd), 5 in server.session(fd)]") == [
            True,
            False,
            False,
        ]
        assert await peer.ask("[len(server.session(fd)), sorted(server.session(fd))]") == [3, ["a", "b", "c"]]
        assert await peer.ask("[server.session(fd).pop('a'), server.session(fd).setdefault('e', 5)]") == [1, 5]
        assert await peer.ask("server.session(fd).__delitem__('b')") is None
        assert await peer.ask("dict(server.session(fd))") == {"c": [3, {"d": None}], "e": 5}
        for code in ("server.session(fd)['b']", "server.session(fd).__delitem__('b')", "server.session(fd).pop('b')"):
            with pytest.raises(Raised) as raised:
                await peer.ask(code)
            assert raised.value.kinds[0] == "KeyError"
        assert await peer.ask("server.session(fd).clear()") is None
        assert await peer.ask("dict(server.session(fd))") == {}
        assert await peer.ask("repr(server.session(fd))") == f"<Session of connection {peer.fd}: {{}}>"
        assert await peer.ask("isinstance(server.session(fd), Session)") is True


@pytest.mark.parametrize(
    "value",
    [
        *["0", "-(1 << 63)", "(1 << 64) - 1", "1.5", "True", "False", "''", "'grüße'", r"b'\xff\x00'", "'x' * 400"],
        *[
            "[]",
            "[1, [2, {}]]",
            "{'a': {'b': [None, 1.5]}}",
            "{1, 2}",
            "(1, (2, [3]))",
            "{(1, 2): {'x'}}",
            "frozenset({1})",
        ],
        *["datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)", "datetime.date(2026, 1, 2)", "decimal.Decimal('1.10')"],
        *["uuid.UUID(int=5)", "datetime.timedelta(seconds=1.5)", "datetime.time(12)", "frozenset({1})"],
    ],
)
async def test_values_come_back_as_they_were(server: Serving, workers: list[Asker], value: str):
    async with dial(server, "/eval") as peer:
        await peer.ask(f"server.session(fd).__setitem__('key', {value})")
        assert await peer.ask(f"server.session(fd)['key'] == {value}")
        for asker in workers:
            eventually(
                lambda asker=asker: asker(f"server.session({peer.fd}).get('key') == {value}"
                                          f" and isinstance(server.session({peer.fd})['key'], type({value}))")
            )  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        "None",
        "object()",
        "server",
        "lambda: 1",
        "1j",
        "{1: object()}",
        "1 << 70",
        "bytearray()",
        "Opcode.TEXT",
        "[frame]",
    ],
)
async def test_what_cannot_come_back_as_it_was_is_a_type_error(server: Serving, value: str):
    async with dial(server, "/eval") as peer:
        with pytest.raises(Raised) as raised:
            await peer.ask(f"server.session(fd).__setitem__('key', {value})")
        assert raised.value.kinds[0] == "TypeError", raised.value
        assert await peer.ask("dict(server.session(fd))") == {}


@pytest.mark.parametrize("key", ["1", "None", "b'x'", "('a', 'b')"])
async def test_keys_are_texts(server: Serving, key: str):
    async with dial(server, "/eval") as peer:
        with pytest.raises(Raised) as raised:
            await peer.ask(f"server.session(fd).__setitem__({key}, 1)")
        assert raised.value.kinds[0] == "TypeError"
        assert await peer.ask(f"{key} in server.session(fd)") is False


async def test_the_limit(server: Serving, workers: list[Asker]):
    """512 bytes of keys and packed values: exactly that much fits, in one entry or in several, from any worker."""
    async with dial(server, "/eval") as peer:
        fits = 512 - len("key") - 3  # a text of 256 bytes and more has a head of 3
        for asker in workers:
            assert asker(f"server.session({peer.fd}).update(key='x' * {fits})") is None
            eventually(lambda asker=asker: asker(f"len(server.session({peer.fd})['key'])") == fits)
            for code in (
                f"server.session({peer.fd}).update(key='x' * {fits + 1})",
                f"server.session({peer.fd}).update(k=1)",
            ):
                with pytest.raises(Raised) as raised:
                    asker(code)
                assert raised.value.kinds[0] == "ValueError"
                assert "session_limit" in raised.value.message
            assert asker(f"len(server.session({peer.fd})['key'])") == fits
            # what becomes smaller is no problem
            assert asker(f"server.session({peer.fd}).update(key='x' * {fits - 2})") is None
            assert asker(f"server.session({peer.fd}).update(k=1)") is None
            asker(f"server.session({peer.fd}).clear()")
            agree(workers, peer.fd, {})


CHANGES = [
    ("['red']", "s['key'].append('blue')", "['red', 'blue']"),
    ("[]", "s.setdefault('key', None).append(1)", "[1]"),
    ("[1]", "s.__setitem__('key', s['key'].__iadd__([2]))", "[1, 2]"),
    ("{'a': {'b': [1]}}", "s['key']['a']['b'].append({2})", "{'a': {'b': [1, {2}]}}"),
    ("{'a': {'b': [1]}}", "s['key']['a'].update(c=s['key']['a']['b'])", "{'a': {'b': [1], 'c': [1]}}"),
    ("{1}", "s['key'].add((2, 3))", "{1, (2, 3)}"),
    ("(1, [2])", "s['key'][1].append(3)", "(1, [2, 3])"),
    ("[3, 1]", "[s['key'].sort(), s['key'].pop()]", "[1]"),
    ("{}", "s['key'].setdefault('tabs', []).append(1)", "{'tabs': [1]}"),
]


@THREADS
@pytest.mark.parametrize(("start", "change", "expected"), CHANGES)
async def test_a_change_of_a_value_is_kept(
    server: Serving, workers: list[Asker], start: str, change: str, expected: str, in_thread: bool
):
    """In the worker that serves the connection, and in any other."""
    async with dial(server, "/eval") as peer:
        for asker in workers:
            await peer.ask(f"server.session(fd).update(key={start})")
            eventually(lambda asker=asker: asker(f"server.session({peer.fd}).get('key') == {start}"))
            asker(f"(lambda s: {change})(server.session({peer.fd})) and None", in_thread=in_thread)
            for reader in workers:
                eventually(lambda reader=reader: reader(f"server.session({peer.fd})['key'] == {expected}"))


async def test_a_change_that_is_refused_is_taken_back(server: Serving):
    async with dial(server, "/eval") as peer:
        await peer.ask("server.session(fd).update(key=[1])")
        assert await peer.ask("kept.__setitem__('key', server.session(fd)['key'])") is None
        for change, kind in (
            ("append(object())", "TypeError"),
            ("extend(['x'] * 600)", "ValueError"),
            ("append(kept['key'])", "TypeError"),
        ):
            with pytest.raises(Raised) as raised:
                await peer.ask(f"kept['key'].{change}")
            assert raised.value.kinds[0] == kind
            assert await peer.ask("[kept['key'], server.session(fd)['key']]") == [[1], [1]]


async def test_two_handlers_hold_the_same_value(server: Serving, workers: list[Asker]):
    """One that has read it before it was suspended sees the other's change, as with any list, and none is lost."""
    async with dial(server, "/eval") as peer:
        await peer.ask("server.session(fd).update(key=[])")
        await peer.ask("kept.__setitem__('one', server.session(fd)['key'])")
        await peer.ask("[kept.__setitem__('two', server.session(fd)['key']), kept['two'] is kept['one']][1]")
        await peer.ask("kept['two'].append(2)")
        assert await peer.ask("kept['one']") == [2]
        await peer.ask("kept['one'].append(1)")
        assert await peer.ask("server.session(fd)['key']") == [2, 1]


async def test_what_was_replaced_meanwhile_is_not_changed(server: Serving, workers: list[Asker]):
    """By this worker or another: the change would be lost, so it is refused."""
    async with dial(server, "/eval") as peer:
        for asker in workers:
            await peer.ask("server.session(fd).update(key=[1])")
            await peer.ask("kept.__setitem__('key', server.session(fd)['key'])")
            asker(f"server.session({peer.fd}).update(key=[2])")
            await peer.ask("await until(lambda: server.session(fd)['key'] == [2])")
            with pytest.raises(Raised, match="was replaced or removed after this was read") as raised:
                await peer.ask("kept['key'].append(5)")
            assert raised.value.kinds[0] == "StateError"
            assert await peer.ask("[kept['key'], server.session(fd)['key']]") == [[1], [2]]
        await peer.ask("kept.__setitem__('key', server.session(fd)['key'])")
        await peer.ask("server.session(fd).clear()")
        with pytest.raises(Raised, match="was replaced or removed"):
            await peer.ask("kept['key'].append(5)")


async def test_a_value_of_a_connection_that_is_gone(server: Serving, workers: list[Asker]):
    """Changing it has no effect and raises nothing, like every write to such a session."""
    mark = server.mark()
    async with dial(server, "/eval", name="value_gone") as peer:
        await peer.ask("server.session(fd).update(key=[1])")
        for asker in workers:
            eventually(lambda asker=asker: asker(f"server.session({peer.fd}).get('key') == [1]"))
            asker(f"kept.__setitem__('gone', server.session({peer.fd})['key'])")
    await asyncio.to_thread(server.wait_log, "^report value_gone close", since=mark)
    for asker in workers:
        eventually(lambda asker=asker: asker(f"len(server.session({peer.fd}))") == 0)  # one look, unlike dict()
        assert asker("kept['gone'].append(2)") is None
        assert asker(f"dict(server.session({peer.fd}))") == {}


async def test_what_is_taken_out_is_ordinary(server: Serving):
    async with dial(server, "/eval") as peer:
        await peer.ask("server.session(fd).update(key=[1, [2]], other={'a': 1})")
        code = "(lambda v: [type(v) is list, type(v[1]) is list, v.append(3), v])(server.session(fd).pop('key'))"
        assert await peer.ask(code) == [True, True, None, [1, [2], 3]]
        assert await peer.ask("server.session(fd).popitem()") == ["other", {"a": 1}]
        assert await peer.ask("dict(server.session(fd))") == {}
        assert await peer.ask("[server.session(fd).pop('key', None), server.session(fd).pop('key', 5)]") == [None, 5]


async def test_what_was_put_in_is_a_copy_and_a_mistake_is_told(server: Serving):
    async with dial(server, "/eval") as peer:
        mark = server.mark()
        code = "(lambda v, s: [s.update(mistaken=v), v.append(1), s['mistaken']])([], server.session(fd))"
        assert await peer.ask(code) == [None, None, []]
        told = "what was put into a session as 'mistaken' was changed afterwards"
        await asyncio.to_thread(server.wait_log, told, since=mark)
        assert await peer.ask(code) == [None, None, []]
        fine = "(lambda v, s: [s.update(fine=v), s['fine'].append(1), s['fine']])([], server.session(fd))"
        assert await peer.ask(fine) == [None, None, [1]]
        assert await peer.ask("1") == 1
        assert sum(told in line for line in server.lines) == 1
        assert not any("as 'fine' was changed" in line for line in server.lines)


@THREADS
async def test_every_worker_reads_and_writes(
    server: Serving, mode: dict[str, Any], workers: list[Asker], in_thread: bool
):
    async with crowd(server, mode, "/eval") as peers:
        for peer in peers:
            expected: dict[str, Any] = {"own": peer.worker}
            await peer.ask(f"server.session(fd).update(own={peer.worker})")
            for asker in workers:
                eventually(
                    lambda asker=asker, peer=peer: asker(f"'own' in server.session({peer.fd})", in_thread=in_thread)
                )
                # its own change each worker sees at once
                code = f"[server.session({peer.fd}).update(w{asker.worker}=1), dict(server.session({peer.fd}))][1]"
                expected[f"w{asker.worker}"] = 1
                agree([asker], peer.fd, {k: v for k, v in expected.items() if k != f"w{asker.worker}"})
                assert asker(code, in_thread=in_thread) == expected
            agree(workers, peer.fd, expected)
            assert await peer.ask("dict(server.session(fd))") == expected
            for asker in workers:
                assert asker(f"server.session({peer.fd}).pop('w{asker.worker}')", in_thread=in_thread) == 1
                del expected[f"w{asker.worker}"]
                agree(workers, peer.fd, expected)


async def test_sessions_from_threads_at_once(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    """Several threads of a worker ask for different sessions at the same time: each gets what it asked for."""
    async with crowd(server, mode, "/eval") as peers:
        for peer in peers:
            await peer.ask("server.session(fd).update(fd=fd)")
        agree(workers, peers[-1].fd, {"fd": peers[-1].fd})
        fds = [peer.fd for peer in peers]
        read = "(lambda fd: [server.session(fd)['fd'] for _ in range(100)] == [fd] * 100)"
        code = f"await asyncio.gather(*[asyncio.to_thread({read}, fd) for fd in {fds} * 2])"
        for asker in workers:
            assert asker(code) == [True] * len(fds) * 2


@only("base-2")
async def test_two_servers_that_ask_each_other(
    server: Serving, mode: dict[str, Any], workers: list[Asker], folder: Path
):
    """Each process is a gateway: two handlers that read sessions of the other one at the same time get them."""
    go_on = folder / "both ask"
    async with crowd(server, mode, "/eval") as peers:
        for peer in peers:
            await peer.ask("server.session(fd).update(fd=fd)")
        mark = server.mark()
        for asker, peer in zip(workers, reversed(peers), strict=True):
            code = f"[block_until({go_on.name!r}), dict(server.session({peer.fd}))][1]"
            asker.raw.send(get(f"/eval?code={quote(code)}"))
        await asyncio.to_thread(server.wait_log, f"^report blocked until {go_on.name}", since=mark, count=2)
        go_on.touch()
        answers = [asker.raw.answer().json() for asker in workers]
        assert [answer.get("value", answer) for answer in answers] == [{"fd": peer.fd} for peer in reversed(peers)]


@only("base")
def test_sessions_of_http_connections_are_forgotten(server: Serving, workers: list[Asker]):
    """With their connections, as those of WebSockets: memory is bounded. Looked at where all is in one process."""
    kept = "[sum(len(o.relay.sessions) for o in gc.get_objects() if type(o).__name__ == 'Gateway')," + (
        "sum(len(o._copies) for o in gc.get_objects() if type(o).__name__ == 'Sessions')]"
    )
    before = workers[0](kept)
    for _ in range(5):
        with contextlib.closing(Asker(server)) as asker:
            asker("server.session(request.fd).update(x=1)")
        workers[0](f"await until(lambda: not server.exists({asker.fd}))")
    assert workers[0](kept) == before


async def test_a_session_begins_empty(server: Serving):
    """Whoever had the place before."""
    for number in range(3):
        async with dial(server, "/eval", name=f"empty{number}", close="dict(server.session(fd))") as peer:
            mark = server.mark()
            assert await peer.ask("dict(server.session(fd))") == {}
            await peer.ask(f"server.session(fd).update(number={number})")
        await asyncio.to_thread(server.wait_log, f"^report empty{number} close", since=mark)
        assert f'closing {{"number": {number}}}' in server.reports(f"empty{number}", mark)


async def test_what_open_writes_is_there_from_the_first_message(server: Serving):
    async with dial(server, "/eval", open="server.session(fd).update(path=request.path)") as peer:
        assert await peer.ask("server.session(fd)['path']") == "/eval"


async def test_in_the_close_handler(server: Serving, workers: list[Asker]):
    """Readable, with the last changes, also those of others; changes have no effect and raise nothing."""
    mark = server.mark()
    code = "[dict(server.session(fd)), server.session(fd).update(late=1), server.exists(fd)]"
    async with dial(server, "/eval", name="session_at_close", close=code) as peer:
        await peer.ask("server.session(fd).update(a=1)")
        for asker in workers:
            asker(f"server.session({peer.fd}).update(w{asker.worker}=1)")
        expected = {"a": 1, **{f"w{asker.worker}": 1 for asker in workers}}
        agree(workers, peer.fd, expected)
        await peer.ask("server.session(fd).update(a=2)")
    await asyncio.to_thread(server.wait_log, "^report session_at_close close", since=mark)
    (line,) = [line for line in server.reports("session_at_close", mark) if line.startswith("closing")]
    assert '"a": 2' in line
    assert all(f'"w{asker.worker}": 1' in line for asker in workers)
    assert line.endswith(", null, false]")


async def test_the_session_of_a_gone_connection(server: Serving, workers: list[Asker]):
    mark = server.mark()
    async with dial(server, "/eval", name="session_gone") as peer:
        await peer.ask("server.session(fd).update(a=1)")
    await asyncio.to_thread(server.wait_log, "^report session_gone close", since=mark)
    for asker in workers:
        eventually(lambda asker=asker: asker(f"len(server.session({peer.fd}))") == 0)  # one look, unlike dict()
        assert asker(f"server.session({peer.fd}).update(b=2)") is None
        assert asker(f"[dict(server.session({peer.fd})), len(server.session({peer.fd}))]") == [{}, 0]
        with pytest.raises(Raised) as raised:
            asker(f"server.session({peer.fd})['a']")
        assert raised.value.kinds[0] == "KeyError"


async def test_sessions_do_not_mix(server: Serving, mode: dict[str, Any], workers: list[Asker]):
    async with crowd(server, mode, "/eval") as peers:
        for peer in peers:
            for asker in workers:
                asker(f"server.session({peer.fd}).update(fd={peer.fd})")
        for peer in peers:
            agree(workers, peer.fd, {"fd": peer.fd})
