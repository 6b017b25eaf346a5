"""Text for people that somebody else has written: shown so that no terminal obeys it, cut where it is too long."""

TEXT_LIMIT = 1 << 10
"""Octets of a text in a message."""


def printable(text: str) -> str:
    """Return `text` with everything spelt out that a terminal would obey or hide.

    Control characters, ends of lines, directions of writing, lone surrogates.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def truncate(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return what of `text` fits `limit` octets of UTF-8; octets of a path that are no text are spelt out."""
    return text.encode(errors="backslashreplace")[:limit].decode(errors="ignore")
