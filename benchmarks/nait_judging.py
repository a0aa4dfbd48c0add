"""How `nait_variants.py` judges scores: finding planted rows, foretelling training, and the paper's overlap.

All is computed for many readings at once. The correlations are those of `evaluation/foresight`, and the area and
precision those of `benchmarks/retrieval.py`; the tests hold them against these.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import rankdata

from nait_assets.evaluation import foreseen
from nait_assets.evaluation.bootstrap import resamples
from nait_assets.evaluation.foresight import TAKEN_OUT, mean_fall
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse

BEST_SHARE = 0.10
"""Of the pool: what the paper selects, and whose overlaps it reports."""


@dataclass(frozen=True)
class Probes:
    """Subsets that a model was trained on, and what that did.

    Attributes:
        rows: By probe, the ids of its rows.
        falls: `(n_capabilities, n_probes)`: the loss of the base less that of the model trained on the probe.
        lengths: `(n_lengths, n_probes)`: lengths of the answers, which the partial correlation takes out.
    """

    rows: Sequence[Sequence[str]]
    falls: np.ndarray
    lengths: np.ndarray


def read_probes(recipe: Recipe, home: Path, capabilities: Sequence[str], work: Path) -> Probes:
    """The probes of a home, read from a copy of its warehouse, which another process may be writing.

    Args:
        recipe: Recipe of the home.
        home: It has `evaluation/probe_results`.
        capabilities: Targets whose tasks are read; of several tasks the falls are averaged in standard deviations.
        work: Folder for the copy.

    Raises:
        WarehouseError: Something has not been made.
    """
    copy = work / "probes_home"
    copy.mkdir(parents=True, exist_ok=True)
    for name in ("home.json", "warehouse.duckdb"):
        shutil.copy2(home / name, copy / name)
    warehouse = Warehouse(home=str(copy))
    with warehouse.tables.snapshot() as tables:
        probed = foreseen.read_probes(warehouse, tables)
    tasks = foreseen.tasks_by_target(recipe)
    falls = [mean_fall([probed.falls[task] for task in tasks[name]]) for name in capabilities]
    rows = [frame["sample_id"].to_list() for _, frame in probed.subsets.group_by("probe", maintain_order=True)]
    return Probes(rows, np.stack(falls), np.stack([probed.lengths[name] for name in TAKEN_OUT]))


@dataclass(frozen=True)
class Truth:
    """What scores are judged by, the candidates in the order of their ids.

    Attributes:
        planted: `(n_capabilities, n_candidates)` bool: the unseen rows of each capability.
        is_pool: `(n_candidates,)` bool: rows of the pool proper, not planted.
        n_tokens: `(n_candidates,)`.
        members: `(n_probes, n_pool)`: share of each pool row in each probe; None without probes.
    """

    planted: np.ndarray
    is_pool: np.ndarray
    n_tokens: np.ndarray
    members: np.ndarray | None

    @classmethod
    def of(cls, candidates: pl.DataFrame, capabilities: Sequence[str], probes: Probes | None) -> "Truth":
        """Of candidates with columns `sample_id`, `topic`, `n_tokens`, in the order of their ids."""
        topics = candidates["topic"].to_numpy()
        planted = np.stack([topics == name for name in capabilities])
        is_pool, members = ~planted.any(axis=0), None
        if probes is not None:
            place = {name: index for index, name in enumerate(candidates["sample_id"].to_numpy()[is_pool])}
            members = np.zeros((len(probes.rows), len(place)), np.float32)
            for probe, names in enumerate(probes.rows):
                members[probe, [place[name] for name in names if name in place]] = 1 / len(names)
        return cls(planted, is_pool, candidates["n_tokens"].to_numpy(), members)


def judged(scores: np.ndarray, truth: Truth) -> dict[str, np.ndarray]:
    """What scores `(n_readings, n_capabilities, n_candidates)` are worth, but for what training did.

    Returns:
        `placements`, `(n_readings, n_capabilities, n_planted)`: for each planted row the share of others that it is
        ranked before; their mean is the area under the ROC curve. `precision` among as many best rows as are planted.
        `overlap`: share of a capability's best rows of the pool that are among those of all capabilities together.
        `length`: Spearman's correlation with the number of tokens. `probes`, `(..., n_probes)`: mean rank of rows.
    """
    n = scores.shape[-1]
    ranks = rankdata(scores, axis=-1).astype(np.float32)
    placements, precision = [], []
    for place, wanted in enumerate(truth.planted):
        own = ranks[:, place, wanted]
        n_planted = own.shape[-1]
        placements.append((own - rankdata(own, axis=-1)) / (n - n_planted))
        precision.append((own > n - n_planted).mean(axis=-1))
    pool = scores[..., truth.is_pool]
    pool_ranks = rankdata(pool, axis=-1).astype(np.float32)
    centred = pool_ranks - pool_ranks.mean(axis=-1, keepdims=True)
    lengths = rankdata(truth.n_tokens[truth.is_pool])
    lengths -= lengths.mean()
    spread = np.linalg.norm(centred, axis=-1) * np.linalg.norm(lengths)
    found = {
        "placements": np.stack(placements, axis=1),
        "precision": np.stack(precision, axis=1),
        "overlap": _overlaps(pool),
        "length": (centred @ lengths) / np.maximum(spread, 1e-12),
    }
    if truth.members is not None:
        found["probes"] = pool_ranks @ truth.members.T
    return found


def _overlaps(pool: np.ndarray) -> np.ndarray:
    """`(n_readings, n_capabilities)`: the rows of `all` are those best by the mean of the capabilities' scores.

    For a dot product that is the score along the capabilities' mean direction.
    """
    n_best = max(1, round(BEST_SHARE * pool.shape[-1]))
    together = np.concatenate([pool, pool.mean(axis=1, keepdims=True)], axis=1)
    best = np.argsort(-together, axis=-1, kind="stable")[..., :n_best]
    chosen = np.zeros(together.shape, bool)
    np.put_along_axis(chosen, best, values=True, axis=-1)
    shared: np.ndarray = (chosen[:, :-1] & chosen[:, -1:]).sum(axis=-1) / n_best
    return shared


def teaching(
    of_probes: np.ndarray, probes: Probes, drawn: np.ndarray, capabilities: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`(n_readings,)` mean correlations over capabilities of probes' ranks with what training did; partial ones.

    Args:
        of_probes: `(n_readings, n_capabilities, n_probes)`, higher where a larger fall is foretold.
        probes: What training did.
        drawn: `(n,)` indices of probes; the probes themselves, or drawn from them.
        capabilities: Places of those that the mean is over; all by default.
    """
    chosen = list(range(len(probes.falls))) if capabilities is None else list(capabilities)
    found = _unit_ranks(of_probes[:, chosen][..., drawn])
    fell = _unit_ranks(probes.falls[chosen][:, drawn])
    basis = np.linalg.qr(_unit_ranks(probes.lengths[:, drawn]).T)[0]
    plain = np.einsum("rcp,cp->rc", found, fell)
    left = [values - (values @ basis) @ basis.T for values in (found, fell)]
    found, fell = (values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-9) for values in left)
    partial = np.einsum("rcp,cp->rc", found, fell)
    return plain.mean(axis=1), partial.mean(axis=1)


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, of mean 0 and length 1; zeros where all tie, which foretells nothing."""
    ranks = rankdata(values, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    unit: np.ndarray = ranks / np.maximum(np.linalg.norm(ranks, axis=-1, keepdims=True), 1e-9)
    return unit


def finding_draws(placements: np.ndarray, n_draws: int, seed: int = 0) -> np.ndarray:
    """`(n_draws, n_readings)` mean areas over capabilities, each capability's planted rows drawn with replacement."""
    n_capabilities, n_planted = placements.shape[1:]
    of_each = [
        placements[:, place, resamples(n_planted, [seed, place], n_draws)].mean(axis=-1)
        for place in range(n_capabilities)
    ]
    draws: np.ndarray = np.mean(of_each, axis=0).T
    return draws
