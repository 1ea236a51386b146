"""The targets of `make fuzz`, on the inputs that are committed for them: what once did harm does none again."""

import gc

import pytest

from fuzz.harness import inputs, load, names


@pytest.mark.parametrize("name", names())
def test_every_input_passes(name: str) -> None:
    target, some = load(name), inputs(name)
    assert some
    try:
        for data in some:
            target.one(data)
    finally:
        gc.unfreeze()  # what a target exempts for speed; other tests look for garbage, too
