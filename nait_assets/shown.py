"""Text of strangers where people read it: on a terminal, in a line of a list, in Markdown.

Rows, files and endpoints say what they like. On a terminal a control character moves the cursor, paints over what
stands there or renames the window; in Markdown a role may be a link or a picture that is fetched from elsewhere.
"""

import math
import re
from collections.abc import Iterable

import polars as pl

CONTROLS = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Controls of C0 and C1 but tab and line feed, what changes the direction of text, other ends of lines, and halves of
characters, which no terminal can show."""
_CONTENT, _ROLE = (pl.element().struct.field(name) for name in ("content", "role"))
_MESSAGES = pl.col("messages").list
QUESTION = pl.coalesce(
    _MESSAGES.eval(_CONTENT.filter(_ROLE == "user")).list.first(),
    _MESSAGES.eval(_CONTENT.filter(_ROLE != "system")).list.first(),
    _MESSAGES.first().struct.field("content"),
)
"""What a row of the column `messages` asks, to tell it by: a system message is the same for many rows."""


def printable(text: str) -> str:
    """Text with its control characters written out, ESC as a backslash and `x1b`; tabs and line feeds stay."""
    return CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def one_line(text: object, width: int | None = None) -> str:
    """Text on one line, with its control characters written out, cut to a width."""
    flat = printable(" ".join(str(text).split()))
    return flat if width is None or len(flat) <= width else f"{flat[: width - 3]}..."


def figure(value: float, largest: float, signed: bool = True) -> str:
    """A number with five decimals, or as many more as show three digits of the largest that it stands beside."""
    decimals = 2 - math.floor(math.log10(abs(largest))) if largest else 5
    return f"{value:{'+' if signed else ''}.{max(5, decimals)}f}"


def as_code(text: object) -> str:
    """Text as a piece of code on one line of Markdown: nothing in it is a link, a picture or a heading."""
    return "`" + one_line(text).replace("`", "'") + "`"


def as_text(text: object) -> str:
    """Text on one line of Markdown, where nothing is a link, a picture, an element or the end of a table's cell."""
    return re.sub(r"([\\`|<\[\]!])", r"\\\1", one_line(text))


def as_list(texts: Iterable[object]) -> str:
    """Texts as pieces of code in a list of Markdown; `none` where there are none."""
    return "\n".join(f"- {as_code(text)}" for text in texts) or "none"
