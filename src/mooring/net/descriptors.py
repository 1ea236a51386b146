"""How many descriptors a process may have."""

import resource

DESCRIPTOR_LIMIT = 1 << 20  # every process raises its own up to this
SPARE_DESCRIPTORS = 64  # beside those of channels: log files, certificates, whoever asks
LINK_DESCRIPTORS = 3  # of one link to another process


def raise_descriptor_limit() -> int:
    """Lets this process have as many descriptors as it may, 1,048,576 at most; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTOR_LIMIT if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
