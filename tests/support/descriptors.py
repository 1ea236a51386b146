"""How many descriptors the process of the tests has open."""

import gc
import os
import warnings


def open_descriptors() -> int:
    """Without those that other tests have left to the garbage collector, which would close them at any time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it would blame the test that asks
        gc.collect()
    return len(os.listdir("/proc/self/fd"))
