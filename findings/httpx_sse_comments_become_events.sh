#!/usr/bin/env bash
# httpx-sse 0.4.3 hands out an empty event for a comment, once an event had an id.
#
# The HTML standard, section 9.2.6: a line that begins with a colon is ignored, and an empty line with an empty data buffer
# dispatches nothing. Servers keep a stream alive with such comments, every 15 seconds or so. As soon as one event had an
# "id:", httpx-sse gives the application an event with no data for each of them. Without ids it gives none.
#
# Seen: 4 events, two of them empty. By the standard: 2. Exit code 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check httpx==0.28.1 httpx-sse==0.4.3
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import httpx
from httpx_sse import connect_sse


def events(body):
    answer = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)
    with httpx.Client(transport=httpx.MockTransport(lambda request: answer)) as client:
        with connect_sse(client, "GET", "http://example.org/") as source:
            return [(event.event, event.data, event.id) for event in source.iter_sse()]


with_ids = events("id: 1\ndata: one\n\n: keep-alive\n\n: keep-alive\n\ndata: two\n\n")
without = events("data: one\n\n: keep-alive\n\n: keep-alive\n\ndata: two\n\n")
print("httpx-sse", version("httpx-sse"))
print("with an id: ", with_ids)
print("without one:", without)
sys.exit(not (len(with_ids) == 4 and with_ids[1] == with_ids[2] == ("message", "", "1") and len(without) == 2))
PYTHON
