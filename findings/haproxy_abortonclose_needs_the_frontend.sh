#!/usr/bin/env bash
# HAProxy 2.6: "option abortonclose" in a backend alone does nothing for a client that leaves while its answer is streamed.
#
# It is an option of backends: in a frontend HAProxy warns that it is "ignored because frontend ... has no backend capability".
# But with it in the backend only, the server of an endless answer (server-sent events) hears nothing when the client closes
# its connection, until it writes the next time. In "defaults", from where the frontend has it as well, the server's
# connection is closed at once.
#
# Seen: in the backend nothing within 3 s; in defaults the end within 1 s. Exit code 0 while it is so. Needs Debian 12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq 'haproxy=2.6.12-*' liblua5.3-0 libopentracing1 libopentracing-c-wrapper0 libpcre2-8-0 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$folder/usr/lib/x86_64-linux-gnu"
timeout 60 python3 - "$folder/usr/sbin/haproxy" <<'PYTHON'
import socket
import subprocess
import sys
import time

HAPROXY = sys.argv[1]
CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    {defaults}
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    {backend}
    server one 127.0.0.1:{server}
"""


def heard(**options):
    """Seconds until the server hears that the client has left; None: not within 3 s."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        other.close()
        config = CONFIG.format(port=port, server=listener.getsockname()[1], **{"defaults": "", "backend": "", **options})
        with open("haproxy.cfg", "w") as file:
            file.write(config)
        proxy = subprocess.Popen([HAPROXY, "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    client = socket.create_connection(("127.0.0.1", port))
                    break
                except OSError:
                    time.sleep(0.05)
            client.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
            server, _ = listener.accept()
            server.recv(65536)
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                           b"9\r\ndata: a\n\n\r\n")
            while b"data: a" not in client.recv(65536):
                pass
            client.close()
            left = time.monotonic()
            server.settimeout(3)
            try:
                server.recv(1)
            except ConnectionResetError:
                pass
            except TimeoutError:
                return None
            return time.monotonic() - left
        finally:
            proxy.terminate()
            proxy.wait()


print(subprocess.run([HAPROXY, "-v"], capture_output=True, text=True).stdout.splitlines()[0])
backend = heard(backend="option abortonclose")
defaults = heard(defaults="option abortonclose")
print("in the backend:", backend, "- in defaults:", defaults)
sys.exit(not (backend is None and defaults is not None and defaults < 1))
PYTHON
