"""URLs of servers and sentinels."""

import asyncio

import pytest

from mooring.engine.redis.connections import Lost
from mooring.engine.redis.servers import OneServer, Sentinels, resolver_of
from mooring.errors import ConfigError
from mooring.runtime import _check_engine


def connection(resolver):
    return asyncio.run(resolver.connection())


def test_a_server_at_an_address():
    resolver = resolver_of("redis://me:se%20cret@host:7000/3?client_name=x")
    assert isinstance(resolver, OneServer)
    one = connection(resolver)
    assert (one.host, one.port, one.db, one.username, one.password) == ("host", 7000, 3, "me", "se cret")
    assert one.client_name == "x"
    assert one.socket_timeout is None
    assert connection(resolver) is not one
    assert connection(resolver_of("unix:///tmp/x")).path == "/tmp/x"
    assert asyncio.run(resolver.has_moved()) is False


@pytest.mark.parametrize(
    "url", ["http://x", "redis+sentinel://host", "redis+sentinel:///chat", "redis+sentinel://me:pw@h"]
)
def test_a_url_that_makes_no_sense(url):
    with pytest.raises(ValueError) as problem:
        resolver_of(url)
    assert "pw" not in str(problem.value)


def sentinels(
    monkeypatch, *answers, url="redis+sentinel://me:pw@a,b:7,[::1]/chat/2?client_name=x&sentinel_password=spw"
):
    """`answers` of the three, in order: (host, port, configuration epoch) or an exception."""
    asked = []

    async def ask(self, sentinel):
        asked.append(sentinel)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        host, port, epoch = answer
        return {b"ip": host.encode(), b"port": b"%d" % port, b"config-epoch": b"%d" % epoch}

    monkeypatch.setattr(Sentinels, "_ask", ask)
    return resolver_of(url), asked


def test_the_sentinel_that_has_seen_the_latest_failover_is_right(monkeypatch):
    resolver, asked = sentinels(monkeypatch, ("old", 1, 4), Lost("gone"), ("new", 2, 12))
    one = connection(resolver)
    assert (one.host, one.port, one.db, one.username, one.password, one.client_name) == ("new", 2, 2, "me", "pw", "x")
    assert [(sentinel.host, sentinel.port, sentinel.password) for sentinel in asked] == [
        ("a", 26379, "spw"),
        ("b", 7, "spw"),
        ("::1", 26379, "spw"),
    ]


def test_a_master_with_an_address_of_ipv6(monkeypatch):
    resolver, _ = sentinels(monkeypatch, *[("2001:db8::1", 1, 1)] * 3)
    assert connection(resolver).host == "2001:db8::1"


def test_whether_it_has_moved(monkeypatch):
    before, after = ("old", 1, 1), ("new", 1, 2)
    resolver, _ = sentinels(monkeypatch, *[before] * 6, *[before, after, before], *[Lost("gone")] * 3)
    connection(resolver)
    assert [asyncio.run(resolver.has_moved()) for _ in range(3)] == [False, True, False]


def test_no_sentinel_knows(monkeypatch):
    resolver, _ = sentinels(monkeypatch, Lost("gone"), Lost("gone"), Lost("gone"))
    with pytest.raises(Lost, match="no sentinel knows where chat is: gone"):
        connection(resolver)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://bob:secret@h?ssl_ca=x", "redis-py does not know an option behind the '\\?': .*'ssl_ca'"),
        ("redis+sentinel://bob:secret@h/service?ssl_ca=x&x=y", "redis-py does not know an option"),
        ("redis://bob:secret@h/chat", "a database is a number, and 'chat' is none"),
        ("redis://bob:secret@h,redis://g", "of several servers, write all URLs, with spaces between them"),
        ("redi://bob:secret@h", "write one of redis://, rediss://, unix://, redis\\+sentinel://"),
        ("http://bob:secret@h", "write one of redis://"),
    ],
)
def test_what_is_no_url_is_said_before_the_start_and_not_the_password(url, problem):
    with pytest.raises(ConfigError, match=problem) as raised:
        _check_engine(url)
    assert "secret" not in str(raised.value)
