"""What a gateway opens by its name: nothing but the file that a worker has seen, whatever has its name meanwhile."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.clients import Raw, get, head, take
from security.conftest import APP, MODES
from security.watch import watched
from support.serving import Serving

SIZE = 4 << 20

SENDING = APP.replace('@server.on("request")\ndef asked', "def unused") + (
    """
from pathlib import Path

@server.on("request")
def asked(request, response):
    # the names change when the worker has the file open, and before the gateway looks for it
    _, what = request.path.split("/")
    folder = Path(request.query["folder"])
    path = folder / "below" / "file"
    response.send_file("below/file", root=folder)
    {
        "link": lambda: (path.unlink(), path.symlink_to(folder / "secret" / "file")),
        "folder": lambda: ((folder / "below").rename(folder / "old"), (folder / "below").symlink_to(folder / "secret")),
        "moved": lambda: ((folder / "below").rename(folder / "old"), (folder / "secret").rename(folder / "below")),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "device": lambda: (path.unlink(), path.symlink_to("/dev/zero")),
        "none": path.unlink,
        "closed": lambda: path.chmod(0),
    }[what]()
"""
)


@pytest.fixture(scope="module", params=MODES)
def sending(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with Serving(SENDING, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


@pytest.mark.parametrize("what", ["link", "folder", "moved", "pipe", "device", "none", "closed"])
def test_c16_what_takes_the_place_of_a_file(sending: Serving, tmp_path: Path, what: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"public" * (SIZE // 6))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_bytes(b"secret" * (SIZE // 6))
    size = SIZE // 6 * 6
    with watched(sending), Raw(sending, get(f"/{what}?folder={tmp_path}") + get(f"/none?folder={tmp_path}x")) as raw:
        fields = head(raw)
        assert fields.startswith(b"http/1.1 200 ")
        assert f"\r\ncontent-length: {size}\r\n".encode() in fields
        assert take(raw, size) == b"public" * (SIZE // 6)
        assert head(raw).startswith(b"http/1.1 404 ")
    left = [os.readlink(fd) for pid in sending.titles() for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    assert not [name for name in left if str(tmp_path) in name]
