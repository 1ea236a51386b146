"""How many descriptors a process takes."""

import resource

import pytest

from mooring.net import descriptors


@pytest.mark.parametrize(
    ("soft", "hard", "taken"),
    [
        (1024, 4096, 4096),
        (4096, 4096, 4096),
        (1024, resource.RLIM_INFINITY, 1 << 20),
        (1024, 1 << 24, 1 << 20),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1 << 20),
    ],
)
def test_f32_a_process_takes_what_it_may_have(monkeypatch, soft, hard, taken):
    made = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: made.append(limits))
    assert descriptors.raise_descriptor_limit() == taken
    assert made == ([(taken, hard)] if soft not in (taken, resource.RLIM_INFINITY) else [])
