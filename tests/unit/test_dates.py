"""The date of an answer: whatever the locale, and cheap."""

import pytest

from mooring.app import dates


def test_it_is_formatted_anew_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for now, text in ((784111777.9, "Sun, 06 Nov 1994 08:49:37 GMT"), (784111778.0, "Sun, 06 Nov 1994 08:49:38 GMT")):
        monkeypatch.setattr(dates.time, "time", lambda now=now: now)
        assert dates.http_date() == text


def test_it_is_formatted_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(dates, "formatdate", lambda now, usegmt: calls.append(now) or "x")
    monkeypatch.setattr(dates.time, "time", lambda: 5.5)
    assert [dates.http_date() for _ in range(3)] == ["x"] * 3
    assert calls == [5]
