"""All rooms together with a projection: what is kept of each example, and what a change reads again."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CALIBRATION
from nait_assets.extraction.projection import N_STRONGEST, NETWORK, signs
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import (
    CALIBRATION_STATISTICS,
    CONTAMINATED_CANDIDATES,
    NEURON_STATISTICS,
    STANDARDIZED_CENTROIDS,
)
from nait_assets_tests.command import metadata_of, nait, quick_home, run
from nait_assets_tests.conftest import pool_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]
DIMENSIONS, N_CALIBRATION = 32, 12
POOL, CANDIDATES = "corpora/candidate_pool", "extraction/candidate_activations"
IN_DOMAIN = [f"extraction/in_domain_activations[{capability}]" for capability in ("code", "math")]
CORPORA_AND_EXTRACTION = ("--select", "group:corpora or group:extraction")


def extraction(**fields: Any) -> dict[str, Any]:
    """Settings with a projection, some of its fields replaced."""
    projection = {"dimensions": DIMENSIONS, "calibration_samples": N_CALIBRATION, **fields}
    return {"max_tokens": 64, "projection": projection}


@pytest.fixture
def make(make_recipe: MakeRecipe) -> MakeRecipe:
    """`make_recipe` with a projection, the one method that reads it and one ratio, unless they are given."""
    usual = {"methods": ["nait_standardized"], "ratios": [0.3], "extraction": extraction()}
    return lambda **fields: make_recipe(**{**usual, **fields})


class Kept:
    """The homes that the tests of this module share, and which activation files were read to make each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scans: dict[str, list[str]] = {}

    def home(self, name: str, recipe: Recipe) -> Path:
        """A home in which everything of the recipe has been made."""
        if name not in self.scans:
            self.scans[name] = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(activation_table, "scan", _counted(activation_table.scan, self.scans[name]))
                run(recipe, quick_home(self.folder / name))
        return self.folder / name


def _counted(scan: Callable[..., Iterator[Any]], read: list[str]) -> Callable[..., Iterator[Any]]:
    def counted(snapshot: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        if options.get("sample_ids") is None:  # the report looks at a few samples
            read.append(snapshot.path.stem)
        return scan(snapshot, *arguments, **options)

    return counted


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """The homes that the tests share."""
    return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def home(kept: Kept, make: MakeRecipe, tmp_path: Path) -> Path:
    """A home in which everything of the recipe has been made."""
    return Path(shutil.copytree(kept.home("projected", make()), tmp_path / "home"))


@pytest.fixture
def neurons(kept: Kept, make: MakeRecipe, tmp_path: Path) -> Path:
    """The home of the same data without a projection, by every method."""
    recipe = make(extraction={"max_tokens": 64}, methods=["nait", "nait_standardized", "random"])
    return Path(shutil.copytree(kept.home("neurons", recipe), tmp_path / "neurons"))


def versions(home: Path) -> dict[str, str]:
    """The data version of every output."""
    return {name: record.data_version for name, record in Warehouse(home=str(home)).records().items()}


def candidates_of(home: Path) -> np.ndarray:
    """The projected activations of all candidates, in the order of their sample ids."""
    with activation_table.activations_of(Warehouse(home=str(home)), "candidates").snapshot() as snapshot:
        return activation_table.matrix(snapshot, NETWORK)


def is_current(recipe: Recipe, home: Path) -> bool:
    """Whether `nait status` finds nothing to do."""
    return nait("status", "--recipe", recipe.path, "--home", home).code == 0


def standardized(home: Path, neurons: Path, corpus: str) -> tuple[list[str], dict[int, np.ndarray]]:
    """A corpus' samples, and by layer their neurons in deviations of the home's calibration, float64, neuron by neuron.

    The neurons come from the home without a projection.
    """
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        calibration = {row["layer"]: row for row in tables.read(CALIBRATION_STATISTICS).iter_rows(named=True)}
    with activation_table.activations_of(Warehouse(home=str(neurons)), corpus).snapshot() as snapshot:
        names = activation_table.samples(snapshot)["sample_id"].to_list()
        values = {layer: activation_table.matrix(snapshot, layer).astype(np.float64) for layer in calibration}
    for layer, matrix in values.items():
        mean, deviation = calibration[layer]["mean"], calibration[layer]["standard_deviation"]
        for neuron in range(matrix.shape[1]):
            matrix[:, neuron] = (matrix[:, neuron] - mean[neuron]) / deviation[neuron] if deviation[neuron] else 0
    return names, values


@pytest.mark.parametrize("corpus", ["candidates", "code", "math"])
def test_one_row_is_a_sample_projected_with_the_one_calibration(home: Path, neurons: Path, corpus: str) -> None:
    """V z and w S (z - V'V z) / sqrt(r), candidates and examples alike: else a cosine of the two would mean nothing."""
    names, values = standardized(home, neurons, corpus)
    z = np.concatenate(list(values.values()), axis=1)
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        flat = tables.read(CALIBRATION_STATISTICS).sort("layer")["components"].to_list()
    components = np.concatenate([np.array(row).reshape(-1, 48) for row in flat], axis=1)
    assert components.shape == (DIMENSIONS // 4, 96)
    n_random = DIMENSIONS - len(components)
    matrix = np.concatenate([signs(0, layer, 48, n_random) for layer in values]).astype(np.float64)
    inside = z @ components.T
    expected = np.concatenate([inside, 0.7 * (z - inside @ components) @ matrix / np.sqrt(n_random)], axis=1)
    with activation_table.activations_of(Warehouse(home=str(home)), corpus).snapshot() as snapshot:
        assert activation_table.layers_of(snapshot) == [NETWORK]
        assert activation_table.samples(snapshot)["sample_id"].to_list() == names
        found = activation_table.matrix(snapshot, NETWORK)
    assert found.shape == (len(names), DIMENSIONS)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_strongest_neurons_of_a_sample_are_kept_with_it(home: Path, neurons: Path) -> None:
    """What a projection takes away is which neuron it was: these are what an explanation can still name."""
    names, values = standardized(home, neurons, "candidates")
    with activation_table.activations_of(Warehouse(home=str(home)), "candidates").snapshot() as snapshot:
        found = activation_table.strongest_neurons(snapshot)
        one = activation_table.strongest_neurons(snapshot, names[3])
    assert found.columns == ["sample_id", "layer", "neuron", "value"]
    assert one.equals(found.filter(pl.col("sample_id") == names[3]))
    for place, name in enumerate(names):
        rows = found.filter(pl.col("sample_id") == name)
        strengths = np.sort(np.abs(np.concatenate([z[place] for z in values.values()])))[::-1]
        assert len(rows) == N_STRONGEST
        np.testing.assert_allclose(rows["value"].abs(), strengths[:N_STRONGEST], rtol=1e-2, atol=1e-3)
        expected = [values[layer][place, neuron] for layer, neuron in rows.select("layer", "neuron").rows()]
        np.testing.assert_allclose(rows["value"], expected, rtol=1e-2, atol=1e-3)


def test_a_run_makes_one_row_for_each_sample_and_no_feature_files(make: MakeRecipe, home: Path) -> None:
    """A feature of a projection would be of no use to a home with another calibration."""
    recipe = make()
    assert metadata_of(home, CANDIDATES)["dagster/row_count"] == 20
    assert {name: metadata_of(home, CALIBRATION)[name] for name in ("n_samples", "kept", "n_extracted")} == {
        "n_samples": N_CALIBRATION,
        "kept": False,
        "n_extracted": N_CALIBRATION,
    }
    assert not (home / "features").exists()
    for target in recipe.targets:
        folder = home / "subsets" / "nait_standardized" / target / "0.30"
        assert len((folder / "train.jsonl").read_text().splitlines()) == 6
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        counts = snapshot.connection.execute("SELECT count(*) FROM scoring.scores GROUP BY target").fetchall()
        statistics = snapshot.read(NEURON_STATISTICS)
    assert counts == [(20,)] * 3
    assert statistics["layer"].to_list() == [NETWORK]
    assert set(statistics["standard_deviation"][0]) == {1.0}, "a dimension has no scale of its own"


def test_scores_resemble_those_of_every_neuron(make: MakeRecipe, home: Path, neurons: Path, tmp_path: Path) -> None:
    """What a projection is for; 32 numbers keep the cosines of 96 neurons roughly, 4096 keep them."""
    wide = quick_home(tmp_path / "wide")
    recipe = make(extraction=extraction(dimensions=4096, calibration_samples=20))
    run(recipe, wide, "--select", "+key:scoring/nait_standardized_scores")
    scores = []
    for place in (neurons, home, wide):
        with Warehouse(home=str(place)).tables.snapshot() as snapshot:
            query = "SELECT score FROM scoring.nait_standardized_scores ORDER BY target, sample_id"
            scores.append([score for (score,) in snapshot.connection.execute(query).fetchall()])
    exact, rough, close = np.array(scores)
    assert np.abs(rough - exact).max() < 4 / np.sqrt(DIMENSIONS)
    assert np.abs(close - exact).max() < 0.1
    assert np.corrcoef(close, exact)[0, 1] > 0.99


def test_a_second_run_makes_nothing_and_status_is_clean(make: MakeRecipe, home: Path) -> None:
    """Every input that is planned is recorded, and the reverse; else everything is made for ever."""
    recipe = make()
    before = versions(home)
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    assert "nothing was computed" in answer.out
    assert versions(home) == before
    assert is_current(recipe, home)


def test_a_row_more_is_the_only_one_that_is_read(make: MakeRecipe, home: Path, tmp_path: Path) -> None:
    """The calibration is looked at, and kept: a new one would make the projections that there are incomparable."""
    before = versions(home)
    write_jsonl(tmp_path / "pool.jsonl", pool_rows(21))
    made = run(make(), home)
    assert {name for name in made if name.partition("/")[0] in ("corpora", "extraction")} == {
        POOL,
        CONTAMINATED_CANDIDATES.asset,
        CALIBRATION,
        CANDIDATES,
    }
    assert metadata_of(home, CALIBRATION)["kept"] is True
    assert "n_extracted" not in metadata_of(home, CALIBRATION)
    activations = metadata_of(home, CANDIDATES)
    assert (activations["n_extracted"], activations["n_removed"], activations["n_samples"]) == (1, 0, 21)
    after = versions(home)
    assert {name for name in before if after[name] == before[name]} >= {CALIBRATION, *IN_DOMAIN}
    assert is_current(make(), home)


def test_a_pool_without_its_calibration_sample_keeps_the_calibration(
    make: MakeRecipe, home: Path, tmp_path: Path
) -> None:
    """Rows leave a pool as well: what is left was projected with them. Half of the sample is left here, at least.

    Rows that come back are read in other batches, so their last digits may differ, and with them the data version.
    """
    before, values = versions(home), candidates_of(home)
    write_jsonl(tmp_path / "pool.jsonl", pool_rows(20)[:14])
    run(make(), home, *CORPORA_AND_EXTRACTION)
    assert metadata_of(home, CANDIDATES)["n_extracted"] == 0
    assert versions(home)[CALIBRATION] == before[CALIBRATION]
    write_jsonl(tmp_path / "pool.jsonl", pool_rows(20))
    run(make(), home, *CORPORA_AND_EXTRACTION)
    assert metadata_of(home, CANDIDATES)["n_extracted"] == 6
    assert {name for name, version in versions(home).items() if version != before[name]} <= {CANDIDATES}
    np.testing.assert_allclose(candidates_of(home), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [extraction(seed=1), extraction(dimensions=48), {**extraction(), "layers": [1]}],
    ids=["seed", "dimensions", "layers"],
)
def test_another_projection_reads_everything_again(make: MakeRecipe, home: Path, changed: dict[str, Any]) -> None:
    """Half a pool in one projection and half in another would be scored without a word."""
    recipe = make(extraction=changed)
    assert not is_current(recipe, home)
    made = run(recipe, home, *CORPORA_AND_EXTRACTION)
    assert made == {CALIBRATION, CANDIDATES, *IN_DOMAIN}
    assert [metadata_of(home, name)["n_extracted"] for name in (CANDIDATES, *IN_DOMAIN)] == [20, 4, 4]
    assert metadata_of(home, CALIBRATION)["kept"] is False


def test_a_projection_can_be_switched_on_and_off_in_one_home(make: MakeRecipe, neurons: Path) -> None:
    """The tables of the other kind are replaced, not mixed: the same numbers come back."""
    before = versions(neurons)
    del before["report/selection_report"]  # its map is drawn from a sum whose rounding may differ
    del before["report/method_comparison"]  # of three methods, and here of one
    run(make(), neurons)
    assert metadata_of(neurons, CANDIDATES)["n_extracted"] == 20
    assert is_current(make(), neurons)
    without = make(extraction={"max_tokens": 64})
    run(without, neurons)
    assert is_current(without, neurons)
    after = versions(neurons)
    assert {name: after[name] for name in before} == before


@pytest.mark.usefixtures("home", "neurons")
def test_a_process_reads_the_activations_once_for_each_method(kept: Kept) -> None:
    """Whatever the number of targets: after the model, a pass over every neuron of a pool is the longest step."""
    assert kept.scans["neurons"] == ["candidates"] * 3, "statistics, nait, nait_standardized"
    assert kept.scans["projected"] == ["calibration", "candidates", "candidates"], "its sample, statistics, the method"


def test_a_feature_file_of_neurons_gives_the_centroid_that_the_examples_give(
    make: MakeRecipe, home: Path, neurons: Path, tmp_path: Path
) -> None:
    """The feature library serves a home that keeps projections: the file's neurons are projected as examples are."""

    def centroids() -> dict[str, np.ndarray]:
        with Warehouse(home=str(home)).tables.snapshot() as snapshot:
            frames = {name: snapshot.read(STANDARDIZED_CENTROIDS, capability=name) for name in ("code", "math")}
        assert [frame["layer"].to_list() for frame in frames.values()] == [[NETWORK]] * 2
        return {name: np.array(frame["centroid"][0]) for name, frame in frames.items()}

    before, from_examples = versions(home), centroids()
    make()
    (tmp_path / "math.jsonl").unlink()
    capabilities = {"code": {"source": "code.jsonl"}, "math": {"features": str(neurons / "features" / "math")}}
    recipe = make(capabilities=capabilities)
    made = run(recipe, home)
    assert "features/standardized_centroids[math]" in made
    assert not any(name.startswith("extraction/") for name in made)
    from_file = centroids()
    np.testing.assert_allclose(from_file["math"], from_examples["math"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(from_file["code"], from_examples["code"])
    assert versions(home)["features/standardized_centroids[code]"] == before["features/standardized_centroids[code]"]
    assert CALIBRATION in Warehouse(home=str(home)).records()["features/standardized_centroids[math]"].inputs
    assert is_current(recipe, home)
    answer = nait("explain", best(home, "all"), "--target", "all", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    assert "of 4 examples" in answer.out, "of code's; a file has none"


def test_feature_files_alone_need_no_examples(make: MakeRecipe, neurons: Path, tmp_path: Path) -> None:
    """A published library and a pool, nothing else."""
    capabilities = {name: {"features": str(neurons / "features" / name)} for name in ("code", "math")}
    recipe = make(capabilities=capabilities)
    made = run(recipe, quick_home(tmp_path / "home"))
    assert {name for name in made if name.startswith("extraction/")} == {CALIBRATION, CANDIDATES}
    assert is_current(recipe, tmp_path / "home")
    best_for_math = best(tmp_path / "home", "math")
    arguments = ("--target", "math", "--recipe", recipe.path, "--home", tmp_path / "home")
    answer = nait("explain", best_for_math, *arguments)
    assert answer.code == 0, answer.err


def best(home: Path, target: str) -> str:
    """The candidate that ranks first."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        query = "SELECT sample_id FROM scoring.scores WHERE target = ? AND rank = 1"
        ((name,),) = snapshot.connection.execute(query, [target]).fetchall()
    return str(name)


@pytest.mark.parametrize("target", ["math", "all"])
def test_explain_shows_the_strongest_neurons_and_in_how_many_examples_they_are_strong(
    make: MakeRecipe, home: Path, target: str
) -> None:
    """A projection has no neurons to add up to the score; these are still the sample's own, by layer and number."""
    name, recipe = best(home, target), make()
    answer = nait("explain", name, "--target", target, "--reasons", "3", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    assert "rank      1 of 20" in answer.out
    lines = [line.split() for line in answer.out.splitlines() if re.match(r"  \d+:\d+ ", line)]
    assert len(lines) == 3
    warehouse = Warehouse(home=str(home))
    with activation_table.activations_of(warehouse, "candidates").snapshot() as snapshot:
        own = {row[1:3]: row[3] for row in activation_table.strongest_neurons(snapshot, name).rows()}
    others: list[tuple[int, int]] = []
    for capability in recipe.capabilities_of(target):
        with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
            others += [row[1:3] for row in activation_table.strongest_neurons(snapshot).rows()]
    for line in lines:
        layer, number = line[0].split(":")
        neuron = int(layer), int(number)
        assert float(line[1]) == pytest.approx(own[neuron], abs=5e-3)
        n_examples = 4 * len(recipe.capabilities_of(target))
        assert f"strongest of {others.count(neuron)} of {n_examples} examples" in " ".join(line)


def test_explain_says_what_to_do_once_the_projection_is_switched(make: MakeRecipe, home: Path, neurons: Path) -> None:
    """Between the edit and the run the home holds the other kind: one message, and no dimension passed for a neuron."""
    name = best(home, "math")
    for place, fields, held in ((neurons, {}, "neurons"), (home, {"extraction": {"max_tokens": 64}}, "projections")):
        answer = nait("explain", name, "--target", "math", "--recipe", make(**fields).path, "--home", place)
        assert (answer.code, answer.out) == (2, "")
        assert f"candidates.duckdb holds {held}" in answer.err
        assert "`nait run` makes them" in answer.err


def test_the_summary_reads_a_home_of_projections(make: MakeRecipe, home: Path) -> None:
    """What `nait summary` counts are samples and tokens, of which there are as many."""
    answer = nait("summary", "--recipe", make().path, "--home", home)
    assert answer.code == 0, answer.err
    assert "Pool: 20 candidates." in answer.out
    assert "Best for math (nait_standardized):" in answer.out


def test_a_random_control_alone_asks_for_no_calibration(make: MakeRecipe, tmp_path: Path) -> None:
    """A projection that no method reads costs nothing."""
    made = run(make(methods=["random"]), quick_home(tmp_path / "home"))
    assert not any(name.startswith(("extraction/", "features/")) for name in made)


def test_halved_activations_give_the_scores_of_whole_ones(make: MakeRecipe, neurons: Path, tmp_path: Path) -> None:
    """Everything is made from them, shown, explained and audited; a second run finds nothing to do."""
    methods = ["nait", "nait_standardized", "random"]
    recipe = make(extraction={"max_tokens": 64, "store": "float16"}, methods=methods)
    halved = quick_home(tmp_path / "halved")
    assert "extraction/candidate_activations" in run(recipe, halved)
    for method in ("nait", "nait_standardized"):
        exact, found = (Warehouse(home=str(place)).tables.snapshot() for place in (neurons, halved))
        with exact as of_exact, found as of_halved:
            query = f"SELECT score FROM scoring.{method}_scores ORDER BY target, sample_id"
            before, after = (np.array(one.connection.sql(query).fetchall()) for one in (of_exact, of_halved))
        assert (before != after).any()
        np.testing.assert_allclose(after, before, atol=2e-3 * np.abs(before).max())
    assert run(recipe, halved) == set()
    assert is_current(recipe, halved)
    name = candidate_names(halved)[0]
    for command in (("audit",), ("explain", name, "--target", "math"), ("summary",)):
        answer = nait(*command, "--recipe", recipe.path, "--home", halved)
        assert answer.code == 0, answer.out + answer.err


def candidate_names(home: Path) -> list[str]:
    """Ids of the candidates that have activations."""
    with activation_table.activations_of(Warehouse(home=str(home)), "candidates").snapshot() as snapshot:
        return activation_table.samples(snapshot)["sample_id"].to_list()


def test_halved_projections_are_calibrated_as_whole_ones(make: MakeRecipe, home: Path) -> None:
    """The calibration does not depend on how the pool is stored, and is kept when that changes."""
    before, exact = versions(home), candidates_of(home)
    made = run(make(extraction={**extraction(), "store": "float16"}), home)
    assert CANDIDATES in made
    assert CALIBRATION not in made or versions(home)[CALIBRATION] == before[CALIBRATION]
    np.testing.assert_allclose(candidates_of(home), exact, atol=1e-3 * np.abs(exact).max())
