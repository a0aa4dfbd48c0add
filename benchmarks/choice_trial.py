"""A home for a trial of `choice.py`: probes of the rows that are there, whose losses fall by chance."""

import numpy as np
import polars as pl
from choice_finding import BACKGROUND, CANDIDATE, IN_DOMAIN
from choice_settings import Activations, Scorer, World
from choice_teaching import Home

from nait_assets.evaluation.foreseen import Probed
from nait_assets.evaluation.foresight import predictors_of_length
from nait_assets.recipe.training import Probes
from nait_assets.tables import N_ANSWER_CHARACTERS, N_CHARACTERS
from nait_assets.training.probes import probe_subsets


def trial_home(rows: pl.DataFrame, activations: Activations, name: str) -> Home:
    """A home of some rows, whose name is the seed of what its probes did."""
    candidates = rows.filter(part=CANDIDATE)
    groups = rows.filter(pl.col("family") != BACKGROUND)["group"].unique(maintain_order=True).to_list()[:2]
    examples = {group: rows.filter(part=IN_DOMAIN, group=group) for group in groups}
    subsets = probe_subsets(candidates, Probes(number=6, rows=8, uniform=2))
    characters = candidates.select("sample_id", characters=N_CHARACTERS, answer_characters=N_ANSWER_CHARACTERS)
    models = pl.DataFrame(
        {"number": range(6), "n_tokens": range(60, 120, 10), "n_answer_tokens": range(6), "n_rows": [8] * 6}
    )
    random = np.random.default_rng(list(name.encode()))
    probed = Probed(
        subsets, predictors_of_length(subsets, characters, models), {group: random.normal(size=6) for group in groups}
    )
    scorer = Scorer(World(candidates, examples), activations)
    return Home(name, probed, scorer, groups, {group: [group] for group in groups}, {})
