"""What docs/json.md says is true: its example runs, and answers as it is shown."""

import json
import re
import sys

from websockets.sync.client import ClientConnection, connect

from support.serving import ROOT, Serving

PAGE = (ROOT / "docs/json.md").read_text()
LIMIT = 10.0


def shown() -> list[tuple[str, str, str]]:
    """Each line of the dialogue: what is said, who hears of it ("<": who has said it), and what."""
    block = re.search(r"```text\n(> .*?)```", PAGE, re.DOTALL)
    assert block
    lines = [re.fullmatch(r"> (.*?) +(<|everybody else:) (.*)", line) for line in block[1].splitlines()]
    return [(line[1], line[2], line[3]) for line in lines if line]


def heard(client: ClientConnection, expected: str) -> None:
    """A text that ends with dots is shown in part."""
    said = json.loads(client.recv(LIMIT))
    wanted = json.loads(expected)
    if "error" in wanted and wanted["error"]["reason"].endswith("..."):
        assert said["error"]["reason"].startswith(wanted["error"].pop("reason")[:-3])
        del said["error"]["reason"]
    assert said == wanted


def test_the_dialogue_of_the_page_on_json(tmp_path):
    text = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert text
    (tmp_path / "game.py").write_text(text[1].replace('"127.0.0.1", 9502', '"127.0.0.1", 0'))
    with Serving(tmp_path / "game.py", argv=(sys.executable, "game.py"), cwd=tmp_path) as server:
        with connect(server.url) as player, connect(server.url) as other:
            lines = shown()
            assert len(lines) == 5
            player.send('{"type": "move", "x": 3}')
            heard(player, '{"error": {"reason": "join a room first", "path": "$"}}')
            for said, who, what in lines:
                player.send(said)
                if who == "<":
                    heard(player, what)
                else:
                    heard(other, what)
                if "join" in said:
                    other.send(said)
                    heard(other, what.replace("1", "2"))
        assert server.stop() == 0
