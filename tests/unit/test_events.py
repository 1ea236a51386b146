"""Server-sent events as they are sent."""

import pytest

from mooring.app.events import event


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (("a", None, None, None), b"data: a\n\n"),
        (("", None, None, None), b"data: \n\n"),
        (("a\nb\r\nc\rd\n", None, None, None), b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (("a\x0b\x0c\x85\u2028b", None, None, None), "data: a\x0b\x0c\x85\u2028b\n\n".encode()),
        ((" é", "n", "1", 0), "event: n\nid: 1\nretry: 0\ndata:  é\n\n".encode()),
        ((None, None, "1", None), b"id: 1\n\n"),
        (("id: 2", "", "", None), b"event: \nid: \ndata: id: 2\n\n"),
    ],
)
def test_an_event(given: tuple[str | None, str | None, str | None, int | None], sent: bytes) -> None:
    assert event(*given) == sent


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "\0"])
def test_a_name_or_id_can_not_end_its_line(bad: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        event("x", bad, None, None)
    with pytest.raises(ValueError, match="line end"):
        event("x", None, bad, None)


def test_what_is_no_event() -> None:
    with pytest.raises(ValueError, match="retry"):
        event(None, None, None, -1)
    with pytest.raises(TypeError, match="not bytes"):
        event(b"x", None, None, None)  # type: ignore[arg-type]
