"""Tokens: signatures, times, kinds; and what is no token."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from mooring.centrifuge.claims import TokenError, TokenExpired
from mooring.centrifuge.commands import EMPTY
from mooring.centrifuge.tokens import Key, Tokens
from mooring.errors import ConfigError

SECRET = "a secret that is long enough for HS256"
NOW = 1_800_000_000


def public(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
OTHER_CURVE = ec.generate_private_key(ec.SECP256R1())
TOKENS = Tokens([Key("HS256", SECRET), Key("RS256", public(RSA)), Key("ES256", public(CURVE))], lambda: NOW)
SIGNERS = {"HS256": SECRET, "RS256": RSA, "ES256": CURVE}


def signed(algorithm="HS256", key=None, headers=None, **claims):
    return jwt.encode(claims, key or SIGNERS[algorithm], algorithm, headers=headers)


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_what_a_connection_says(algorithm):
    claims = TOKENS.connection(
        signed(algorithm, sub="ann", exp=NOW + 60, iat=NOW, info={"n": [1, "✓"]}, meta=7, channels=["a", "b"])
    )
    assert (claims.user, claims.ttl) == ("ann", 60)
    assert json.loads(bytes(claims.info)) == {"n": [1, "✓"]}
    assert bytes(claims.meta) == b"7"
    assert claims.subs == {"a": EMPTY, "b": EMPTY}


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_what_a_subscription_says(algorithm):
    claims = TOKENS.subscription(signed(algorithm, sub="ann", channel="news", client="c1", info=1, override={"x": {}}))
    assert (claims.user, claims.channel, claims.client, claims.ttl) == ("ann", "news", "c1", None)
    assert bytes(claims.info) == b"1"
    assert json.loads(bytes(claims.override)) == {"x": {}}


def test_an_empty_one_is_somebody_without_a_name():
    claims = TOKENS.connection(signed())
    assert (claims.user, claims.ttl, claims.info, claims.subs) == ("", None, EMPTY, {})


def test_options_of_channels():
    subs = {"a": {"recover": True}}
    found = TOKENS.connection(signed(subs=subs, channels=["a", "b"])).subs
    assert {name: bytes(raw) for name, raw in found.items()} == {"a": b'{"recover":true}', "b": b""}


def test_info_as_bytes():
    claims = TOKENS.connection(signed(b64info=base64.b64encode(b'{"a":1}').decode()))
    assert bytes(claims.info) == b'{"a":1}'
    with pytest.raises(TokenError, match="base64"):
        TOKENS.connection(signed(b64info="!"))


@pytest.mark.parametrize(
    ("claims", "ttl"),
    [
        ({"exp": NOW + 60, "expire_at": NOW + 600}, 600),
        ({"exp": NOW + 60, "expire_at": 0}, None),
        ({"expire_at": NOW + 5}, 5),
        ({"exp": NOW + 0.5}, 0.5),
        ({}, None),
    ],
)
def test_how_long(claims, ttl):
    assert TOKENS.connection(signed(**claims)).ttl == ttl


@pytest.mark.parametrize(
    "claims", [{"exp": NOW}, {"exp": NOW - 1}, {"exp": NOW - 1, "expire_at": NOW + 9}, {"expire_at": 5}]
)
def test_time_that_is_over(claims):
    with pytest.raises(TokenExpired):
        TOKENS.connection(signed(**claims))
    with pytest.raises(TokenExpired):
        TOKENS.subscription(signed(channel="a", **claims))


def test_leeway():
    tokens = Tokens([Key("HS256", SECRET)], lambda: NOW, leeway=10)
    assert tokens.connection(signed(exp=NOW - 9)).ttl == 0
    assert tokens.connection(signed(nbf=NOW + 9)).ttl is None
    with pytest.raises(TokenExpired):
        tokens.connection(signed(exp=NOW - 10))


def test_a_signature_of_somebody_else():
    for token in (
        signed(key="b secret that is long enough for HS256"),
        signed("ES256", OTHER_CURVE),
        signed(sub="ann")[:-2] + "AA",
        jwt.encode({}, None, "none"),
        signed("HS256", SECRET * 2, {"kid": "x"}),
    ):
        with pytest.raises(TokenError) as raised:
            TOKENS.connection(token)
        assert not isinstance(raised.value, TokenExpired)
        assert token not in str(raised.value)


def test_a_public_key_is_no_secret():
    """The header says HS256, and the signature was made with what everybody knows."""
    pem = public(RSA)
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(b'{"sub":"root"}').rstrip(b"=")
    import hashlib
    import hmac

    signature = base64.urlsafe_b64encode(hmac.digest(pem, head + b"." + body, hashlib.sha256)).rstrip(b"=")
    token = b".".join((head, body, signature)).decode()
    for tokens in (Tokens([Key("RS256", pem)], lambda: NOW), TOKENS):
        with pytest.raises(TokenError, match="no key"):
            tokens.connection(token)


def test_keys_by_name():
    new = "another secret that is long enough"
    tokens = Tokens([Key("HS256", SECRET, "old"), Key("HS256", new, "new")], lambda: NOW)
    assert tokens.connection(signed(sub="a", headers={"kid": "old"})).user == "a"
    assert tokens.connection(signed(key=new, sub="b", headers={"kid": "new"})).user == "b"
    assert tokens.connection(signed(key=new, sub="c")).user == "c"
    with pytest.raises(TokenError):
        tokens.connection(signed(key=new, headers={"kid": "old"}))


def test_one_kind_is_not_the_other():
    with pytest.raises(TokenError, match="subscription"):
        TOKENS.connection(signed(sub="ann", channel="news"))
    with pytest.raises(TokenError, match="subscription"):
        TOKENS.connection(signed(sub="ann", channel=""))
    with pytest.raises(TokenError, match="channel"):
        TOKENS.subscription(signed(sub="ann"))
    with pytest.raises(TokenError, match="channel"):
        TOKENS.subscription(signed(channel=""))


def test_audience_and_issuer():
    tokens = Tokens([Key("HS256", SECRET)], lambda: NOW, audience="chat", issuer="us")
    assert tokens.connection(signed(aud="chat", iss="us", sub="a")).user == "a"
    assert tokens.connection(signed(aud=["x", "chat"], iss="us", sub="b")).user == "b"
    for wrong in ({"iss": "us"}, {"aud": "chat"}, {"aud": "other", "iss": "us"}, {"aud": "chat", "iss": "them"}):
        with pytest.raises(TokenError):
            tokens.connection(signed(**wrong))


@pytest.mark.parametrize(
    "claims",
    [
        {"nbf": NOW + 5},
        {"sub": 5},
        {"exp": "soon"},
        {"exp": True},
        {"channels": "a"},
        {"subs": []},
        {"channel": None},
        {"b64info": 3},
        {"exp": [NOW]},
        {"channels": [1]},
    ],
)
def test_claims_that_can_not_be(claims):
    with pytest.raises(TokenError):
        TOKENS.connection(jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256"))


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"1", b"{", b'{"sub":"\xff"}', b'{"info":' + b"[" * 50_000, b'{"exp":NaN}']
)
def test_payloads_that_are_none(payload):
    with pytest.raises(TokenError):
        TOKENS.connection(jwt.api_jws.encode(payload, SECRET, "HS256"))


@given(
    st.one_of(
        st.text(), st.text(alphabet="abcXYZ019-_.=", max_size=60), st.binary().map(lambda raw: raw.decode("latin-1"))
    )
)
def test_anything_else_is_an_error_with_a_name(token):
    with pytest.raises(TokenError):
        TOKENS.connection(token)
    with pytest.raises(TokenError):
        TOKENS.subscription(token)


@given(st.data())
def test_a_token_with_a_fault_is_not_taken(data):
    token = signed(sub="ann")
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda one: one != token[at]))
    changed = token[:at] + other + token[at + 1 :]
    try:
        claims = TOKENS.connection(changed)
    except TokenError:
        return
    # The last letter of base64 has bits that are not used: then it is the same token.
    assert claims.user == "ann"
    assert at == len(token) - 1


@pytest.mark.parametrize(
    "key",
    [
        Key("none", SECRET),
        Key("HS999", SECRET),
        Key("HS256", ""),
        Key("RS256", "no PEM"),
        Key("ES256", public(RSA)),
        Key("HS256", public(RSA)),
        Key("RS256", public(CURVE)),
    ],
)
def test_keys_that_can_not_be_used(key):
    with pytest.raises(ConfigError):
        Tokens([key], lambda: NOW)


def test_without_a_key():
    with pytest.raises(ConfigError, match="at least one"):
        Tokens([], lambda: NOW)
