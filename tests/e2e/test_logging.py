"""What applications do with the standard library's logging: to our lines nothing, and theirs reach our log unasked."""

import asyncio
import contextlib
import json
import re
from urllib.error import HTTPError

import pytest
from websockets.exceptions import ConnectionClosedError

from e2e.peers import client, fetch, in_loop, until
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize(
    "mode",
    [{"mode": "process", "worker_num": 1, "task_worker_num": 1}, {"mode": "base", "worker_num": 1}],
    ids=["process", "base"],
)
DICT_CONFIG = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "handlers": {"h": {"class": "logging.FileHandler", "filename": "theirs"}},
    "root": {"handlers": ["h"], "level": "INFO"},
})
"""
# everything else that programs do, at once
WORST = """
import logging
logging.disable(logging.CRITICAL)
logging.root.handlers = [logging.NullHandler()]
for name in list(logging.root.manager.loggerDict):
    one = logging.getLogger(name)
    one.handlers, one.disabled, one.propagate = [], True, False
    one.setLevel(logging.CRITICAL)
def factory(*arguments, **more):
    raise RuntimeError("a factory")
logging.setLogRecordFactory(factory)
logging.lastResort = None
logging.shutdown()
"""
FAILING = """
@server.on("message")
def said(server, frame):
    if frame.data == "task":
        server.task_async("x")
    else:
        raise ValueError("said " + frame.data)

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        raise ValueError("the task")
"""


@MODES
@pytest.mark.parametrize("spoil", [DICT_CONFIG, WORST], ids=["dictConfig", "worst"])
@in_loop()
async def test_an_error_id_stands_in_the_log_whatever_is_done_to_loggers(tmp_path, mode, spoil):
    """At the top of the application, and while it serves."""
    log = tmp_path / "log"
    late = "\n@server.on('worker_start')\ndef begun(server, worker_id):\n" + spoil.replace("\n", "\n    ")
    with Serving(spoil + FAILING + late, cwd=tmp_path, ready=False, log_file=str(log), **mode) as server:
        eventually(lambda: log.exists() and re.search(r"\bready\b", log.read_text()))
        server._port = int(re.search(r"listening on \S+:(\d+)", log.read_text())[1])
        async with client(server) as ws:
            if "task_worker_num" in mode:
                await ws.send("task")
                await until(lambda: "ValueError: the task" in log.read_text())
            await ws.send("hello")
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.recv()
        text = log.read_text()
        assert re.search(rf"ERROR .*{caught.value.rcvd.reason}: the 'message' handler failed", text)
        assert "ValueError: said hello" in text
        assert server.stop() == 0
    assert "drained: " in log.read_text().splitlines()[-2 if "_" in mode else -1] + log.read_text()


LOGS = """
import logging
log = logging.getLogger("chat.rooms")
log.info("at the top")
loud = logging.getLogger("chat.loud")
loud.setLevel(logging.DEBUG)

@server.on("message")
def said(server, frame):
    log.debug("a debug line")
    log.info("said %s", frame.data, extra={"room": 5})
    loud.debug("loud")
    server.push(frame.fd, frame.data)

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        return 1
"""


async def lines_of(tmp_path, code, mode, **settings):
    log = tmp_path / "log"
    with Serving(code, cwd=tmp_path, ready=False, log_file=str(log), **mode, **settings) as server:
        eventually(lambda: log.exists() and re.search(r"\bready\b", log.read_text()))
        server._port = int(re.search(r"listening on 127[.\d]+:(\d+)", log.read_text())[1])
        async with client(server) as ws:
            await ws.send("hello")
            await ws.recv()
        with contextlib.suppress(HTTPError):
            await asyncio.to_thread(fetch, server)
        assert server.stop() == 0
        return log.read_text().splitlines(), server.lines


@MODES
@in_loop()
async def test_the_application_logs_without_any_set_up(tmp_path, mode):
    lines, printed = await lines_of(tmp_path, LOGS, mode)
    found = [line for line in lines if "chat." in line]
    assert [line.partition("] ")[2] for line in found if "at the top" not in line] == [
        "chat.rooms: said hello",
        "chat.loud: loud",
    ]
    assert all(re.match(r"[-\d]+ [:,\d]+ (INFO |DEBUG)   ?\[(worker 0|server), \d+\] ", line) for line in found[-2:])
    assert any("at the top" in line for line in lines) == (mode["mode"] == "process"), "in workers from the beginning"
    assert not [line for line in printed if "hello" in line]


@MODES
@in_loop()
async def test_the_level_where_the_application_asks_for_none(tmp_path, mode):
    lines, _ = await lines_of(tmp_path, LOGS, mode, app_log_level="debug")
    assert any("chat.rooms: a debug line" in line for line in lines)


@MODES
@in_loop()
async def test_handlers_of_the_application_take_its_lines(tmp_path, mode):
    """Once each, and by the level that they have without us."""
    code = "import logging\nlogging.basicConfig(filename='theirs')\n" + LOGS.replace(
        'log.info("said', 'log.warning("said'
    )
    lines, printed = await lines_of(tmp_path, code, mode)
    assert not [line for line in [*lines, *printed] if "chat." in line]
    theirs = [line for line in (tmp_path / "theirs").read_text().splitlines() if "chat." in line]
    assert theirs == ["WARNING:chat.rooms:said hello", "DEBUG:chat.loud:loud"]


@MODES
@in_loop()
async def test_json(tmp_path, mode):
    """Each line is an object, those of requests and of the application, too."""
    code = (
        LOGS
        + """
@server.on("request")
def page(request, response):
    raise ValueError("no\\nsuch page")
"""
    )
    lines, _ = await lines_of(tmp_path, code, mode, log_format="json", access_log=True)
    objects = [json.loads(line) for line in lines]
    assert all({"time", "level", "process", "pid", "logger", "message"} <= set(one) for one in objects)
    (error,) = [one for one in objects if "exception" in one]
    assert error["message"].startswith(f"error {error['error_id']}: the 'request' handler failed")
    assert error["exception"].endswith("ValueError: no\nsuch page")
    (said,) = [one for one in objects if one["message"] == "said hello"]
    assert said["room"] == 5
    assert said["logger"] == "chat.rooms"
    assert any(one["logger"] == "mooring.access" and '"GET / HTTP/1.1" 500' in one["message"] for one in objects)
    assert any("drained: " in one["message"] for one in objects)


CALLS = """
import logging, warnings
logging.captureWarnings(True)
package = logging.getLogger("chat")
package.addHandler(logging.NullHandler())  # as packages do
hushed = logging.getLogger("hushed")
hushed.addHandler(logging.NullHandler())
hushed.propagate = False
logging.warning("at the top")

@server.on("message")
def said(server, frame):
    logging.info("by the module")
    package.info("by a package")
    hushed.error("nowhere")
    warnings.warn("a warning")
    logging.error("again by the module")
    server.push(frame.fd, frame.data)

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        return 1
"""


@MODES
@in_loop()
async def test_what_is_no_set_up(tmp_path, mode):
    """`logging.info()` puts a handler in where there is none; packages give their loggers one that writes nothing."""
    lines, printed = await lines_of(tmp_path, CALLS, mode)
    said = [line.partition("] ")[2] for line in lines]
    found = [text for text in said if "by " in text or "a warning" in text]
    assert [text.partition("Warning")[0] for text in found if "py.warnings" not in text] == [
        "root: by the module",
        "chat: by a package",
        "root: again by the module",
    ]
    assert any(text.startswith("py.warnings: ") and "UserWarning: a warning" in text for text in found)
    assert not [line for line in [*lines, *printed] if "nowhere" in line]
    assert not [line for line in printed if "by " in line]
