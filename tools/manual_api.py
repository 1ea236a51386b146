"""What the API reference of the manual needs besides the docstrings: an extension of griffe, which reads the sources.

Nothing is imported, so the manual can be built without a compiler. griffe reads Python and stubs; here is added
* the docstring of a compiled class or function, which stands in its .pyx;
* a table of the members of an enum or a dataclass, with what the comment behind each says;
* a link wherever a docstring names a public exception or a page of the manual, and `code` for each call() in it.
Members whose docstring begins with "For the" are left out: they are for other parts of the server.
"""

import ast
import re
from pathlib import Path

import griffe

EXCEPTIONS = ast.parse((Path(__file__).parents[1] / "src/mooring/errors.py").read_text())
NAMES = "|".join(one.name for one in EXCEPTIONS.body if isinstance(one, ast.ClassDef) and one.name != "BadText")
CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
LINKED = (
    (re.compile(rf"(?<![\w.\[])({NAMES})\b"), r"[\1][mooring.\1]"),
    (re.compile(r"docs/([\w-]+)\.md"), r"[\1](../\1.md)"),
    (re.compile(r"(?<![\w.])([a-z_]+\(\))"), r"`\1`"),
)
COMMENT = re.compile(r"  # (.*)$")


class ManualApi(griffe.Extension):
    """Named in mkdocs.yml."""

    def on_package(self, *, pkg: griffe.Module, loader: object, **options: object) -> None:
        self._mend(pkg)

    def _mend(self, module: griffe.Module | griffe.Class) -> None:
        for name, one in list(module.members.items()):
            if one.is_alias:
                continue
            text = one.docstring.value if one.docstring else _compiled(one)
            if one.is_class:
                self._mend(one)
                text += _table(one)
            elif one.is_module:
                self._mend(one)
            elif text.startswith("For the "):
                del module.members[name]
                continue
            one.docstring = griffe.Docstring(_linked(text), parent=one) if text else None


def _linked(text: str) -> str:
    """With links and code, except in what is code already."""
    parts = CODE.split(text)
    for number in range(0, len(parts), 2):
        for pattern, link in LINKED:
            parts[number] = pattern.sub(link, parts[number])
    return "".join(parts)


def _compiled(one: griffe.Object) -> str:
    """The docstring of what is compiled, from its source."""
    if one.filepath.suffix != ".pyi" or not (one.is_class or one.is_function):
        return ""
    source = one.filepath.with_suffix(".pyx").read_text()
    if one.parent is not None and one.parent.is_class:
        source = "".join(re.split(rf"^(?=cdef class {one.parent.name}\b)", source, flags=re.M)[1:])
    found = re.search(rf'^ *(?:cdef class|def|cpdef) {one.name}\b[^\n]*\n\s*"""(.*?)"""', source, re.M | re.S)
    return found[1] if found else ""


def _table(one: griffe.Class) -> str:
    """The members of an enum, the fields of a dataclass."""
    enum = any("Enum" in str(base) for base in one.bases)
    if not enum and "dataclass" not in one.labels:
        return ""
    lines = ["", "", f"| | {'value' if enum else 'type'} | |", "|---|---|---|"]
    for name, member in list(one.members.items()):
        if member.is_alias or not member.is_attribute or name.startswith("_") or "property" in member.labels:
            continue
        about = member.docstring.value if member.docstring else ""
        comment = COMMENT.search(member.lines_collection[member.filepath][member.lineno - 1])
        shown = str(member.value if enum else member.annotation).replace("|", "or")
        lines.append(f"| `{name}` | `{shown}` | {about or (comment[1] if comment else '')} |")
        del one.members[name]
    return "\n".join(lines) if len(lines) > 4 else ""
