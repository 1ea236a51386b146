"""What is the application's, touched with care: its objects may do anything when they are looked at.

An exception's `__str__` may raise, give no text or a huge one; a handler may return an awaitable of any kind, or what
nobody would ever run. Here is the one place where a text is made of such an object, and where it is decided what
becomes of what a handler has returned.
"""

import inspect
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any, Final, TypeGuard, TypeVar

T = TypeVar("T")

TEXT_LIMIT: Final = 2000  # characters of the text of one object
TRACEBACK_LIMIT: Final = 65_536  # characters of a traceback; of a longer one its beginning and its end
_END: Final = 8192  # of them from its end, where the exception says what it is
_FRAMES: Final = 20  # innermost ones, of an exception that can't be printed

_PLAIN: Final[set[type]] = {bool, int, float, str, bytes, list, tuple, dict, set, frozenset, type(None)}
_name_of_class: Final = type.__dict__["__name__"].__get__  # whatever its own class has redefined


def text_of(value: object, how: Callable[[Any], str] = str, limit: int = TEXT_LIMIT) -> str:
    """`str(value)`, or what `how` makes of it: at most so many characters, and such as can be encoded."""
    try:
        text = how(value)
        cut = str.__getitem__(text, slice(0, limit))  # also of a subclass that has redefined it
        return _encodable(cut + "..." if str.__len__(text) > limit else cut)
    except BaseException as problem:
        return f"<{class_name(value)}: no text can be made of it, {class_name(problem)}>"


def is_a(value: object, *kinds: type[T]) -> TypeGuard[T]:
    """`isinstance(value, kinds)` by its true class. `isinstance` asks `__class__` as well, which the application may
    have redefined."""
    return issubclass(type(value), kinds)


def hides_class(error: BaseException) -> bool:
    """Whether its `__class__` raises, so that others can't judge it."""
    try:
        isinstance(error, BaseExceptionGroup)  # most are none, so it is asked
    except BaseException:
        return True
    return False


def class_name(value: object) -> str:
    """The name of its class."""
    return _encodable(_name_of_class(type(value))[:200])


def function_name(function: object) -> str:
    """What a function is called in a log line."""
    try:
        name = getattr(function, "__qualname__", None)
    except BaseException:
        name = None
    return text_of(name) if isinstance(name, str) else text_of(function, repr)


def traceback_of(error: BaseException) -> str:
    """The traceback as the interpreter prints it, cut in the middle if it is long."""
    try:
        text = "".join(traceback.format_exception(error))
        if len(text) > TRACEBACK_LIMIT:
            left_out = len(text) - TRACEBACK_LIMIT
            text = f"{text[: TRACEBACK_LIMIT - _END]}\n... {left_out} characters ...\n{text[-_END:]}"
        return _encodable(text).rstrip("\n")
    except BaseException:
        return _bare_traceback(error)


def _bare_traceback(error: BaseException) -> str:
    """Without what only a well-behaved exception has: causes, notes, suggestions."""
    try:
        frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-_FRAMES:]))
    except BaseException:
        frames = ""
    return f"Traceback (most recent call last):\n{frames}{class_name(error)}: {text_of(error)}"


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def not_waited_for(kind: type[T]) -> type[T]:
    """Of a class of ours: who only returns such an object, as a lambda does, does not wait for it."""
    _PLAIN.add(kind)
    return kind


def running_of(result: object, what: str) -> Awaitable[Any] | None:
    """What is still to be awaited of what a handler has returned; None: nothing.

    Raises TypeError for what nobody would ever run. `what`: who has returned it, in words."""
    if type(result) is CoroutineType:
        return result
    if type(result) in _PLAIN:
        return None
    try:
        can_be_awaited = inspect.isawaitable(result)
    except BaseException:  # of its `__class__`, such as that of a proxy for something that is not there
        return None
    if can_be_awaited:
        found: Awaitable[Any] = result  # type: ignore[assignment]
        return found
    refuse_odd(result, what)
    return None


def refuse_odd(result: object, what: str) -> None:
    """Raises TypeError for a result of a handler that nobody would ever run, and so nobody has meant."""
    if type(result) is CoroutineType:
        result.close()  # the interpreter need not warn of it, too
        raise TypeError(f"{what} returned the coroutine {function_name(result)} and did not await it")
    if is_a(result, GeneratorType, AsyncGeneratorType):
        raise TypeError(f"{what} returned the generator {function_name(result)}, of which nothing has run")
    if is_a(result, FunctionType, MethodType, partial) and inspect.iscoroutinefunction(result):
        raise TypeError(f"{what} returned the function {function_name(result)} and did not call it")
