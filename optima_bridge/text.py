"""Text that came from elsewhere, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with control and other unprintable characters escaped: it cannot move a cursor or forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
