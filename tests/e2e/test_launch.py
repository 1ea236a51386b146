"""How a server was started is how its workers begin: nothing of what the application did meanwhile, nothing less."""

import json
import os
import py_compile
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from e2e.peers import client, in_loop
from support.serving import HOME, LIMIT, Serving, eventually

BOTH = pytest.mark.parametrize(
    "mode",
    [{"mode": "process", "task_worker_num": 1, "spare_worker_num": 1}, {"mode": "base", "worker_num": 2}],
    ids=["process", "base"],
)

# What a program can see of how it was started, said before it does anything.
BEGIN = """
import json, os, resource, signal, sys

def status(name):
    return [line for line in open("/proc/self/status") if line.startswith(name)]

def seen():
    names = vars(sys.modules["__main__"])
    own = {name: names.get(name) for name in ("__name__", "__file__", "__package__", "__spec__", "__loader__")}
    spec, loader = own.pop("__spec__"), own.pop("__loader__")
    return {
        "environ": dict(os.environ),
        "folder": os.getcwd(),
        "nice": os.nice(0),
        "scheduler": [os.sched_getscheduler(0), open("/proc/self/oom_score_adj").read()],
        "umask": status("Umask:"),
        "blocked": status("SigBlk:"),
        "winch": str(signal.getsignal(signal.SIGWINCH)),
        "limits": [resource.getrlimit(number) for number in (resource.RLIMIT_CORE, resource.RLIMIT_STACK)],
        "processors": sorted(os.sched_getaffinity(0)),
        "argv": sys.argv,
        "path": sys.path[:2],
        "flags": str(sys.flags),
        "options": [sys._xoptions, sys.warnoptions, sys.dont_write_bytecode],
        "main": [own, spec and spec.name, type(loader).__name__],
        "own main": names is globals(),
        "executable": sys.executable,
    }

with open(os.environ["SEEN"], "a") as file:
    file.write(json.dumps(seen()) + "\\n")
"""
# What programs do to their process, some of it before they import anything of ours.
SPOIL = """
if os.path.exists("spoil"):
    os.environ["ADDED"] = "by the application"
    os.environ["WAS_THERE"] = "changed"
    os.environ.pop("GOES", None)
    os.chdir("data")
    sys.argv[1:] = ["changed"]
    sys.path.insert(0, "data")
from mooring import Server
if os.path.exists("../spoil"):
    os.nice(3)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 22, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with open("/proc/self/oom_score_adj", "r+") as score:
        score.write("900")
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    signal.signal(signal.SIGWINCH, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    if not os.path.exists("alarm"):  # the first run only: it would end a worker, too
        open("alarm", "w").close()
        signal.alarm(1)
"""
SERVE = """
settings = json.loads(os.environ["MOORING_TEST_SETTINGS"])
server = Server("127.0.0.1", 0, **settings)

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        return 1

server.set(log_file="log")
if __name__ == "__main__":
    server.start()
"""


def seen(folder):
    return [json.loads(line) for line in (folder / "seen").read_text().splitlines()]


def started(tmp_path, argv, env=None, **settings):
    """A server that logs to `log`, with relative paths, in tmp_path."""
    environment = {"SEEN": str(tmp_path / "seen"), "WAS_THERE": "before", "GOES": "never", **(env or {})}
    settings = {"worker_num": 1, **settings}
    return Serving(Path("unused"), argv=tuple(map(str, argv)), cwd=tmp_path, env=environment, ready=False, **settings)


def wait_ready(tmp_path, log, server):
    def ready():
        assert server.process.poll() is None, "\n".join(server.lines)
        return log.exists() and re.search(r"\bready\b", log.read_text())

    eventually(ready)
    server._port = int(log.read_text().partition("listening on 127.0.0.1:")[2].split()[0])


@BOTH
@in_loop(60)
async def test_workers_begin_as_the_server_was_started(tmp_path, mode):
    """Whatever the application has done to its process; and its settings' paths are relative to where it was then."""
    (tmp_path / "spoil").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "app.py").write_text(BEGIN + SPOIL + SERVE)
    options = ["-u", "-bs", "-X", "utf8", "-Xfaulthandler", "-W", "error::FutureWarning", "-Wignore::ImportWarning"]
    with started(tmp_path, [sys.executable, *options, "app.py", "one", "two"], **mode) as server:
        wait_ready(tmp_path, tmp_path / "data" / "log", server)
        wanted = 4 if mode["mode"] == "process" else 3  # with that of the start
        eventually(lambda: len(seen(tmp_path)) == wanted)
        server.signal(signal.SIGHUP)
        eventually(lambda: "reload: done" in (tmp_path / "data" / "log").read_text())
        async with client(server) as ws:
            await ws.send("here")
            assert await ws.recv() == "here"
        assert server.stop() == 0
    first, *others = seen(tmp_path)
    assert len(others) >= wanted
    assert first["folder"] == str(tmp_path)
    for other in others:
        assert other == first
    assert "can't be undone" not in (tmp_path / "data" / "log").read_text()


def script(folder):
    (folder / "app.py").write_text(BEGIN + SPOIL + SERVE)
    return ["app.py"]


def link(folder):
    """A symbolic link, by an absolute path; modules are found beside what it points to."""
    (folder / "real").mkdir()
    (folder / "real" / "app.py").write_text(BEGIN + SPOIL + "import beside\n" + SERVE)
    (folder / "real" / "beside.py").touch()
    (folder / "link.py").symlink_to("real/app.py")
    return [folder / "link.py"]


def module(folder):
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "app.py").write_text(BEGIN + SPOIL + SERVE)
    return ["-m", "package.app"]


def package(folder):
    module(folder)
    (folder / "package" / "app.py").rename(folder / "package" / "__main__.py")
    return ["-m", "package"]


def directory(folder):
    (folder / "code").mkdir()
    (folder / "code" / "__main__.py").write_text(BEGIN + SPOIL + "import beside\n" + SERVE)
    (folder / "code" / "beside.py").touch()
    return ["./code"]


def archive(folder):
    with zipfile.ZipFile(folder / "app.pyz", "w") as file:
        file.writestr("__main__.py", BEGIN + SPOIL + "import beside\n" + SERVE)
        file.writestr("beside.py", "")
    return ["app.pyz"]


def isolated(folder):
    return ["-I", *script(folder)]


def compiled(folder):
    script(folder)
    py_compile.compile(str(folder / "app.py"), str(folder / "app.pyc"))
    return ["app.pyc"]


@pytest.mark.parametrize("way", [script, link, module, package, directory, archive, isolated, compiled])
def test_a_program_is_repeated_as_it_was_started(tmp_path, way):
    """Arguments, the import path, the package it is in, its directory: as the interpreter has them."""
    with started(tmp_path, [sys.executable, *way(tmp_path), "one", "-m", "two words"]) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        assert server.stop() == 0
    first, *others = seen(tmp_path)
    assert first["argv"][1:] == ["one", "-m", "two words"]
    assert len(others) == 1
    assert others[0] == first


def test_without_a_locale(tmp_path):
    """The interpreter sets one for itself, and would find it set in a worker."""
    none = {"LC_ALL": "", "LC_CTYPE": "", "LANG": ""}
    with started(tmp_path, ["env", *map("-u{}".format, none), sys.executable, *script(tmp_path)]) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        assert server.stop() == 0
    first, other = seen(tmp_path)
    assert other == first


def test_warnings_about_encodings_are_no_matter_of_ours(tmp_path):
    options = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning"]
    (tmp_path / "app.py").write_text("import json, os\nfrom mooring import Server\n" + SERVE)
    with started(tmp_path, [sys.executable, *options, "app.py"], watch=["app.py"]) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        assert server.stop() == 0
        assert not [line for line in server.lines if "EncodingWarning" in line]


HELPERS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
start = multiprocessing.get_context("fork")
held = start.Pool(1), start.Manager()
executor = ProcessPoolExecutor(1, start)
executor.submit(abs, 1).result()
start.Process(target=signal.pause, daemon=True).start()
children = [child.pid for child in multiprocessing.active_children()]
open(f"children{os.getpid()}", "w").write(" ".join(map(str, children)))
"""


@BOTH
def test_helpers_of_the_start_end_with_it(tmp_path, mode):
    """The process is another program then, and nobody would ever talk to them or end them."""
    (tmp_path / "app.py").write_text(BEGIN + "from mooring import Server\n" + HELPERS + SERVE)
    with started(tmp_path, [sys.executable, "app.py"], **mode) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        children = (tmp_path / f"children{server.process.pid}").read_text().split()
        assert len(children) == 4
        eventually(lambda: not [pid for pid in children if runs(pid)])
        assert server.stop() == 0


def runs(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_target_begins_where_the_command_was_given(tmp_path):
    """`mooring run`, of an application that changes its directory; relative entries of PYTHONPATH are found again."""
    (tmp_path / "spoil").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").touch()
    begin = """
import json, os, resource, signal, sys, helper
with open(os.environ["SEEN"], "a") as file:
    file.write(json.dumps([os.getcwd(), sys.argv[1:], os.environ.get("ADDED")]) + "\\n")
"""
    (tmp_path / "app.py").write_text(begin + SPOIL + SERVE)
    argv = [Path(sys.executable).with_name("mooring"), "run", "app:server", "--workers", "1"]
    with started(tmp_path, argv, {"PYTHONPATH": f"lib:{HOME}"}) as server:
        wait_ready(tmp_path, tmp_path / "data" / "log", server)
        assert server.stop() == 0
    assert seen(tmp_path) == [[str(tmp_path), ["run", "app:server", "--workers", "1"], None]] * 2


@in_loop(60)
async def test_a_changed_env_file_counts_after_a_reload(tmp_path):
    app = """
    for line in open(".env"):  # as load_dotenv() does
        name, _, value = line.strip().partition("=")
        os.environ.setdefault(name, value)

    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, os.environ["KEY"])
    """
    (tmp_path / ".env").write_text("KEY=old\n")
    with Serving(app, cwd=tmp_path, worker_num=1) as server:
        async with client(server) as ws:
            await ws.send("?")
            assert await ws.recv() == "old"
            (tmp_path / ".env").write_text("KEY=new\n")
            server.signal(signal.SIGHUP)
            server.wait_log("reload: done")
            await ws.send("?")
            assert await ws.recv() == "new"
        assert server.stop() == 0


@pytest.mark.parametrize(
    "tool",
    [["cProfile", "-o", "out"], ["trace", "--count", "-C", "cover"], ["pdb", "-c", "continue"]],
    ids=lambda tool: tool[0],
)
def test_a_tool_that_runs_the_program_stays_behind(tmp_path, tool):
    """Its own arguments are not those of the program; and it is said."""
    script(tmp_path)
    with started(tmp_path, [sys.executable, "-m", *tool, "app.py", "one"]) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        assert server.stop() == 0
    first, *others = [(saw["argv"], saw["folder"], Path(saw["folder"], saw["path"][0])) for saw in seen(tmp_path)]
    assert first[0] == ["app.py", "one"]
    assert others == [first]
    assert f"{tool[0]} ends here" in (tmp_path / "log").read_text()


def test_a_script_that_runs_another_is_what_is_repeated(tmp_path):
    script(tmp_path)
    (tmp_path / "outer.py").write_text(
        "import os, runpy\nopen(os.environ['SEEN'] + '.outer', 'a').write('.')\n"
        "runpy.run_path('app.py', run_name='__main__')\n"
    )
    with started(tmp_path, [sys.executable, "outer.py"]) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        assert server.stop() == 0
    assert (tmp_path / "seen.outer").read_text() == ".."


def test_a_program_that_brings_its_packages(tmp_path):
    """Found by what it does to the import path, and by nobody who does not."""
    vendor = tmp_path / "vendor"
    vendor.mkdir()
    for entry in Path(msgspec.__file__).parents[1].iterdir():
        (vendor / entry.name).symlink_to(entry)
    (vendor / "mooring").symlink_to(Path(HOME) / "mooring")
    (tmp_path / "app.py").write_text("import sys\nsys.path.insert(0, 'vendor')\n" + BEGIN + SPOIL + SERVE)
    with started(tmp_path, [sys.executable, "-ES", "app.py"]) as server:
        wait_ready(tmp_path, tmp_path / "log", server)
        assert server.stop() == 0
    first, other = seen(tmp_path)
    assert first["path"] == other["path"] == ["vendor", str(tmp_path)]


def test_what_is_no_text_can_not_be_passed_on(tmp_path):
    script(tmp_path)
    with started(tmp_path, [sys.executable, "app.py", os.fsdecode(b"\xff")]) as server:
        assert server.ended() == 1
        server.wait_log("ConfigError: .* is no UTF-8")


# ---------------------------------------------------------------------------------------------- what can't be repeated

HEAD = """
import asyncio, multiprocessing, os, sys, threading
from mooring import Server
server = Server("127.0.0.1", 0, mode=os.environ["MODE"], worker_num=int(os.environ["WORKERS"]))
open(os.environ["RUNS"], "a").write(".")

def said(server, frame):
    pass

def started(server):
    server.shutdown()

def serve():
    server.start()

server.on("message", said)
server.on("start", started)
"""
THREAD = """
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print("went on")
"""
COROUTINE = """
async def main():
    server.start()

asyncio.run(main())
"""
FORKED = """
if os.fork() == 0:
    server.start()
os.wait()
print("went on")
"""
CHILD = """
if __name__ == "__main__":
    child = multiprocessing.get_context({method!r}).Process(target=serve)
    child.start()
    child.join()
    print("went on")
"""
TESTS = """
import unittest

class Test(unittest.TestCase):
    def test(self):
        server.start()

unittest.main()
"""
FROZEN = "sys.frozen = True\nserver.start()\n"


def failed(tmp_path, code, mode, workers, argv=(), stdin=None):
    (tmp_path / "app.py").write_text(HEAD + code)
    environment = {"RUNS": str(tmp_path / "runs"), "MODE": mode, "WORKERS": workers, "PYTHONPATH": HOME}
    command = [sys.executable, *argv, *([] if stdin else ["app.py"])]
    with open(stdin or os.devnull) as given:
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdin=given,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )


@pytest.mark.parametrize(("mode", "workers"), [("process", "1"), ("base", "2"), ("base", "1")])
@pytest.mark.parametrize(("code", "why"), [(THREAD, "in the thread"), (COROUTINE, "in a coroutine")])
def test_where_nobody_can_serve(tmp_path, code, why, mode, workers):
    done = failed(tmp_path, code, mode, workers)
    assert f"ConfigError: start() was called {why}" in done.stderr
    assert (tmp_path / "runs").read_text() == "."
    assert ("went on" in done.stdout) == (code == THREAD)


@pytest.mark.parametrize(("mode", "workers"), [("process", "1"), ("base", "2")])
@pytest.mark.parametrize(
    ("code", "why"),
    [
        (FORKED, "start() was called in a child process"),
        (CHILD.format(method="fork"), "start() was called in a child process"),
        (CHILD.format(method="spawn"), "start() was called in a child process"),
        (TESTS, "start() was called in a test run"),
        (FROZEN, "there is no Python interpreter"),
    ],
    ids=["fork", "multiprocessing fork", "multiprocessing spawn", "unittest", "frozen"],
)
def test_what_can_not_be_repeated_is_said_at_once(tmp_path, code, why, mode, workers):
    """Nothing is started, the program goes on, and the message names what works instead."""
    done = failed(tmp_path, code, mode, workers)
    assert f"ConfigError: {why}" in done.stderr
    assert "mode='base'" in done.stderr
    assert len((tmp_path / "runs").read_text()) == (2 if "spawn" in code else 1)
    assert ("went on" in done.stdout) == ("went on" in code)


def test_a_test_run_of_pytest(tmp_path):
    done = failed(tmp_path, "def test():\n    server.start()\n", "process", "1", ["-m", "pytest", "-q"])
    assert "start() was called in a test run" in done.stdout
    assert "1 failed" in done.stdout


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "link"])
def test_a_file_that_only_this_process_has_open(tmp_path, path):
    """Workers have another one there."""
    (tmp_path / "app.py").touch()
    (tmp_path / "link").symlink_to("/dev/stdin")
    done = failed(tmp_path, "server.start()\n", "process", "1", [path], tmp_path / "app.py")
    assert "ConfigError: start() was called outside of a file" in done.stderr
    assert (tmp_path / "runs").read_text() == "."


@pytest.mark.parametrize("code", [CHILD.format(method="fork"), CHILD.format(method="spawn"), FORKED, FROZEN])
def test_one_process_serves_wherever_it_is(tmp_path, code):
    """With mode="base" and one worker nothing is repeated."""
    done = failed(tmp_path, code, "base", "1")
    assert "ready, listening" in done.stderr
    assert "drained: " in done.stderr
    assert ("went on" in done.stdout) == ("went on" in code)


COUNTED = """
import gc, os
from mooring import Server

def tell(what):
    # in one piece, since several processes do
    os.write(2, f"{what} {gc.isenabled()} {gc.get_freeze_count() > 1000}\\n".encode())

server = Server("127.0.0.1", 0, mode="process", task_worker_num=1)
tell("loading")

@server.on("message")
def said(server, frame): ...

@server.on("task")
def work(server, task): ...

@server.on("worker_start")
def begun(server, worker_id):
    tell("begun")
"""


def test_an_application_begins_with_garbage_being_collected(tmp_path: Path) -> None:
    """What was loaded before it is not looked at again."""
    (tmp_path / "app.py").write_text(COUNTED + "server.start()\n")
    with Serving(tmp_path / "app.py") as server:
        for line in ("loading True True", "begun True True"):
            server.wait_log(line, count=2)
        assert server.stop() == 0
        # the process that was started by hand has become the supervisor since
        assert sorted(line for line in server.lines if "loading" in line)[0] == "loading True False"
