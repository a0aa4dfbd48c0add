"""Partitions: which part of an asset rests on which part of the ones before it."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from nait_assets.definitions import build_definitions
from nait_assets.lineage import reference
from nait_assets.partitions import Partitions, cell_of
from nait_assets.recipe import Recipe

POOL = {"corpora/candidate_pool", "corpora/contaminated_candidates"}
PARENTS = {
    ("corpora/in_domain_set", "math"): set(),
    ("extraction/in_domain_activations", "math"): {"corpora/in_domain_set[math]"},
    ("features/nait_directions", "math"): {"extraction/in_domain_activations[math]"},
    ("features/standardized_centroids", "math"): {
        "extraction/in_domain_activations[math]",
        "features/neuron_statistics",
    },
    ("scoring/nait_scores", "math"): {"extraction/candidate_activations", "features/nait_directions[math]"},
    ("scoring/nait_scores", "all"): {
        "extraction/candidate_activations",
        "features/nait_directions[code]",
        "features/nait_directions[math]",
    },
    ("scoring/random_scores", "all"): {"corpora/candidate_pool"},
    ("selection/nait_subset", "math|0.30"): POOL | {"scoring/nait_scores[math]"},
    ("selection/nait_subset", "all|0.10"): POOL | {"scoring/nait_scores[all]"},
}


def parents_of(recipe: Recipe, home: Path, asset: str, partition: str) -> set[str]:
    """What a partition rests on, by Dagster's asset graph."""
    graph = build_definitions(recipe, home).resolve_asset_graph()
    found = graph.get_parents_partitions(dg.AssetKey(asset.split("/")), partition).parent_partitions
    return {reference("/".join(key.asset_key.path), key.partition_key and str(key.partition_key)) for key in found}


@pytest.mark.parametrize(("asset", "partition"), PARENTS, ids=str)
def test_a_partition_rests_on_its_own_capability(
    make_recipe: Callable[..., Recipe], tmp_path: Path, asset: str, partition: str
) -> None:
    """A partition more among the parents recomputes everything for every change; one less leaves results stale."""
    assert parents_of(make_recipe(), tmp_path, asset, partition) == PARENTS[asset, partition]


def test_a_feature_from_a_file_rests_on_no_examples(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """The maker of the file had the examples; whoever uses it need not."""
    recipe = make_recipe(capabilities={"code": {"source": "code.jsonl"}, "math": {"features": "library"}})
    assert parents_of(recipe, tmp_path, "features/nait_directions", "math") == set()
    assert parents_of(recipe, tmp_path, "features/nait_directions", "code") == {
        "extraction/in_domain_activations[code]"
    }


def test_cells_are_every_target_at_every_ratio_and_their_keys_read_target_first(
    make_recipe: Callable[..., Recipe],
) -> None:
    """The key is a person's name for a subset, in the UI and in `nait status`."""
    capabilities = {"code": {"features": "library"}, "math": {"source": "math.jsonl"}}
    partitions = Partitions.of(make_recipe(capabilities=capabilities, ratios=[0.1, 0.3]))
    keys = [str(key) for key in partitions.cell.get_partition_keys()]
    assert sorted(keys) == sorted(
        f"{target}|{ratio}" for target in ("code", "math", "all") for ratio in ("0.10", "0.30")
    )
    assert {cell_of(key) for key in partitions.cell.get_partition_keys()} == {tuple(key.split("|")) for key in keys}
    assert partitions.with_examples.get_partition_keys() == ["math"]
