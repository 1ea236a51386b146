"""tick, after, clear_timer, in every mode; over reloads and deaths in tests/e2e/test_timers.py."""

import pytest

from contract.clients import Asker, Raised
from support.serving import eventually


def test_after(workers: list[Asker]):
    for asker in workers:
        asker("kept.__setitem__('fired', [])")
        first = asker("server.after(0.01, kept['fired'].append, 'sync')")
        second = asker("server.after(0, lambda: asyncio.sleep(0, kept['fired'].append('async')))")
        assert second == first + 1
        eventually(lambda asker=asker: len(asker("kept['fired']")) == 2)
        assert sorted(asker("kept['fired']")) == ["async", "sync"]
        assert not asker(f"server.clear_timer({first})"), "it is over"


def test_tick_until_it_is_cleared(workers: list[Asker]):
    asker = workers[-1]
    asker("kept.__setitem__('ticks', [])")
    number = asker("server.tick(0.005, kept['ticks'].append, 1)")
    eventually(lambda: len(asker("kept['ticks']")) >= 5)
    assert asker(f"server.clear_timer({number})")
    count = len(asker("kept['ticks']"))
    assert asker("asyncio.sleep(0.05)") is None
    assert len(asker("kept['ticks']")) == count
    assert not asker(f"server.clear_timer({number})")


def test_from_a_thread(workers: list[Asker]):
    asker = workers[0]
    asker("kept.__setitem__('ticks', [])")
    number = asker("server.tick(0.005, lambda: kept['ticks'].append(threading.current_thread().name))", in_thread=True)
    eventually(lambda: len(asker("kept['ticks']")) >= 2)
    assert asker(f"server.clear_timer({number})", in_thread=True)
    assert set(asker("kept['ticks']")) == {"MainThread"}


def test_a_tick_that_fails_goes_on(server, workers: list[Asker]):
    asker = workers[0]
    mark = server.mark()
    number = asker("server.tick(0.005, fail, 'in a tick')")
    server.wait_log("Boom: in a tick", since=mark, count=3)
    assert asker(f"server.clear_timer({number})")


def test_calls_do_not_pile_up(workers: list[Asker]):
    """While one is suspended, or the loop stands still, no other begins; none is made up for."""
    asker = workers[0]
    asker("kept.update(ticks=[], gate=asyncio.Event())")
    number = asker("server.tick(0.005, lambda: (kept['ticks'].append(1), kept['gate'].wait())[1])")
    eventually(lambda: asker("kept['ticks']") == [1])
    asker("asyncio.sleep(0.05)")
    assert asker("kept['ticks']") == [1]
    assert asker(f"(time.sleep(0.2), server.clear_timer({number}), kept['gate'].set())[1]")
    number = asker("(kept.update(ticks=[]), server.tick(0.05, lambda: kept['ticks'].append(1)), time.sleep(0.5))[1]")
    assert asker(f"(server.clear_timer({number}), len(kept['ticks']))[1]") <= 2


def test_once_per_server(workers: list[Asker]):
    for asker in workers:
        asker("kept.update(ticks=[], number=server.tick(0.005, lambda: kept['ticks'].append(1), once_per_server=True))")
    eventually(lambda: len(workers[0]("kept['ticks']")) >= 3)
    assert [bool(asker("kept['ticks']")) for asker in workers] == [True] + [False] * (len(workers) - 1)
    assert workers[0]("server.clear_timer(kept['number'])")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server.tick(0, print)", "ValueError"),
        ("server.after(-1, print)", "ValueError"),
        ("server.after(float('nan'), print)", "ValueError"),
        ("server.tick('1', print)", "TypeError"),
        ("server.tick(1, None)", "TypeError"),
    ],
)
def test_what_cannot_be_meant(workers: list[Asker], code: str, kind: str):
    with pytest.raises(Raised) as caught:
        workers[0](code)
    assert caught.value.kinds[0] == kind
