"""The table of records: what is made from it fits, it refuses nonsense, and a new record is a row and two functions."""

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mooring
from mooring._core.wire import Command, Event, Mail, Notice
from support.tools import load

records = load("records")
ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "src/mooring/_core/wire.toml"


@pytest.mark.parametrize("name", list(records.MAKES))
def test_what_is_made_is_as_the_table_says(name: str):
    """If not: tools/records.py, which every build begins with."""
    assert (ROOT / name).read_text() == records.MAKES[name](records.read(TABLE))


def test_python_and_the_table_agree():
    table = records.read(TABLE)
    for way, enum in zip(records.WAYS, (Event, Command, Mail), strict=True):
        assert [(row.name, row.number) for row in table.of(way)] == [(one.name, one.value) for one in enum]
    assert table.constants["NO_TICKET"][0] == Notice(Event.ROOM, 1).ticket


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[events.X]\ntext = "new"\nis = ["rare"]', "what is 'rare'?"),
        ('[commands.X]\ntext = "new"\npayloads = "none"', "what is 'payloads'?"),
        ('[events.X]\narg = "of what?"', "events.X: it has no text"),
        ('[mail.X]\ntext = "new"', "mail.X: nobody takes it"),
        ("\n".join(f'[commands.X{n}]\ntext = "new"' for n in range(32)), "numbered below 64"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, more: str, said: str):
    file = tmp_path / "wire.toml"
    file.write_text(f"{TABLE.read_text()}\n{more}\n")
    with pytest.raises(ValueError, match=said):
        records.read(file)


def test_as_a_program(tmp_path: Path):
    core = tmp_path / "src/mooring/_core"
    core.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    shutil.copy(TABLE, core)
    assert records.main(tmp_path) == 0
    made = {name: (tmp_path / name).stat().st_mtime_ns for name in records.MAKES}
    assert records.main(tmp_path) == 0
    assert made == {name: (tmp_path / name).stat().st_mtime_ns for name in records.MAKES}, "nothing is compiled again"
    (core / "wire.toml").write_text("version = 1\n")
    assert records.main(tmp_path) == 1


# -- a new command, a new event and new mail, in a build of their own: for each a row, who sends it, and who takes it

ECHO = {
    "_core/wire.toml": """
[commands.ECHO]
text = "asks for an event"
extra = "a number"

[events.ECHO]
text = "the answer"
extra = "that number"

[mail.ECHO]
is = ["to dispatcher", "to worker"]
text = "asks for an answer, and is it"
fd = "a number"
""",
    "_core/gateway_end.pyx": """
from mooring._core cimport wire

def echo(Outbox outbox, fd: int, number: int) -> None:
    cdef Record record = make_record(wire.CM_ECHO, fd, 0)
    record.extra = number
    outbox.gateway_end_of(fd).command(&record, NULL)
""",
    "_core/commands.pyx": """
from mooring._core cimport wire

cdef int on_echo(Relay relay, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
    return worker_end.say(wire.EV_ECHO, record.extra + 1)
""",
    "worker/notices.py": """
    def echo(self, _gateway_end: GatewayEnd, notice: Notice) -> None:
        print("echo", notice.extra)
""",
    "dispatcher/dispatcher.py": """
    def _on_echo(self, peer: Peer, notice: Notice) -> None:
        self._channels[peer].send(Notice(Mail.ECHO, notice.number + 1))
""",
    "worker/dispatcher_link.py": """
    def echo(self, number: int) -> None:
        self._channel.send(Notice(Mail.ECHO, number))

    def _on_echo(self, notice: Notice) -> None:
        print("mail", notice.number)
""",
}
#: What is compiled: those that have a new function, and those that look at kinds. All others are as they are.
OPTIONS = ("-O0", "-w", "-shared", "-fPIC", "-DMOORING_DEBUG=1")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")  # here: two threads that ask first may get None
COMPILED = ("wire", "latency", "gateway_end", "inlet", "channel_link", "commands", "records")
PROGRAM = """
import os
import socket
from fuzz.targets.worker_channel import SERVER, Watched
from fuzz.world import Front, Loop, new_server, page
from mooring._core.channel_link import ChannelGatewayEnd
from mooring._core.gateway_end import echo
from mooring._core.table import Table
from mooring.dispatcher.dispatcher import Dispatcher
from mooring.worker.dispatcher_link import DispatcherLink

loop = Loop()
front = Front(loop, new_server().settings)
worker_end, ours, answers = front.attach(0)
worker = Watched(SERVER)
table = Table(os.memfd_create("table"), 4)
gateway_end = ChannelGatewayEnd(1, table, worker.inlet, loop.reactor, ours.detach(), answers, page())
worker.outbox.connect(gateway_end)
gateway_end.hello()
echo(worker.outbox, 1 << 57, 41)
loop.turn()
assert not front.bad and not front.broken and not worker.told, (front.bad, front.broken, worker.told)

ours, theirs = socket.socketpair()
for end in (ours, theirs):
    end.setblocking(False)
dispatcher = Dispatcher(loop.reactor, print, print, 1 << 20)
dispatcher.attach(theirs.detach(), worker=0, generation=1)
link = DispatcherLink(loop.reactor, ours.detach(), worker.task_desk, None, worker.pipe, worker)
link.echo(6)
loop.turn(2)
assert not dispatcher.stats()["bad_records"] and not worker.told
"""


@pytest.mark.skipif(
    "build/debug" not in mooring.__file__, reason="the modules that are not compiled are the debug build's"
)
@pytest.mark.long
def test_a_new_record_is_a_row_and_two_functions(tmp_path: Path):
    root = tmp_path / "checkout"
    package = root / "src/mooring"
    shutil.copytree(ROOT / "src/mooring", package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "docs").mkdir()
    for module in Path(mooring.__file__).parent.glob("_core/*.so"):
        if module.name.partition(".")[0] not in COMPILED:
            (package / "_core" / module.name).symlink_to(module)
    for name, more in ECHO.items():
        file = package / name
        text = file.read_text()
        # a function stands behind the last one, but ahead of the table of functions
        head, cut, rest = text.partition('include "commands_table.pxi"\n')
        file.write_text(f"{head.rstrip()}\n\n{more}\n\n{cut}{rest}")
    assert records.main(root) == 0
    with ThreadPoolExecutor(2) as several:
        list(several.map(lambda name: compile_module(root, name), COMPILED))
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "echo 42\nmail 7\n", done.stderr


def compile_module(root: Path, name: str) -> None:
    """As quickly as it goes; the macros are those of the debug build, as they change what structs are like."""
    file = root / f"src/mooring/_core/{name}.pyx"
    module = file.with_name(f"{name}{SUFFIX}")
    include = [f"-I{sysconfig.get_path('include')}", f"-I{file.parent}"]
    for command in (
        [sys.executable, "-m", "cython", "-3", "-X", "cdivision=True", "-I", str(root / "src"), str(file)],
        ["gcc", *OPTIONS, *include, str(file.with_suffix(".c")), "-o", str(module)],
    ):
        done = subprocess.run(command, cwd=root / "src", capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
