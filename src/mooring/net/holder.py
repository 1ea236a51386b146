"""Which process has the address that we wanted: what `ss -ltnp` says, without needing it.

/proc/net/tcp and tcp6 list the sockets of this network namespace with their inodes, and /proc/PID/fd names the inodes
that a process has open. Of processes of other users, and of other containers, nothing can be seen unless we are root:
then nobody is named.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

LISTEN = "0A"  # as the kernel writes the state
COMM_LIMIT = 15  # what the kernel keeps of a process's name
TITLE = "mooring: "
TITLE_LIMIT = 60  # what is shown of one that it has given itself
LIMIT = 0.4  # seconds to look; a machine can have millions of descriptors


def holder_of(host: str, port: int) -> str:
    """`NAME (pid N)` of a process that keeps others from listening there; empty when it can't be found."""
    wanted = _plain(ip_address(host.partition("%")[0]))
    found = [
        (state != LISTEN, f"socket:[{inode}]")  # one that does not listen can be in the way, too
        for address, there, state, inode in _sockets()
        if there == port and inode != "0" and _meet(address, wanted)
    ]
    pid = _owner([inode for _, inode in sorted(found)])
    return program(pid) if pid else ""


def _meet(one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address) -> bool:
    """Whether only one of two sockets can have its address: :: is every address, 0.0.0.0 every one of IPv4."""
    return one == other or any(
        every.is_unspecified and every.version >= single.version for every, single in ((one, other), (other, one))
    )


def program(pid: int) -> str:
    """`NAME (pid N)` of a process, or only its number."""
    try:
        name = _text(pid, "comm").strip()
        title = _text(pid, "cmdline").partition("\0")[0].strip()
    except OSError:
        return f"pid {pid}"
    if len(name) == COMM_LIMIT and title.startswith(name):  # it was cut
        name = title[:TITLE_LIMIT]
    return f"{name} (pid {pid})"


def server_of(pid: int) -> int:
    """The process to stop for one that serves: of a worker or gateway of ours its supervisor, which would start another
    one; of any other process that itself."""
    try:
        parent = int(
            _text(pid, "stat").rpartition(")")[2].split()[1]
        )  # proc_pid_stat(5): the name may have anything in it
        ours = _text(pid, "cmdline").startswith(TITLE) and _text(parent, "cmdline").startswith(f"{TITLE}supervisor")
    except OSError:
        return pid
    return parent if ours else pid


def _text(pid: int, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8", errors="replace")


def _sockets() -> Iterator[tuple[IPv4Address | IPv6Address, int, str, str]]:
    """Address, port, state and inode of each TCP socket."""
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            words = row.split()
            address, _, port = words[1].partition(":")
            yield _address(address), int(port, 16), words[3], words[9]


def _address(text: str) -> IPv4Address | IPv6Address:
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":  # each 32 bits are printed as a number of this machine
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return _plain(ip_address(raw))


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _owner(inodes: list[str]) -> int:
    """The process that has the first of these that anybody is seen to have; of several, mostly their parent.

    0: nobody.
    """
    best, owner = len(inodes), 0
    limit = time.monotonic() + LIMIT
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()) if inodes else ():
        try:
            with os.scandir(f"/proc/{pid}/fd") as files:
                for file in files:
                    link = os.readlink(file.path)
                    if link in inodes[:best]:
                        best, owner = inodes.index(link), pid
                    if time.monotonic() > limit:
                        return owner
        except OSError:
            continue  # it has ended, or is not ours to look at
        if best == 0:
            break
    return owner
