"""Which topics have a history: what the application says of their names."""

from typing import Any

import pytest

from mooring.app import topics
from mooring.app.topics import MOST_KEPT, TopicRule, TopicRules
from mooring.errors import ConfigError


def rules(*patterns: str, size: int = 10) -> TopicRules:
    made = TopicRules()
    for number, pattern in enumerate(patterns):
        made.add(pattern, size + number, 0, positions=False)
    return made


def pattern_of(made: TopicRules, topic: str) -> str | None:
    rule = made.of(topic)
    return None if rule is None else rule.pattern


def test_without_one_no_topic_has_a_history():
    made = TopicRules()
    assert not made
    assert list(made) == []
    assert made.of("a") is None


def test_the_first_pattern_that_fits_counts():
    made = rules("room:private:*", "room:*", "*:private:*")
    assert made
    assert [rule.pattern for rule in made] == ["room:private:*", "room:*", "*:private:*"]
    assert pattern_of(made, "room:private:1") == "room:private:*"
    assert pattern_of(made, "room:1") == "room:*"
    assert pattern_of(made, "hall:private:1") == "*:private:*"
    assert made.of("hall:1") is None


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("news", ["news"], ["News", "news ", "new", ""]),
        ("room:?", ["room:1"], ["room:", "room:12"]),
        ("room:[ab]", ["room:a", "room:[ab]"], ["room:c"]),  # the pattern may be a name
        ("*", ["", "a", "a/b", "\n"], []),
        ("räume/*", ["räume/ä"], ["raume/x"]),
    ],
)
def test_patterns_are_those_of_fnmatch_with_case(pattern: str, fits: list[str], does_not: list[str]):
    made = rules(pattern)
    assert all(made.of(topic) for topic in fits)
    assert not any(made.of(topic) for topic in does_not)


def test_what_was_said_is_kept_as_it_was_meant():
    made = TopicRules()
    made.add("a", 1, 2, positions=True)
    made.add("b", MOST_KEPT, 0.5, positions=False)
    assert list(made) == [TopicRule("a", 1, 2.0, True), TopicRule("b", MOST_KEPT, 0.5, False)]
    assert isinstance(made.of("a").history_ttl, float), "the engine is told a float"


def test_a_name_that_was_looked_up_is_looked_at_again_behind_another_rule():
    made = rules("a")
    assert made.of("b") is None
    made.add("b", 3, 0, positions=False)
    assert made.of("b").history_size == 3


def test_of_so_many_names_it_is_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(topics, "REMEMBERED", 3)
    made = rules("room:*")
    for number in range(20):
        assert pattern_of(made, f"room:{number}") == "room:*"
        assert made.of(f"hall:{number}") is None
        assert len(made._known) <= 3


def test_a_name_is_matched_once(monkeypatch: pytest.MonkeyPatch):
    tried = []
    monkeypatch.setattr(topics, "fnmatchcase", lambda name, _: tried.append(name))
    made = rules("room:*")
    for _ in range(3):
        assert made.of("hall") is None
    assert tried == ["hall"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pattern": ""}, "the name of a topic, or a pattern"),
        ({"pattern": b"a"}, "the name of a topic, or a pattern"),
        ({"pattern": None}, "the name of a topic, or a pattern"),
        ({"pattern": "there"}, "called twice"),
        *(({"history_size": size}, "history_size=") for size in (0, -1, MOST_KEPT + 1, 1.0, "5", True, None)),
        *(({"history_ttl": ttl}, "history_ttl=") for ttl in (-1, -0.1, float("inf"), float("nan"), "5", True, None)),
    ],
    ids=str,
)
def test_what_can_not_be_meant_is_refused_and_changes_nothing(given: dict[str, Any], says: str):
    made = rules("there")
    with pytest.raises(ConfigError, match=says):
        made.add(**{"pattern": "a", "history_size": 5, "history_ttl": 0, "positions": False} | given)
    assert [rule.pattern for rule in made] == ["there"]


def test_a_pattern_that_another_one_hides_is_refused():
    rules = TopicRules()
    rules.add("room:*", 1, 0, positions=False)
    with pytest.raises(ConfigError, match=r"topic\('room:vip'\) would never count: 'room:\*' stands before it"):
        rules.add("room:vip", 2, 0, positions=False)
    rules = TopicRules()
    rules.add("room:vip", 2, 0, positions=False)
    rules.add("room:*", 1, 0, positions=False)
    assert (rules.of("room:vip").history_size, rules.of("room:x").history_size) == (2, 1)
