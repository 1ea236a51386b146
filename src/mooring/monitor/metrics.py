"""/metrics: a snapshot in the text format of Prometheus, or in OpenMetrics for who asks for it, by prometheus-client.

Each number stands once for each process, by its role and number, and is not added up: Prometheus does that, and where
it should not be (one worker of eight hangs) it could not be undone. All labels are of few values: roles, numbers, the
names of events, the reasons that are written in the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mooring._core.latency import BOUNDS_SECONDS
from mooring.counters import TABLE, Kind, Row
from mooring.errors import ConfigError
from mooring.monitor.board import Process, Snapshot

LABELS = ("role", "number")
OPENMETRICS = "application/openmetrics-text"
BOUNDS = [*map(str, BOUNDS_SECONDS), "+Inf"]


def check_client() -> None:
    """Raises ConfigError when there is no prometheus-client."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise ConfigError("metrics_listen needs prometheus-client: pip install 'mooring-server[metrics]'") from None


class Metrics:
    """`look()` gives the snapshot that is told."""

    def __init__(self, look: Callable[[], Snapshot]) -> None:
        from prometheus_client import CollectorRegistry

        self._look = look
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """What to answer to who sends that Accept field, and its media type."""
        from prometheus_client.exposition import choose_encoder

        # What else the field says is not passed on: prometheus-client raises on a version that is none, or echoes it.
        encode, media_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept.lower() else "")
        return encode(self._registry), media_type

    def describe(self) -> Iterator[Any]:
        """For the registry: the names, which it checks for doubles."""
        return map(_family, exported())

    def collect(self) -> Iterator[Any]:
        """For the registry."""
        snapshot = self._look()
        for row in exported():
            family = _family(row)
            for process in snapshot.processes:
                if row.kind is Kind.HISTOGRAM:
                    _add_histogram(family, row, process)
                elif row.name in process.counts:
                    _add_number(family, row, process)
            yield family


def exported() -> Iterator[Row]:
    """Each row but those sums of which another row has the parts."""
    names = {row.metric for row in TABLE if row.name.endswith("_reasons")}
    return (row for row in TABLE if row.metric not in names or row.name.endswith("_reasons"))


def _family(row: Row) -> Any:
    from prometheus_client import metrics_core

    kinds = {
        Kind.COUNTER: metrics_core.CounterMetricFamily,
        Kind.GAUGE: metrics_core.GaugeMetricFamily,
        Kind.HISTOGRAM: metrics_core.HistogramMetricFamily,
    }
    labels = [*LABELS, row.label] if row.label else [*LABELS]
    return kinds[row.kind](row.metric, row.text, labels=labels)


def _add_number(family: Any, row: Row, process: Process) -> None:
    value, labels = process.counts[row.name], [process.role, str(process.number)]
    if not row.label:
        family.add_metric(labels, value)
    else:
        for label, number in value.items():
            family.add_metric([*labels, label], number)


def _add_histogram(family: Any, row: Row, process: Process) -> None:
    for label, (*counts, total) in process.timings.get(row.name, {}).items():
        labels = [process.role, str(process.number), *([label] if row.label else [])]
        up_to, so_far = [], 0
        for bound, count in zip(BOUNDS, counts, strict=True):
            so_far += count
            up_to.append((bound, so_far))
        family.add_metric(labels, up_to, sum_value=total / 1_000_000)
