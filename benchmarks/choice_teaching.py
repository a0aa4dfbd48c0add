"""Teaching: do scores foretell what training did with the probes of a home? Also a combination that other homes taught.

Belongs here: what a home has, and what is correlated with what. Does not belong here: what is chosen by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from choice_settings import Activations, Scorer, Setting, World

from nait_assets.corpora.catalogue import EXAMPLES_OUTPUT, POOL_OUTPUT
from nait_assets.evaluation.bootstrap import SEED
from nait_assets.evaluation.foreseen import Probed, read_predictor, read_probes, tasks_by_target
from nait_assets.evaluation.foresight import (
    Found,
    Predictor,
    best_length,
    controls,
    found_by_target,
    mean_fall,
    mean_found,
    predictor_of_method,
)
from nait_assets.extraction import activation_table
from nait_assets.recipe import COMPREHENSIVE_TARGET, POOL, Recipe, load_recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.ranking import ranked

COMBINATION = "learned combination"
PENALTIES = tuple(10.0**power for power in range(-1, 5))


@dataclass(frozen=True)
class Home:
    """A home with probes.

    Attributes:
        name: How tables call it.
        probed: Its probes, and what training on them did.
        scorer: Scorer of its pool, whose targets are its capabilities.
        targets: In the scorer's order.
        tasks_of: By target, the tasks that belong to it.
        stored: Predictors by the scores that it has, by method.
    """

    name: str
    probed: Probed
    scorer: Scorer
    targets: Sequence[str]
    tasks_of: Mapping[str, Sequence[str]]
    stored: Mapping[str, Predictor]

    def predictor(self, setting: Setting) -> Predictor:
        """A setting as a predictor."""
        scores = self.scorer.scores(setting)
        frames = {
            target: ranked(self.scorer.sample_ids, values)
            for target, values in zip(self.targets, scores.T, strict=True)
        }
        return predictor_of_method(setting.name, frames, self.probed.subsets)


def read_home(recipe_file: Path, folder: Path) -> Home:
    """A home in which a recipe's probes were trained and evaluated, and all its methods scored.

    Raises:
        WarehouseError: Something has not been made.
    """
    recipe, warehouse = load_recipe(recipe_file), Warehouse(home=str(folder.absolute()))
    with warehouse.tables.snapshot() as tables:
        probed = read_probes(warehouse, tables)
        candidates, _ = POOL_OUTPUT.read(warehouse, tables, "")
        examples = {
            name: EXAMPLES_OUTPUT.read(warehouse, tables, name)[0] for name in recipe.capabilities_with_examples
        }
        stored = {method: read_predictor(recipe, tables, method, probed) for method in recipe.methods}
    corpora = [POOL, *examples]
    activations = Activations.of([activation_table.activations_of(warehouse, corpus) for corpus in corpora])
    known = pl.col("sample_id").is_in(activations.sample_ids)
    world = World(candidates.filter(known), {name: frame.filter(known) for name, frame in examples.items()})
    return Home(recipe.name, probed, Scorer(world, activations), list(examples), single_targets(recipe), stored)


def single_targets(recipe: Recipe) -> dict[str, list[str]]:
    """The tasks of each capability."""
    return {name: tasks for name, tasks in tasks_by_target(recipe).items() if name != COMPREHENSIVE_TARGET}


@dataclass(frozen=True)
class Foretold:
    """What a predictor foretells in a home, on average over its targets, each `(1 + n_resamples,)`.

    Attributes:
        correlation: Correlation with the fall of the loss.
        partial: The same given the lengths of the answers; None of such a length.
        above: Correlation less that of the length that foretells best.
        by_target: Correlations of all probes, by target.
    """

    correlation: np.ndarray
    partial: np.ndarray | None
    above: np.ndarray
    by_target: Mapping[str, float]


def foretold(home: Home, predictors: Sequence[Predictor], seed: int = SEED) -> dict[str, Foretold]:
    """What each predictor foretells, and each length, by name.

    Args:
        home: Home whose probes are foretold.
        predictors: Methods, settings, combinations.
        seed: Seed of the resamples of the probes: of each home another, since what is drawn of one says nothing of
            another's, whose probes are others.
    """
    every = [*predictors, *controls(home.targets, home.probed.lengths)]
    of_target: dict[str, list[Found]] = {}
    for target, _, found in found_by_target(every, home.probed.falls, home.tasks_of, seed):
        of_target[target] = found  # the last of a target is that of its tasks together
    means = [mean_found(found) for found in zip(*of_target.values(), strict=True)]
    length = best_length(every, means)
    assert length is not None
    return {
        predictor.name: Foretold(
            mean.correlation,
            mean.partial,
            mean.correlation - length,
            {target: float(found[place].correlation[0]) for target, found in of_target.items()},
        )
        for place, (predictor, mean) in enumerate(zip(every, means, strict=True))
    }


def combination(home: Home, others: Sequence[Home], features: Mapping[str, Sequence[Predictor]]) -> Predictor:
    """Mean ranks weighted as the other homes' probes say: a ridge regression of the fall on them.

    The penalty is the one that foretells probes of the other homes best that were left out of the fit one by one. A
    weighted sum of a row's ranks has the same mean over a probe as that of the probe's mean ranks: it is a method.

    Args:
        home: Home that is foretold.
        others: Homes with the same targets that it is learnt from.
        features: By home the same predictors in the same order, lengths among them if they are to count.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import LeaveOneGroupOut

    known = [(_ranks(one, features[one.name]), _falls(one)) for one in others]
    ranks = np.concatenate([found.reshape(-1, found.shape[-1]) for found, _ in known])
    falls = np.concatenate([found.reshape(-1) for _, found in known])
    shapes = [found.shape for _, found in known]
    probes = np.concatenate(
        [place * 10_000 + np.tile(np.arange(n), n_targets) for place, (n_targets, n) in enumerate(shapes)]
    )
    scale = ranks.std(axis=0)
    scale[scale == 0] = 1
    splits = list(LeaveOneGroupOut().split(ranks, falls, probes))
    ridge = RidgeCV(alphas=PENALTIES, fit_intercept=False, cv=splits).fit(ranks / scale, falls)
    own = _ranks(home, features[home.name]) / scale
    values = dict(zip(home.targets, own @ ridge.coef_, strict=True))
    return Predictor(COMBINATION, "method", values, {}, {})


def _ranks(home: Home, predictors: Sequence[Predictor]) -> np.ndarray:
    """`(n_targets, n_probes, n_predictors)` mean ranks as shares of the pool, less their mean over the probes."""
    found = np.stack([[one.values[target] for one in predictors] for target in home.targets])
    shares = found.transpose(0, 2, 1) / len(home.scorer.sample_ids)
    centred: np.ndarray = shares - shares.mean(axis=1, keepdims=True)
    return centred


def _falls(home: Home) -> np.ndarray:
    """`(n_targets, n_probes)` falls of each target's tasks in standard deviations, of mean 0."""
    rows = []
    for target in home.targets:
        fall = mean_fall([home.probed.falls[task] for task in home.tasks_of[target]])
        rows.append((fall - fall.mean()) / (fall.std() or 1.0))
    return np.stack(rows)
