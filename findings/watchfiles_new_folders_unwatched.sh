#!/usr/bin/env bash
# watchfiles 1.3.0 says nothing when a new folder below a watched one can't be watched, and misses all that happens in it.
#
# inotify watches are limited for each user (fs.inotify.max_user_watches; inotify_add_watch then fails with ENOSPC). At the
# start watchfiles raises OSError for that. For a folder that is made later it tells of the folder, and neither raises nor
# logs that it does not follow it: changes in it are lost, while others go on to be told.
#
# Seen, with a limit of 3 watches in a user namespace: 6 new folders are told, and 2 of the 6 files that are made in
# them. Exit code 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check watchfiles==1.3.0
cat > "$folder/look.py" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import watchfiles

root = Path(sys.argv[1])
steps, told = 0, set()
for changes in watchfiles.watch(root, watch_filter=None, rust_timeout=300, yield_on_timeout=True, debounce=100):
    told.update(Path(path).relative_to(root).as_posix() for _, path in changes)
    steps += 1
    if steps == 2:
        for number in range(6):
            (root / f"new{number}").mkdir()
    if steps == 8:
        for number in range(6):
            (root / f"new{number}" / "file").write_text("x")
    if steps == 14:
        break
folders = sum(f"new{number}" in told for number in range(6))
files = sum(f"new{number}/file" in told for number in range(6))
print("watchfiles", version("watchfiles"), "told of", folders, "of 6 new folders and", files, "of 6 files in them; no error")
sys.exit(not (folders == 6 and files < 6))
PYTHON
mkdir "$folder/root"
unshare --user --map-root-user sh -c "echo 3 > /proc/sys/user/max_inotify_watches && exec '$folder/venv/bin/python' '$folder/look.py' '$folder/root'"
