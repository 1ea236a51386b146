"""What a client does after a code, and what a reason must look like."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.centrifuge import codes
from mooring.centrifuge.commands import Disconnect, Error, Unsubscribe

ALL = [value for value in vars(codes).values() if isinstance(value, (Error, Disconnect, Unsubscribe))]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1001, False),
        (3000, False),
        (3499, False),
        (3500, True),
        (3999, True),
        (4000, False),
        (4499, False),
        (4500, True),
        (4999, True),
        (5000, False),
    ],
)
def test_whether_a_client_comes_back(code, expected):
    assert codes.ends_for_good(code) is expected


def is_json(text):
    """As browsers see it."""

    def no(constant):
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=no)
    except (ValueError, RecursionError):
        return False
    return True


@given(
    st.one_of(
        st.text(),
        st.sampled_from(
            ["", " ", "17", "null", '{"reason":"x"}', '"a"', "[1]", "é" * 100, "[" * 999, "NaN", "17" + " " * 200 + "x"]
        ),
    )
)
def test_a_reason_can_stand_in_a_close_frame(text):
    reason = codes.as_reason(text)
    assert reason
    assert len(reason.encode("utf-8", "strict")) <= 123
    assert not is_json(reason)


def test_a_reason_that_is_well_stays_as_it_is():
    assert codes.as_reason("the server stops") == "the server stops"


def test_every_text_of_ours_is_a_reason():
    assert len(ALL) > 25
    for value in ALL:
        text = value.message if isinstance(value, Error) else value.reason
        assert codes.as_reason(text) == text


def test_only_what_may_pass_is_temporary():
    assert {value.code for value in ALL if isinstance(value, Error) and value.temporary} == {100, 111}


def test_a_violation_is_an_end_for_good():
    end = codes.Violation("x" * 500).disconnect
    assert (end.code, len(end.reason)) == (3501, 123)
    assert codes.ends_for_good(end.code)
