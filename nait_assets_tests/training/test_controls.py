"""Random rows to compare with, and the probes: of the right size, of the right lengths, and random."""

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import DataError
from nait_assets.recipe.training import Probes
from nait_assets.training.controls import matched, random_draw
from nait_assets.training.probes import probe_subsets
from nait_assets_tests.conftest import conversation


def pool(n: int) -> pl.DataFrame:
    """Rows about one of ten subjects each."""
    rows = [conversation(f"subject{number % 10} asks {number}", f"subject{number % 10} says") for number in range(n)]
    return pl.DataFrame([{"sample_id": f"s{number:04}", **row} for number, row in enumerate(rows)])


@pytest.mark.parametrize("kind", ["long", "short", "any"])
def test_matched_rows_have_the_lengths_and_their_sum(kind: str) -> None:
    """Also of a subset of the longest rows, of which there are few; and they are other rows where there are others."""
    random = np.random.default_rng(0)
    lengths = random.lognormal(4, 0.8, 2000).astype(int) + 1
    order = np.argsort(lengths, kind="stable")
    chosen = {"long": order[-200:], "short": order[:200], "any": random.permutation(2000)[:200]}[kind]
    wanted = lengths[chosen]
    places = matched(wanted.tolist(), lengths, random.permutation(2000).tolist())
    assert len(set(places)) == 200
    found = lengths[places]
    assert abs(int(found.sum()) - int(wanted.sum())) <= 0.03 * wanted.sum()  # none is shorter than the shortest
    quartiles = [25, 50, 75]
    assert np.percentile(found, quartiles) == pytest.approx(np.percentile(wanted, quartiles), rel=0.1)
    if kind == "any":
        assert len(set(places) & set(chosen.tolist())) < 60  # of 200 of 2,000 by chance 20


def test_draws_differ_and_are_nested() -> None:
    """A draw is by hash: a smaller ratio is contained in a larger one, and another draw is another one."""
    rows = pool(100)
    small, large, other = (set(random_draw(rows, n, draw)["sample_id"]) for n, draw in ((10, 0), (30, 0), (10, 1)))
    assert small < large
    assert len(small & other) < 6


def test_probes_are_neighbourhoods_and_uniform_draws() -> None:
    """The rows of a neighbourhood share their words; those of a uniform draw are of all subjects."""
    rows = pool(200)
    found = probe_subsets(rows, Probes(number=12, rows=15, uniform=4))
    subjects = rows.with_columns((pl.col("sample_id").str.slice(1).cast(int) % 10).alias("subject"))
    counted = (
        found.join(subjects, on="sample_id")
        .group_by("probe", "kind")
        .agg(pl.len(), pl.col("subject").n_unique())
        .sort("probe")
    )
    assert counted["len"].to_list() == [15] * 12
    assert counted["kind"].to_list() == ["neighbourhood"] * 8 + ["uniform"] * 4
    assert set(counted.filter(kind="neighbourhood")["subject"]) == {1}
    assert counted.filter(kind="uniform")["subject"].min() > 4  # type: ignore[operator]


def test_probes_are_the_same_for_a_pool_in_another_order() -> None:
    """They are named by content, and trained once."""
    rows, probes = pool(100), Probes(number=5, rows=7, uniform=2)
    assert probe_subsets(rows, probes).equals(probe_subsets(rows.sample(fraction=1, shuffle=True, seed=1), probes))


def test_a_pool_too_small_for_probes_is_said() -> None:
    """Before anything is trained."""
    with pytest.raises(DataError, match="32 probes of 96 rows need a pool of as many rows, and it has 50"):
        probe_subsets(pool(50), Probes())
