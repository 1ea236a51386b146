"""Puts what was measured into the README and the manual.

    python bench/publish.py [RESULT ...]

A RESULT is what compare.py, edge.py, successor.py, files.py (JSON), tools/nothing_lost.py or tools/flatness.py wrote
(.jsonl, one line of JSON per run; of several runs of the same kind the last one counts). What the tables need of it is
kept in bench/published.json, which is committed. The tables are made of that alone, so that a test can tell whether the
pages still say what was measured.
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PUBLISHED = HERE / "published.json"
PAGES = [
    HERE.parent / page
    for page in (
        "README.md",
        "docs/compression.md",
        "docs/guarantees.md",
        "docs/history.md",
        "docs/http.md",
        "docs/supervision.md",
        "docs/tls.md",
    )
]

WHAT = {
    "echo-100x1-32": "echo, 100 connections, 32 B",
    "echo-1000x1-256": "echo, 1,000 connections, 256 B",
    "echo-100x16-32": "echo, 100 connections, 16 deep, 32 B",
    "echo-20x1-64k": "echo, 20 connections, 64 KiB",
    "fanout-1000-128": "fan-out to 1,000, 128 B, per delivery",
    "http-100": "HTTP, 100 connections",
    "connect-50": "handshakes, 50 at a time",
}
EDGE = {
    "tls-256": ("TLS, echo of 256 B", "picows"),
    "tls-16k": ("TLS, echo of 16 KiB", "picows"),
    "deflate-1k": ("permessage-deflate, echo of 1 KiB", "websockets"),
    "deflate-kept-1k": ("permessage-deflate, windows kept", "websockets"),
}
FILES = {
    "left-process": "sent by the gateway, process mode",
    "read-process": "read by the worker at once, process mode",
    "pieces-process": "written by a handler in pieces, process mode",
    "left-base": "sent by the gateway, base mode",
    "read-base": "read by the worker at once, base mode",
    "pieces-base": "written by a handler in pieces, base mode",
    "aiohttp": "aiohttp's `FileResponse`, one process",
}


TOPICS = {
    "plain": "no history",
    "memory": "kept by the engine",
    "told": "the same, with positions",
    "redis": "kept by Redis, whose own CPU is not counted",
}


def keep(path: Path, published: dict[str, Any]) -> None:
    """Takes what the tables need of one result into `published`."""
    if path.suffix == ".jsonl":
        runs = [json.loads(line) for line in path.read_text().splitlines()]
        if "nemesis" in runs[-1]:
            published["chaos"] = list({run["nemesis"]: condensed_chaos(run) for run in runs}.values())
        else:
            published["flatness"] = condensed_flatness(runs[-1])
        return
    result = json.loads(path.read_text())
    if "summary" in result:
        published.update(condensed(result))
    elif "results" in result and "plain" in result["results"]:
        published["topics"] = condensed_topics(result)
    elif "results" in result:
        published["files"] = condensed_files(result)
    elif isinstance(result["rows"], list):
        published["successor"] = result["rows"]
    else:
        published["edge"] = {"date": result["when"], "rounds": result["rounds"], "rows": result["rows"]}


def condensed(result: dict[str, Any]) -> dict[str, Any]:
    """What the first table needs of compare.py's result."""
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


def condensed_chaos(run: dict[str, Any]) -> dict[str, Any]:
    names = ("nemesis", "seed", "seconds", "sent", "uncertain", "indeterminate", "acts", "bound", "latency_ms")
    return {name: run[name] for name in names} | {"faults": sum(run["faults"].values())}


def condensed_flatness(run: dict[str, Any]) -> dict[str, Any]:
    """Of each process the bytes that it had at last, and that it has gained if it lived through all of it."""
    parts = {}
    for name in ("reloads", "connections"):
        processes = {
            title: {"rss": one["rss"], "rss_gain": one.get("rss_gain")} for title, one in run[name]["processes"].items()
        }
        parts[name] = {key: run[name][key] for key in ("done", "rounds")} | {"processes": processes}
    return parts | {"faults": len(run["faults"])}


def condensed_files(result: dict[str, Any]) -> dict[str, Any]:
    """Of each way and size the CPU seconds per GiB."""
    rows = {}
    for way, by_size in result["results"].items():
        costs = {size: statistics.median(costs) for size, costs in by_size.items() if costs}
        rows[way] = {size: round(cost * (1 << 30) / int(size), 3) for size, cost in costs.items()}
    return {"date": result["when"], "rounds": result["rounds"], "rows": rows}


def condensed_topics(result: dict[str, Any]) -> dict[str, Any]:
    """Of each kind and number of hearers: CPU microseconds per publication, and publications per second."""
    rows = {}
    for kind, by_hearers in result["results"].items():
        middles = {n: [statistics.median(one) for one in zip(*found, strict=True)] for n, found in by_hearers.items()}
        rows[kind] = {hearers: [round(cost * 1e6, 1), round(rate)] for hearers, (cost, rate) in middles.items()}
    return {"date": result["when"], "rounds": result["rounds"], "rows": rows}


# ---------------------------------------------------------------------------------------------------------
# The tables


def figures(published: dict[str, Any]) -> str:
    """CPU per message and memory per connection beside other servers."""
    peers, baseline = published["peers"], published["baseline"]
    lines = [
        "CPU time of all server processes per message, in microseconds, and in brackets as a multiple of",
        f"{baseline}'s (of websockets's, where messages are compressed); one worker each, less is better.",
        "",
        "| | " + " | ".join(peers) + " |",
        "|---" * (len(peers) + 1) + "|",
    ]
    for scenario, what in WHAT.items():
        if scenario in published["rows"]:
            cells = [cell(published["rows"][scenario].get(peer), peer == baseline) for peer in peers]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    edge = published.get("edge", {"rows": {}})["rows"]
    for scenario, (what, other) in EDGE.items():
        if scenario in edge:
            cells = [cell(edge[scenario].get(peer), peer == other) for peer in peers]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    idle = published["rows"].get("idle-10000")
    if idle:
        lines.append("| memory per idle connection, of 10,000 | " + " | ".join(memory(idle, peers)) + " |")
    if "deflate-kept-1k" in edge:
        lines.append(
            "| ... with windows kept, after a message | " + " | ".join(memory(edge["deflate-kept-1k"], peers)) + " |"
        )
    lines += [
        "",
        f"Measured on {published['date']} with `make bench`: {published['rounds']} interleaved rounds of "
        f"{published['seconds']:g} s, a fresh server for each,",
        f"server and load generator on one CPU each ({published['cpu']}, {published['cpus']} CPUs in all);",
        "medians, ratios within a round. Much of each figure is the kernel's share, which is the same for all.",
    ]
    return "\n".join(lines)


def cell(row: dict[str, Any] | None, baseline: bool) -> str:
    if not row or row["us_per_op"] is None:
        return "-"
    ratio = "" if baseline or row["us_ratio"] is None else f" ({row['us_ratio']:.2f})"
    return f"{row['us_per_op']:.2f}{ratio}"


def memory(rows: dict[str, Any], peers: list[str]) -> list[str]:
    return [f"{rows[peer]['pss_bytes_per_conn']:,.0f} B" if rows.get(peer) else "-" for peer in peers]


def successor(published: dict[str, Any]) -> str:
    """How long clients of a killed worker wait."""
    lines = [
        "| application loads in | spare workers | kills | median | p99 |",
        "|---|---|---|---|---|",
    ]
    for row in published.get("successor", []):
        lines.append(
            f"| {row['load_time']:g} s | {row['spares']} | {row['kills']} | {row['median_ms']:,.0f} ms | "
            f"{row['p99_ms']:,.0f} ms |"
        )
    return "\n".join(lines)


def chaos(published: dict[str, Any]) -> str:
    """What was lost while everything was done to it."""
    lines = [
        "| what is done to it | how often | messages | lost, doubled, reordered ... | uncertain | 3/N "
        "| answered after (median, p99, longest) |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in published.get("chaos", []):
        acts = ", ".join(f"{count:,} x {name}" for name, count in run["acts"].items()) or "all the time"
        uncertain = f"{run['uncertain']:,}"
        if run["indeterminate"]:
            uncertain += f"; in flight with a gateway that was killed: {run['indeterminate']:,}"
        bound = "-" if run["faults"] else f"{run['bound']:.1e}"
        waits = ", ".join(f"{wait:,.0f} ms" for wait in run["latency_ms"].values())
        lines.append(
            f"| {run['nemesis']} | {acts} | {run['sent']:,} in {run['seconds']:.0f} s | {run['faults']} | "
            f"{uncertain} | {bound} | {waits} |"
        )
    return "\n".join(lines)


def flatness(published: dict[str, Any]) -> str:
    """What has grown over many reloads and connections."""
    measured = published["flatness"]
    parts = [measured["reloads"], measured["connections"]]
    lines = [f"| | {parts[0]['done']:,} reloads | {parts[1]['done']:,} connections |", "|---|---|---|"]
    if not measured["faults"]:
        looks = [f"the same at all {part['rounds']} looks" for part in parts]
        lines.append("| processes, descriptors, threads | " + " | ".join(looks) + " |")
    for title in parts[0]["processes"]:
        cells = []
        for part in parts:
            one = part["processes"][title]
            size = f"{one['rss'] / 1e6:.1f} MB"
            grown = one["rss_gain"]
            cells.append(f"a new one each time, {size}" if grown is None else f"{size}, {grown / 1024:+.0f} KiB")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def files(published: dict[str, Any]) -> str:
    """What it costs to serve files, by the way that they take."""
    measured = published["files"]
    sizes = list(measured["rows"]["left-process"])
    heads = [f"{int(size) >> 20} MiB" if int(size) >> 20 else f"{int(size) >> 10} KiB" for size in sizes]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(sizes) + 1) + "|"]
    for way, what in FILES.items():
        cells = [f"{cost:.2f}" if (cost := measured["rows"][way].get(size)) else "-" for size in sizes]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Medians of {measured['rounds']} rounds on {measured['date']}."])


def topics(published: dict[str, Any]) -> str:
    """What a topic with a history costs."""
    measured = published["topics"]
    hearers = list(measured["rows"]["plain"])
    heads = [f"{int(number):,} subscribers" if number != "1" else "1 subscriber" for number in hearers]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(hearers) + 1) + "|"]
    for kind, what in TOPICS.items():
        if kind in measured["rows"]:
            cells = [f"{cost:.1f} us, {rate:,}/s" for cost, rate in measured["rows"][kind].values()]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Medians of {measured['rounds']} rounds on {measured['date']}."])


def edge(published: dict[str, Any], scenarios: tuple[str, ...]) -> str:
    """What TLS or compression costs."""
    measured, peers = published["edge"], published["peers"]
    rows = {name: measured["rows"][name] for name in scenarios}
    peers = [peer for peer in peers if any(peer in row for row in rows.values())]
    lines = ["| | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for name, row in rows.items():
        what, other = EDGE[name]
        lines.append(f"| {what} | " + " | ".join(cell(row.get(peer), peer == other) for peer in peers) + " |")
        lines.append("| memory of a connection | " + " | ".join(memory(row, peers)) + " |")
    return "\n".join([*lines, "", f"Medians of {measured['rounds']} rounds on {measured['date']}."])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "figures": figures,
    "successor": successor,
    "chaos": chaos,
    "flatness": flatness,
    "files": files,
    "topics": topics,
    "tls": lambda published: edge(published, ("tls-256", "tls-16k")),
    "compression": lambda published: edge(published, ("deflate-1k", "deflate-kept-1k")),
}


def with_tables(text: str, published: dict[str, Any]) -> str:
    """The text with each table between its marks."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by bench/publish.py -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}{table(published)}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> None:
    published = json.loads(PUBLISHED.read_text())
    for path in sys.argv[1:]:
        keep(Path(path), published)
    if len(sys.argv) > 1:
        PUBLISHED.write_text(json.dumps(published, indent=1) + "\n")
    for page in PAGES:
        page.write_text(with_tables(page.read_text(), published))


if __name__ == "__main__":
    main()
