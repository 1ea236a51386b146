"""Fails when a source loses its shape: a unit too long, a line too wide, a function with too many branches, a partner
that is an untyped `object`, a circle of imports, a module without a unit test of its name, a word that was given up.

    python tools/shape.py

What is known and not yet mended stands in tools/shape.toml, and that list may only shrink: an entry that is better than
it says is a fault as well. No parser but Cython's reads .pyx; what is asked here, names and indentation tell, and
Python's own tokenizer finds these in Cython as well.
"""

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layers

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 650  # lines of a unit, with what it includes
WIDEST = 120  # characters of a line; ruff looks at Python, and not at Cython
BRANCHES = 15  # decisions of a function
DECISIONS = {"if", "elif", "for", "while", "except", "case"}

HEAD = re.compile(r"(\s*)(?:async\s+def|def|cdef|cpdef)\b[^=#:]*?\b(\w+)\s*\(")
CLASS = re.compile(r"(\s*)(?:cdef\s+)?class\s+(\w+)")
INCLUDE = re.compile(r'^\s*include\s+"([^"]+)"', re.MULTILINE)
PARTNER = re.compile(r"^    cdef (?:public |readonly )?object (\w+(?:, *\w+)*)", re.MULTILINE)
RETIRED = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)

Finding = Iterator[str]


def package(root: Path, *suffixes: str) -> Iterator[Path]:
    """The sources of the package, but none that was compiled."""
    yield from (path for path in sorted((root / "src").rglob("*")) if path.suffix in suffixes)


def known(root: Path, section: str) -> dict[str, Any]:
    file = root / "tools" / "shape.toml"
    return dict(tomllib.loads(file.read_text()).get(section, {})) if file.exists() else {}


def shrinking(root: Path, section: str, found: dict[str, int], limit: int, what: str) -> Finding:
    """What is beyond the limit and not known to be so, or is worse than known; and what is known and is not so."""
    allowed = known(root, section)
    for name, number in sorted(found.items()):
        if number > allowed.get(name, limit):
            yield f"{name} has {number} {what}, and at most {allowed.get(name, limit)} are allowed"
    for name in sorted(allowed):
        if found.get(name, 0) <= limit:
            yield f"tools/shape.toml: {name} is no exception any more, take it out of [{section}]"


def long_units(root: Path) -> Finding:
    """A .pyx with all that it includes: cut into pieces it is as long as it was."""
    found = {}
    for path in package(root, ".pyx"):
        parts = [path, *(path.with_name(name) for name in INCLUDE.findall(path.read_text()))]
        found[path.name] = sum(part.read_text().count("\n") for part in parts if part.exists())
    yield from shrinking(root, "long_units", found, LONGEST, "lines with what it includes")


def wide_lines(root: Path) -> Finding:
    found = {
        path.name: sum(len(line) > WIDEST for line in path.read_text().splitlines())
        for path in package(root, ".pyx", ".pxd", ".pxi", ".h")
    }
    yield from shrinking(root, "wide_lines", found, 0, f"lines of more than {WIDEST} characters")


def decisions(text: str) -> dict[str, int]:
    """Each function, named with its class, and how often it decides. `a if b else c` is a decision, as is the `if` or
    `for` of a comprehension; `and` and `or` are parts of one. What stands in an inner function is the inner one's."""
    counts: dict[int, int] = {}
    quoted: set[int] = set()  # lines that begin inside a text
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in DECISIONS:
            soft = token.string == "case" and text.splitlines()[token.start[0] - 1].lstrip().startswith("case ")
            counts[token.start[0]] = counts.get(token.start[0], 0) + (token.string != "case" or soft)
        elif token.type == tokenize.STRING:
            quoted.update(range(token.start[0] + 1, token.end[0] + 1))
    found: dict[str, int] = {}
    functions: list[tuple[int, str]] = []
    classes: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if number in quoted or not line.strip() or line.lstrip()[0] in "#)]}":
            continue
        indent = len(line) - len(line.lstrip())
        for stack in (functions, classes):
            while stack and indent <= stack[-1][0]:
                stack.pop()
        if head := CLASS.match(line):
            classes.append((indent, head[2]))
        elif head := HEAD.match(line):
            functions.append((indent, ".".join([name for _, name in classes] + [head[2]])))
        if functions:
            found[functions[-1][1]] = found.get(functions[-1][1], 0) + counts.get(number, 0)
    return found


def branchy(root: Path) -> Finding:
    found = {
        f"{path.relative_to(root / 'src' / 'mooring')}:{name}": count
        for path in package(root, ".py", ".pyx", ".pxd", ".pxi")
        for name, count in decisions(path.read_text()).items()
    }
    yield from shrinking(root, "branchy", found, BRANCHES, "decisions")


def untyped_partners(root: Path) -> Finding:
    """Attributes of extension types that are declared `object` and whose members are used: their class is written
    down nowhere, and nobody checks what is asked of it. Objects of other libraries are named in shape.toml."""
    foreign = known(root, "foreign_objects")
    found = {}
    for path in package(root, ".pyx"):
        unit = [path, path.with_suffix(".pxd"), *(path.with_name(name) for name in INCLUDE.findall(path.read_text()))]
        text = "\n".join(part.read_text() for part in unit if part.exists())
        for names in PARTNER.findall(text):
            for name in re.split(r", *", names):
                used = len(set(re.findall(rf"\bself\.{name}\.(\w+)", text)))
                if used and name not in foreign.get(path.name, []):
                    found[f"{path.name}:{name}"] = used
    yield from shrinking(root, "untyped_partners", found, 0, "members that are used, and is an object of no class")


def graph(root: Path) -> dict[str, set[str]]:
    """Which module imports which, also in a function and for the type checker."""
    named: dict[str, set[str]] = {}
    for path in package(root, *layers.SUFFIXES):
        parts = list(path.relative_to(root / "src").with_suffix("").parts)
        if path.suffix == ".pxi":
            parts[-1] = layers.unit(path)
        me = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        named.setdefault(me, set()).update(layers.imports(path, parts))
    found: dict[str, set[str]] = {me: set() for me in named}
    for me, names in named.items():
        for name in names:
            while name and name not in named:
                name = name.rpartition(".")[0]
            if name and name != me and not me.startswith(f"{name}."):
                found[me].add(name)
    return found


def circles(root: Path) -> Finding:
    """Modules that can be left one after the other, because they import none of those that remain, are in no circle."""
    left = graph(root)
    while free := [me for me, others in left.items() if not others & set(left)]:
        for me in free:
            del left[me]
    while free := [me for me in left if not any(me in others for others in left.values())]:
        for me in free:
            del left[me]
    found = {me: len(others & set(left)) for me, others in left.items()}
    yield from shrinking(root, "circles", found, 0, "imports of modules that import it in turn")


def untested(root: Path) -> Finding:
    """Modules without a test of their name, test_NAME.py or test_FOLDER_NAME.py, where nothing else runs. A module of
    words alone needs none; one that shape.toml names in [tested_by] has one of another name."""
    tests = {path.stem for folder in ("unit", "property") for path in (root / "tests" / folder).rglob("test_*.py")}
    others = known(root, "tested_by")
    found = {}
    for path in package(root, ".py", ".pyx"):
        place = path.relative_to(root / "src" / "mooring")
        if path.stem.startswith("__") or (path.suffix == ".py" and not has_code(path.read_text())):
            continue
        lacks = not {f"test_{path.stem}", f"test_{place.parent.name}_{path.stem}"} & tests
        other = others.pop(str(place), None)
        if other is not None and (not lacks or not (root / other).exists()):
            yield f"tools/shape.toml: {place} is not tested by {other}, take it out of [tested_by]"
        found[str(place)] = int(lacks and other is None)
    yield from (f"tools/shape.toml: there is no {place}, take it out of [tested_by]" for place in others)
    yield from shrinking(root, "untested", found, 0, "unit tests too few: write tests/unit/test_NAME.py")


def has_code(text: str) -> bool:
    return any(not isinstance(one, ast.Expr) for one in ast.parse(text).body)


def retired_words(root: Path) -> Finding:
    """What docs/words.md says is not said any more, in the sources. The manual may have to tell of it."""
    page = root / "docs" / "words.md"
    gone = set(RETIRED.findall(page.read_text().partition("## Not said any more")[2])) if page.exists() else set()
    found: dict[str, int] = dict.fromkeys(gone, 0)
    for path in package(root, *layers.SUFFIXES):
        for word in re.findall(r"\w+", path.read_text()):
            if word in gone:
                found[word] += 1
    for path in package(root, *layers.SUFFIXES):
        if path.stem in gone:
            found[path.stem] += 1
    yield from shrinking(root, "retired_words", found, 0, "places, and docs/words.md has another word for it")


CHECKS: list[Callable[[Path], Finding]] = [
    long_units,
    wide_lines,
    branchy,
    untyped_partners,
    circles,
    untested,
    retired_words,
]


def main() -> int:
    found = [line for check in CHECKS for line in check(ROOT)]
    print("\n".join(found) or "ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
