"""Tokens: what a client shows to be let in, as JSON Web Tokens (RFC 7519) that the application's own server has signed.

A key has one algorithm, and a token is tried against the keys of its algorithm alone: were a public key taken for a
secret because the token says HS256, everybody could sign. A token that names a key (`kid`) is tried against that one.

Claims of a connection: `sub` the user, `exp`, `iat`, `expire_at`, `info` or `b64info`, `channels`, `subs`, `meta`. Of a
subscription: `sub`, `channel`, `exp`, `expire_at`, `info` or `b64info`, `client`, `override`. `exp` is until when the
token can be used; the connection or subscription lasts as long, unless `expire_at` says otherwise (0: for ever). All
times are seconds since 1970. A token of one kind is never taken as the other: that one must have a `channel`, and this
one must not.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mooring.centrifuge.claims import ConnectionClaims, SubscriptionClaims, TokenError, TokenExpired
from mooring.centrifuge.commands import EMPTY
from mooring.errors import ConfigError

try:
    import jwt
except ImportError as error:  # pragma: no cover - a matter of how it is installed
    raise ImportError("tokens need the extra: pip install 'mooring-server[centrifuge]'") from error

ALGORITHMS = frozenset({"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})


@dataclass(frozen=True, slots=True)
class Key:
    """`value` is the secret for HS..., a public key as PEM for RS... and ES... . `kid` is its name, if it has one."""

    algorithm: str
    value: str | bytes
    kid: str = ""


class _Payload(Struct, frozen=True):
    sub: str = ""
    exp: float | None = None
    nbf: float | None = None
    expire_at: float | None = None
    info: Raw = EMPTY
    b64info: str = ""
    channels: list[str] = []
    subs: dict[str, Raw] = {}
    meta: Raw = EMPTY
    channel: str | UnsetType = UNSET
    client: str = ""
    override: Raw = EMPTY
    aud: str | list[str] = ""
    iss: str = ""


class Tokens:
    """Reads tokens that were signed with one of these keys."""

    def __init__(
        self,
        keys: Sequence[Key],
        clock: Callable[[], float],
        *,
        audience: str = "",
        issuer: str = "",
        leeway: float = 0,
    ) -> None:
        """`clock` gives the seconds since 1970; `leeway` is how many s a token may be too late or too early. `audience`
        and `issuer`, if given, must be the token's `aud` and `iss`. Raises `ConfigError` for a key that is none."""
        if not keys:
            raise ConfigError("tokens can't be read without a key: give at least one")
        self._keys = [(key, _prepared(key)) for key in keys]
        self._clock = clock
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._payload = msgspec.json.Decoder(_Payload)
        self._signatures = jwt.PyJWS()

    def connection(self, token: str) -> ConnectionClaims:
        """What a connection's token says. Raises `TokenExpired` and `TokenError`."""
        payload = self._verified(token)
        if payload.channel is not UNSET:
            raise TokenError("the token of a subscription, and a connection's was to be shown")
        subs = {**dict.fromkeys(payload.channels, EMPTY), **payload.subs}
        return ConnectionClaims(payload.sub, self._ttl(payload), _info(payload), payload.meta, subs)

    def subscription(self, token: str) -> SubscriptionClaims:
        """What a subscription's token says. Raises `TokenExpired` and `TokenError`."""
        payload = self._verified(token)
        if payload.channel is UNSET or not payload.channel:
            raise TokenError("the token has no channel")
        ttl, info = self._ttl(payload), _info(payload)
        return SubscriptionClaims(payload.sub, payload.channel, payload.client, ttl, info, payload.override)

    def _verified(self, token: str) -> _Payload:
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid", "")
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise TokenError(f"no token: {error}") from error
        fitting = [made for key, made in self._keys if key.algorithm == algorithm and (not kid or key.kid in ("", kid))]
        for made in fitting:
            try:
                text = self._signatures.decode_complete(token, made, algorithms=[str(algorithm)])["payload"]
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, RecursionError) as error:
                raise TokenError(f"no token: {error}") from error
            return self._timely(text)
        raise TokenError("no key of the server has signed it")

    def _timely(self, text: bytes) -> _Payload:
        try:
            text.decode()
            payload = self._payload.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TokenError(f"claims that can't be: {error}") from error
        now = self._clock()
        if payload.exp is not None and payload.exp + self._leeway <= now:
            raise TokenExpired("the token has expired")
        if payload.nbf is not None and payload.nbf - self._leeway > now:
            raise TokenError("the token is not good yet")
        audience = [payload.aud] if isinstance(payload.aud, str) else payload.aud
        if self._audience and self._audience not in audience:
            raise TokenError("the token is for another audience")
        if self._issuer and self._issuer != payload.iss:
            raise TokenError("the token is of another issuer")
        return payload

    def _ttl(self, payload: _Payload) -> float | None:
        """How long what the token lets in may stay, in s. Raises `TokenExpired`."""
        end = payload.exp if payload.expire_at is None else payload.expire_at or None
        if end is None:
            return None
        ttl = end - self._clock()
        if ttl + self._leeway <= 0:
            raise TokenExpired("what the token lets in has expired")
        return max(ttl, 0.0)


def _prepared(key: Key) -> Any:
    """The key as the library wants it, so that it is read once. Raises `ConfigError`."""
    if key.algorithm not in ALGORITHMS:
        raise ConfigError(f"{key.algorithm!r} is no algorithm for tokens, these are: {', '.join(sorted(ALGORITHMS))}")
    if not key.value:
        raise ConfigError(f"the key for {key.algorithm} is empty: give a secret, or a public key as PEM")
    try:
        return jwt.PyJWS().get_algorithm_by_name(key.algorithm).prepare_key(key.value)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ConfigError(f"the key for {key.algorithm} can't be used: {error}") from error
    except NotImplementedError as error:  # pragma: no cover - a matter of how it is installed
        raise ConfigError(
            f"{key.algorithm} needs the package `cryptography`: install the extra `centrifuge`"
        ) from error


def _info(payload: _Payload) -> Raw:
    if not payload.b64info:
        return payload.info
    try:
        return Raw(base64.b64decode(payload.b64info, validate=True))
    except (binascii.Error, ValueError) as error:
        raise TokenError(f"`b64info` that is no base64: {error}") from error
