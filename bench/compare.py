#!/usr/bin/env python3
"""Measures WebSocket/HTTP servers side by side with wsload.

Every run starts a fresh server, loads it, and stops it.  The runs are interleaved:
round by round, scenario by scenario, every peer in turn (the first peer changes from
round to round), so that whatever else the machine does hits all peers alike.  The
tables give medians over the rounds, and of the ratios to a baseline peer within a round.

    compare.py --peers peers.json --baseline mine
    compare.py --peer 'mine=./serve --port {port}' --peer 'other=./other {port}' \\
               --scenario echo-100x1-32 --scenario 'big=echo -c 4 -s 1000000' --rounds 5

A peer's command holds {port}, and may hold {workers}.  It listens on 127.0.0.1 and
offers "/" (echo), "/fanout" (broadcast) and GET /hello (the text "hello").  The peers
file is JSON:

    {"peers": {"NAME": "COMMAND",
               "NAME": {"command": "COMMAND", "env": {"KEY": "VALUE"},
                        "paths": {"echo": "/other"},
                        "skip": {"SCENARIO or MODE": "reason"}}}}
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import random
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
START_TIMEOUT = 20.0  # seconds a server may take until it waits for clients
SETTLE_TIME = 0.5  # seconds in which it keeps less than a twentieth of a CPU busy then
STOP_TIMEOUT = 4.0  # from SIGTERM to SIGKILL
LOAD_SLACK = 60.0  # what wsload may take beyond its measuring time
CLIENT_BOUND = 0.85  # CPU share of wsload above which it may be the bottleneck


# ------------------------------------------------------------------- scenarios


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    mode: str
    args: tuple

    @property
    def lower_is_better(self):
        return self.mode == "idle"

    def metric(self, result):
        """The number that peers are compared by."""
        if self.mode == "idle":
            return result["server"]["pss_bytes_per_conn"]
        return result["rate"]


DEFAULT_SCENARIOS = {
    "echo-1x1-256": "echo -c 1 -d 1 -s 256",
    "echo-100x1-32": "echo -c 100 -d 1 -s 32",
    "echo-1000x1-256": "echo -c 1000 -d 1 -s 256",
    "echo-100x16-32": "echo -c 100 -d 16 -s 32",
    "echo-20x1-64k": "echo -c 20 -d 1 -s 65536",
    "http-100": "http -c 100 --expect hello",
    "connect-50": "connect -c 50 --src 16",
    "fanout-1000-128": "fanout -c 1000 -s 128",
    "idle-10000": "idle -c 10000 --src 4",
}
MORE_SCENARIOS = {
    "text-100x1-32": "echo -c 100 -d 1 -s 32 --text",
    "text-100x16-256": "echo -c 100 -d 16 -s 256 --text",
    "echo-4x1-1m": "echo -c 4 -d 1 -s 1000000",
    "idle-10000-touched": "idle -c 10000 --src 4 --touch",
}
PATHS = {"echo": "/", "connect": "/", "idle": "/", "fanout": "/fanout", "http": "/hello"}


def parse_scenario(text):
    """A scenario from its name, or from NAME=MODE ARGUMENTS."""
    name, equals, definition = text.partition("=")
    if not equals:
        definition = {**DEFAULT_SCENARIOS, **MORE_SCENARIOS}.get(name)
        if definition is None:
            raise SystemExit(f"no scenario {name!r}; --list shows them")
    mode, *args = shlex.split(definition)
    if mode not in PATHS:
        raise SystemExit(f"scenario {name}: no mode {mode!r}")
    return Scenario(name, mode, tuple(args))


# ------------------------------------------------------------------------ peers


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    command: str
    env: dict = dataclasses.field(default_factory=dict)
    paths: dict = dataclasses.field(default_factory=dict)
    skip: dict = dataclasses.field(default_factory=dict)
    note: str = ""

    def why_skipped(self, scenario):
        return self.skip.get(scenario.name) or self.skip.get(scenario.mode)


def load_peers(options):
    peers = {}
    if options.peers:
        for name, entry in json.loads(pathlib.Path(options.peers).read_text())["peers"].items():
            entry = {"command": entry} if isinstance(entry, str) else entry
            try:
                peers[name] = Peer(name, **entry)
            except TypeError as error:
                raise SystemExit(f"{options.peers}: {name}: {error}") from None
    for text in options.peer:
        name, equals, command = text.partition("=")
        if not equals:
            raise SystemExit(f"--peer takes NAME=COMMAND, not {text!r}")
        peers[name] = Peer(name, command)
    if options.only:
        names = options.only.split(",")
        unknown = set(names) - set(peers)
        if unknown:
            raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}")
        peers = {name: peers[name] for name in names}
    if not peers:
        raise SystemExit("no peers: give --peers FILE or --peer NAME=COMMAND")
    return list(peers.values())


# -------------------------------------------------------------------- processes


def process_table():
    """{pid: (parent, session, start time)} of every process."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = pathlib.Path("/proc", entry, "stat").read_text(errors="replace")
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            table[int(entry)] = int(fields[1]), int(fields[3]), int(fields[19])
    return table


def family(root):
    """{pid: start time} of root, its descendants and all in the session it leads."""
    table = process_table()
    found = {pid for pid, (_, session, _) in table.items() if pid == root or session == root}
    while True:
        more = {pid for pid, (parent, _, _) in table.items() if parent in found} - found
        if not more:
            return {pid: table[pid][2] for pid in found}
        found |= more


def cpu_seconds(root):
    """User and system time of a process and its descendants, dead children not counted."""
    ticks = 0
    for pid in family(root):
        with contextlib.suppress(OSError):
            text = pathlib.Path("/proc", str(pid), "stat").read_text()
            fields = text[text.rindex(")") + 2 :].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def free_port():
    """A port outside the range that outgoing connections get theirs from."""
    while True:
        port = random.randrange(10000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Failure(Exception):
    """A run that gave no result."""


class Server:
    """A peer's server process, on a port of its own, for the time of a with statement."""

    def __init__(self, peer, prefix, workers, log):
        self.peer, self.prefix, self.workers, self.log = peer, prefix, workers, log
        self.port = free_port()

    def __enter__(self):
        command = self.peer.command.format(port=self.port, workers=self.workers)
        try:
            self.process = subprocess.Popen(
                self.prefix + shlex.split(command),
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.peer.env},
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"cannot start: {error}") from None
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self):
        """Until its port accepts and all its processes wait: one that still starts has not its size yet."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"server ended at once, status {self.process.returncode}" + self.last_words())
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
                continue
            before = cpu_seconds(self.process.pid)
            time.sleep(SETTLE_TIME)
            if cpu_seconds(self.process.pid) - before < SETTLE_TIME / 20:
                return
        raise Failure("it did not get ready" + self.last_words())

    def last_words(self):
        """The end of the server's output, for an error message."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    def stop(self):
        """Ends the server and everything it started, each by its own process id."""
        members = family(self.process.pid)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        deadline = time.monotonic() + 1
        while True:
            table = process_table()
            left = [pid for pid, start in members.items() if pid in table and table[pid][2] == start]
            if self.process.poll() is not None and self.process.pid in left:
                left.remove(self.process.pid)
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def busy_seconds():
    """CPU seconds this machine has spent on work of any kind."""
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def foreign_load(seconds=0.25):
    """How many CPUs others keep busy right now."""
    before, start = busy_seconds(), time.monotonic()
    time.sleep(seconds)
    return round((busy_seconds() - before) / (time.monotonic() - start), 2)


# ---------------------------------------------------------------------- measuring


class Bench:
    def __init__(self, options, peers, scenarios, wsload):
        self.options, self.peers, self.scenarios, self.wsload = options, peers, scenarios, wsload
        pin = not options.no_pin
        self.server_prefix = ["taskset", "-c", options.server_cpus] if pin else []
        self.client_prefix = ["taskset", "-c", options.client_cpus] if pin else []
        self.runs = []

    def run_all(self):
        total = self.options.rounds * len(self.scenarios) * len(self.peers)
        for number in range(self.options.rounds):
            turn = number % len(self.peers)
            for scenario in self.scenarios:
                for peer in self.peers[turn:] + self.peers[:turn]:
                    run = self.run_one(peer, scenario)
                    run.update(round=number, scenario=scenario.name, peer=peer.name)
                    self.runs.append(run)
                    print(
                        f"[{len(self.runs)}/{total}] {scenario.name:<18} {peer.name:<16} "
                        + describe_run(scenario, run),
                        file=sys.stderr,
                        flush=True,
                    )

    def run_one(self, peer, scenario):
        reason = peer.why_skipped(scenario)
        if reason:
            return {"ok": False, "skipped": reason}
        run = {"ok": False, "foreign_load": foreign_load()}
        with tempfile.TemporaryFile() as log:
            try:
                with Server(peer, self.server_prefix, self.options.workers, log) as server:
                    result = self.load(peer, scenario, server)
                    if not result["ok"]:
                        raise Failure(result["error"])
                    run.update(ok=True, result=result)
            except Failure as failure:
                run["error"] = str(failure)
        return run

    def load(self, peer, scenario, server):
        path = peer.paths.get(scenario.mode, PATHS[scenario.mode])
        seconds = self.options.seconds
        command = [
            *self.client_prefix,
            self.wsload,
            scenario.mode,
            f"http://127.0.0.1:{server.port}{path}",
            *scenario.args,
            "-t",
            str(seconds),
            "-w",
            str(self.options.warmup),
            "-p",
            str(server.process.pid),
        ]
        if self.options.text and scenario.mode in ("echo", "fanout"):
            command.append("--text")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + LOAD_SLACK)
        except subprocess.TimeoutExpired:
            raise Failure("wsload did not come to an end") from None
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Failure(done.stderr.strip() or f"wsload: status {done.returncode}") from None


def describe_run(scenario, run):
    if not run["ok"]:
        return f"skipped: {run['skipped']}" if "skipped" in run else f"FAILED: {run['error']}"
    result = run["result"]
    if scenario.mode == "idle":
        return f"{result['count']:>12,} alive   {scenario.metric(result):,.0f} B/connection"
    return f"{result['rate']:>12,.0f}/s   {result['server']['us_per_op']:.2f} CPU-us"


# ------------------------------------------------------------------------ summary


def median_ratio(pick, runs, baseline_runs):
    """The median over the rounds of a run's number by that of the baseline's run."""
    base = {run["round"]: pick(run["result"]) for run in baseline_runs if run["ok"]}
    ratios = [pick(run["result"]) / base[run["round"]] for run in runs if run["ok"] and base.get(run["round"])]
    return statistics.median(ratios) if ratios else None


def summarize(scenario, peer, runs, baseline_runs):
    """One row of a table: medians over the rounds that went well."""
    good = [run["result"] for run in runs if run["ok"]]
    row = {"peer": peer.name, "rounds": len(runs), "good": len(good)}
    errors = sorted({run.get("error") or run.get("skipped") for run in runs if not run["ok"]})
    if errors:
        row["error"] = "; ".join(errors)
    if any("skipped" in run for run in runs):
        row["skipped"] = True
    if not good:
        return row

    def median(pick):
        return statistics.median(pick(result) for result in good)

    values = [scenario.metric(result) for result in good]
    row["value"] = statistics.median(values)
    row["spread"] = (max(values) - min(values)) / row["value"] if row["value"] else 0
    row["ratio"] = median_ratio(scenario.metric, runs, baseline_runs)
    row["client_busy"] = median(lambda r: r["client"]["busy"])
    row["server_busy"] = median(lambda r: (r["server"]["user_s"] + r["server"]["sys_s"]) / r["seconds"])
    row["rss_kb"] = median(lambda r: r["server"]["rss_kb"])
    row["pss_kb"] = median(lambda r: r["server"]["pss_kb"])
    if scenario.mode == "idle":
        row["alive"] = median(lambda r: r["count"])
        row["rss_bytes_per_conn"] = median(lambda r: r["server"]["rss_bytes_per_conn"])
        row["pss_bytes_per_conn"] = median(lambda r: r["server"]["pss_bytes_per_conn"])
        return row
    row["us_per_op"] = median(lambda r: r["server"]["us_per_op"])
    row["us_ratio"] = median_ratio(lambda r: r["server"]["us_per_op"], runs, baseline_runs)
    row["p50_us"] = median(lambda r: r["lat_us"]["p50"])
    row["p99_us"] = median(lambda r: r["lat_us"]["p99"])
    if scenario.mode == "http":
        row["reconnects"] = median(lambda r: r["reconnects"] / r["count"])  # per answer
    return row


def summaries(bench, baseline_name):
    """{scenario: its rows, best first, then those that failed}."""
    tables = {}
    for scenario in bench.scenarios:
        runs = {
            peer.name: [run for run in bench.runs if run["scenario"] == scenario.name and run["peer"] == peer.name]
            for peer in bench.peers
        }
        rows = [summarize(scenario, peer, runs[peer.name], runs[baseline_name]) for peer in bench.peers]
        sign = 1 if scenario.lower_is_better else -1
        rows.sort(key=lambda row: (0, sign * row["value"]) if "value" in row else (1, 0))
        tables[scenario.name] = rows
    return tables


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def remark(row):
    notes = []
    if row["client_busy"] > max(CLIENT_BOUND, row["server_busy"]):
        notes.append("client-bound")
    if row.get("reconnects", 0) > 0.5:
        notes.append("no keep-alive")
    elif row.get("reconnects"):
        notes.append(f"reconnects after {1 / row['reconnects']:,.0f} answers")
    if row.get("error"):
        notes.append(f"{row['rounds'] - row['good']} of {row['rounds']} rounds FAILED: " + row["error"])
    return "; ".join(notes)


def table_text(scenario, rows, baseline):
    idle = scenario.mode == "idle"
    if idle:
        head = [
            "peer",
            "PSS B/conn",
            "spread",
            f"x {baseline}",
            "RSS B/conn",
            "alive",
            "RSS MiB",
            "srv",
            "cli",
            "",
        ]
    else:
        head = [
            "peer",
            "per s",
            "spread",
            f"x {baseline}",
            "CPU-us/op",
            f"x {baseline}",
            "p50 us",
            "p99 us",
            "srv",
            "cli",
            "",
        ]
    lines = [head]
    failures = []
    for row in rows:
        if "value" not in row:
            word = "skipped" if row.get("skipped") else "FAILED"
            failures.append(f"  {row['peer']}  {word}: {row['error']}")
            continue
        spread = f"{row['spread']:.0%}" if row["good"] > 1 else "-"
        first = [row["peer"], number(row["value"]), spread, number(row.get("ratio"), 2)]
        if idle:
            middle = [
                number(row["rss_bytes_per_conn"]),
                number(row["alive"]),
                number(row["rss_kb"] / 1024, 1),
            ]
        else:
            middle = [
                number(row["us_per_op"], 2),
                number(row.get("us_ratio"), 2),
                number(row["p50_us"]),
                number(row["p99_us"]),
            ]
        lines.append(first + middle + [number(row["server_busy"], 2), number(row["client_busy"], 2), remark(row)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    widths[-1] = 0
    title = f"{scenario.name}   (wsload {scenario.mode} {' '.join(scenario.args)})"
    out = ["", title, "-" * len(title)]
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=False)]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out + failures)


LEGEND = """
per s: median over the rounds; spread: (max - min) / median; x NAME: ratio to that peer
(the median of the ratios within each round).
CPU-us/op: CPU time of all the server's processes per message (handshake, delivery, request).
srv, cli: CPUs the server and wsload kept busy; "client-bound": wsload was busier than the
server, which could do more: compare CPU-us/op.
fanout: p50, p99 from the send to the last subscriber's delivery.  idle: less is better."""


def machine():
    model = [
        line.split(":", 1)[1].strip()
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else "",
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "load": os.getloadavg(),
    }


# --------------------------------------------------------------------------- main


def parse_options(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peers", metavar="FILE", help="JSON file of peers")
    add("--peer", metavar="NAME=COMMAND", action="append", default=[], help="a further peer")
    add("--only", metavar="A,B", help="just these of the peers")
    add(
        "--scenario",
        metavar="S",
        action="append",
        help="a scenario's name, or NAME=MODE ARGUMENTS (default: the default ones)",
    )
    add("--list", action="store_true", help="list scenarios and peers, and end")
    add("--rounds", type=int, default=3, metavar="R")
    add("--seconds", type=float, default=3, metavar="T", help="measured in each run")
    add("--warmup", type=float, default=0.5, metavar="W", help="seconds of load before that")
    add("--baseline", metavar="NAME", help="peer of the ratios (default: the first)")
    add("--text", action="store_true", help="text messages instead of binary ones")
    add("--workers", type=int, default=1, help="what {workers} stands for")
    add("--server-cpus", default="0", metavar="LIST")
    add("--client-cpus", default="1", metavar="LIST")
    add("--no-pin", action="store_true", help="leave the CPUs to the scheduler")
    add("--wsload", metavar="FILE", help="the program (default: built from wsload.c)")
    add("--json", metavar="FILE", help="write all results there")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    return options


def build_wsload(folder):
    target = str(pathlib.Path(folder, "wsload"))
    subprocess.run(["cc", "-O3", "-march=native", "-o", target, str(HERE / "wsload.c")], check=True)
    return target


def main(argv=None):
    options = parse_options(argv)
    if options.list:
        for title, group in ("default", DEFAULT_SCENARIOS), ("more", MORE_SCENARIOS):
            print(f"{title}:")
            for name, definition in group.items():
                print(f"  {name:<20} {definition}")
        if options.peers or options.peer:
            print("peers:")
            for peer in load_peers(options):
                print(f"  {peer.name:<20} {peer.command}  {peer.note}")
        return 0
    peers = load_peers(options)
    scenarios = [parse_scenario(text) for text in options.scenario or DEFAULT_SCENARIOS]
    baseline = options.baseline or peers[0].name
    if baseline not in [peer.name for peer in peers]:
        raise SystemExit(f"the baseline {baseline!r} is not among the peers")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, peers, scenarios, options.wsload or build_wsload(folder))
        about = {
            "when": datetime.datetime.now().isoformat(timespec="seconds"),
            "machine": machine(),
            "options": vars(options),
            "baseline": baseline,
            "peers": [dataclasses.asdict(peer) for peer in peers],
            "scenarios": [dataclasses.asdict(scenario) for scenario in scenarios],
        }
        try:
            bench.run_all()
        except KeyboardInterrupt:
            print("interrupted; what there is:", file=sys.stderr)
    tables = summaries(bench, baseline)
    for scenario in scenarios:
        print(table_text(scenario, tables[scenario.name], baseline))
    print(LEGEND)
    foreign = [run["foreign_load"] for run in bench.runs if "foreign_load" in run]
    if foreign and statistics.median(foreign) > 0.1:
        print(
            f"WARNING: others kept {statistics.median(foreign):.2f} CPUs busy (median); these numbers are not reliable."
        )
    if options.json:
        text = json.dumps({**about, "runs": bench.runs, "summary": tables}, indent=1)
        pathlib.Path(options.json).write_text(text + "\n")
    return 0 if all(run["ok"] or "skipped" in run for run in bench.runs) else 1


if __name__ == "__main__":
    sys.exit(main())
