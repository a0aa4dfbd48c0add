"""The tables of `nait_variants.py`: readings of NAIT's rule side by side, what each choice does, and a fair choice."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from common import table
from nait_judging import Probes, teaching
from nait_readings import AXES, NAIT, STANDARDIZED

from nait_assets.evaluation.bootstrap import ends_of

PAPERS_OVERLAP = 0.70
"""The paper's figure 7: every capability's subset shares more than this with the comprehensive one."""


@dataclass(frozen=True)
class Measured:
    """All readings of a model, and how each was judged; arrays are in the frame's order.

    Attributes:
        frame: One row a reading: its choices, and its figures.
        found: Arrays of `nait_judging.judged`.
        capabilities: Names, in the arrays' order.
        probes: What training did, if a home was given.
        draws: `(n_draws, n_readings)` by figure: `finding`, `teaching`, `partial`.
    """

    frame: pl.DataFrame
    found: dict[str, np.ndarray]
    capabilities: list[str]
    probes: Probes | None
    draws: dict[str, np.ndarray]

    @property
    def figures(self) -> tuple[str, ...]:
        """Columns of figures that have draws."""
        return tuple(self.draws)


def is_allowed() -> pl.Expr:
    """Whether the paper's text allows a reading: its formula leaves site, template, first token and tokens open.

    Equation 2 is the last token less the first, the text says the mean; the direction is the first component with the
    sign of the mean change, and the score a plain sum of dot products.
    """
    return (
        (pl.col("normalisation") == "none")
        & (pl.col("centring") == "none")
        & (pl.col("aggregation") == "sum")
        & (pl.col("direction") == "component, sign by change")
        & (pl.col("change") != "mean")
        & (pl.col("pooling") != "answer")
        & (pl.col("candidate") == "mean")
    )


def is_reading(reading: dict[str, str]) -> pl.Expr:
    """Whether a row is this reading."""
    return pl.all_horizontal(pl.col(axis) == value for axis, value in reading.items())


def with_intervals(of: Measured, places: np.ndarray) -> dict[str, str]:
    """The mean of each figure over readings, with its interval of 95 %."""
    cells = {}
    for name, draws in of.draws.items():
        low, high = ends_of(draws[:, places].mean(axis=1))
        cells[name] = f"{of.frame[name].to_numpy()[places].mean():.3f} [{low:.3f}, {high:.3f}]"
    return cells


def shown(of: Measured, places: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a table, one a reading."""
    rows = []
    for place in places:
        row = of.frame.row(int(place), named=True)
        choices = {axis: row[axis] for axis in AXES}
        areas = " ".join(f"{row[f'finding {name}']:.2f}" for name in of.capabilities)
        figures = {"each": areas, "precision": row["precision"], "overlap": row["overlap"], "length": row["length"]}
        rows.append({**choices, **with_intervals(of, np.asarray([place])), **figures})
    return rows


def marginals(of: Measured) -> list[dict[str, Any]]:
    """The mean over all readings that make a choice, for every choice."""
    rows = []
    for axis in AXES:
        for value in of.frame[axis].unique(maintain_order=True):
            places = np.flatnonzero((of.frame[axis] == value).to_numpy())
            best = of.frame["finding"].to_numpy()[places].max()
            row = {"choice": axis, "value": value or "(of no change)", "readings": len(places)}
            rows.append({**row, **with_intervals(of, places), "best finding": float(best)})
    return rows


def chosen_on_one_half(of: Measured) -> list[dict[str, Any]]:
    """What a reading is worth that was chosen on other capabilities and other rows: means over all such halves.

    Two capabilities and half of their planted rows (of the probes) choose, the other capabilities and the other half
    judge; every pair, both halves. The fixed readings are judged by the same.
    """
    allowed = np.flatnonzero(of.frame.select(is_allowed()).to_series().to_numpy())
    groups = {"best of all readings": np.arange(len(of.frame)), "best of those that the text allows": allowed}
    for name, reading in fixed(of).items():
        groups[f"`{name}`"] = np.flatnonzero(of.frame.select(is_reading(reading)).to_series().to_numpy())
    figures = ["finding", *(["teaching", "partial"] if of.probes is not None else [])]
    rows = []
    for name, places in groups.items():
        row: dict[str, Any] = {"reading": name}
        for figure in figures:
            got, kept = [], Counter[int]()
            for chooses, judges, half in _halves(len(of.capabilities)):
                one, other = (
                    _half_figure(of, figure, places, who, part) for who, part in ((chooses, half), (judges, 1 - half))
                )
                place = int(one.argmax())
                kept[int(places[place])] += 1
                got.append((float(one[place]), float(other[place])))
            row |= {
                f"{figure}, where chosen": float(np.mean([a for a, _ in got])),
                f"{figure}, elsewhere": float(np.mean([b for _, b in got])),
            }
            if figure == "finding":
                row["chosen most often"] = _name(of.frame.row(kept.most_common(1)[0][0], named=True))
        rows.append(row)
    return rows


def _halves(n: int) -> list[tuple[list[int], list[int], int]]:
    pairs = list(itertools.combinations(range(n), 2))
    return [(list(pair), [one for one in range(n) if one not in pair], half) for pair in pairs for half in (0, 1)]


def _half_figure(of: Measured, figure: str, places: np.ndarray, capabilities: list[int], half: int) -> np.ndarray:
    """`(n_places,)` of a figure by some capabilities, and every second planted row or probe."""
    if figure == "finding":
        areas: np.ndarray = of.found["placements"][places][:, capabilities, half::2].mean(axis=(1, 2))
        return areas
    assert of.probes is not None
    chosen = np.arange(half, of.probes.falls.shape[1], 2)
    return teaching(of.found["probes"][places], of.probes, chosen, capabilities)[int(figure == "partial")]


def _name(row: dict[str, Any]) -> str:
    return ", ".join(str(row[axis]) for axis in AXES if row[axis])


def fixed(of: Measured) -> dict[str, dict[str, str]]:
    """Methods of the project by their readings, under plain headings where the model has no chat template."""
    has_chat = "chat" in of.frame["template"].to_list()
    given = {} if has_chat else {"template": "plain"}
    return {"nait": NAIT | given, "nait_standardized": STANDARDIZED | given}


def figures_of(of: Measured) -> dict[str, Any]:
    """Counts: how many readings find, and how many have the paper's overlap."""
    frame = of.frame.with_columns(allowed=is_allowed())
    found: dict[str, Any] = {}
    for name, part in (("all", frame), ("allowed", frame.filter("allowed"))):
        high = part.filter(pl.col("overlap") > PAPERS_OVERLAP)
        found |= {
            f"{name} readings": len(part),
            f"{name}: mean area of 0.9 or more": len(part.filter(pl.col("finding") >= 0.9)),
            f"{name}: every overlap above {PAPERS_OVERLAP}": len(high),
            f"{name}: mean area of those with that overlap": high["finding"].mean(),
            f"{name}: mean correlation with length of those, absolute": high["length"].abs().mean(),
            f"{name}: of those a mean area of 0.9 or more": len(high.filter(pl.col("finding") >= 0.9)),
        }
    return found


def report(name: str, of: Measured) -> dict[str, Any]:
    """Print a model's tables; the same for JSON."""
    finding = of.frame["finding"].to_numpy()
    order = np.argsort(-finding, kind="stable")
    allowed = of.frame.with_row_index("place").filter(is_allowed()).sort("finding", descending=True)["place"].to_list()
    fixed_places = [
        place
        for reading in fixed(of).values()
        for place in np.flatnonzero(of.frame.select(is_reading(reading)).to_series())
    ]
    tables: dict[str, list[dict[str, Any]]] = {
        "`nait`, `nait_standardized`": shown(of, fixed_places),
        "readings that the text allows": shown(of, allowed),
        "means over all readings that make a choice": marginals(of),
        "the ten that find best": shown(of, order[:10].tolist()),
        "the ten that find worst": shown(of, order[-10:].tolist()),
        "chosen on one half, judged on the other": chosen_on_one_half(of),
    }
    if of.probes is not None:
        by_teaching = np.argsort(-of.frame["teaching"].to_numpy(), kind="stable")
        tables["the ten that foretell training best"] = shown(of, by_teaching[:10].tolist())
        tables["the ten that foretell training worst"] = shown(of, by_teaching[-10:].tolist())
    for title, rows in tables.items():
        table(f"{name}: {title}", rows)
    return {**tables, **figures_of(of)}
