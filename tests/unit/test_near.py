"""What somebody may have meant, and when it is better to say nothing."""

from typing import Any

import pytest

from mooring import Frame, Server
from mooring.config import HOME
from mooring.near import EVENTS, METHODS, SETTINGS, attribute_meant, nearest, no_attribute


@pytest.mark.parametrize(
    ("written", "names", "words", "meant"),
    [
        ("worker-num", HOME, SETTINGS, "worker_num"),
        ("WorkerNum", HOME, SETTINGS, "worker_num"),
        ("worker.num", HOME, SETTINGS, "worker_num"),
        ("max-size", HOME, SETTINGS, "max_message_size"),  # of another server, and in other spelling
        ("on_open", ("open", "close"), EVENTS, "open"),
        ("onmessage", ("open", "message"), EVENTS, "message"),
        ("on_connect", ("open", "close"), EVENTS, "open"),
        ("reload", ("reloaded", "watch"), SETTINGS, "watch"),  # a word counts before what looks alike
        ("mesage", ("open", "message"), EVENTS, "message"),
        ("xyzzy", ("open", "message"), EVENTS, None),
        (7, ("open", "message"), EVENTS, None),
    ],
)
def test_what_was_meant(written: object, names: Any, words: Any, meant: str | None) -> None:
    assert nearest(written, names, words) == meant


class Own(Server):
    @property
    def broken(self) -> object:
        return self._handlers.nothing_such  # type: ignore[attr-defined]


def test_a_property_that_fails_says_why_itself() -> None:
    """Python asks for the name once more then; what the property has raised is the error to see."""
    with pytest.raises(AttributeError, match="nothing_such"):
        no_attribute(Own(), "broken", METHODS)
    assert no_attribute(Own(), "brokem", METHODS) == "a Own has no 'brokem': did you mean broken?"


def test_private_names_mean_nothing() -> None:
    assert no_attribute(Server(), "_publsh", METHODS) == "a Server has no '_publsh'"
    assert no_attribute(Server(), "__len__", METHODS) == "a Server has no '__len__'"


def of(holder: object, name: str) -> AttributeError:
    return AttributeError(f"no {name!r}", name=name, obj=holder)


def test_what_an_error_advises() -> None:
    frame = Frame("x", fd=3)
    assert attribute_meant(of(frame, "text"), "") == "did you mean frame.data?"
    assert attribute_meant(of(frame, "opcod"), "") == "did you mean opcode?"
    assert attribute_meant(of(frame, "xyzzy"), "") == ""
    assert attribute_meant(of(frame, "_opcod"), "") == ""


def test_what_is_there_has_raised_the_error_itself() -> None:
    class Speaking(Own):
        @property
        def broadcast(self) -> object:  # a word of another server
            return self.broken

    assert attribute_meant(of(Server(), "broadcast"), "") == "did you mean publish(topic, data)?"
    assert attribute_meant(of(Speaking(), "broadcast"), "") == ""


def test_only_objects_of_ours_are_advised_about() -> None:
    class Frame:
        opcode = 1

    assert attribute_meant(of(Frame(), "text"), "") == ""


def test_a_class_of_the_applications_runs_none_of_its_code() -> None:
    """Its error is being told: another one would hide it."""

    class Odd(type):
        def __getattribute__(cls, name: str) -> object:
            raise RuntimeError("looked into")

    class Holder(metaclass=Odd):
        pass

    assert attribute_meant(of(Holder(), "text"), "") == ""
