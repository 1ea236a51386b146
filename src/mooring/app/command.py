"""What the interpreter was told to run, and with which options: its own command line, read as it reads it.

`sys.argv` is what is left of it, and a program may have changed that; `sys.flags` shows what options have led to, not
the options. `sys.orig_argv` has all of it. The grammar is that of CPython's Python/getopt.c.
"""

import os
import sys
from typing import Literal, NamedTuple

_WITH_VALUE = frozenset("cmWX")
_DROPPED = frozenset("iqx")  # for a person at a prompt; the first line of a script that is no Python
_PLAIN = frozenset("bBdEiIOPqRsSuvx")
_LONG = "--check-hash-based-pycs"

Kind = Literal["script", "archive", "module", "text", ""]

_LAST: dict[str, Kind] = {"-c": "text", "-m": "module"}  # no option comes behind these


class Command(NamedTuple):
    """`python OPTIONS (-c TEXT | -m MODULE | SCRIPT | FOLDER or ZIP FILE) ARGUMENTS`; kind "": from standard input, or
    there is no command line at all."""

    kind: Kind
    name: str
    options: list[str] | None
    """None: it could not be read."""
    arguments: list[str]
    orig_argv: list[str]

    @classmethod
    def of_this_process(cls) -> "Command":
        return cls.read(list(sys.orig_argv))

    @classmethod
    def read(cls, argv: list[str]) -> "Command":
        options: list[str] = []
        rest = argv[1:]
        while rest and rest[0] not in ("", "-") and rest[0].startswith("-"):
            word = rest.pop(0)
            if word == "--":
                break
            if word == _LONG:
                options += [word, *rest[:1]]
                del rest[:1]
                continue
            taken = _letters(word, rest)
            if taken is None:
                return cls("", "", None, [], argv)
            if len(taken) > 1 and taken[-2] in _LAST:
                *before, option, name = taken
                return cls(_LAST[option], name, options + before, rest, argv)
            options += taken
        if not argv:
            return cls("", "", None, [], argv)
        if not rest or rest[0] in ("", "-"):
            return cls("", "", options, rest[1:], argv)
        name = rest.pop(0)
        # a folder, or a file that is taken for a zip file; the interpreter has put it into sys.path
        main = sys.modules.get("__main__")
        archive = os.path.isdir(name) or getattr(getattr(main, "__spec__", None), "name", "") == "__main__"
        return cls("archive" if archive else "script", name, options, rest, argv)


def _letters(word: str, rest: list[str]) -> list[str] | None:
    """The options that stand in one word; behind one that takes a value that, which may be the first of `rest`. None:
    one is unknown."""
    plain = ""
    for place, letter in enumerate(word[1:], 1):
        if letter in _WITH_VALUE:
            value = word[place + 1 :] or (rest.pop(0) if rest else "")
            return [*([f"-{plain}"] if plain else []), f"-{letter}", value]
        if letter not in _PLAIN:
            return None
        if letter not in _DROPPED:
            plain += letter
    return [f"-{plain}"] if plain else []
