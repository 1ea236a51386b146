"""The settings of topics with a history."""

import pytest

from mooring.config import SECTIONS, Settings
from mooring.config.topics import Topics
from mooring.errors import ConfigError


def test_they_are_a_section_of_their_own_and_have_a_default():
    assert SECTIONS["topics"] is Topics
    assert Settings.from_options({}).topics == Topics(history_memory_limit=256 << 20)


def test_the_limit_reaches_its_section():
    assert Settings.from_options({"history_memory_limit": 5 << 20}).topics == Topics(history_memory_limit=5 << 20)


@pytest.mark.parametrize("limit", [(1 << 20) - 1, 0, -1, (64 << 30) + 1, 1.5, True, "much"])
def test_what_can_not_be_meant_is_refused_by_name(limit):
    with pytest.raises(ConfigError, match="history_memory_limit"):
        Settings.from_options({"history_memory_limit": limit})


@pytest.mark.parametrize("limit", [1 << 20, 64 << 30])
def test_the_bounds_themselves_are_allowed(limit):
    assert Settings.from_options({"history_memory_limit": limit}).topics.history_memory_limit == limit


@pytest.mark.parametrize(
    "url", ["memory", "redis://h:1/2", "rediss://u:p@h", "unix:///s", "redis+sentinel://a,b:2/service"]
)
def test_the_engine_is_this_process_or_a_server(url):
    assert Settings.from_options({"engine": url}).topics.engine == url


@pytest.mark.parametrize("url", ["", "disk", "127.0.0.1:6379", "redis://a b"])
def test_what_is_no_engine_is_told_what_to_write(url):
    with pytest.raises(ConfigError, match=r"engine=.*'memory', or the URL of a server, such as 'redis://"):
        Settings.from_options({"engine": url})


def test_servers_can_be_kept_apart():
    assert Settings.from_options({"engine_prefix": "blue"}).topics.engine_prefix == "blue"
    with pytest.raises(ConfigError, match="engine_prefix"):
        Settings.from_options({"engine_prefix": ""})
