"""Tells a user of the chat something, from outside of the server: for cron, or anything else that runs now and then.

    mooring run examples.chat:server --control-socket /tmp/chat.sock
    python examples/notify.py /tmp/chat.sock ada "the build is green"

Exit code 0: sent; 1: the user is not there; 2: no server answers, or it refuses.
"""

import json
import os
import sys

import mooring


def notify(path: str, user: str, text: str) -> int:
    """How many connections of the user get it."""
    chat = mooring.connect(path, timeout=5)
    count: int = chat.listing(user, limit=0)["total"]
    chat.push_user(user, json.dumps({"type": "said", "id": "", "name": "notify", "pid": os.getpid(), "text": text}))
    return count


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        reached = notify(*sys.argv[1:])
    except mooring.AdminError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"sent to {reached} connections" if reached else f"{sys.argv[2]} is not there")
    sys.exit(0 if reached else 1)
