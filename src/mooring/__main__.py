"""`python -m mooring`: the command line, and the door through which every process of a server comes in.

`_process FD` is how the supervisor starts gateways and workers; it is looked at first and imports no
command line, because each respawned worker pays for what is imported here.
"""

import gc
import sys


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "_process":
        gc.disable()  # until everything is loaded (mooring.boot.loaded)
        from .entry import boot

        boot(int(sys.argv[2]))
    else:
        from .cli import main as command_line

        command_line(prog_name="mooring")


if __name__ == "__main__":
    main()
