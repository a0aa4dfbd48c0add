"""What of the samples is not read: counts, and the sentences that say them, in one way wherever they are shown.

Samples are frames with the columns `cut`, `n_answers` and `n_answers_whole`, as of `EncodedSample`.
"""

from collections.abc import Sequence

import polars as pl

from nait_assets.models.encoding import EncodedSample
from nait_assets.recipe import Extraction

COLUMNS = pl.Schema({"cut": pl.String(), "n_answers": pl.Int32(), "n_answers_whole": pl.Int32()})


def columns_of(samples: Sequence[EncodedSample]) -> dict[str, list[object]]:
    """The three columns of samples, in their order."""
    return {name: [getattr(sample, name) for sample in samples] for name in COLUMNS}


def is_cut() -> pl.Expr:
    """Whether a sample was cut."""
    return pl.col("cut") != ""


def answers_are_cut() -> pl.Expr:
    """Whether a sample was cut and its answers are not all read whole, or that cannot be told."""
    whole = pl.col("n_answers_whole") == pl.col("n_answers")
    return is_cut() & ~whole.fill_null(value=False)


def counts(samples: pl.DataFrame) -> dict[str, int]:
    """Numbers of samples that were cut, of those whose answers are all read, and of the others; and of responses."""
    of_answers = samples.filter(answers_are_cut())
    n_cut = len(samples.filter(is_cut()))
    return {
        "n_cut": n_cut,
        "n_prompts_cut": n_cut - len(of_answers),
        "n_answers_cut": len(of_answers),
        "n_responses_not_whole": int(of_answers["n_answers"].sum()) - int(of_answers["n_answers_whole"].sum()),
    }


def counts_of_rows(rows: pl.DataFrame) -> dict[str, int]:
    """Numbers of rows of a measurement, with a column `cut`, of samples that were cut, and that were at their end."""
    return {"n_cut": len(rows.filter(is_cut())), "n_answers_cut": len(rows.filter(cut="answer"))}


def sentence(samples: pl.DataFrame, extraction: Extraction) -> str:
    """The counts in a line, such as `9 of 100 are longer than 512 tokens; of 9 the answer is not read whole`."""
    found = counts(samples)
    said = f"{found['n_cut']:,} of {len(samples):,} are longer than {extraction.max_tokens} tokens"
    if found["n_prompts_cut"]:
        said += f"; of {found['n_prompts_cut']:,} the middle of the prompt is left out"
    if found["n_answers_cut"]:
        said += (
            f"; of {found['n_answers_cut']:,} the answer is not read whole "
            f"({found['n_responses_not_whole']:,} response(s))"
        )
    return said
