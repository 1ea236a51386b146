"""What a page of the manual says, for tests that do it: its files, its commands and what they print.

A file is a block with a title, ```python title="chat.py"; it is whole, and a later one of that name replaces it. A
command is a line that begins with `$ ` in a block of ```console; what it prints stands behind it.
"""

import re
from pathlib import Path

from support.serving import ROOT

FILE = re.compile(r'^```\w+ title="([\w./-]+)"[^\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Page:
    """A page below docs/."""

    def __init__(self, name: str) -> None:
        self.text = (ROOT / "docs" / name).read_text()
        self.files = dict(FILE.findall(self.text))

    def write(self, folder: Path) -> None:
        """Its files, with a port that is free in place of the one they name."""
        for name, text in self.files.items():
            (folder / name).write_text(re.sub(r'"127\.0\.0\.1", 95\d\d', '"127.0.0.1", 0', text))

    def blocks(self, language: str) -> list[str]:
        return [text for found, text in BLOCK.findall(self.text) if found == language]

    def commands(self) -> list[str]:
        return re.findall(r"^\$ (.*)$", "\n".join(self.blocks("console")), re.MULTILINE)

    def printed(self, command: str) -> list[str]:
        """What the page shows behind that command."""
        block = next(block for block in self.blocks("console") if f"$ {command}\n" in block)
        return block.partition(f"$ {command}\n")[2].partition("\n$ ")[0].splitlines()


def shape(line: str) -> str:
    """A line of a log or of `ps` without what is different each time: times, process ids, ports."""
    return re.sub(r"\d+(?:[.,:-]\d+)*", "N", line)
