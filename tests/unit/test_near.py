"""What somebody may have meant, and when it is better to say nothing."""

import asyncio
from typing import Any

import pytest

from mooring import Accept, Atomic, Frame, HttpError, Reject, Request, Server, SharedTable, Task
from mooring.config import HOME
from mooring.near import EVENTS, METHODS, SETTINGS, attribute_meant, call_meant, nearest, no_attribute


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
    assert attribute_meant(of(object.__new__(Task), "args"), "") == "did you mean task.data?"
    assert attribute_meant(of(frame, "_opcod"), "") == ""


def raised(call: Any) -> BaseException:
    with pytest.raises((AttributeError, TypeError)) as caught:
        call()
    return caught.value


def test_what_an_error_of_a_call_advises() -> None:
    """As Python words them, whichever version it is."""
    frame: Any = Frame("x", fd=3)
    assert call_meant(str(raised(lambda: frame.json["x"]))) == "a method is called first, as in request.json()['name']"
    assert call_meant(str(raised(lambda: Request.json["x"]))) == ""  # a function: that is no object of ours
    assert "return it" in call_meant(str(raised(lambda: raise_it(Reject(401)))))
    for call, meant in [
        (lambda: Server().publish("a", "b", skip_sid=3), "did you mean exclude?"),
        (lambda: HttpError(404, detail="no such page"), "did you mean reason?"),
        (lambda: Accept(xyzzy=1), ""),
        (lambda: table()["a"], "write table.get(key), table.set(key, column=value), table.delete(key)"),
        (lambda: put(table(), "a", 1), "write table.get(key), table.set(key, column=value), table.delete(key)"),
        (lambda: atomic() + 1, "write atomic.get(), atomic.add(1), atomic.set(value)"),
        (lambda: atomic() > 1, "write atomic.get(), atomic.add(1), atomic.set(value)"),
    ]:
        text = str(raised(call)).partition(". Did you mean")[0]  # Python 3.14 has guesses of its own
        assert call_meant(text) == meant


def table() -> Any:
    return object.__new__(SharedTable)


def atomic() -> Any:
    return Atomic("visits")


def put(mapping: Any, key: str, value: object) -> None:
    mapping[key] = value


def test_a_loop_inside_of_the_loop() -> None:
    async def main() -> None:
        nothing = asyncio.sleep(0)
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(nothing)
        nothing.close()
        assert "make it an `async def`" in call_meant(str(caught.value))

    asyncio.run(main())


def raise_it(what: Any) -> None:
    raise what


def test_a_method_that_is_assigned_to() -> None:
    """As of a response, whose methods other servers have as attributes."""
    error = AttributeError("'Response' object attribute 'status' is read-only")
    assert attribute_meant(error, str(error)) == "it is a method: call it, as in response.status(...)"


def test_a_handler_by_the_name_of_its_event() -> None:
    words = "a Server has no 'on_message': write @server.on('message') above the handler"
    assert no_attribute(Server(), "on_message", METHODS) == words


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
