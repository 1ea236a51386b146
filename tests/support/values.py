"""Values of Python, compared with the type of everything inside."""

from typing import Any


def shape(value: Any) -> str:
    """With the type of everything inside: `1 == True`, and `{1: 2} == OrderedDict({1: 2})`."""
    name = type(value).__name__
    if isinstance(value, dict):
        return f"{name}{[(shape(key), shape(one)) for key, one in value.items()]}"
    if isinstance(value, set | frozenset):
        return f"{name}{sorted(map(shape, value))}"
    if isinstance(value, list | tuple):
        return f"{name}{list(map(shape, value))}"
    return f"{name} {value!r} {getattr(value, 'tzinfo', None)!r} {getattr(value, 'fold', 0)}"
