"""The page's table: one row is one candidate that the recommended method chose for one target.

Belongs here: what of it goes into the page, and what is cut so that the page stays small. Does not belong here: how
it is searched and drawn (`page.js`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nait_assets.report.page_data import PageData
from nait_assets.scoring.method import Explanation, Parts
from nait_assets.scoring.texts import question_and_answer

MOST_BYTES = 3_000_000
"""Of the table's candidates in the page; those of the worst ranks are left out."""
MOST_CHARACTERS = 300
"""Of a candidate's first question, and as many of its last answer."""
NEAR_CHARACTERS = 150
"""Of a nearest example's question, and as many of its answer."""
MOST_PARTS = 5
"""Of a score, before all others together."""


@dataclass(frozen=True)
class ReportTable:
    """The table as the page holds it.

    Attributes:
        data: `candidates`, `choices` of them, `reasons` and what else explains them, as `page.js` reads them.
        n_chosen: Distinct candidates that are chosen for any target.
        n_kept: Number of these on the page.
    """

    data: dict[str, Any]
    n_chosen: int
    n_kept: int


def table_rows(page_data: PageData, most_bytes: int = MOST_BYTES) -> ReportTable:
    """The chosen rows of the recommended method, those of the best rank first, as many as there is room for.

    Args:
        page_data: Data read from the warehouse.
        most_bytes: Most bytes that the candidates may take as JSON.
    """
    recipe, method = page_data.recipe, page_data.recommended
    of_targets = [_ratios_of_rows(page_data, method, target) for target in recipe.targets]
    ranked = [page_data.ranks_of_chosen(target) for target in recipe.targets]
    best, sources = page_data.best_ranks, dict[str, int]()
    examples = {row["sample_id"]: row for row in page_data.shown.iter_rows(named=True)}
    kept: dict[str, int] = {}
    candidates: list[list[Any]] = []
    for sample_id in sorted(best, key=lambda sample_id: (best[sample_id], sample_id)):
        if sample_id not in examples:  # those of better ranks take all the room
            break
        candidate = _candidate(examples[sample_id], sources)
        most_bytes -= len(json.dumps(candidate, ensure_ascii=False).encode()) + 1
        if most_bytes < 0:
            break
        kept[sample_id] = len(candidates)
        candidates.append(candidate)
    choices: list[list[Any]] = []
    explained: dict[str, Explanation] = {}
    for number, (target, rows, scores) in enumerate(zip(recipe.targets, of_targets, ranked, strict=True)):
        for sample_id in sorted(rows, key=lambda sample_id: scores[sample_id][0]):
            if sample_id in kept:
                rank, score = scores[sample_id]
                choices.append([number, kept[sample_id], rank, float(f"{score:.5g}"), rows[sample_id]])
                if (target, sample_id) in page_data.explanations:
                    explained[f"{number}:{kept[sample_id]}"] = page_data.explanations[target, sample_id]
    data = {
        "targets": recipe.targets,
        "ratios": recipe.ratios,
        "sources": list(sources),
        "candidates": candidates,
        "choices": choices,
        "last": [_last_chosen(page_data, method, target) for target in recipe.targets],
        **_explained(explained, page_data.near_texts),
    }
    return ReportTable(data, len(best), len(kept))


def _explained(explained: Mapping[str, Explanation], texts: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """By row: `reasons`, `parts` of the score in words, and `near` examples, whose texts are in `near_texts` once."""
    near = {name: one.near for name, one in explained.items() if one.near}
    named = {one.sample_id for those in near.values() for one in those}
    return {
        "reasons": {name: [(reason.label, reason.detail) for reason in one.reasons] for name, one in explained.items()},
        "parts": {
            name: [(f"by {parts.by}", _in_words(parts)) for parts in one.parts] for name, one in explained.items()
        },
        "near": {
            name: [(f"{one.value:+.3f}", one.capability, one.sample_id) for one in those]
            for name, those in near.items()
        },
        "near_texts": {
            name: [_cut(text, NEAR_CHARACTERS) for text in texts[name]] for name in sorted(named) if name in texts
        },
    }


def _in_words(parts: Parts) -> str:
    """The largest parts and what all others add, as shares of the score, or as numbers where they cancel out."""
    shown = [(name, value, parts.percent(value)) for name, value in parts.largest(MOST_PARTS)]
    return ", ".join(f"{name} {percent or format(value, '+.4g')}" for name, value, percent in shown)


def _last_chosen(page_data: PageData, method: str, target: str) -> list[tuple[int, float] | None]:
    """By ratio, rank and score of the chosen row of the worst rank; None where ranks did not decide, or of no rows."""
    if page_data.recipe.strategy_of(method, target).name != "top":
        return [None] * len(page_data.recipe.ratios)
    found = page_data.last_chosen(method, target)
    return [found.get(ratio) for ratio in page_data.recipe.ratios]


def _ratios_of_rows(page_data: PageData, method: str, target: str) -> dict[str, int]:
    """Of every row that was chosen at some ratio, the ratios: bit 0 is the first one.

    By some strategies a smaller subset is not the beginning of a larger one.
    """
    ratios: dict[str, int] = {}
    for bit, ratio in enumerate(page_data.recipe.ratios):
        for sample_id in page_data.subsets[method, target, ratio]:
            ratios[sample_id] = ratios.get(sample_id, 0) | 1 << bit
    return ratios


def _candidate(row: Mapping[str, Any], sources: dict[str, int]) -> list[Any]:
    """Id, topic, index of the source, row there, question and answer."""
    source = sources.setdefault(row["source"], len(sources))
    question, answer = excerpts(row["messages"])
    return [row["sample_id"], row["topic"] or "", source, row["source_row"], question, answer]


def excerpts(messages: Sequence[Mapping[str, str]], length: int = MOST_CHARACTERS) -> tuple[str, str]:
    """The beginning of the first message of the user and of the last one of the assistant, "" where there is none."""
    question, answer = question_and_answer(messages)
    return _cut(question, length), _cut(answer, length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
