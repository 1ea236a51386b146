"""How long handlers took, and what waited for them, by the kind of event.

A bucket counts what took at most so long and longer than the bucket before; Prometheus wants them added up, which is
done when somebody asks. The bounds are fixed, so that those of several processes can be added: from what a handler
takes that only answers to what somebody should be called for. To count is to compare a few integers.
"""

from libc.stdint cimport uint64_t

from mooring._core.wire import Event

BOUNDS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)
_NAMES = {int(kind): kind.name.lower() for kind in Event}

cdef uint64_t _bounds[BOUNDS]
for _place, _bound in enumerate(BOUNDS_SECONDS):
    _bounds[_place] = <uint64_t> (_bound * 1000000 + 0.5)


cdef class Latencies:
    """Those of one process."""

    cdef int add(self, int kind, uint64_t microseconds) noexcept:
        cdef int bucket = 0
        if not 0 <= kind < EV_END:
            return 0
        while bucket < BOUNDS and microseconds > _bounds[bucket]:
            bucket += 1
        self.counts[kind][bucket] += 1
        self.sums[kind] += microseconds
        return 0

    def note(self, kind: int, microseconds: int) -> None:
        """Counts one, for whoever is not compiled."""
        self.add(kind, microseconds)

    def counted(self, kind: int) -> list[int]:
        """Of one kind: how many there are in each bucket, and behind them all their microseconds."""
        if not 0 <= kind < EV_END:
            raise ValueError(f"there is no kind {kind}")
        return [*[self.counts[kind][bucket] for bucket in range(BOUNDS + 1)], self.sums[kind]]

    def report(self) -> dict[str, list[int]]:
        """The same of all kinds that came, by the names of their events."""
        cdef int kind
        found = {}
        for kind in range(EV_END):
            counted = self.counted(kind)
            if any(counted):
                found[_NAMES.get(kind, str(kind))] = counted
        return found
