"""The benches that are about this server's processes work; what they measure is for quiet machines."""

import json
import subprocess
import sys

from support.serving import ROOT


def test_the_wait_for_a_successor_is_measured(tmp_path):
    out = tmp_path / "successor.json"
    bench = [sys.executable, ROOT / "bench" / "successor.py", "--kills", "2", "--load-times", "0.1", "--json", out]
    done = subprocess.run(bench, capture_output=True, text=True, timeout=100, check=True)
    rows = json.loads(out.read_text())["rows"]
    assert [(row["load_time"], row["spares"], row["kills"]) for row in rows] == [(0.1, 0, 2), (0.1, 1, 2)]
    assert all(0 < row["median_ms"] <= row["p99_ms"] for row in rows)
    assert len(done.stdout.splitlines()) == 5
