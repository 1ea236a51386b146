"""The command line: what it overrides, and what it says when it can't."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from mooring import Server
from mooring.cli import main
from mooring.cli.control import by_reason
from mooring.cli.pages import TOUCHED, commands_page, settings_page
from mooring.config import describe

ROOT = Path(__file__).resolve().parents[2]
APP = """
from mooring import Server
server = Server(port=1234, worker_num=3)
class Box: inner = server
number = 5
"""


@pytest.fixture
def started(monkeypatch):
    """What `server.start` was called with, and on which server."""
    calls = []
    monkeypatch.setattr(Server, "start", lambda self, *, target=None: calls.append((self, target)))
    return calls


@pytest.fixture
def app(tmp_path, monkeypatch):
    """Writes a module with a name of its own into the current directory; returns the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = []

    def write(text=APP):
        name = f"app_{tmp_path.name.replace('-', '_')}_{len(names)}"
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


def run(*arguments):
    return CliRunner().invoke(main, ["run", *arguments])


def test_the_named_server_is_started_with_its_own_settings(app, started):
    name = app()
    result = run(f"{name}:server")
    assert result.exit_code == 0, result.output
    [(server, target)] = started
    assert target == f"{name}:server"
    assert (server.settings.listen.port, server.settings.process.worker_num) == (1234, 3)


def test_options_override_the_application(app, started):
    options = "--host 0.0.0.0 --port 0 --workers 5 --gateways 2 --mode base --watch a --watch b --log-level debug"
    result = run(f"{app()}:server", *options.split(), "--control-socket", "/run/x.sock")
    assert result.exit_code == 0, result.output
    settings = started[0][0].settings
    assert (settings.listen.host, settings.listen.port) == ("0.0.0.0", 0)
    assert (settings.process.worker_num, settings.process.gateway_num, settings.process.mode) == (
        5,
        2,
        "base",
    )
    assert (settings.process.watch, settings.process.log_level) == (("a", "b"), "debug")
    assert settings.process.control_socket == "/run/x.sock"


LISTENING = """
from mooring import Server
server = Server("127.0.0.1", 1, unix_socket="/application")
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", (1, "/application", "")),
        ("--workers 2", (1, "/application", "")),
        ("--port 7", (7, "", "")),
        ("--host ::1", (1, "", "")),
        ("--unix /x", (1, "/x", "")),
        ("--inherited systemd:web", (1, "", "systemd:web")),
    ],
)
def test_where_to_listen_is_said_in_one_place(app, started, options, expected):
    """A port on the command line is not overruled by a Unix socket of the application."""
    result = run(f"{app(LISTENING)}:server", *options.split())
    assert result.exit_code == 0, result.output
    listen = started[0][0].settings.listen
    assert (listen.port, listen.unix_socket, listen.inherited) == expected


def test_an_attribute_of_an_attribute(app, started):
    assert run(f"{app()}:Box.inner").exit_code == 0
    assert started


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("chat", ["'chat'", "MODULE:ATTR", "chat:server"]),
        ("{app}", ["'{app}' is no MODULE:ATTR: write {app}:server"]),
        ("{app}.py", ["names a file: write {app}:server"]),
        ("chat:", ["MODULE:ATTR"]),
        (":server", ["MODULE:ATTR"]),
        ("examples/chat.py:server", ["write examples.chat:server"]),
        ("no_such_module_here:server", ["no module 'no_such_module_here'", "directory"]),
        ("{app}.sub:server", ["no module"]),
        ("{app}:serve", ["has no 'serve'", "did you mean {app}:server?"]),
        ("{app}:number", ["an int, not a mooring.Server"]),
    ],
)
def test_a_target_that_is_no_server_is_explained(app, started, target, words):
    name = app()
    result = run(target.format(app=name))
    assert result.exit_code == 1
    assert not started
    assert "Traceback" not in result.output
    for word in words:
        assert word.format(app=name) in result.output


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--worker-num", "no such option --worker-num: did you mean --workers?"),
        ("--worker", "did you mean --workers?"),
        ("--processes", "did you mean --workers?"),
        ("--log-levle", "did you mean --log-level?"),
        ("--uds", "did you mean --unix?"),
        ("--reload", "did you mean --watch?"),
        ("--task-workers", "it is a setting, give it to Server(task_worker_num=...)"),
        ("--max-message-size", "it is a setting, give it to Server(max_message_size=...)"),
        ("--zzz", "No such option"),
    ],
)
def test_an_option_that_is_none(started, option, words):
    result = run("chat:server", option, "2")
    assert result.exit_code == 2
    assert words.lower() in result.output.lower()
    assert not started


def test_a_wrong_option_is_explained(app, started):
    result = run(f"{app()}:server", "--workers", "0")
    assert result.exit_code == 1
    assert "worker_num=0" in result.output
    assert not started


@pytest.mark.parametrize(
    ("text", "kind"),
    [("1 / 0\n", ZeroDivisionError), ("import module_that_is_missing\n", ModuleNotFoundError)],
)
def test_the_applications_own_error_keeps_its_traceback(app, started, text, kind):
    result = run(f"{app(text)}:server")
    assert isinstance(result.exception, kind)
    assert not started


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert result.output.split() == ["mooring,", "version", version("mooring-server")]


def test_the_settings_page_names_every_option():
    result = CliRunner().invoke(main, ["settings"])
    assert result.exit_code == 0
    assert result.output == settings_page()
    named = [row.name for row in describe()]
    assert re.findall(r"^### (\w+)$", result.output, re.M) == named
    assert len(TOUCHED) == 10
    assert set(TOUCHED) <= set(named)


def test_the_committed_settings_page_is_current():
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page(), "run `make docs`"


def test_the_committed_page_of_the_command_line_is_current():
    page = commands_page(main)
    assert (ROOT / "docs" / "cli.md").read_text() == page, "run `make docs`"
    for name, command in main.commands.items():
        assert f"\n## mooring {name}\n" in page
        for option in (name for one in command.params for name in one.opts if name.startswith("--")):
            assert f"`{option}" in page


def test_python_m_mooring_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "mooring", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("mooring, version")


def test_a_process_of_the_server_does_not_import_the_command_line():
    program = (
        "import sys, mooring.entry; mooring.entry.boot = print; sys.argv = ['mooring', '_process', '7']; "
        "from mooring.__main__ import main; main(); print('click' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["7", "False"]


def test_what_was_refused_is_one_or_many():
    counts = {"control_refused": 1, "requests_refused": 2, "connections_refused_by_address": 1}
    words = "1 request on the control socket, 2 requests, 1 connection by address"
    assert by_reason(counts) == words
