"""A request on its way to a worker: what comes out is what went in, and nothing else does harm."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.app.request_record import RequestRecord, encode_request, split_payload

HEAD = RequestRecord("POST", "/a?b=1", 1, [("host", "x"), ("a", "é")], "::1", 1, 2, "https", 1.5, 3, streamed=True)


@given(body=st.binary(max_size=100))
def test_it_comes_back(body: bytes) -> None:
    assert split_payload(encode_request(HEAD, body)) == (HEAD, body)


@given(cut=st.integers(0, len(encode_request(HEAD, b"")) - 1))
def test_a_part_of_one_is_a_value_error(cut: int) -> None:
    with pytest.raises(ValueError, match=r"too short for the length|whose head ends at"):
        split_payload(encode_request(HEAD, b"")[:cut])


@given(payload=st.binary(max_size=60))
def test_whatever_comes_is_a_request_or_a_value_error(payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        split_payload(payload)
