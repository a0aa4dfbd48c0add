"""Finding: are the rows of a kind put first by examples of it? Data sets in two halves that share no row and no kind.

Belongs here: what has to be found among what. Does not belong here: what scores it.

In each half are a part of Alpaca, and of the kinds of every data set (tasks, subjects, languages) every second one, in
an order that a hash of their names makes. What has to be found:

- `data set`: rows of a data set planted in Alpaca, by 8, 16, 32 and 64 examples; a data set is planted in one half;
- `task`, `subject`, `language`: rows of one task of BBH, one subject of MMLU, one language of TyDiQA, one pair of
  translation among all rows of the half;
- `shifted`: rows of other tasks, subjects or languages than the examples', and longer or shorter ones.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from choice_settings import Activations, Scorer, Setting, World
from common import demo_recipe

from nait_assets.corpora.corpus import read_corpus
from nait_assets.evaluation.bootstrap import resamples
from nait_assets.recipe import POOL, Source, seeded_order
from nait_assets.report.comparison import retrieval
from nait_assets.scoring.ranking import ranked
from nait_assets.tables import N_CHARACTERS

SEED = "choice"
"""Of the halves and of the rows: fixed before anything was measured."""
CHOOSING, REPORTING = "choosing", "reporting"
HALVES = (CHOOSING, REPORTING)
BACKGROUND = "alpaca"
N_PLANTED, SIZES, FEW_GROUPS = 20, (8, 16, 32, 64), 5
CANDIDATE, IN_DOMAIN = "candidate", "example"
HARDNESS = re.compile(r"_(two|three|five|seven)(?=_)|^(elementary|high_school|college|professional)_")
"""Of tasks of BBH and subjects of MMLU that differ in it alone."""
CHOICES = "{{ question }}\nA. {{ A }}\nB. {{ B }}\nC. {{ C }}\nD. {{ D }}"


@dataclass(frozen=True)
class Family:
    """A data set, and how many of its rows are taken.

    Attributes:
        name: Name of the data set.
        kind: What its groups are.
        sources: Fields of its sources; `topic` or `topic_field` says the group of a row.
        n_rows: Candidates of each group.
        n_examples: Examples of each group.
        n_groups: Groups that are taken, all by default.
    """

    name: str
    kind: str
    sources: tuple[Mapping[str, Any], ...]
    n_rows: int
    n_examples: int
    n_groups: int | None = None


def _format(user: str, assistant: str) -> dict[str, str]:
    return {"user": user, "assistant": assistant}


TYDIQA = _format("{{ context }}\n\n{{ question }}", "{{ answer_text[0] }}")
FAMILIES = (
    Family(BACKGROUND, "", ({"source": "alpaca_52k.parquet", "format": "alpaca", "topic": BACKGROUND},), 500, 0),
    Family(
        "bbh",
        "task",
        ({"source": "bbh.parquet", "format": _format("{{ input }}", "{{ target }}"), "topic_field": "task"},),
        8,
        8,
    ),
    Family(
        "mmlu",
        "subject",
        ({"source": "mmlu_val.parquet", "format": _format(CHOICES, "{{ answer }}"), "topic_field": "subject"},),
        8,
        8,
        20,
    ),
    Family(
        "tydiqa",
        "language",
        (
            {"source": "tydiqa_goldp_train_en_ko_sw.parquet", "format": TYDIQA, "topic_field": "language"},
            {
                "source": "tydiqa_id_train.parquet",
                "format": _format("{{ input }}", "{{ target }}"),
                "topic": "indonesian",
            },
        ),
        16,
        16,
    ),
    Family(
        "translation",
        "language",
        (
            {
                "source": "alma_parallel.parquet",
                "format": _format("{{ source }}", "{{ target }}"),
                "topic_field": "pair",
            },
        ),
        12,
        12,
    ),
    Family(
        "gsm8k",
        "data set",
        ({"source": "gsm8k_train.parquet", "format": _format("{{ question }}", "{{ answer }}"), "topic": "gsm8k"},),
        20,
        64,
    ),
    Family(
        "bigcodebench",
        "data set",
        (
            {
                "source": "bigcodebench.parquet",
                "format": _format("{{ instruct_prompt }}", "{{ code_prompt }}{{ canonical_solution }}"),
                "topic": "bigcodebench",
            },
        ),
        20,
        32,
    ),
)
DEMO = (
    Family(
        BACKGROUND,
        "",
        tuple(
            {"source": "candidates.jsonl", "where": {"topic": topic}, "topic": BACKGROUND}
            for topic in ("law", "health", "home")
        ),
        60,
        0,
    ),
    Family(
        "talk",
        "task",
        tuple(
            {"source": f"in_domain/{name}.jsonl", "topic": name} for name in ("code", "knowledge", "math", "reasoning")
        ),
        8,
        8,
    ),
    Family("languages", "data set", ({"source": "in_domain/multilingual.jsonl", "topic": "multilingual"},), 8, 8),
)
"""What the demo's data give, for a trial of the script."""


def alternating(names: Sequence[str], of: str) -> dict[str, str]:
    """By name its half: every second one in the order of a hash; those of one kind where the first of them is."""
    ordered, half_of = sorted(names), dict[str, str]()
    for turn, place in enumerate(seeded_order(ordered, f"{SEED}:{of}")):
        half_of.setdefault(kind_of(ordered[place]), HALVES[turn % 2])
    return {name: half_of[kind_of(name)] for name in ordered}


def kind_of(name: str) -> str:
    """A group's name without what makes it easier or harder: `logical_deduction_objects`, `biology`."""
    return HARDNESS.sub("", name)


def read_rows(families: Sequence[Family], data: Path) -> pl.DataFrame:
    """The rows of all data sets: columns of `tables.EXAMPLE`, and `family`, `kind`, `group`, `part`, `half`, `order`.

    Args:
        families: Data sets.
        data: Folder with their files.
    """
    planted_in = alternating([family.name for family in families if family.name != BACKGROUND], "data sets")
    groups = (_rows_of(family, data, planted_in.get(family.name, CHOOSING)) for family in families)
    rows = pl.concat(itertools.chain.from_iterable(groups))
    return rows.unique("sample_id", keep="first", maintain_order=True).with_columns(
        planted_in=pl.col("family").replace_strict(planted_in, default="")
    )


def _rows_of(family: Family, data: Path, planted_in: str) -> Iterator[pl.DataFrame]:
    sources = tuple(Source(**{**given, "source": str(data / given["source"])}) for given in family.sources)
    found = read_corpus(demo_recipe().model_copy(update={"candidates": sources}), POOL).examples
    groups = found["topic"].unique().sort().to_list()
    groups = [groups[place] for place in seeded_order(groups, f"{SEED}:groups")][: family.n_groups]
    halves = alternating(groups, family.name) if len(groups) > 1 else {groups[0]: planted_in}
    for group in groups:
        own = found.filter(topic=group)
        order = seeded_order(own["sample_id"].to_list(), f"{SEED}:rows")[: family.n_rows + family.n_examples]
        taken = (
            own[order]
            .with_row_index("order")
            .with_columns(
                family=pl.lit(family.name),
                kind=pl.lit(family.kind),
                group=pl.lit(group),
                part=pl.when(pl.col("order") < family.n_rows).then(pl.lit(CANDIDATE)).otherwise(pl.lit(IN_DOMAIN)),
                half=pl.lit(halves[group]),
            )
        )
        if family.name == BACKGROUND:  # of one group, which both halves need: every second row
            taken = taken.with_columns(
                half=pl.when(pl.col("order") % 2 == 0).then(pl.lit(CHOOSING)).otherwise(pl.lit(REPORTING))
            )
        yield taken


@dataclass(frozen=True)
class Query:
    """Something to be found.

    Attributes:
        name: Name of the target.
        kind: Kind of what is found.
        unit: What is drawn again for an interval: queries of one data set by different numbers of examples are one.
        is_planted: Whether it is sought in Alpaca with the planted rows, and not in everything.
        examples: Ids of the examples.
        wanted: Ids of the rows that should be first.
        left_out: Ids of rows that are neither right nor wrong.
    """

    name: str
    kind: str
    unit: str
    is_planted: bool
    examples: tuple[str, ...]
    wanted: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def queries_of(rows: pl.DataFrame, half: str) -> list[Query]:
    """What has to be found in a half."""
    own = rows.filter(half=half).filter(pl.col("family") != BACKGROUND)
    found: list[Query] = []
    for (family,), frame in own.group_by("family", maintain_order=True):
        if frame["planted_in"][0] == half:
            found += _of_data_set(str(family), frame)
        if frame["group"].n_unique() > 1:
            found += _of_groups(str(family), frame)
    return found


def _ids(frame: pl.DataFrame, part: str, most: int | None = None) -> tuple[str, ...]:
    names = frame.filter(part=part)["sample_id"].to_list()
    return tuple(names[place] for place in seeded_order(names, f"{SEED}:{part}")[:most])


def _of_data_set(family: str, frame: pl.DataFrame) -> Iterator[Query]:
    examples, wanted = _ids(frame, IN_DOMAIN), _ids(frame, CANDIDATE, N_PLANTED)
    for size in SIZES:
        if size <= len(examples):
            yield Query(f"{family} by {size}", "data set", family, True, examples[:size], wanted)
    lengths = dict(frame.select("sample_id", N_CHARACTERS).iter_rows())

    def by_length(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        ordered = sorted(names, key=lambda name: (lengths[name], name))
        return tuple(ordered[: len(ordered) // 2]), tuple(ordered[len(ordered) // 2 :])

    (short, long), (short_rows, long_rows) = by_length(examples), by_length(wanted)
    yield Query(f"longer {family}", "shifted", f"length of {family}", True, short, long_rows, short_rows)
    yield Query(f"shorter {family}", "shifted", f"length of {family}", True, long, short_rows, long_rows)


def _of_groups(family: str, frame: pl.DataFrame) -> Iterator[Query]:
    groups = frame["group"].unique(maintain_order=True).to_list()
    for group in groups:
        own = frame.filter(group=group)
        name = f"{family}: {group}"
        yield Query(name, own["kind"][0], name, False, _ids(own, IN_DOMAIN), _ids(own, CANDIDATE))
    parts = [[group] for group in groups] if len(groups) <= FEW_GROUPS else [groups[::2], groups[1::2]]
    for number, part in enumerate(parts):
        own, others = (frame.filter(pl.col("group").is_in(part) == is_own) for is_own in (True, False))
        ids = _ids(own, IN_DOMAIN), _ids(others, CANDIDATE), _ids(own, CANDIDATE)
        yield Query(f"{family}: others than {number}", "shifted", f"kinds of {family}", False, *ids)


def found_of(rows: pl.DataFrame, activations: Activations, settings: Sequence[Setting]) -> pl.DataFrame:
    """Columns `setting`, `half`, `kind`, `unit`, `query`, `auc`, `precision`.

    Args:
        rows: As of `read_rows`.
        activations: Of all of them.
        settings: What is judged.
    """
    found: list[dict[str, Any]] = []
    for half, is_planted in itertools.product(HALVES, (True, False)):
        queries = [query for query in queries_of(rows, half) if query.is_planted == is_planted]
        if not queries:
            continue
        scorer = Scorer(_world(rows.filter(half=half), queries, is_planted), activations)
        for setting in settings:
            scores = scorer.scores(setting)
            for query, values in zip(queries, scores.T, strict=True):
                area, precision = judged(query, scorer.sample_ids, values)
                place = {"setting": setting.name, "half": half, "kind": query.kind, "unit": query.unit}
                found.append({**place, "query": query.name, "auc": area, "precision": precision})
    return pl.DataFrame(found)


def _world(rows: pl.DataFrame, queries: Sequence[Query], is_planted: bool) -> World:
    candidates = rows.filter(part=CANDIDATE)
    if is_planted:
        planted = {name for query in queries for name in (*query.wanted, *query.left_out)}
        candidates = candidates.filter((pl.col("family") == BACKGROUND) | pl.col("sample_id").is_in(list(planted)))
    examples = {query.name: rows.filter(pl.col("sample_id").is_in(query.examples)) for query in queries}
    return World(candidates, examples)


def judged(query: Query, sample_ids: Sequence[str], scores: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and precision among as many best rows as are wanted."""
    left_out = set(query.left_out)
    kept = [place for place, name in enumerate(sample_ids) if name not in left_out]
    names = [sample_ids[place] for place in kept]
    area, precision, _ = retrieval(ranked(names, scores[kept]), pl.Series(list(query.wanted), dtype=pl.String))
    return area, precision


@dataclass(frozen=True)
class Sought:
    """How well a setting finds in a half: means over kinds, of all units and of each resample, `(1 + n_resamples,)`.

    Attributes:
        auc: Area under the ROC curve.
        precision: Precision among as many best rows as are wanted.
        by_kind: Both of all units, by kind.
    """

    auc: np.ndarray
    precision: np.ndarray
    by_kind: Mapping[str, Sequence[float]]


def summary(found: pl.DataFrame, seed: int = 0, n_resamples: int = 1000) -> dict[tuple[str, str], Sought]:
    """What each setting finds, by setting and half; units are drawn again within their kind.

    One fewer of them than there are (Rao and Wu 1988, the rescaled bootstrap): as many would give a mean over n units
    (n - 1) / n of its variance, and some kinds have three. A kind of one unit has no interval, so neither has the mean.

    Args:
        found: As of `found_of`.
        seed: Of the resamples, which all settings share, so that differences are paired.
        n_resamples: How many.
    """
    by_unit = found.group_by("setting", "half", "kind", "unit", maintain_order=True)
    units = by_unit.agg(pl.col("auc", "precision").mean()).sort("kind", "unit", maintain_order=True)
    sought = {}
    for (setting, half), own in units.group_by("setting", "half", maintain_order=True):
        means, by_kind = [], {}
        for place, ((name,), kind) in enumerate(own.group_by("kind", maintain_order=True)):
            values = kind.select("auc", "precision").to_numpy()
            by_kind[str(name)] = values.mean(axis=0).tolist()
            means.append(np.concatenate([values.mean(axis=0)[None], _of_resamples(values, [seed, place], n_resamples)]))
        sought[str(setting), str(half)] = Sought(*np.mean(means, axis=0).T, by_kind)
    return sought


def _of_resamples(values: np.ndarray, seed: list[int], n_resamples: int) -> np.ndarray:
    """`(n_resamples, n_figures)` means of resamples of `(n_units, n_figures)` values; NaN of a single unit."""
    if len(values) == 1:
        return np.full((n_resamples, values.shape[1]), np.nan)
    found: np.ndarray = values[resamples(len(values), seed, n_resamples, len(values) - 1)].mean(axis=1)
    return found
