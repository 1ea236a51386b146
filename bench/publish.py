"""Puts the figures of a comparison into the README.

    python bench/publish.py [bench/results/latest.json]

With a result of compare.py it first keeps what the table needs in bench/published.json, which is committed. The table
is made of that alone, so that a test can tell whether README.md still says what was measured.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PUBLISHED = HERE / "published.json"
README = HERE.parent / "README.md"
BEGIN = "<!-- figures: written by bench/publish.py -->\n"
END = "<!-- end of figures -->"

WHAT = {
    "echo-100x1-32": "echo, 100 connections, 32 B",
    "echo-1000x1-256": "echo, 1,000 connections, 256 B",
    "echo-100x16-32": "echo, 100 connections, 16 deep, 32 B",
    "echo-20x1-64k": "echo, 20 connections, 64 KiB",
    "fanout-1000-128": "fan-out to 1,000, 128 B, per delivery",
    "http-100": "HTTP, 100 connections",
    "connect-50": "handshakes, 50 at a time",
}


def condense(result: dict[str, Any]) -> dict[str, Any]:
    """What the table needs of compare.py's result."""
    rows = {}
    for scenario, peers in result["summary"].items():
        rows[scenario] = {
            row["peer"]: {key: row.get(key) for key in ("us_per_op", "us_ratio", "pss_bytes_per_conn")} for row in peers
        }
    return {
        "date": result["when"][:10],
        "cpus": result["machine"]["cpus"],
        "cpu": result["machine"]["cpu"],
        "rounds": result["options"]["rounds"],
        "seconds": result["options"]["seconds"],
        "baseline": result["baseline"],
        "peers": [peer["name"] for peer in result["peers"]],
        "rows": rows,
    }


def table(published: dict[str, Any]) -> str:
    """The part of the README between the two marks."""
    peers, baseline = published["peers"], published["baseline"]
    lines = [
        "CPU time of all server processes per message, in microseconds, and in brackets as a multiple of",
        f"{baseline}'s; one worker each, less is better.",
        "",
        "| | " + " | ".join(peers) + " |",
        "|---" * (len(peers) + 1) + "|",
    ]
    for scenario, what in WHAT.items():
        if scenario in published["rows"]:
            cells = [cell(published["rows"][scenario].get(peer), peer == baseline) for peer in peers]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    idle = published["rows"].get("idle-10000")
    if idle:
        cells = [f"{idle[peer]['pss_bytes_per_conn']:,.0f} B" if idle.get(peer) else "-" for peer in peers]
        lines.append("| memory per idle connection, of 10,000 | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Measured on {published['date']} with `make bench`: {published['rounds']} interleaved rounds of "
        f"{published['seconds']:g} s, a fresh server for each,",
        f"server and load generator on one CPU each ({published['cpu']}, {published['cpus']} CPUs in all);",
        "medians, ratios within a round. Much of each figure is the kernel's share, which is the same for all.",
        "",
    ]
    return "\n".join(lines)


def cell(row: dict[str, Any] | None, baseline: bool) -> str:
    if not row or row["us_per_op"] is None:
        return "-"
    ratio = "" if baseline or row["us_ratio"] is None else f" ({row['us_ratio']:.2f})"
    return f"{row['us_per_op']:.2f}{ratio}"


def with_table(readme: str, published: dict[str, Any]) -> str:
    """The README with that table in its place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(published)}{END}{after}"


def main() -> None:
    if len(sys.argv) > 1:
        found = condense(json.loads(Path(sys.argv[1]).read_text()))
        PUBLISHED.write_text(json.dumps(found, indent=1) + "\n")
    README.write_text(with_table(README.read_text(), json.loads(PUBLISHED.read_text())))


if __name__ == "__main__":
    main()
