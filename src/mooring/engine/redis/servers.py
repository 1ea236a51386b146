"""Which server is the master: one that a URL names, or one of which sentinels tell.

    redis://[user:password@]host[:port][/database]       rediss:// over TLS, unix:///path for a socket
    redis+sentinel://[user:password@]host[:port],host[:port].../service[/database]      rediss+sentinel://

What stands behind a `?` are redis-py's options of a connection (`ssl_ca_certs`, `client_name`, ...); those of the
sentinels begin with `sentinel_` (`sentinel_password`).
"""

import asyncio
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from mooring.engine.redis.connections import Lost

__all__ = ["OneServer", "Resolver", "Sentinels", "resolver_of", "without_login"]

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
SENTINEL_LIMIT = 1.0  # seconds for one of them to answer


class Resolver(Protocol):
    """Finds the master."""

    async def connection(self) -> AbstractConnection:
        """A new one to it, not yet opened. Raises Lost if it can't be found."""

    async def has_moved(self) -> bool:
        """Whether another server is the master than that of the last connection."""


def resolver_of(url: str) -> Resolver:
    """Raises ValueError for a URL that makes no sense."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"write one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.scheme != "unix" and "," in parts.netloc and not parts.scheme.endswith("+sentinel"):
        raise ValueError("of several servers, write all URLs, with spaces between them")
    database = parts.path.rpartition("/")[2]
    if parts.scheme in {"redis", "rediss"} and database and not database.isdecimal():
        raise ValueError(f"a database is a number, and {database!r} is none")
    return Sentinels(url) if parts.scheme.endswith("+sentinel") else OneServer(url)


class OneServer:
    """At an address that stays."""

    def __init__(self, url: str) -> None:
        self._pool = _pool(url)

    async def connection(self) -> AbstractConnection:
        return _new(self._pool)

    async def has_moved(self) -> bool:
        return False


class Sentinels:
    """All are asked. Who has seen the latest failover is right: its configuration epoch is the highest."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme.removesuffix("+sentinel")
        login, _, hosts = parts.netloc.rpartition("@")
        service, _, self._database = parts.path.strip("/").partition("/")
        if not hosts or not service:
            raise ValueError(
                f"{without_login(url)} names no sentinel, or no service: {self._scheme}+sentinel://host/service"
            )
        self._service = service
        self._login = f"{login}@" if login else ""
        options = parse_qsl(parts.query)
        self._query = urlencode([(key, value) for key, value in options if not key.startswith("sentinel_")])
        _pool(f"{self._scheme}://master?{self._query}")  # options that nobody knows are told now
        own = urlencode(
            [(key.removeprefix("sentinel_"), value) for key, value in options if key.startswith("sentinel_")]
        )
        self._sentinels = [
            _pool(f"{self._scheme}://{host if _has_port(host) else f'{host}:{SENTINEL_PORT}'}?{own}")
            for host in hosts.split(",")
        ]
        self._address: tuple[str, int] | None = None  # of the last connection

    async def connection(self) -> AbstractConnection:
        self._address = host, port = await self._master()
        name = f"[{host}]" if ":" in host else host
        url = f"{self._scheme}://{self._login}{name}:{port}/{self._database}"
        return _new(_pool(f"{url}?{self._query}" if self._query else url))

    async def has_moved(self) -> bool:
        try:
            return await self._master() != self._address
        except Lost:
            return False  # nobody says so

    async def _master(self) -> tuple[str, int]:
        answers = await asyncio.gather(*(self._ask(_new(pool)) for pool in self._sentinels), return_exceptions=True)
        known = [one for one in answers if isinstance(one, dict)]
        if not known:
            why = next((str(one) for one in answers if isinstance(one, Exception)), "")
            raise Lost(f"no sentinel knows where {self._service} is: {why}")
        latest = max(known, key=lambda one: int(one[b"config-epoch"]))
        return latest[b"ip"].decode(), int(latest[b"port"])

    async def _ask(self, sentinel: AbstractConnection) -> dict[bytes, bytes]:
        try:
            async with asyncio.timeout(SENTINEL_LIMIT):
                await sentinel.connect()  # type: ignore[no-untyped-call]
                await sentinel.send_command("SENTINEL", "MASTER", self._service)
                words: list[bytes] = await sentinel.read_response(disable_decoding=True)
        except TimeoutError:
            raise Lost(f"no answer within {SENTINEL_LIMIT:g} s") from None
        except (RedisError, OSError) as problem:
            raise Lost(str(problem)) from problem
        finally:
            await sentinel.disconnect(nowait=True)
        return dict(zip(words[::2], words[1::2], strict=True))


def _pool(url: str) -> ConnectionPool:
    """Nothing is kept in it: it makes connections, as the URL says. Raises ValueError for an option there is not."""
    pool = ConnectionPool.from_url(url, socket_timeout=None, protocol=2)
    try:
        _new(pool)  # which connects to nobody yet
    except TypeError as problem:
        raise ValueError(f"redis-py does not know an option behind the '?': {problem}") from None
    return pool


def _new(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].rpartition(":")[1] == ":"


def without_login(url: str) -> str:
    """As it may stand in a log."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0]
    return f"{scheme}://{place.rpartition('@')[2]}"
