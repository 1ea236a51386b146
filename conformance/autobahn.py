#!/usr/bin/env python3
"""Run the Autobahn fuzzing client against a WebSocket echo server and judge the result.

    python3 autobahn.py ws://127.0.0.1:9001/            all cases (1-7, 9, 10, 12, 13)
    python3 autobahn.py --core ws://127.0.0.1:9001/     1-7, 9, 10: the protocol without deflate
    python3 autobahn.py --quick ws://127.0.0.1:9001/    no 9.*, 12/13 only with short messages
    python3 autobahn.py --cases '1.*,7.7.5' URL         these cases only

The test suite is Python 2 code (every release of it on PyPI, whatever its metadata
says), so it runs in a virtual environment of its own made with a Python 2.7 that must
be on the machine (on PATH, under ~/.pyenv/versions, or named by --python27 or
$AUTOBAHN_PYTHON27).  The environment is made on first use; its place is --venv,
$AUTOBAHN_VENV, or ~/.cache/ws-conformance/autobahn.

A server passes when no case is FAILED, no case is MISSING (the server died or refused
a connection) and, unless --allow-unimplemented is given, none of 12/13 is UNIMPLEMENTED
(the server declined permessage-deflate).  Exit: 0 pass, 1 fail, 2 the rig could not run.

Standard library only; Python 3.11 or newer.
"""

import argparse
import collections
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

SUITE = "autobahntestsuite==0.8.2"
VIRTUALENV = "virtualenv==20.21.1"  # the last that can make a Python 2.7 environment
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ws-conformance")

GROUPS = ["1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13"]
GROUP_NAMES = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "close",
    "9": "limits",
    "10": "misc",
    "12": "deflate, default offer",
    "13": "deflate, window offers",
}
ALL_CASES = [g + ".*" for g in GROUPS]
# In 12.x.y and 13.x.y, y: 1..4 are 1000 messages of 16..1024 octets, 11 is 8 KiB in
# frames of 256 octets; the others are long.
QUICK_DEFLATE = [f"12.{x}.{y}" for x in range(1, 6) for y in (1, 2, 3, 4, 11)] + [
    f"13.{x}.{y}" for x in range(1, 8) for y in (1, 3, 11)
]
CORE_CASES = [g + ".*" for g in GROUPS if g not in ("12", "13")]
QUICK_CASES = [g + ".*" for g in GROUPS if g not in ("9", "12", "13")] + QUICK_DEFLATE

GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
# How a connection ended, as the suite judges it apart from the case itself.
CLOSE_BAD = ("FAILED", "WRONG CODE")


def note(*a):
    print(*a, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- environment


def works_as_27(path):
    try:
        out = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return out.returncode == 0 and out.stdout.strip() == b"2.7"


def find_python27(given):
    found = [given, os.environ.get("AUTOBAHN_PYTHON27")]
    found += sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/2.7.*/bin/python2.7")), reverse=True)
    found += [shutil.which("python2.7"), shutil.which("python2"), shutil.which("pypy")]
    for path in found:
        if path and works_as_27(path):
            return path
    return None


def wstest_of(venv):
    return os.path.join(venv, "bin", "wstest")


def ready(venv):
    if not os.path.exists(wstest_of(venv)):
        return False
    try:
        out = subprocess.run([wstest_of(venv), "-a"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return b"AutobahnTestSuite" in out.stdout or out.returncode == 0


def run_quiet(cmd, what):
    note(f"autobahn: {what}")
    p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode != 0:
        note(p.stdout.decode("utf-8", "replace")[-4000:])
        note(f"autobahn: failed: {' '.join(cmd)}")
        sys.exit(2)


def make_venv(venv, python27):
    py = find_python27(python27)
    if py is None:
        note("autobahn: no Python 2.7 found; name one with --python27 or $AUTOBAHN_PYTHON27")
        sys.exit(2)
    tmp = tempfile.mkdtemp(prefix="autobahn-boot-")
    try:
        run_quiet([sys.executable, "-m", "venv", tmp], "making a bootstrap environment")
        run_quiet([os.path.join(tmp, "bin", "pip"), "install", "-q", VIRTUALENV], f"installing {VIRTUALENV} into it")
        run_quiet([os.path.join(tmp, "bin", "virtualenv"), "-q", "-p", py, venv], f"making {venv} with {py}")
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    run_quiet(
        [os.path.join(venv, "bin", "pip"), "install", "-q", SUITE],
        f"installing {SUITE} (a minute or two: some of it is compiled)",
    )
    if not ready(venv):
        note("autobahn: wstest does not start in", venv)
        sys.exit(2)


# ---------------------------------------------------------------- the suite


def case_table(venv, cases, exclude):
    """Which case ids the patterns stand for, asked of the suite itself: [(id, description)]."""
    prog = (
        "import json,sys,warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from autobahntestsuite import case\n"
        "from autobahntestsuite.caseset import CaseSet\n"
        "cs=CaseSet(case.CaseSetname,case.CaseBasename,case.Cases,case.CaseCategories,"
        "case.CaseSubCategories)\n"
        "spec=json.loads(sys.argv[1])\n"
        "ids=[str(i) for i in cs.parseSpecCases(spec)]\n"
        "bad=[i for i in ids if i not in cs.CasesById]\n"
        "json.dump([bad,[(i,cs.CasesById[i].DESCRIPTION)"
        " for i in ids if i in cs.CasesById]],sys.stdout)\n"
    )
    p = subprocess.run(
        [
            os.path.join(venv, "bin", "python"),
            "-c",
            prog,
            json.dumps({"cases": cases, "exclude-cases": exclude}),
        ],
        capture_output=True,
    )
    if p.returncode != 0:
        note(p.stderr.decode("utf-8", "replace")[-2000:])
        note("autobahn: could not read the suite's list of cases")
        sys.exit(2)
    bad, rows = json.loads(p.stdout.decode())
    if bad:
        note("autobahn: no such case:", ", ".join(bad))
        sys.exit(2)
    return [(i, d) for i, d in rows]


def probe(url):
    u = urllib.parse.urlsplit(url)
    port = u.port or (443 if u.scheme == "wss" else 80)
    try:
        socket.create_connection((u.hostname, port), timeout=5).close()
    except OSError as e:
        note(f"autobahn: cannot connect to {url}: {e}")
        sys.exit(2)


def run_shard(venv, url, agent, ids, outdir, nice):
    os.makedirs(outdir, exist_ok=True)
    spec = os.path.join(outdir, "spec.json")
    with open(spec, "w") as f:
        json.dump(
            {
                "outdir": os.path.join(outdir, "reports"),
                "options": {"failByDrop": False},
                "servers": [{"agent": agent, "url": url}],
                "cases": ids,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            },
            f,
            indent=1,
        )
    log = open(os.path.join(outdir, "wstest.log"), "wb")  # noqa: SIM115 (closed below, the child keeps it)
    cmd = [wstest_of(venv), "-m", "fuzzingclient", "-s", spec]
    env = dict(os.environ, PYTHONWARNINGS="ignore", PYTHONUNBUFFERED="1")
    p = subprocess.Popen(
        cmd,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=outdir,
        env=env,
        start_new_session=True,
        preexec_fn=(lambda: os.nice(nice)) if nice else None,
    )
    log.close()
    return p


def stop(p):
    if p.poll() is None:
        p.send_signal(signal.SIGTERM)
        try:
            p.wait(5)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


def running_case(outdir):
    last = None
    try:
        with open(os.path.join(outdir, "wstest.log"), "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - 4000))
            for line in f.read().decode("utf-8", "replace").splitlines():
                if line.startswith("Running test case ID "):
                    last = line.split()[4]
    except OSError:
        pass
    return last


def read_reports(outdir):
    """{case id: dict(behavior, close, code, ms, file)} from a shard's index.json."""
    path = os.path.join(outdir, "reports", "index.json")
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        index = json.load(f)
    res = {}
    for agent in index.values():
        for cid, c in agent.items():
            res[cid] = {
                "behavior": c["behavior"],
                "close": c["behaviorClose"],
                "code": c.get("remoteCloseCode"),
                "ms": c.get("duration"),
                "file": os.path.join(outdir, "reports", c["reportfile"]),
            }
    return res


def verdict(r):
    """One word for a case: what it did, worsened by how it closed."""
    if r is None:
        return "MISSING"
    b, c = r["behavior"], r["close"]
    if b in GOOD and c in CLOSE_BAD:
        return "FAILED"
    return b


def detail(r):
    try:
        with open(r["file"]) as f:
            d = json.load(f)
    except (OSError, ValueError, TypeError):
        return {}
    return d


def one_line(text, width=300):
    text = " ".join(re.sub(r"<[^>]*>", " ", str(text or "")).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def prune(folder, keep=10):
    """Old reports in the cache go."""
    old = sorted(glob.glob(os.path.join(folder, "[0-9]*-[0-9]*-[0-9]*")))[:-keep]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def key(cid):
    return [int(x) for x in cid.split(".")]


def parse_args():
    ap = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    ap.add_argument("url", nargs="?", help="ws:// address of an echo server")
    ap.add_argument("--core", action="store_true", help="groups 1-7, 9 and 10")
    ap.add_argument("--quick", action="store_true", help="leave out 9.* and the long ones of 12 and 13")
    ap.add_argument("--cases", metavar="ID,ID", help="case ids or patterns: 1.*,7.7.5")
    ap.add_argument("--exclude", metavar="ID,ID", default="", help="leave these out")
    ap.add_argument("--jobs", type=int, default=1, help="wstest processes at once")
    ap.add_argument(
        "--venv",
        default=os.environ.get("AUTOBAHN_VENV") or os.path.join(CACHE, "autobahn"),
        help="the suite's environment",
    )
    ap.add_argument("--python27", help="a Python 2.7 to make it with")
    ap.add_argument("--setup-only", action="store_true", help="make the environment and stop")
    ap.add_argument("--out", help="folder for the reports (default: a new one in the cache)")
    ap.add_argument("--agent", default="server", help="name for the server in the reports")
    ap.add_argument("--timeout", type=float, default=3600, help="seconds for the whole run")
    ap.add_argument("--nice", type=int, default=5, help="niceness of wstest")
    ap.add_argument(
        "--allow-unimplemented",
        action="store_true",
        help="12/13 UNIMPLEMENTED (no permessage-deflate) is not a failure",
    )
    ap.add_argument("--strict", action="store_true", help="NON-STRICT fails too")
    ap.add_argument("--json", metavar="FILE", help="write a summary there ('-': stdout)")
    ap.add_argument("--slow", type=int, default=0, metavar="N", help="print the N slowest cases")
    ap.add_argument("--verbose", action="store_true", help="say what came, for more than 25 failing cases too")
    ap.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return ap.parse_args()


def main():
    args = parse_args()
    venv = os.path.abspath(os.path.expanduser(args.venv))
    if not ready(venv):
        make_venv(venv, args.python27)
    if args.setup_only:
        print(venv)
        return 0
    if not args.url:
        note("autobahn: which url?")
        return 2
    probe(args.url)

    patterns = (
        args.cases.split(",") if args.cases else QUICK_CASES if args.quick else CORE_CASES if args.core else ALL_CASES
    )
    table = case_table(venv, patterns, [x for x in args.exclude.split(",") if x])
    if not table:
        note("autobahn: no cases match")
        return 2
    descr = dict(table)
    ids = [i for i, _ in table]
    reports = os.path.join(CACHE, "reports")
    out = os.path.abspath(args.out or os.path.join(reports, time.strftime("%Y%m%d-%H%M%S-") + str(os.getpid())))
    os.makedirs(out, exist_ok=True)
    if not args.out:
        prune(reports)

    jobs = max(1, min(args.jobs, len(ids)))
    shards = [ids[i::jobs] for i in range(jobs)]
    dirs = [os.path.join(out, f"part{i}") for i in range(jobs)]
    started = time.time()
    procs = [run_shard(venv, args.url, args.agent, s, d, args.nice) for s, d in zip(shards, dirs, strict=False)]
    timed_out = False
    try:
        shown = 0
        while any(p.poll() is None for p in procs):
            time.sleep(0.2)
            if time.time() - started > args.timeout:
                timed_out = True
                note(f"autobahn: stopped after {args.timeout:.0f} s")
                break
            if not args.quiet and time.time() - shown > 15:
                if shown:
                    note(
                        f"autobahn: {time.time() - started:4.0f} s, at",
                        " and ".join(str(running_case(d)) for d in dirs),
                    )
                shown = time.time()
    finally:
        for p in procs:
            stop(p)
    took = time.time() - started

    results = {}
    for d in dirs:
        results.update(read_reports(d))
    verdicts = {cid: verdict(results.get(cid)) for cid in ids}

    columns = ["OK", "NON-STRICT", "INFORMATIONAL", "FAILED"]
    extra = sorted(set(verdicts.values()) - set(columns))
    columns += extra
    per = collections.OrderedDict()
    for cid in sorted(ids, key=key):
        per.setdefault(cid.split(".")[0], collections.Counter())[verdicts[cid]] += 1
    width = [max(6, len(c)) for c in columns]
    print(f"{'group':<27}{'cases':>6}  " + "  ".join(f"{c:>{w}}" for c, w in zip(columns, width, strict=False)))
    total = collections.Counter()
    for g, c in per.items():
        total.update(c)
        print(
            f"{g + ' ' + GROUP_NAMES.get(g, ''):<27}{sum(c.values()):>6}  "
            + "  ".join(f"{c[k] or '.':>{w}}" for k, w in zip(columns, width, strict=False))
        )
    print(
        f"{'total':<27}{sum(total.values()):>6}  "
        + "  ".join(f"{total[k] or '.':>{w}}" for k, w in zip(columns, width, strict=False))
    )

    bad_words = {"FAILED", "MISSING"}
    if args.strict:
        bad_words.add("NON-STRICT")
    if not args.allow_unimplemented:
        bad_words.add("UNIMPLEMENTED")
    bad_words |= set(extra) - {"UNIMPLEMENTED"}
    failing = [cid for cid in sorted(ids, key=key) if verdicts[cid] in bad_words]
    rows = []
    if failing:
        print("\nfailing:")
        many = set()
        for word, why in (
            ("UNIMPLEMENTED", "the server declined permessage-deflate"),
            ("MISSING", "no connection, so no result: did the server end?"),
        ):
            some = [c for c in failing if verdicts[c] == word]
            if len(some) > 6:
                many.add(word)
                print(f"  {word} ({len(some)} cases, {some[0]} .. {some[-1]}): {why}")
        for cid in failing:
            r = results.get(cid)
            d = detail(r) if r else {}
            row = {
                "case": cid,
                "verdict": verdicts[cid],
                "description": one_line(descr.get(cid)),
                "expectation": one_line(d.get("expectation")),
                "result": one_line(d.get("result")),
                "close": r and r["close"],
                "resultClose": one_line(d.get("resultClose")),
                "code": r and r["code"],
                "report": r and r["file"],
            }
            rows.append(row)
            if verdicts[cid] in many:
                continue
            print(f"  {cid:<9}{verdicts[cid]:<10} {row['description']}")
            if r and (args.verbose or len(failing) <= 25):
                if row["result"]:
                    print(f"  {'':<9}got: {row['result']}")
                if row["close"] not in ("OK", "INFORMATIONAL"):
                    print(f"  {'':<9}close: {row['close']} (code {row['code']}): {row['resultClose']}")
    soft = [c for c in sorted(ids, key=key) if verdicts[c] == "NON-STRICT"]
    if soft and not args.strict:
        print("\nnon-strict (allowed): " + ", ".join(soft))
    unclean = [c for c in sorted(ids, key=key) if results.get(c) and results[c]["close"] == "UNCLEAN"]
    if unclean:
        print("\nended without a clean close, allowed by the suite: " + ", ".join(unclean))
    if args.slow:
        slow = sorted((c for c in ids if results.get(c)), key=lambda c: -(results[c]["ms"] or 0))
        print("\nslowest: " + ", ".join(f"{c} {results[c]['ms'] / 1000:.1f}s" for c in slow[: args.slow]))

    ok = not failing and not timed_out
    print(
        f"\n{sum(total.values()) - len(failing)} passed, {len(failing)} failed"
        f"{' (stopped by the time limit)' if timed_out else ''}; {took:.0f} s; reports in {out}"
    )
    if args.json:
        blob = {
            "url": args.url,
            "seconds": round(took, 1),
            "ok": ok,
            "totals": dict(total),
            "groups": {g: dict(c) for g, c in per.items()},
            "failing": rows,
            "verdicts": {c: verdicts[c] for c in sorted(ids, key=key)},
            "ms": {c: results[c]["ms"] for c in sorted(results, key=key)},
        }
        text = json.dumps(blob, indent=1)
        if args.json == "-":
            print(text)
        else:
            with open(args.json, "w") as f:
                f.write(text + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
