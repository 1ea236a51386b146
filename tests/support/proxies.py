"""Real proxies in front of a server, run with what the manual says of them: docs/proxy.md is read for it.

Each is started in a folder of its own, on free ports of the loopback interface, in the foreground, and those of the
distribution as `nobody` where this process may choose. What is added to the manual's words is what a distribution's
configuration has around them.
"""

import contextlib
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from support.serving import LIMIT, ROOT

MANUAL = ROOT / "docs" / "proxy.md"
OWN = ROOT / "build" / "proxies"  # where .ci/run puts those that are no packages of Debian
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"
MODULES = Path("/usr/lib/apache2/modules")


@dataclass(frozen=True)
class Proxy:
    """One of them. `run(folder, snippet)` writes its configuration and gives the command; in the snippet the ports, the
    address and the certificate are those of the test already."""

    program: str
    run: Callable[[Path, str], list[str]]
    edits: tuple[tuple[str, str], ...] = ()
    """(pattern, replacement) for the manual's words, before the ports are put in."""
    tells: bool = False
    """It tells at once when a client leaves."""
    protocol: str = ""
    """Of the PROXY protocol; "": it speaks HTTP."""
    forwards: bool = True
    """It says who the client is."""
    env: dict[str, str] = field(default_factory=dict)

    def find(self) -> str | None:
        own = OWN / "bin" / self.program
        return str(own) if own.exists() else shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin")


def written(name: str, head: str = "", tail: str = "") -> Callable[[Path, str], str]:
    """Puts the snippet into a file of that name, between these; gives its path."""

    def write(folder: Path, snippet: str) -> str:
        path = folder / name
        path.write_text(head.replace("FOLDER", str(folder)) + snippet + tail.replace("FOLDER", str(folder)))
        return str(path)

    return write


def started(write: Callable[[Path, str], str], command: str) -> Callable[[Path, str], list[str]]:
    def run(folder: Path, snippet: str) -> list[str]:
        path = write(folder, snippet)
        return [part.replace("FILE", path).replace("FOLDER", str(folder)) for part in shlex.split(command)]

    return run


def as_typed(_folder: Path, snippet: str) -> list[str]:
    return shlex.split(snippet)


NGINX = """daemon off;
pid FOLDER/pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
"""
APACHE = "".join(
    f"LoadModule {name}_module {MODULES}/mod_{name}.so\n"
    for name in ("mpm_event", "authz_core", "headers", "proxy", "proxy_http", "ssl", "socache_shmcb")
)
APACHE += """ServerRoot FOLDER
ServerName localhost
DefaultRuntimeDir FOLDER
PidFile FOLDER/pid
ErrorLog /dev/stderr
Listen 127.0.0.1:443
"""
LIGHTTPD = """server.document-root = "FOLDER"
server.bind = "127.0.0.1"
server.port = 80
"""
SQUID = """pid_filename none
access_log none
cache_log /dev/stderr
cache_store_log none
coredump_dir FOLDER
shutdown_lifetime 0 seconds
max_filedescriptors 1024
visible_hostname localhost
"""
STUNNEL = "foreground = yes\npid =\nsyslog = no\n"

PROXIES: dict[str, Proxy] = {
    "nginx": Proxy(
        "nginx",
        started(written("nginx.conf", NGINX, "}\n"), "nginx -p FOLDER -c FILE -e stderr"),
        ((r"\blisten ", "listen 127.0.0.1:"),),
        tells=True,
    ),
    "haproxy": Proxy(
        "haproxy", started(written("haproxy.cfg"), "haproxy -db -f FILE"), ((r"bind :", "bind 127.0.0.1:"),), True
    ),
    "apache": Proxy(
        "apache2",
        started(written("apache.conf", APACHE), "apache2 -D FOREGROUND -d FOLDER -f FILE"),
        ((r"\*:443", "127.0.0.1:443"),),
    ),
    "caddy": Proxy(
        "caddy",
        started(
            written("Caddyfile", "{\n    admin off\n    auto_https disable_redirects\n}\n"),
            "caddy run --adapter caddyfile --config FILE",
        ),
        (
            (
                r"chat\.example\.org \{",
                "https://127.0.0.1:443 {\n    bind 127.0.0.1\n    CERTIFICATE",
            ),
        ),
        tells=True,
    ),
    "envoy": Proxy(
        "envoy",
        started(
            written("envoy.yaml"), "envoy --config-path FILE --concurrency 1 --disable-hot-restart --log-level warn"
        ),
        ((r"0\.0\.0\.0", "127.0.0.1"),),
        tells=True,
    ),
    "vcl": Proxy(
        "varnishd",
        started(written("chat.vcl"), "varnishd -F -j none -n FOLDER/run -f FILE -a 127.0.0.1:80 -T none -s malloc,16m"),
    ),
    "squid": Proxy(
        "squid",
        started(written("squid.conf", SQUID), "squid -N -f FILE"),
        ((r"http_port ", "http_port 127.0.0.1:"),),
        tells=True,
    ),
    "lighttpd": Proxy("lighttpd", started(written("lighttpd.conf", LIGHTTPD), "lighttpd -D -f FILE")),
    "nghttpx": Proxy("nghttpx", as_typed, ((r"\*,", "127.0.0.1,"),), tells=True),
    "h2o": Proxy(
        "h2o",
        started(written("h2o.yaml"), "h2o -m worker -c FILE"),
        ((r"  port: ", "  host: 127.0.0.1\n  port: "),),
    ),
    "javascript": Proxy(
        "node",
        started(written("proxy.cjs"), "node --no-deprecation FILE"),
        ((r"\.listen\(80\)", '.listen(80, "127.0.0.1")'),),
        env={"NODE_PATH": str(NODE_MODULES)},
    ),
    "mitmproxy": Proxy(
        "mitmdump",
        as_typed,
        ((r"mitmdump ", "mitmdump --listen-host 127.0.0.1 --set confdir=FOLDER "),),
        forwards=False,
    ),
    "haproxy-tcp": Proxy(
        "haproxy", started(written("haproxy.cfg"), "haproxy -db -f FILE"), ((r"bind :", "bind 127.0.0.1:"),), True, "v2"
    ),
    "stunnel": Proxy(
        "stunnel4",
        started(written("stunnel.conf", STUNNEL), "stunnel4 FILE"),
        ((r"accept = ", "accept = 127.0.0.1:"),),
        tells=True,
        protocol="v1",
    ),
}


def snippet_of(name: str) -> str:
    """What the manual says."""
    found = re.findall(rf"^```{re.escape(name)}\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks {name!r} in {MANUAL}"
    return str(found[0])


def free_port() -> int:
    """One below those that the kernel chooses from, so that nobody is given it until the proxy has it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Front:
    """A proxy that runs. `ports`: by scheme."""

    def __init__(self, name: str, server_port: int, authority: trustme.CA) -> None:
        self.name, self.proxy = name, PROXIES[name]
        program = self.proxy.find()
        assert program is not None
        self.folder = Path(tempfile.mkdtemp(prefix="mooring-proxy-"))
        certificate = self.folder / "chat.pem"
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        text = snippet_of(name)
        for pattern, put in self.proxy.edits:
            text, count = re.subn(pattern, put, text)
            assert count, f"{pattern!r} is not in the manual's words on {name}"
        if name == "caddy" and not self._is_new(program):
            text = re.sub(r"^ *stream_close_delay.*\n", "", text, flags=re.MULTILINE)
        text = text.replace("CERTIFICATE", f"tls {certificate} {certificate}").replace("FOLDER", str(self.folder))
        text = text.replace("/etc/ssl/chat.pem", str(certificate)).replace("chat.example.org", "127.0.0.1")
        command = self.proxy.run(self.folder, text)
        self.ports: dict[str, int] = {}
        for scheme, port in (("http", 80), ("https", 443)):
            self._put(command, port, scheme)
        command = [part.replace("9501", str(server_port)) for part in command]
        for path in self.folder.iterdir():
            if path != certificate and path.is_file():
                path.write_text(path.read_text().replace("9501", str(server_port)))
        self._start(program, command)

    def _is_new(self, program: str) -> bool:
        said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=LIMIT, check=True).stdout
        return [int(n) for n in re.findall(r"\d+", said)[:2]] >= [2, 7]

    def _put(self, command: list[str], port: int, scheme: str) -> None:
        """Puts a free port where the well-known one stands, in the file and on the command line."""
        number, chosen = re.compile(rf"(?<![\w.-]){port}(?![\w.])"), str(free_port())
        seen = 0
        for at, part in enumerate(command):
            if not part.startswith(str(self.folder)):
                command[at], count = number.subn(chosen, part)
                seen += count
        for path in self.folder.iterdir():
            if path.is_file() and path.suffix != ".pem":
                text, count = number.subn(chosen, path.read_text())
                path.write_text(text)
                seen += count
        if seen:
            self.ports[scheme] = int(chosen)

    def _start(self, program: str, command: list[str]) -> None:
        options: dict[str, object] = {}
        (self.folder / "output").touch()
        # what is not the distribution's may lie out of its reach
        if os.geteuid() == 0 and not self.proxy.env and OWN not in Path(program).parents:
            nobody = pwd.getpwnam("nobody")
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        home = {name: str(self.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "TMPDIR")}
        with (self.folder / "output").open("wb") as log:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                [program, *command[1:]],
                cwd=self.folder,
                env={**os.environ, **home, **self.proxy.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        end = time.monotonic() + LIMIT
        for port in self.ports.values():
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > end:
                        said = self.output()
                        self.stop()
                        raise AssertionError(f"{command} does not serve on {port}:\n{said}") from None
                    time.sleep(0.02)

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """All that it has started, too: they are a group of their own."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        shutil.rmtree(self.folder, ignore_errors=True)
