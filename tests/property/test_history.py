"""A history beside a list of everything that ever was: what anybody can have read, and what was lost."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.history import BOUNDARIES, History
from mooring.types import Position, Verdict

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 6), st.sampled_from([0.0, 3.0])),
        st.tuples(st.just("break"), st.integers(0, 4), st.just(0.0)),
        st.tuples(st.just("wait"), st.integers(0, 5), st.just(0.0)),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 9))
def test_each_position_gets_what_is_new_or_the_reason_why_not(steps, most_bytes):
    history, now = History("0", 0.0), 0.0
    line: list[tuple[bytes, float]] = []  # of now, from its beginning
    read: list[tuple[Position, list[bytes]]] = [(Position("0", 0), [])]  # what anybody can have read, and up to where
    epochs = ["0"]
    most, ttl, first = 0, 0.0, 0  # of the line, what is kept begins there
    for what, number, seconds in steps:
        if what == "append":
            most, ttl = number, seconds
            data = f"{len(read)}".encode()
            history.append(0, 1, data, now, most, ttl)
            line.append((data, now))
            read.append((Position(epochs[-1], len(line)), [one for one, _ in line]))
        elif what == "break":
            # what kept it has lost its end
            lost = min(number, len(history))
            for _ in range(lost):
                history.size -= len(history._kept.popitem()[1].data)
                history.top -= 1
                line.pop()
            epochs.append(str(len(epochs)))
            history.break_line(epochs[-1])
            read.append((Position(epochs[-1], len(line)), [one for one, _ in line]))
        else:
            now += number
            history.trim(now)
        first = max(first, len(line) - most) if what != "break" else min(first, len(line))
        while first < len(line) and ttl and now - line[first][1] >= ttl:
            first += 1
        kept = [one for one, _ in line[first:]]
        assert history.size == sum(map(len, kept))
        for position, seen in read:
            found = history.since(position, 100, most_bytes)
            assert found.end == Position(epochs[-1], len(line))
            everything = [one for one, _ in line]
            remembered = position.epoch in epochs[-1 - BOUNDARIES :]
            goes_on = found.position.offset
            if not remembered:
                assert found.verdict is Verdict.UNKNOWN_EPOCH
                assert goes_on == len(line)
            elif seen != everything[: len(seen)]:
                assert found.verdict is Verdict.ROLLED_BACK
                assert everything[:goes_on] == seen[:goes_on] or goes_on == len(everything) - len(kept)
            elif len(everything) - len(seen) > len(kept):
                assert found.verdict is Verdict.TRIMMED
                assert goes_on == len(everything) - len(kept)
            else:
                assert found.verdict is Verdict.RECOVERED
                assert goes_on == len(seen)
            got = [one.data for one in found.publications]
            assert [one.offset for one in found.publications] == list(range(goes_on + 1, goes_on + 1 + len(got)))
            assert everything[goes_on : goes_on + len(got)] == got
            if goes_on + len(got) < len(everything):  # a part: as much as was wanted, and no more
                assert sum(map(len, got)) >= most_bytes > sum(map(len, got[:-1]))
