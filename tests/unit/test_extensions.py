"""The negotiation of permessage-deflate: the grammar, and what is answered to which offer."""

import itertools

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from mooring.gateway.extensions import Compression, negotiate, parse

S, C = "server_no_context_takeover", "client_no_context_takeover"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([], []),
        (["permessage-deflate"], [("permessage-deflate", [])]),
        (['a, b ;x = 1;y="2" '], [("a", []), ("b", [("x", "1"), ("y", "2")])]),
        (["a", "b"], [("a", []), ("b", [])]),
        ([""], []),
        ([" ", "a"], [("a", [])]),
        (["a,"], [("a", [])]),
        ([" , ,a;x=1, ,\t, b,"], [("a", [("x", "1")]), ("b", [])]),
        ([","], []),
        (["a,", ",b"], [("a", []), ("b", [])]),
        ([",;a"], None),
        (["a,;x=1"], None),
        (["a" + "," * 128], [("a", [])]),
        (["a" + "," * 128, "b;c"], None),
        (["a" + ";b" * 4000], None),
        (["a b"], None),
        (["a; x="], None),
        (['a; x="1 2"'], None),
        (["a;"], None),
        (["a=1"], None),
    ],
)
def test_the_grammar(fields, found):
    assert parse(fields) == found


@pytest.mark.parametrize(
    ("offers", "wish", "answer"),
    [
        ("permessage-deflate", Compression(), f"permessage-deflate; {S}; {C}"),
        ("permessage-deflate", Compression(server_takeover=True, client_takeover=True), "permessage-deflate"),
        (f"permessage-deflate; {S}", Compression(15, 15, True, True), f"permessage-deflate; {S}"),
        (f"permessage-deflate; {C}", Compression(15, 15, True, True), f"permessage-deflate; {C}"),
        ("permessage-deflate; server_max_window_bits=10", Compression(15, 15, True, True),
         "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=12", Compression(10, 15, True, True),
         "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8", Compression(15, 15, True, True),
         f"permessage-deflate; {S}; server_max_window_bits=8"),
        ("permessage-deflate; client_max_window_bits", Compression(15, 11, True, True),
         "permessage-deflate; client_max_window_bits=11"),
        ("permessage-deflate; client_max_window_bits=9", Compression(15, 11, True, True),
         "permessage-deflate; client_max_window_bits=9"),
        # the client cannot be told a window that it did not offer to keep to (section 7.1.2.2)
        ("permessage-deflate", Compression(15, 11, True, True), "permessage-deflate"),
        # declined offers: the next one is taken
        ("permessage-deflate; what=1, permessage-deflate", Compression(15, 15, True, True), "permessage-deflate"),
        (f"permessage-deflate; {S}=1", Compression(), None),
        (f"permessage-deflate; {S}; {S}", Compression(), None),
        ("permessage-deflate; server_max_window_bits", Compression(), None),
        ("permessage-deflate; server_max_window_bits=16", Compression(), None),
        ("permessage-deflate; server_max_window_bits=08", Compression(), None),
        ("permessage-deflate; client_max_window_bits=7", Compression(), None),
        ("x-webkit-deflate-frame", Compression(), None),
    ],
)  # fmt: skip
def test_the_answer(offers, wish, answer):
    agreed = negotiate(parse([offers]), wish)
    assert (agreed.answer if agreed else None) == answer


def test_another_implementation_takes_every_answer():
    bits = [None, 9, 12, 15]
    for s_no, c_no, s_bits, c_bits in itertools.product([False, True], [False, True], bits, [None, True, 9, 15]):
        factory = ClientPerMessageDeflateFactory(s_no, c_no, s_bits, c_bits)
        offer = "; ".join(
            [
                factory.name,
                *(name if value is None else f"{name}={value}" for name, value in factory.get_request_params()),
            ]
        )
        for wish in (Compression(), Compression(11, 11, True, True), Compression(15, 15, True, False)):
            agreed = negotiate(parse([offer]), wish)
            assert agreed is not None, offer
            _, *answered = agreed.answer.split("; ")
            params = [tuple(part.split("=")) if "=" in part else (part, None) for part in answered]
            theirs = factory.process_response_params(params, [])
            assert theirs.remote_max_window_bits == agreed.server_bits
            assert theirs.remote_no_context_takeover == (not agreed.server_takeover)
            assert theirs.local_no_context_takeover == (not agreed.client_takeover)
