"""docs/monitoring: the dashboard and the alert rules ask for metrics and labels that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mooring.counters import Kind, Row
from mooring.monitor.metrics import LABELS, exported
from support.serving import ROOT

FOLDER = ROOT / "docs" / "monitoring"
ROWS = {row.metric: row for row in exported()}
ENDINGS = {Kind.COUNTER: {"_total"}, Kind.GAUGE: {""}, Kind.HISTOGRAM: {"_bucket", "_sum", "_count"}}
OWN = {"instance", "job"}  # labels that Prometheus adds


def alerts() -> Iterator[tuple[str, str]]:
    rules: Any = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def panels() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for number, target in enumerate(panel.get("targets", [])):
            yield f"{panel['title']}, {number}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def row_of(name: str) -> Row | None:
    for metric, row in ROWS.items():
        if name.removeprefix(metric) in ENDINGS[row.kind] and name.startswith(metric):
            return row
    return None


def labels_in(expression: str) -> set[str]:
    matched = {label for inner in re.findall(r"\{(.*?)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", inner)}
    grouped = {label for inner in re.findall(r"(?:by|without) \((.*?)\)", expression) for label in inner.split(", ")}
    return matched | grouped


EXPRESSIONS = [*alerts(), *panels()]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_what_it_asks_for_is_there(where: str, expression: str):
    names = re.findall(r"\bmooring_\w+", expression)
    assert names, f"{where} asks for nothing of ours"
    labels = {*LABELS, *OWN}
    for name in names:
        row = row_of(name)
        assert row is not None, f"{where}: there is no {name}"
        labels |= {row.label, "le"} if row.kind is Kind.HISTOGRAM else {row.label}
    assert labels_in(expression) <= labels, where


def test_every_panel_and_alert_is_told_of():
    page = (ROOT / "docs" / "metrics.md").read_text()
    for alert, _ in alerts():
        assert f"`{alert}`" in page, f"docs/metrics.md does not say what to do about {alert}"
    panel_ids = [panel["id"] for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]]
    assert sorted(panel_ids) == sorted(set(panel_ids))


def test_a_metric_that_is_not_there_is_found():
    assert row_of("mooring_connections_total") is None
    assert row_of("mooring_accepted") is None
    assert row_of("mooring_handler_seconds") is None
    assert row_of("mooring_gone_total") is None
    assert row_of("mooring_handler_seconds_bucket") is ROWS["mooring_handler_seconds"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is of Debian's package prometheus")
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool(command: tuple[str, ...]):
    """The rules are well formed, and fire when they should: alerts_test.yml."""
    done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
