"""A source before it is a corpus: its format, what becomes of its rows, and the lines of a recipe that read it so."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from nait_assets.conversation import Conversation, conversations_of
from nait_assets.corpora.corpus import SourceReading
from nait_assets.corpora.detection import recipe_lines
from nait_assets.recipe import Recipe, Source
from nait_assets.resources.spooled_rows import SpooledRows
from nait_assets.shown import one_line
from nait_assets.tables import N_CHARACTERS

N_REASONS, N_EXAMPLES, EXAMPLE_CHARACTERS = 10, 2, 1200


def recipe_of(source: Source, folder: Path) -> Recipe:
    """A recipe that reads nothing but a source, its paths relative to a folder."""
    return Recipe(
        name="inspect",
        model={"source": "package:none"},
        candidates=(source,),
        capabilities={"none": {"source": "none"}},
        methods=("random",),
        ratios=(1,),
        path=folder / "nait inspect",
    )


def inspected(source: Source, recipe: Recipe, shown: Callable[[Conversation], str], reader: str) -> str:
    """What a source holds, as text.

    Args:
        source: The source to look at; `format: auto` finds its format.
        recipe: The recipe whose folder relative paths start at.
        shown: The text of a conversation as a model reads it; it may raise whatever a chat template does.
        reader: What that text is, such as "plain headings".

    Raises:
        SourceError: It cannot be read, or no format is found.
    """
    reading = SourceReading(source, recipe)
    examples = reading.examples()
    rejected = reading.rejected.stored().frame()
    lines = [
        f"{source.name}: {reading.n_rows:,} rows: {len(examples):,} used, {len(rejected):,} rejected, "
        f"{reading.n_duplicates:,} duplicates"
        + (f", {reading.n_excluded:,} left out by `where`" if reading.n_excluded else "")
        + (f", {reading.n_unsampled:,} left out by `limit` and `skip`" if reading.n_unsampled else "")
        + (f"; {reading.n_cut:,} lost the turns behind their last response" if reading.n_cut else ""),
        f"Format: {recipe_lines(reading.row_format)}{', found' if source.format == 'auto' else reading.hint()}",
        f"Columns: {', '.join(map(one_line, _columns(reading))) or 'none'}",
    ]
    reasons = Counter(rejected["reason"].to_list()).most_common(N_REASONS)
    lines += [f"  rejected: {count:,} x {one_line(reason)}" for reason, count in reasons]
    if len(examples):
        lines += [*_contents(examples), *_examples(next(examples.parts()).head(N_EXAMPLES), shown, reader)]
    return "\n".join([*lines, "", "In a recipe:", f"  candidates: {_recipe_line(source, reading)}"])


def _columns(reading: SourceReading) -> list[str]:
    kinds: dict[str, str] = {}
    for fields in reading.first:
        for name, value in fields.items():
            kind = type(value).__name__
            if kinds.get(name, "null") == "null":
                kinds[name] = {"str": "text", "dict": "mapping", "NoneType": "null"}.get(kind, kind)
    return [f"{name} ({kind})" for name, kind in kinds.items()]


def _contents(examples: SpooledRows) -> list[str]:
    """Lengths, and what the conversations hold beside text."""
    lengths = pl.concat([part.select(N_CHARACTERS) for part in examples.parts("messages")]).to_series().to_numpy()
    counts: Counter[str] = Counter()
    for part in examples.parts():
        for _, one in conversations_of(part):
            counts.update({message.role for message in one.messages})
            held = {
                "tools": one.tools is not None,
                "tool calls": any(message.calls for message in one.messages),
                "reasoning": any(message.reasoning for message in one.messages),
                "responses not to be trained on": any(
                    message.role == "assistant" and message.weight == 0 for message in one.messages
                ),
            }
            counts.update(name for name, is_held in held.items() if is_held)
    return [
        f"Characters: median {np.median(lengths):,.0f}, nine of ten below {np.quantile(lengths, 0.9):,.0f}, longest "
        f"{lengths.max():,}",
        f"Rows with: {', '.join(f'{name} {count:,}' for name, count in counts.most_common())}",
    ]


def _examples(examples: pl.DataFrame, shown: Callable[[Conversation], str], reader: str) -> list[str]:
    lines = []
    for (name, conversation), row in zip(conversations_of(examples), examples["source_row"], strict=True):
        try:
            text = shown(conversation)
        except Exception as error:  # noqa: BLE001  a template may raise whatever its author wrote
            text = f"(the chat template refuses it: {error})"
        cut = text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]} ..."
        lines += ["", f"Row {row}, sample {name}, by {reader}:", *(f"  | {line}" for line in cut.splitlines())]
    return lines


def _recipe_line(source: Source, reading: SourceReading) -> str:
    settings = source.model_dump(exclude_defaults=True, exclude={"source", "format"})
    written = [f"source: {source.source!r}" if isinstance(source.source, str) else f"source: {list(source.source)}"]
    written.append(f"format: {recipe_lines(reading.row_format)}")
    return f"{{{', '.join([*written, *(f'{name}: {value!r}' for name, value in settings.items())])}}}"
