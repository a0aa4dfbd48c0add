"""The automation condition, by real ticks on an instance in memory; versions are reported instead of computed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from nait_assets.definitions import build_definitions
from nait_assets.lineage import reference
from nait_assets.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
FIELDS: dict[str, Any] = {"methods": ["nait", "nait_standardized"], "ratios": [0.3]}


@dataclass
class Automation:
    """Dagster's daemon in small: ticks, and what each of them requests is made at once."""

    instance: dg.DagsterInstance
    defs: dg.Definitions
    cursor: Any = None
    unchanged: set[str] = field(default_factory=set)
    n_made: int = 0

    def tick(self) -> list[tuple[dg.AssetKey, str | None]]:
        """What one tick requests."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        keys = self.defs.resolve_asset_graph().get_all_asset_keys()
        return [(key, partition) for key in sorted(keys) for partition in result.get_requested_partitions(key)]

    def make(self, key: dg.AssetKey, partition: str | None) -> None:
        """Report an output with new content, or with the same if it is one of `unchanged`."""
        self.n_made += 1
        name = reference("/".join(key.path), partition)
        version = "same" if name in self.unchanged else str(self.n_made)
        tags = {"dagster/data_version": version}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, tags=tags))

    def make_everything(self) -> None:
        """The first load, which a person requests."""
        graph = self.defs.resolve_asset_graph()
        for key in graph.toposorted_asset_keys:
            definition = graph.get(key).partitions_def
            for partition in definition.get_partition_keys() if definition else [None]:
                self.make(key, partition)

    def settle(self) -> set[str]:
        """Tick until nothing is requested any more; all that was."""
        requested: set[str] = set()
        for _ in range(12):
            wanted = self.tick()
            if not wanted:
                return requested
            for key, partition in wanted:
                self.make(key, partition)
            requested |= {reference("/".join(key.path), partition) for key, partition in wanted}
        raise AssertionError(f"still requested after twelve ticks: {wanted}")


@pytest.fixture
def automation(make_recipe: MakeRecipe, tmp_path: Path) -> Iterator[Automation]:
    """A recipe whose outputs have all been made and seen."""
    with dg.DagsterInstance.ephemeral() as instance:
        automation = Automation(instance, build_definitions(make_recipe(**FIELDS), tmp_path))
        automation.tick()
        automation.make_everything()
        automation.settle()
        yield automation


MATH = dg.AssetKey(["corpora", "in_domain_set"])


def column(*targets: str) -> set[str]:
    """Scores and subsets of targets."""
    return {
        name
        for method in FIELDS["methods"]
        for target in targets
        for name in (f"scoring/{method}_scores[{target}]", f"selection/{method}_subset[{target}|0.30]")
    }


def test_the_first_load_is_left_to_a_person(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A daemon that is started on an empty home must not begin hours of extraction by itself."""
    with dg.DagsterInstance.ephemeral() as instance:
        automation = Automation(instance, build_definitions(make_recipe(**FIELDS), tmp_path))
        assert [automation.tick(), automation.tick()] == [[], []]


def test_nothing_is_requested_while_nothing_changes(automation: Automation) -> None:
    """The daemon ticks every half minute, for months."""
    assert [automation.tick(), automation.tick(), automation.tick()] == [[], [], []]


def test_an_input_that_is_made_again_with_the_same_content_requests_nothing(automation: Automation) -> None:
    """A nightly check of the sources that finds nothing new is free. Dagster's own `eager` would run all of it."""
    automation.unchanged.add("corpora/in_domain_set[math]")
    automation.make(MATH, "math")
    automation.settle()
    automation.make(MATH, "math")
    assert automation.settle() == set()


def test_new_examples_request_their_column_and_the_comprehensive_target(automation: Automation) -> None:
    """The pool, the other capability and its subsets are left alone."""
    automation.make(MATH, "math")
    below = {"extraction/in_domain_activations", "features/nait_directions", "features/standardized_centroids"}
    assert automation.settle() == {f"{name}[math]" for name in below} | column("math", "all")


def test_a_change_stops_where_it_has_no_effect(automation: Automation) -> None:
    """Directions that come out the same spare every score and subset that rests on them."""
    features = {"features/nait_directions[math]", "features/standardized_centroids[math]"}
    automation.unchanged |= features
    for name in sorted(features):
        automation.make(dg.AssetKey(name.partition("[")[0].split("/")), "math")
    automation.settle()
    automation.make(MATH, "math")
    assert automation.settle() == {"extraction/in_domain_activations[math]", *features}


def test_a_changed_pool_requests_all_but_the_directions(automation: Automation) -> None:
    """A NAIT direction rests on its examples alone; all else is measured against the pool."""
    automation.make(dg.AssetKey(["corpora", "candidate_pool"]), None)
    features = {
        "features/neuron_statistics",
        *(f"features/standardized_centroids[{name}]" for name in ("code", "math")),
    }
    assert automation.settle() == {"extraction/candidate_activations"} | features | column("code", "math", "all")


def test_a_new_ratio_requests_its_cells(automation: Automation, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Found when the code location is loaded again."""
    automation.defs = build_definitions(make_recipe(**{**FIELDS, "ratios": [0.3, 0.5]}), tmp_path)
    cells = {
        f"selection/{method}_subset[{target}|0.50]"
        for method in FIELDS["methods"]
        for target in ("code", "math", "all")
    }
    assert automation.settle() == cells


def test_a_removed_capability_requests_scores_again(
    automation: Automation, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """No input has a new version then: only the code version tells that `all` is another target now."""
    automation.unchanged |= {f"corpora/in_domain_set[{name}]" for name in ("code", "math")}
    automation.make(MATH, "math")
    automation.settle()
    automation.defs = build_definitions(
        make_recipe(**FIELDS, capabilities={"math": {"source": "math.jsonl"}}), tmp_path
    )
    assert automation.settle() == {"corpora/in_domain_set[math]"} | column("math", "all")
