#!/usr/bin/env bash
# Autobahn against bench/server.py in both modes: groups 1-7, 9 and 10; with DEFLATE=1 12 and 13. No case may be FAILED or
# MISSING.
#
#   conformance/run.sh            everything (group 9 moves large messages: several minutes)
#   QUICK=1 conformance/run.sh    without group 9
#   DEFLATE=1 conformance/run.sh  12 and 13 with permessage-deflate; with TAKEOVER=1 windows are kept
#   TLS=1 conformance/run.sh      over TLS
#   MODES=base conformance/run.sh --cases '7.*'    one mode; options go on to autobahn.py
#
# Each server runs on a port the kernel had free and is stopped by its process id.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
patience=20 # seconds for a server to start or stop
server=

stop_server() {
    [ -n "$server" ] || return 0
    kill -TERM "$server" 2>/dev/null || true
    timeout "$patience" tail --pid="$server" -f /dev/null || kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
trap stop_server EXIT

free_port() {
    $python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_for_port() {
    $python - "$1" "$server" "$patience" <<'PROGRAM'
import os, socket, sys, time

port, pid, patience = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
deadline = time.monotonic() + patience
while time.monotonic() < deadline:
    os.kill(pid, 0)  # ProcessLookupError: the server has ended
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        sys.exit(0)
    except OSError:
        time.sleep(0.05)
sys.exit(f"port {port} did not accept within {patience:g} s")
PROGRAM
}

scheme=ws
options=()
cases=(--core ${QUICK:+--exclude '9.*'})
if [ -n "${DEFLATE:-}" ]; then
    options+=(--compression ${TAKEOVER:+--takeover})
    cases=(--cases "${QUICK:+12.*.1,12.*.3,13.*.1,13.*.3}")
    [ -n "${QUICK:-}" ] || cases=(--cases '12.*,13.*')
fi
if [ -n "${TLS:-}" ]; then
    scheme=wss
    folder=$(mktemp -d)
    trap 'stop_server; rm -r "$folder"' EXIT
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 \
        -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null
    options+=(--tls "$folder/cert.pem" "$folder/key.pem")
fi

status=0
for mode in ${MODES:-base process}; do
    port=$(free_port)
    $python bench/server.py "$port" --mode "$mode" "${options[@]}" &
    server=$!
    wait_for_port "$port"
    printf '\n== %s mode ==\n' "$mode"
    $python conformance/autobahn.py "${cases[@]}" --agent "mooring-$mode" \
        --out "conformance/reports/$mode" "$@" "$scheme://127.0.0.1:$port/" || status=1
    stop_server
done
exit $status
