"""Which topics have a history, and how long it is: what the application says of their names."""

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from mooring.errors import ConfigError

REMEMBERED = 10_000  # names of which it is known which rule they follow
MOST_KEPT = 1_000_000  # publications of one topic


class TopicRule(NamedTuple):
    """How topics of these names are kept."""

    pattern: str
    history_size: int
    history_ttl: float
    positions: bool  # clients are told where they are


class TopicRules:
    """Of one application. The first pattern that a name fits is the one that counts."""

    def __init__(self) -> None:
        self._rules: list[TopicRule] = []
        self._known: dict[str, TopicRule | None] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def __iter__(self) -> Iterator[TopicRule]:
        return iter(self._rules)

    def add(self, pattern: str, history_size: int, history_ttl: float, *, positions: bool) -> None:
        """Raises ConfigError for what can't be meant."""
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"topic({pattern!r}): the name of a topic, or a pattern such as 'room:*', is wanted")
        if any(rule.pattern == pattern for rule in self._rules):
            raise ConfigError(f"topic({pattern!r}) was called twice: the first one counts, remove the other")
        if isinstance(history_size, bool) or not isinstance(history_size, int) or not 1 <= history_size <= MOST_KEPT:
            raise ConfigError(f"history_size={history_size!r}: 1 to {MOST_KEPT} publications can be kept")
        if isinstance(history_ttl, bool) or not isinstance(history_ttl, int | float) or not 0 <= history_ttl < math.inf:
            raise ConfigError(f"history_ttl={history_ttl!r}: a number of seconds is wanted; 0: without end")
        shadow = next((rule.pattern for rule in self._rules if fnmatchcase(pattern, rule.pattern)), None)
        if shadow is not None:
            raise ConfigError(
                f"topic({pattern!r}) would never count: {shadow!r} stands before it, and fits; change places"
            )
        self._rules.append(TopicRule(pattern, history_size, float(history_ttl), bool(positions)))
        self._known.clear()

    def of(self, topic: str) -> TopicRule | None:
        """The rule of a topic; None: it has no history."""
        try:
            return self._known[topic]
        except KeyError:
            pass
        found = next((rule for rule in self._rules if topic == rule.pattern or fnmatchcase(topic, rule.pattern)), None)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[topic] = found
        return found
