"""The header fields of an answer: a list of names and values, in the order in which they are sent."""

Fields = list[tuple[str, str]]


def has(fields: Fields, name: str) -> bool:
    """`name` in lower case."""
    for key, _ in fields:  # noqa: SIM110  # asked several times for each answer, where a generator costs more
        if key.lower() == name:
            return True
    return False


def replace(fields: Fields, name: str, value: str) -> None:
    """It stands last, and there is no other of that name."""
    fields[:] = [pair for pair in fields if pair[0].lower() != name.lower()]
    fields.append((name, value))


def vary(fields: Fields) -> None:
    """Says that the answer goes by Accept-Encoding (RFC 9110 section 12.5.5)."""
    names = [part.strip() for name, value in fields if name.lower() == "vary" for part in value.split(",")]
    if "*" not in names and "accept-encoding" not in map(str.lower, names):
        fields.append(("Vary", "Accept-Encoding"))


def weaken(fields: Fields) -> None:
    """RFC 9110 section 8.8.1: other bytes can't have the same strong tag."""
    tag = next((value for name, value in reversed(fields) if name.lower() == "etag"), "")
    if tag.startswith('"'):
        replace(fields, "ETag", "W/" + tag)
