"""/metrics: every counter is there, as other programs read it."""

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from mooring._core.latency import BOUNDS_SECONDS
from mooring.counters import TABLE, Kind
from mooring.monitor.board import Process, Snapshot
from mooring.monitor.metrics import Metrics, exported


def everything() -> Process:
    """A process that counts all there is."""
    process = Process("server", 0)
    for row in TABLE:
        labelled = {row.label or "": 1}
        if row.kind is Kind.HISTOGRAM:
            process.timings[row.name] = {key: [*range(len(BOUNDS_SECONDS) + 1), 2_500_000] for key in labelled}
        else:
            process.counts[row.name] = labelled if row.label else 1
    return process


def test_every_counter_is_exported_by_its_name_with_its_text():
    process = everything()
    metrics = Metrics(lambda: Snapshot(None, 0.0, [process]))
    text, media_type = metrics.text("")
    assert media_type.startswith("text/plain; version=")
    families = {family.name: family for family in parse(text.decode())}
    kinds = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram"}
    sums = {"dropped", "control_refused"}  # of which the reasons are there
    assert {row.name for row in TABLE} - {row.name for row in exported()} == sums
    assert set(families) == {row.metric for row in exported()}
    for row in exported():
        family = families[row.metric]
        assert (family.documentation, family.type) == (row.text, kinds[row.kind])
        for sample in family.samples:
            assert sample.labels.items() >= {"role": "server", "number": "0"}.items()
            assert set(sample.labels) - {"role", "number", "le"} == ({row.label} if row.label else set())
    buckets = [one for one in families["mooring_handler_seconds"].samples if one.name.endswith("_bucket")]
    values = [one.value for one in buckets]
    assert values == sorted(values)
    assert [one.labels["le"] for one in buckets] == [*map(str, BOUNDS_SECONDS), "+Inf"]
    by_name = {one.name: one.value for one in families["mooring_handler_seconds"].samples}
    assert by_name["mooring_handler_seconds_count"] == values[-1] == sum(range(len(BOUNDS_SECONDS) + 1))
    assert by_name["mooring_handler_seconds_sum"] == 2.5


def test_who_asks_for_openmetrics_is_given_that():
    metrics = Metrics(lambda: Snapshot(None, 0.0, [everything()]))
    text, media_type = metrics.text("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(text.decode())} == {row.metric for row in exported()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is of Debian's package prometheus")
def test_promtool_finds_no_fault_with_the_text():
    text, _ = Metrics(lambda: Snapshot(None, 0.0, [everything()])).text("")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "version", ["", ";version=1.0.0", ";version=a", ";version=2.a", ";version=3.\xff;escaping=\xff"]
)
def test_a_strange_version_is_not_passed_on(version: str):
    metrics = Metrics(lambda: Snapshot(None, 0.0, [everything()]))
    text, media_type = metrics.text(f"text/html, Application/openmetrics-text{version};q=0.7, */*")
    assert media_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert list(parse_openmetrics(text.decode()))
    text, media_type = metrics.text(f"text/plain{version}")
    assert media_type.startswith("text/plain; version=0.0.4;")
    assert list(parse(text.decode()))
