"""One pass over the activations for all targets: what is remembered, and when it is not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction import activation_table
from nait_assets.lineage import Record
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import WarehouseError
from nait_assets.scoring import assets
from nait_assets.scoring.assets import Scored
from nait_assets.scoring.latest import Latest
from nait_assets.scoring.methods import method_named
from nait_assets.tables import STANDARDIZED_CENTROIDS, scores_table
from nait_assets_tests.small_home import LAYERS, WIDTH, build_home, small_recipe

METHOD = method_named("nait_standardized")
CENTROID = {"code": "features/standardized_centroids[code]", "math": "features/standardized_centroids[math]"}


Score = Callable[..., dict[str, float]]


@pytest.fixture
def score(recipe: Recipe) -> Score:
    """From a home and a target to the target's scores by candidate, in one process."""
    latest: Latest[Scored] = Latest()

    def scored(warehouse: Warehouse, target: str) -> dict[str, float]:
        frame, _, _ = assets.score(METHOD, recipe, warehouse, target, latest)
        return dict(zip(frame["sample_id"].to_list(), frame["score"].to_list(), strict=True))

    return scored


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Capabilities code and math."""
    return small_recipe(tmp_path)


@pytest.fixture
def warehouse(recipe: Recipe, tmp_path: Path) -> Warehouse:
    """The small home."""
    return build_home(recipe, tmp_path / "home")


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose activations have been read whole."""
    read: list[Path] = []
    scan = activation_table.scan

    def counted(snapshot: Any, **arguments: Any) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        if arguments.get("sample_ids") is None:  # else it is the sample that thresholds are found by
            read.append(snapshot.path)
        return scan(snapshot, **arguments)

    monkeypatch.setattr(activation_table, "scan", counted)
    return read


def held(warehouse: Warehouse, target: str) -> Any:
    """A target's scores as the small home has them, of whole layers at a time: other blocks are rounded otherwise."""
    with warehouse.tables.snapshot() as snapshot:
        frame = snapshot.read(scores_table(METHOD.name), target=target)
    return pytest.approx(dict(zip(frame["sample_id"].to_list(), frame["score"].to_list(), strict=True)), abs=1e-6)


def put_centroid(
    warehouse: Warehouse, capability: str, version: str, layers: tuple[int, ...] = LAYERS, width: int = WIDTH
) -> None:
    """Another centroid of a capability, of its own version."""
    vector = np.arange(width, dtype=np.float32) - 1.5
    vectors = [vector.tolist()] * len(layers)
    frame = pl.DataFrame({"layer": layers, "centroid": vectors, "mean_activation": vectors, "n_samples": 4})
    with warehouse.tables.transaction() as tables:
        tables.replace(STANDARDIZED_CENTROIDS, frame, capability=capability)
        tables.put_record(Record("features/standardized_centroids", capability, "1", version))


def forget_centroid(warehouse: Warehouse, capability: str) -> None:
    """As in a home in which a capability's feature has not been made yet."""
    with warehouse.tables.transaction() as tables:
        for table, column in ((STANDARDIZED_CENTROIDS.name, "capability"), ("lineage.versions", "partition")):
            tables.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", [capability])


def test_activations_are_read_once_for_all_targets(
    recipe: Recipe, warehouse: Warehouse, score: Score, scans: list[Path]
) -> None:
    """A pool of a million rows is a hundred gigabytes; read for every target, it would be read six times."""
    for target in recipe.targets:
        assert score(warehouse, target) == held(warehouse, target)
    assert len(scans) == 1


def test_a_target_rests_on_its_own_features_alone(recipe: Recipe, warehouse: Warehouse) -> None:
    """The neighbours' features are read on the way; as inputs they would make every target stale with each of them."""
    for target, names in {"code": ["code"], "math": ["math"], "all": ["code", "math"]}.items():
        _, _, inputs = assets.score(METHOD, recipe, warehouse, target, Latest())
        own = {CENTROID[name] for name in names} | {f"extraction/in_domain_activations[{name}]" for name in names}
        assert set(inputs) == {"extraction/candidate_activations", "features/neuron_statistics", *own}


def test_scores_follow_a_feature_that_changes(
    recipe: Recipe, warehouse: Warehouse, score: Score, scans: list[Path]
) -> None:
    """In Dagster's daemon one process lives for weeks: what it remembers must not outlive what it rests on."""
    before = {target: score(warehouse, target) for target in recipe.targets}
    put_centroid(warehouse, "math", "another version")
    after = {target: score(warehouse, target) for target in recipe.targets}
    assert len(scans) == 2
    assert after["code"] == before["code"]
    assert after["math"] != before["math"]
    assert after["all"] != before["all"]
    for target in recipe.targets:
        frame, _, _ = assets.score(METHOD, recipe, warehouse, target, Latest())
        assert dict(zip(frame["sample_id"].to_list(), frame["score"].to_list(), strict=True)) == after[target]


def test_scores_follow_activations_and_statistics_that_change(
    recipe: Recipe, warehouse: Warehouse, score: Score, scans: list[Path]
) -> None:
    """Each is an input as much as the features are."""
    score(warehouse, "math")
    with warehouse.tables.transaction() as tables:
        tables.put_record(Record("features/neuron_statistics", "", "1", "another version"))
    score(warehouse, "math")
    assert len(scans) == 2
    with activation_table.activations_of(warehouse, "candidates").transaction() as transaction:
        transaction.put_record(Record("extraction/candidate_activations", "", "1", "another version"))
    score(warehouse, "math")
    assert len(scans) == 3


def test_another_home_is_another_pool(
    recipe: Recipe, warehouse: Warehouse, score: Score, tmp_path: Path, scans: list[Path]
) -> None:
    """Two recipes in one process may have equal versions by chance, as these two homes do."""
    score(warehouse, "math")
    score(build_home(recipe, tmp_path / "other"), "math")
    assert len(scans) == 2


def test_a_target_is_scored_while_its_neighbours_have_no_features(
    recipe: Recipe, warehouse: Warehouse, score: Score
) -> None:
    """Dagster makes partitions one by one: the first must not wait for the last."""
    expected = {target: held(warehouse, target) for target in recipe.targets}
    with warehouse.tables.snapshot() as snapshot:
        put_back = snapshot.read(STANDARDIZED_CENTROIDS, capability="math").drop("capability")
    forget_centroid(warehouse, "math")
    assert score(warehouse, "code") == expected["code"]
    for target in ("math", "all"):
        with pytest.raises(WarehouseError, match=r"features/standardized_centroids\[math\] has not been materialized"):
            score(warehouse, target)
    with warehouse.tables.transaction() as tables:
        tables.replace(STANDARDIZED_CENTROIDS, put_back, capability="math")
        tables.put_record(Record("features/standardized_centroids", "math", "1", "version"))
    assert {target: score(warehouse, target) for target in recipe.targets} == expected


@pytest.mark.parametrize(
    ("layers", "width"),
    [((LAYERS[0],), WIDTH), ((-1,), WIDTH), ((*LAYERS, 7), WIDTH), (LAYERS, WIDTH + 1)],
    ids=["fewer layers", "a projection", "more layers", "other width"],
)
def test_a_target_is_scored_while_its_neighbours_have_features_of_another_extraction(
    recipe: Recipe, warehouse: Warehouse, score: Score, layers: tuple[int, ...], width: int
) -> None:
    """After a change of layers, partitions are made one by one: the first meets the old features of the others."""
    expected = held(warehouse, "code")
    put_centroid(warehouse, "math", "another version", layers, width)
    assert score(warehouse, "code") == expected
