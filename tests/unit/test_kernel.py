"""What the kernel says of a process."""

import os
import subprocess
import sys
import time

from mooring.monitor import kernel


def test_of_this_process():
    me = os.getpid()
    resident, proportional = kernel.resident_bytes(me), kernel.proportional_bytes(me)
    assert resident is not None
    assert proportional is not None
    assert 1 << 20 < proportional <= resident + (1 << 20)  # it grows meanwhile
    before = kernel.cpu_seconds(me)
    assert before is not None
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = kernel.cpu_seconds(me)
    assert after is not None
    assert 0.05 <= after - before <= 10


def test_of_one_that_has_ended():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for ask in (kernel.cpu_seconds, kernel.resident_bytes, kernel.proportional_bytes):
        assert ask(child.pid) is None
