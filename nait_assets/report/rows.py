"""The page's table: one row is one candidate that the recommended method chose for one target.

Belongs here: what of it goes into the page, and what is cut so that the page stays small. Does not belong here: how
it is searched and drawn (`page.js`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from nait_assets.report.page_data import PageData

MOST_BYTES = 12_000_000
"""Of the table's candidates in the page; those of the worst ranks are left out."""
MOST_CHARACTERS = 300
"""Of a candidate's first question, and as many of its last answer."""


@dataclass(frozen=True)
class ReportTable:
    """The table as the page holds it.

    Attributes:
        data: `candidates`, `choices` of them and `reasons`, as `page.js` reads them.
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
    ranked = [_scores_of_rows(page_data, method, target) for target in recipe.targets]
    best: dict[str, int] = {}
    for rows, scores in zip(of_targets, ranked, strict=True):
        for sample_id in rows:
            best[sample_id] = min(scores[sample_id][0], best.get(sample_id, scores[sample_id][0]))
    sources: dict[str, int] = {}
    examples = {row["sample_id"]: row for row in page_data.pool.iter_rows(named=True) if row["sample_id"] in best}
    kept: dict[str, int] = {}
    candidates: list[list[Any]] = []
    for sample_id in sorted(best, key=lambda sample_id: (best[sample_id], sample_id)):
        candidate = _candidate(examples[sample_id], sources)
        most_bytes -= len(json.dumps(candidate, ensure_ascii=False).encode()) + 1
        if most_bytes < 0:
            break
        kept[sample_id] = len(candidates)
        candidates.append(candidate)
    choices, notes = [], {}
    for number, (target, rows, scores) in enumerate(zip(recipe.targets, of_targets, ranked, strict=True)):
        for sample_id in sorted(rows, key=lambda sample_id: scores[sample_id][0]):
            if sample_id in kept:
                rank, score = scores[sample_id]
                choices.append([number, kept[sample_id], rank, float(f"{score:.5g}"), rows[sample_id]])
                reasons = page_data.reasons.get((target, sample_id), ())
                if reasons:
                    notes[f"{number}:{kept[sample_id]}"] = [(reason.label, reason.detail) for reason in reasons]
    data = {
        "targets": recipe.targets,
        "ratios": recipe.ratios,
        "sources": list(sources),
        "candidates": candidates,
        "choices": choices,
        "reasons": notes,
    }
    return ReportTable(data, len(best), len(kept))


def _ratios_of_rows(page_data: PageData, method: str, target: str) -> dict[str, int]:
    """Of every row that was chosen at some ratio, the ratios: bit 0 is the first one.

    By some strategies a smaller subset is not the beginning of a larger one.
    """
    ratios: dict[str, int] = {}
    for bit, ratio in enumerate(page_data.recipe.ratios):
        for sample_id in page_data.subsets[method, target, ratio]:
            ratios[sample_id] = ratios.get(sample_id, 0) | 1 << bit
    return ratios


def _scores_of_rows(page_data: PageData, method: str, target: str) -> dict[str, tuple[int, float]]:
    """Rank and score by `sample_id`, of the candidates that have some."""
    scored = page_data.scores[method, target].filter(pl.col("rank").is_not_null())
    return {
        sample_id: (rank, score) for sample_id, rank, score in scored.select("sample_id", "rank", "score").iter_rows()
    }


def _candidate(row: Mapping[str, Any], sources: dict[str, int]) -> list[Any]:
    """Id, topic, index of the source, row there, question and answer."""
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
