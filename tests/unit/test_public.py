"""What the package offers: one list of names, and of what completion shows of each; whatever else is internal."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import mooring
from mooring import CloseCode, ClosedBy, ConnectionState, Opcode

OFFERED = {
    "Accept": "cookie headers session subprotocol",
    "AsyncControlClient": """
        connections disconnect disconnect_user inspect listing path processes publish push push_user reload
        shutdown stats tail
    """,
    "Atomic": "add compare_and_set get set",
    "ClientCertificate": """
        alternative_names common_name der fingerprint issuer not_after not_before serial_number subject
    """,
    "ControlClient": """
        connections disconnect disconnect_user inspect listing path processes publish push push_user reload
        shutdown stats tail
    """,
    "EventStream": "comment send",
    "Frame": "attempt data fd finish flags json opcode",
    "CloseFrame": "attempt code data fd finish flags json opcode reason",
    "Headers": "get getlist items keys raw values",
    "Listener": "on",
    "Reject": "body headers status",
    "Request": """
        body client_certificate cookies fd file_list files form form_list headers http_version json
        last_event_id method number path query query_list query_string read read_form received remote_ip
        remote_port scheme server_port stream subprotocols target text
    """,
    "Response": """
        add_header cookie end ended event_stream header json redirect send_file started status status_code
        write
    """,
    "Server": """
        add_process after atomic bind cancel clear_timer close connections connections_of disconnect
        disconnect_user drain exists get_client_info guarantees history is_established listen on pack pause
        ping publish publish_json push push_json push_user push_user_json reload resume send_message
        session set settings shutdown spawn spawned start stats stopping subscribe subscriber_count subscribers
        table task task_async task_map task_wait task_worker tick topic unpack unsubscribe worker_id
        worker_pid
    """,
    "Session": "clear get items keys pop popitem setdefault update values",
    "SharedTable": "add clear compare_and_set delete get increment items keys set",
    "Task": "progress",
    "TaskOutcome": "error id result",
    "UploadedFile": "charset content_type data file filename name read save size",
}


@pytest.mark.parametrize("name", OFFERED)
def test_completion_offers_nothing_internal(name: str):
    """A new method is added to the list on purpose, or has an underscore."""
    kind = getattr(mooring, name)
    assert sorted(one for one in dir(kind) if not one.startswith("_")) == sorted(OFFERED[name].split())


ELSEWHERE = """
    add_process atomic guarantees listen on pack set settings start stopping table task_worker topic unpack worker_id
    worker_pid
"""


def test_what_can_be_called_in_a_handler_is_there_at_a_glance():
    page = (Path(__file__).parents[2] / "docs" / "api" / "server.md").read_text()
    table = page.partition("## At a glance")[2].partition("\n::: ")[0]
    named = set(re.findall(r"`(?:server\.)?(\w+)(?:\(.*?\))?`", table))
    assert sorted(set(OFFERED["Server"].split()) - set(ELSEWHERE.split()) - named) == []


def test_a_server_has_no_attributes_of_its_own_beside_them():
    server = mooring.Server()
    assert set(dir(server)) == set(dir(mooring.Server)) | {one for one in vars(server) if one.startswith("_")}
    assert {one for one in vars(server.listen(port=0)) if not one.startswith("_")} == {"number"}


def test_every_public_name_is_in_all_and_leads_somewhere():
    assert sorted(mooring.__all__) == mooring.__all__
    for name in mooring.__all__:
        assert hasattr(mooring, name), name
    modules = {one for one in dir(mooring) if isinstance(getattr(mooring, one), type(sys))}
    assert {one for one in dir(mooring) if not one.startswith("_")} - modules == set(mooring.__all__)


def test_what_a_checker_reads_is_what_is_loaded():
    block = next(one for one in ast.parse(inspect.getsource(mooring)).body if isinstance(one, ast.If))
    read = {name.name: line.module for line in block.body if isinstance(line, ast.ImportFrom) for name in line.names}
    assert read == mooring._HOME
    assert sorted(read) == mooring.__all__


def test_nothing_is_loaded_before_it_is_asked_for():
    code = """
import sys, mooring
print([one for one in sys.modules if one.startswith("mooring.")])
assert mooring.types.Opcode is mooring.Opcode
print([one for one in sys.modules if one.startswith("mooring.")])
assert "Server" in dir(mooring)
assert not hasattr(mooring, "Servant")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert shown.splitlines() == ["[]", "['mooring.types']"]


@pytest.mark.parametrize(("old", "new"), mooring._RENAMED.items())
def test_an_old_name_still_works_and_names_the_new_one(old: str, new: str):
    for _ in range(2):
        with pytest.warns(DeprecationWarning, match=f"^mooring.{old} is called {new}; ") as told:
            assert getattr(mooring, old) is getattr(mooring, new)
        assert [one.filename for one in told] == [__file__]
    assert old not in mooring.__all__
    assert old not in dir(mooring)


def test_a_star_takes_what_is_in_all():
    code = "from mooring import *; print(sorted(one for one in dir() if not one.startswith('_')))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert shown.strip() == repr(sorted(mooring.__all__))


@pytest.mark.parametrize("one", [*Opcode, *CloseCode, *ConnectionState, *ClosedBy], ids=repr)
def test_enums_print_their_names_and_are_numbers(one):
    name = f"{type(one).__name__}.{one.name}"
    assert (str(one), f"{one}", "%s" % one, f"{one:>30}") == (name, name, name, name.rjust(30))  # noqa: UP031
    assert (f"{one:d}", f"{one:04x}", "%d" % one) == (str(int(one)), f"{int(one):04x}", str(int(one)))  # noqa: UP031
    assert msgspec.json.encode([one]) == b"[%d]" % one
    assert one == int(one)
