"""One row of a source as it was read, or the reason why it could not be."""

from dataclasses import dataclass
from typing import Any

EXCERPT_CHARACTERS = 80


def excerpt_of(fields: Any) -> str:
    """The beginning of a row's values."""
    try:
        return str(fields)[:EXCERPT_CHARACTERS]
    except RecursionError:
        return ""


@dataclass(frozen=True)
class SourceRow:
    """One row of a source.

    Attributes:
        number: Line of a file of JSON lines, else the row's place; counted from 1, through all files of the source.
        fields: Columns and values; empty where the row could not be read.
        problem: Why the row could not be read, or None.
        excerpt: The beginning of an unreadable row.
    """

    number: int
    fields: dict[str, Any]
    problem: str | None = None
    excerpt: str = ""
