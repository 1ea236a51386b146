"""Where each process of a server begins that is started with a `Boot`: it takes its name, its log, and its role.

What is imported here, and for a role, each process of it pays for at its start: a supervisor has no application, a
gateway no asyncio. A test says of each role what it must not load.
"""

import os
import sys

import msgspec
import setproctitle

from mooring.boot import Boot
from mooring.config import Settings
from mooring.journal import own_logger
from mooring.net.log import fill_standard_streams, log_to
from mooring.roles import SUPERVISOR

log = own_logger("mooring.runtime")


def boot(fd: int) -> None:
    """`_process FD` on the command line: becomes what the memory file says."""
    fill_standard_streams()
    with open(fd, "rb") as file:
        told = msgspec.msgpack.decode(file.read(), type=Boot)
    told.keep_descriptors()
    if told.place:
        os.chdir(told.place)
    settings = Settings.from_options(told.settings)
    setproctitle.setproctitle(f"mooring: {told.name}")
    log_to(settings, told.name)
    for note in told.notes:
        log.warning("%s", note)
    if told.role == SUPERVISOR:
        from mooring.supervise import supervise

        sys.exit(supervise(told, settings))
    from mooring.runtime import join

    join(told, settings)
