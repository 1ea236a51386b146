"""Does an installed mooring serve? The README's example, with a client of another make: `tools/smoke.py [PYTHON]`.

PYTHON is the interpreter of the environment that mooring is installed in; without it, the one that runs this, as
cibuildwheel does for each wheel. The server sees nothing but that environment: no variable, no program besides, and
not this checkout. The client is the package websockets, of the interpreter that runs this.
"""

from __future__ import annotations

import re
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 30.0  # seconds for anything
EXAMPLE = re.compile(r"<!-- example: .*? -->\n```python\n(.*?)```", re.DOTALL)


def example() -> str:
    """The first program of the README, on a port that is free."""
    found = EXAMPLE.search((ROOT / "README.md").read_text())
    if found is None or '"127.0.0.1", 9501' not in found[1]:
        raise SystemExit("the README has no example on port 9501 any more")
    return found[1].replace('"127.0.0.1", 9501', '"127.0.0.1", 0')


def wait_for_port(server: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Where it listens, once it is ready, and what it has printed."""
    assert server.stdout is not None
    said, end = b"", time.monotonic() + LIMIT
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        while b" ready" not in said:
            if not selector.select(end - time.monotonic()):
                raise SystemExit(f"it was not ready within {LIMIT:g} s:\n{said.decode()}")
            more = server.stdout.read1()  # type: ignore[attr-defined]  # a pipe that is buffered
            if not more:
                raise SystemExit(f"it ended:\n{said.decode()}")
            said += more
    found = re.search(rb"listening on 127\.0\.0\.1:(\d+)", said)
    if found is None:
        raise SystemExit(f"it does not say where it listens:\n{said.decode()}")
    return int(found[1]), said.decode()


def serve(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Two clients talk by the server that `command` starts, then it is stopped. Raises SystemExit."""
    server = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        port, said = wait_for_port(server)
        url = f"ws://127.0.0.1:{port}/"
        with (
            connect(f"{url}?name=Ada", proxy=None, open_timeout=LIMIT) as ada,
            connect(url, proxy=None, open_timeout=LIMIT) as other,
        ):
            other.send("hi")  # answered when it is in
            if other.recv(LIMIT) != "anonymous: hi":
                raise SystemExit("the first message did not come back")
            ada.send("hello")
            if other.recv(LIMIT) != "Ada: hello":
                raise SystemExit("a message did not reach the other client")
        server.send_signal(signal.SIGTERM)
        rest, _ = server.communicate(timeout=LIMIT)
        if server.returncode:
            raise SystemExit(f"it ended with {server.returncode}:\n{said}{rest.decode()}")
    finally:
        server.kill()
        server.wait()


def main() -> None:
    python = Path(sys.argv[1] if len(sys.argv) > 1 else sys.executable).absolute()
    environment = {"PATH": str(python.parent)}
    with TemporaryDirectory(prefix="mooring-smoke-") as name:
        folder = Path(name)
        (folder / "chat.py").write_text(example())
        ask = [str(python), "-c", "import mooring; print(mooring.__file__)"]
        home = subprocess.run(ask, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
        if Path(home.strip()).is_relative_to(ROOT):
            raise SystemExit(f"that is the checkout, and nothing that is installed: {home}")
        for command in ([str(python), "chat.py"], [str(python.with_name("mooring")), "run", "chat:server"]):
            serve(command, folder, environment)
    print(f"the README's example runs, from {Path(home).parent}")


if __name__ == "__main__":
    main()
