"""The page's table: one row is one candidate that the recommended method chose for one target.

Belongs here: what of it goes into the page, and what is cut so that the page stays small. Does not belong here: how
it is searched and drawn (`page.js`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nait_assets.report.neurons import Neuron
from nait_assets.report.reading import Reading

MOST_BYTES = 12_000_000
"""Of the table's candidates in the page; those of the worst ranks are left out."""
MOST_CHARACTERS = 300
"""Of a candidate's first question, and as many of its last answer."""


@dataclass(frozen=True)
class Rows:
    """The table as the page holds it.

    Attributes:
        data: `candidates`, `choices` of them and `neurons`, as `page.js` reads them.
        n_chosen: Distinct candidates that are chosen for any target.
        n_kept: Of these in the page.
    """

    data: dict[str, Any]
    n_chosen: int
    n_kept: int


def table_rows(
    reading: Reading, neurons: Mapping[tuple[str, str], Sequence[Neuron]], most_bytes: int = MOST_BYTES
) -> Rows:
    """The chosen rows of the recommended method, those of the best rank first, as many as there is room for.

    Args:
        reading: Of the warehouse.
        neurons: By target and sample id.
        most_bytes: That the candidates may take as JSON.
    """
    recipe, method = reading.recipe, reading.recommended
    subsets = [reading.subsets[method, target, recipe.ratios[-1]] for target in recipe.targets]
    best: dict[str, int] = {}
    for rows in subsets:
        for rank, name in enumerate(rows, 1):
            best[name] = min(rank, best.get(name, rank))
    sources: dict[str, int] = {}
    examples = {row["sample_id"]: row for row in reading.pool.iter_rows(named=True) if row["sample_id"] in best}
    kept: dict[str, int] = {}
    candidates: list[list[Any]] = []
    for name in sorted(best, key=lambda name: (best[name], name)):
        candidate = _candidate(examples[name], sources)
        most_bytes -= len(json.dumps(candidate, ensure_ascii=False).encode()) + 1
        if most_bytes < 0:
            break
        kept[name] = len(candidates)
        candidates.append(candidate)
    choices, notes = [], {}
    for place, (target, rows) in enumerate(zip(recipe.targets, subsets, strict=True)):
        scores = dict(reading.scores[method, target].select("sample_id", "score").iter_rows())
        for rank, name in enumerate(rows, 1):
            if name in kept:
                choices.append([place, kept[name], rank, float(f"{scores[name]:.5g}")])
                if (target, name) in neurons:
                    notes[f"{place}:{kept[name]}"] = neurons[target, name]
    data = {
        "targets": recipe.targets,
        "ratios": recipe.ratios,
        "sizes": [
            [len(reading.subsets[method, target, ratio]) for ratio in recipe.ratios] for target in recipe.targets
        ],
        "sources": list(sources),
        "candidates": candidates,
        "choices": choices,
        "neurons": notes,
    }
    return Rows(data, len(best), len(kept))


def _candidate(row: Mapping[str, Any], sources: dict[str, int]) -> list[Any]:
    """Id, topic, place of the source, row there, question and answer."""
    source = sources.setdefault(row["source"], len(sources))
    question, answer = excerpts(row["messages"])
    return [row["sample_id"], row["topic"] or "", source, row["source_row"], question, answer]


def excerpts(messages: Sequence[Mapping[str, str]], length: int = MOST_CHARACTERS) -> tuple[str, str]:
    """The beginning of the first message of the user and of the last one of the assistant, "" where there is none."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    return _cut(questions[0] if questions else "", length), _cut(answers[-1] if answers else "", length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
