"""What became of the rows that an output was made from: used, repeated, left out, rejected for which reasons.

Belongs here: the counts and how they are said, in one way for the command line, Dagster, cards and reports.
Does not belong here: where they are stored, which each output knows (`catalogue.Output.losses`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nait_assets.shown import as_code, one_line

N_REASONS = 3
MOST_CHARACTERS = 200
"""Of a reason in a line."""
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+(\.\d+)?")
"""What differs between two rows that are rejected for one reason: what is quoted, and numbers."""


@dataclass(frozen=True)
class Losses:
    """How many rows there were, and what became of them.

    Attributes:
        n_rows: rows of the sources, or samples of the corpus.
        n_used: rows that the output has.
        reasons: kinds of reasons for which the others were rejected, with their counts, the commonest first.
        n_duplicates: rows that repeat an earlier one.
        n_left_out: rows that the recipe leaves out, by `where`, `limit` and `skip`.
        n_cut: rows that are used without their turns behind the last response.
    """

    n_rows: int
    n_used: int
    reasons: tuple[tuple[str, int], ...] = ()
    n_duplicates: int = 0
    n_left_out: int = 0
    n_cut: int = 0

    @property
    def n_rejected(self) -> int:
        """Rows that were rejected."""
        return sum(count for _, count in self.reasons)

    @property
    def share_rejected(self) -> float:
        """The rejected among the rows that the recipe asks for, in [0, 1]."""
        return self.n_rejected / max(1, self.n_rows - self.n_left_out)

    @property
    def commonest(self) -> str:
        """The commonest reasons with their counts; "" where nothing was rejected."""
        said = [f"{count:,} x {_short(reason)}" for reason, count in self.reasons[:N_REASONS]]
        others = sum(count for _, count in self.reasons[N_REASONS:])
        return "; ".join([*said, *([f"{others:,} for other reasons"] if others else [])])

    @property
    def sentence(self) -> str:
        """All counts in a line, such as `36 rows read: 18 used, 18 rejected (18 x no response)`."""
        counts = {"duplicates": self.n_duplicates, "left out by the recipe": self.n_left_out}
        parts = [f"{self.n_used:,} used", *(f"{count:,} {what}" for what, count in counts.items() if count)]
        parts.append(f"{self.n_rejected:,} rejected" + (f" ({self.commonest})" if self.reasons else ""))
        if self.n_cut:
            parts.append(f"{self.n_cut:,} cut behind the last response")
        return f"{self.n_rows:,} rows read: {', '.join(parts)}"


def kinds_of_reasons(counted: Mapping[str, int] | Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Reasons that differ only in what they quote and in numbers, together; the commonest kind first.

    Args:
        counted: reasons and how many rows have each. A kind is named by the commonest of its reasons.
    """
    counts: Counter[str] = Counter()
    for reason, count in counted.items() if isinstance(counted, Mapping) else counted:
        counts[reason] += count
    names: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        kind = _PARTICULARS.sub("…", reason)
        kinds[names.setdefault(kind, reason)] += count
    return tuple(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))


def as_list(kinds: Iterable[tuple[str, int]]) -> str:
    """Kinds of reasons as a list in Markdown, at most ten; "none" where there are none."""
    return "\n".join(f"- {count} × {as_code(reason)}" for reason, count in list(kinds)[:10]) or "none"


def _short(reason: str) -> str:
    return one_line(reason, MOST_CHARACTERS)
