"""The probes: small subsets of the pool that no method chose, from which training is forecast.

A correlation between scores and what training does needs subsets that differ. Uniform draws of a pool hardly do, so
most probes are neighbourhoods: a row drawn at random, and the rows whose words are nearest to its own (TF-IDF, cosine).
"""

import numpy as np
import polars as pl

from nait_assets.errors import DataError
from nait_assets.recipe import seeded_order
from nait_assets.recipe.training import Probes
from nait_assets.selection.strategies.similarity import text_vectors
from nait_assets.training.tables import PROBE_SUBSETS


def probe_subsets(pool: pl.DataFrame, probes: Probes) -> pl.DataFrame:
    """Rows of `tables.PROBE_SUBSETS`; two probes may share rows, and no probe has a row twice.

    Args:
        pool: Columns `sample_id`, `messages`.
        probes: How many, how large, how many of them uniform, and the seed.

    Raises:
        DataError: The pool has fewer rows than a probe, or than there are probes.
    """
    names = pool["sample_id"].to_list()
    if len(names) < max(probes.rows, probes.number):
        raise DataError(
            f"training.probes: {probes.number} probes of {probes.rows} rows need a pool of as many rows, and it has "
            f"{len(names)}; use fewer `rows` or a lower `number`."
        )
    n_near = probes.number - probes.uniform
    near = _neighbourhoods(pool, seeded_order(names, f"training:probe:{probes.seed}")[:n_near], probes.rows)
    uniform = [
        seeded_order(names, f"training:probe:{probes.seed}:{place}")[: probes.rows] for place in range(probes.uniform)
    ]
    kinds = ["neighbourhood"] * n_near + ["uniform"] * probes.uniform
    rows = [
        {"probe": probe, "sample_id": names[place], "kind": kind}
        for probe, (kind, places) in enumerate(zip(kinds, [*near, *uniform], strict=True))
        for place in places
    ]
    return pl.DataFrame(rows, schema=PROBE_SUBSETS.columns).sort("probe", "sample_id")


def _neighbourhoods(pool: pl.DataFrame, centres: list[int], size: int) -> list[list[int]]:
    """Places of the rows nearest to each of some rows, which are the first of theirs; ties by id."""
    names = pool["sample_id"].to_list()
    ground = text_vectors(pool).of(names)
    by_name = np.argsort(np.argsort(np.asarray(names)))
    found = []
    for centre in centres:
        cosines = np.asarray(ground.cosines([centre])).reshape(-1).astype(np.int64)
        cosines[centre] = np.iinfo(np.int64).max
        found.append(np.lexsort((by_name, -cosines))[:size].tolist())
    return found
