"""Texts of objects that do not behave, and what becomes of what a handler returns."""

import asyncio
import functools
import inspect
import logging
import types
from typing import Any

import pytest

from mooring.app.foreign import (
    TEXT_LIMIT,
    TRACEBACK_LIMIT,
    class_name,
    function_name,
    refuse_odd,
    running_of,
    text_of,
    traceback_of,
)
from mooring.net.report import report


class Odd(Exception):
    """Its text is whatever `act` gives."""

    act: Any = None

    def __str__(self) -> str:
        return self.act()  # type: ignore[no-any-return]

    __repr__ = __str__


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise KeyboardInterrupt


class Text(str):
    """A text that says something else of itself each time."""

    def __getitem__(self, place: Any) -> Any:
        raise SystemExit

    __len__ = __str__ = __repr__ = encode = __format__ = __getitem__  # type: ignore[assignment]


def odd(act: Any) -> Odd:
    error = Odd()
    error.act = act
    return error


def boom() -> str:
    raise SystemExit(4)


def all_odd() -> list[Exception]:
    """Made anew: what looks at them is an adventure for pytest, too."""
    texts = (boom, lambda: 5, lambda: Text("x"), lambda: "x" * 10_000_000, lambda: "\ud800")
    return [*map(odd, texts), Meta("Unnamed", (Exception,), {})()]


@pytest.mark.parametrize("number", range(6))
def test_there_is_a_text_of_everything(number: int):
    error = all_odd()[number]
    for text in (text_of(error), text_of(error, repr), class_name(error), function_name(error), traceback_of(error)):
        assert type(text) is str
        text.encode()
        assert len(text) <= TRACEBACK_LIMIT + 100
    assert len(text_of(error)) <= TEXT_LIMIT + 3


def test_a_text_that_behaves_is_the_text():
    assert text_of(ValueError("x")) == "x"
    assert text_of(5, repr) == "5"
    assert text_of("x" * 5, limit=3) == "xxx..."
    assert class_name(ValueError()) == "ValueError"
    assert function_name(boom) == "boom"
    assert function_name(functools.partial(boom)).startswith("functools.partial(")
    with pytest.raises(SystemExit) as raised:
        boom()
    assert traceback_of(raised.value).endswith("SystemExit: 4")
    assert "in boom" in traceback_of(raised.value)


def test_a_traceback_that_is_long_keeps_both_ends():
    text = traceback_of(ValueError("<" + "x" * (1 << 20) + ">"))
    assert len(text) < TRACEBACK_LIMIT + 100
    assert text.startswith("ValueError: <x")
    assert text.endswith("x>")


def test_an_error_is_in_the_log_whatever_the_log_does_with_it(capfd: pytest.CaptureFixture[str]):
    log = logging.getLogger("test.report")
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter("%(message)s").format(record))

    def refuse(_record: logging.LogRecord) -> bool:
        raise KeyboardInterrupt

    log.addHandler(Handler())
    log.propagate = False
    for error in all_odd():
        report(log, "error %s", "abc", error=error)
    assert len(lines) == 6
    assert all(line.startswith("error abc\n") for line in lines)
    log.addFilter(refuse)
    report(log, "error %s", "xyz", error=ValueError("it is told"))
    said = capfd.readouterr().err
    assert "error xyz\n" in said
    assert "ValueError: it is told" in said


class Later:
    def __await__(self) -> Any:
        return asyncio.sleep(0, "x").__await__()


@types.coroutine
def by_generator() -> Any:
    yield
    return "x"


async def by_coroutine() -> str:
    return "x"


def test_whatever_can_be_awaited_is():
    async def look() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result("x")
        for made in (Later(), by_generator(), by_coroutine(), future, asyncio.ensure_future(by_coroutine())):
            assert inspect.isawaitable(made)
            running = running_of(made, "it")
            assert running is not None
            assert await running == "x"

    asyncio.run(look())


def test_what_is_no_awaitable_is_nothing_or_an_error():
    for plain in (None, True, 5, "x", b"x", [], {}, object(), boom, int):
        assert running_of(plain, "it") is None

    async def parts() -> Any:
        yield 1

    for result in ((_ for _ in ()), parts(), by_coroutine):
        with pytest.raises(TypeError, match=r"it returned the (generator|function)"):
            running_of(result, "it")
    with pytest.raises(TypeError, match="it returned the coroutine by_coroutine and did not await it"):
        refuse_odd(by_coroutine(), "it")
