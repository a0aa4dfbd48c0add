"""All rooms together: what a run makes, what each kind of change makes again, and what it leaves alone."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.models.libraries import LIBRARIES
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.catalogue import THRESHOLDS
from nait_assets.selection.subset import SUBSET_FILES
from nait_assets.tables import SUBSETS, scores_table
from nait_assets_tests.command import materializations, metadata_of, nait, quick_home, run
from nait_assets_tests.conftest import conversation, in_domain_rows, pool_rows, write_jsonl

METHODS = ("nait", "nait_standardized")
STANDARDIZED = ["nait_standardized"]  # one method where a second would show no more
PAGE = {"report/selection_report"}  # that shows all of the rest
REPORT = {"report/method_comparison", *PAGE}
CONTAMINATED = {"corpora/contaminated_candidates"}  # which looks at all examples, and stays as it is
CORPORA_AND_EXTRACTION = ("--select", "group:corpora or group:extraction")
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def make(make_recipe: MakeRecipe) -> MakeRecipe:
    """`make_recipe` with two methods and one ratio, unless they are given."""
    return lambda **fields: make_recipe(**{"methods": list(METHODS), "ratios": [0.3], **fields})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the home of the first run of this module is kept."""
    return tmp_path_factory.mktemp("kept") / "home"


@pytest.fixture
def recipe(make: MakeRecipe) -> Recipe:
    """The recipe that `home` was made with."""
    return make()


@pytest.fixture
def home(kept: Path, recipe: Recipe, tmp_path: Path) -> Path:
    """A home in which everything of the recipe has been made."""
    if not kept.exists():
        run(recipe, quick_home(kept))
    return Path(shutil.copytree(kept, tmp_path / "home"))


def versions(home: Path) -> dict[str, str]:
    """The data version of every output."""
    return {name: record.data_version for name, record in Warehouse(home=str(home)).records().items()}


def times(home: Path, *names: str) -> dict[Path, int]:
    """When each file of some folders was last written."""
    return {file: file.stat().st_mtime_ns for name in names for file in sorted((home / name).rglob("*.*"))}


def cells(*targets: str, ratio: str = "0.30") -> set[str]:
    """Subsets of targets."""
    return {f"selection/nait_standardized_subset[{target}|{ratio}]" for target in targets}


def scores(*targets: str) -> set[str]:
    """Scores of targets."""
    return {f"scoring/nait_standardized_scores[{target}]" for target in targets}


def test_a_run_makes_every_table_and_one_view_of_all_scores(recipe: Recipe, home: Path) -> None:
    """The tables are what people query; the view saves them knowing which methods there are."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        tables = "corpora.candidate_pool corpora.in_domain_set corpora.rejected features.nait_directions "
        tables += "features.neuron_statistics features.standardized_centroids selection.subsets lineage.versions"
        assert [name for name in tables.split() if not snapshot.has_table(name)] == []
        ranks = "list(rank ORDER BY score DESC, sample_id)"
        rows = snapshot.connection.execute(
            f"SELECT method, target, {ranks} FROM scoring.scores GROUP BY ALL"
        ).fetchall()
    assert {(method, target) for method, target, _ in rows} == {(m, t) for m in METHODS for t in recipe.targets}
    assert all(found == list(range(1, 21)) for _, _, found in rows)


def test_a_run_leaves_a_folder_for_each_subset_and_a_file_for_each_feature(recipe: Recipe, home: Path) -> None:
    """These are what other programs take: training reads the folders, another pool the features."""
    for method in METHODS:
        for target in recipe.targets:
            folder = home / "subsets" / method / target / "0.30"
            assert {file.name for file in folder.iterdir()} == set(SUBSET_FILES)
            assert len((folder / "train.jsonl").read_text().splitlines()) == 6  # ceil(0.30 x 20)
    features = {str(file.relative_to(home / "features")) for file in (home / "features").rglob("*.safetensors")}
    assert features == {
        f"{capability}/{feature}.safetensors"
        for capability in recipe.capability_names
        for feature in ("nait_directions", "standardized_centroids")
    }


def test_the_subset_holds_the_best_of_the_scores(home: Path) -> None:
    """Scores, table and folder are three writings of one choice; they must not drift apart."""
    manifest = home / "subsets" / "nait_standardized" / "math" / "0.30" / "train.jsonl"
    where = "method = 'nait_standardized' AND target = 'math'"
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        best, chosen = (
            [name for (name,) in snapshot.connection.execute(query).fetchall()]
            for query in (
                f"SELECT sample_id FROM scoring.scores WHERE {where} ORDER BY score DESC, sample_id LIMIT 6",
                f"SELECT sample_id FROM selection.subsets WHERE {where} AND ratio = '0.30' ORDER BY rank",
            )
        )
    assert [json.loads(line)["sample_id"] for line in manifest.read_text().splitlines()] == best == chosen


def test_dagster_knows_the_version_and_the_inputs_of_every_output(home: Path) -> None:
    """The UI and the automation condition go by what Dagster has; the files' own records are what is true."""
    known, records = materializations(home), Warehouse(home=str(home)).records()
    assert set(known) == set(records)
    for name, record in records.items():
        (event,) = known[name]
        assert event.tags is not None
        assert event.tags["dagster/data_version"] == record.data_version
        assert event.tags["dagster/code_version"] == record.code_version
        assert event.metadata["nait/inputs"].value == record.inputs
        assert record.inputs, f"{name} rests on nothing"


def test_pages_of_the_ui_have_counts_schemas_samples_and_a_plot(home: Path) -> None:
    """A person who looks at an asset's page sees what it holds without opening a data base."""
    assert metadata_of(home, "corpora/candidate_pool")["dagster/row_count"] == 20
    assert metadata_of(home, "extraction/candidate_activations")["dagster/row_count"] == 40  # samples x layers
    shown = metadata_of(home, "scoring/nait_standardized_scores[math]")
    assert {"dagster/column_schema", "score_p50", "threshold_0.30", "top_rows"} <= set(shown)
    assert "data:image/svg+xml" in str(shown["score_distribution"])
    top: Any = metadata_of(home, "selection/nait_subset[all|0.30]")["top_rows"]
    assert [row.data["rank"] for row in top.records] == [1, 2, 3, 4, 5, 6]


def test_a_subset_says_where_it_stands_against_chance_and_the_examples(recipe: Recipe, home: Path) -> None:
    """In the table, the metadata, the manifest, the card, the summary and on the page, the same numbers."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        stored = snapshot.rows(THRESHOLDS).sort("target")
        scores = snapshot.rows(SUBSETS, method="nait_standardized", target="math", ratio="0.30")["score"]
    assert stored["method"].unique().to_list() == ["nait_standardized"], "no rows stand in for examples in the others"
    assert stored["target"].to_list() == ["all", "code", "math"]
    math = stored.row(2, named=True)
    shown = metadata_of(home, "scoring/nait_standardized_scores[math]")
    assert (shown["score_by_chance"], shown["score_of_examples"]) == (math["by_chance"], math["of_examples"])
    n_below, n_as = int((scores < math["by_chance"]).sum()), int((scores >= math["of_examples"]).sum())
    folder = home / "subsets" / "nait_standardized" / "math" / "0.30"
    manifest = json.loads((folder / "manifest.json").read_text())
    subset = metadata_of(home, "selection/nait_standardized_subset[math|0.30]")
    for said in (manifest, subset):
        assert (said["n_below_chance"], said["n_as_examples"]) == (n_below, n_as)
    card = (folder / "README.md").read_text()
    assert f"{n_below} of 6 rows score below {math['by_chance']:.4g}, which 5 % of candidates reach by chance" in card
    assert f"{n_as} of 6 score as 95 % of the in-domain examples do" in card
    summary = nait("summary", "--recipe", recipe.path, "--home", home).out
    (line,) = [line.split() for line in summary.splitlines() if line.startswith("  math ") and "|" in line]
    assert line == [
        "math",
        f"{math['by_chance']:.4g}",
        f"{math['of_examples']:.4g}",
        *f"{n_below} | {n_as} of 6".split(),
    ]
    page = (home / "report" / "index.html").read_text()
    assert "Against chance, and against the examples" in page
    assert "Not defined for" in page


def test_a_lowest_score_and_a_budget_of_tokens_make_smaller_subsets(
    make: MakeRecipe, home: Path, tmp_path: Path
) -> None:
    """No score is made again; the subset says why it is small, and holds in checks and audit."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        ranked = snapshot.rows(scores_table("nait_standardized"), target="math").sort("rank")
    lowest = float(ranked["score"][2])
    bounded = make(methods=STANDARDIZED, selection={"by_method": {"nait_standardized": {"min_score": lowest}}})
    made = run(bounded, home)
    assert made == cells("code", "math", "all") | REPORT
    folder = home / "subsets" / "nait_standardized" / "math" / "0.30"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["n_rows"], manifest["n_wanted"], manifest["n_too_low"]) == (3, 6, 17)
    said = f"6 rows were asked for, and only 3 have a score of {lowest:g} or more"
    assert said in (folder / "README.md").read_text()

    budget = make(methods=STANDARDIZED, selection={"tokens": 150})
    assert run(budget, home) == cells("code", "math", "all") | REPORT
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["n_rows"] < manifest["n_wanted"] == 6
    assert 0 < manifest["n_tokens"] <= 150
    assert "extraction/candidate_activations" in manifest["inputs"]
    assert f"with {manifest['n_tokens']} tokens as the model read them" in (folder / "README.md").read_text()
    assert run(budget, home) == set()
    audit = nait("audit", "--recipe", budget.path, "--home", home)
    assert audit.code == 0, audit.out


def test_manifest_of_the_comprehensive_subset_leads_back_to_every_source(recipe: Recipe, home: Path) -> None:
    """Whoever holds a subset, and nothing else of ours, can say which data, model and code chose it."""
    manifest = json.loads((home / "subsets" / "nait_standardized" / "all" / "0.30" / "manifest.json").read_text())
    steps = manifest["lineage"]
    outside = {name for step in steps.values() for name in step["inputs"]} - set(steps)
    model = f"model:{recipe.model.source}"
    assert outside == {"source:0:pool.jsonl", "source:0:code.jsonl", "source:0:math.jsonl", model, "dtype", *LIBRARIES}
    assert {step["inputs"][model] for step in steps.values() if model in step["inputs"]} == {
        manifest["model"]["identity"]
    }
    known = versions(home)
    assert {name: step["data_version"] for name, step in steps.items()} == {name: known[name] for name in steps}
    assert manifest["recipe"] == recipe.model_dump(mode="json")


def test_a_second_run_makes_nothing_and_says_so(recipe: Recipe, home: Path) -> None:
    """A run that is repeated out of caution must cost seconds and change no file."""
    before = times(home, "subsets", "features", "activations", "warehouse.duckdb")
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0
    assert "nothing was computed" in answer.out
    assert times(home, "subsets", "features", "activations", "warehouse.duckdb") == before
    assert {len(events) for events in materializations(home).values()} == {1}
    answer = nait("status", "--recipe", recipe.path, "--home", home)
    assert (answer.code, answer.err) == (0, "")
    assert "selection/nait_subset                      3 of 3 current" in answer.out


def test_changed_examples_of_a_capability_reach_its_column_and_the_comprehensive_target(
    make: MakeRecipe, home: Path, tmp_path: Path
) -> None:
    """What the project is for: one capability is revised every week, and the others must not pay for it."""
    code = ["subsets/nait/code", "subsets/nait_standardized/code", "features/code"]
    before, files = versions(home), times(home, *code)
    rows = in_domain_rows("math")
    rows[0] = conversation("math example 0, put in other words?", "the math answer is 0")
    write_jsonl(tmp_path / "math.jsonl", rows)

    made = run(make(methods=STANDARDIZED), home)

    extraction = {"corpora/in_domain_set[math]", "extraction/in_domain_activations[math]"}
    selection = scores("math", "all") | cells("math", "all")
    assert made == extraction | {"features/standardized_centroids[math]"} | selection | REPORT | CONTAMINATED
    changed = {name for name, version in versions(home).items() if version != before[name]}
    assert changed == made - CONTAMINATED
    assert times(home, *code) == files
    activations = metadata_of(home, "extraction/in_domain_activations[math]")
    assert (activations["n_extracted"], activations["n_removed"]) == (1, 1)


def test_metadata_say_how_long_rows_are_and_what_a_subset_gained(make: MakeRecipe, home: Path, tmp_path: Path) -> None:
    """Dagster plots plain numbers over time; six rows of twenty are chosen, so as many came as went."""
    write_jsonl(tmp_path / "math.jsonl", in_domain_rows("code", 3))
    subset, pool = "selection/nait_standardized_subset[math|0.30]", "corpora/candidate_pool"
    assert "n_rows_gained" not in metadata_of(home, subset)
    run(make(methods=STANDARDIZED), home)
    found = metadata_of(home, subset)
    assert found["n_rows_gained"] == found["n_rows_lost"]
    assert found["overlap_with_previous"] == pytest.approx(1 - float(str(found["n_rows_gained"])) / 6)
    assert {row.data["target"] for row in found["overlap_with_other_targets"].records} == {"all", "code"}  # type: ignore[attr-defined]
    activations = metadata_of(home, "extraction/candidate_activations")
    assert activations["share_cut"] == 3 / 20
    assert str(activations["length_distribution"]).startswith("![plot]")
    assert str(metadata_of(home, pool)["length_distribution"]).startswith("![plot]")
    bottom = metadata_of(home, "scoring/nait_standardized_scores[math]")["bottom_rows"]
    assert [row.data["rank"] for row in bottom.records] == list(range(11, 21))  # type: ignore[attr-defined]


def test_examples_written_otherwise_stop_at_the_corpus(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """Spaces at the end of a line are another file and the same conversation: nothing below has to run."""
    (tmp_path / "math.jsonl").write_text("".join(json.dumps(row) + " \n" for row in in_domain_rows("math")))
    before = versions(home)
    assert run(recipe, home) == {"corpora/in_domain_set[math]"}
    assert versions(home) == before


def test_a_subset_folder_that_was_deleted_is_written_again(recipe: Recipe, home: Path) -> None:
    """`nait run` makes what is missing, and the folder is what people use."""
    folder = home / "subsets" / "nait_standardized" / "math" / "0.30"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    shutil.rmtree(folder)
    assert run(recipe, home) == {"selection/nait_standardized_subset[math|0.30]"}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_ratio_more_makes_its_cells_alone(make: MakeRecipe, home: Path) -> None:
    """Trying another size is free: no model, no scores, and the subsets that there are stay as they are."""
    files = times(home, "subsets")
    made = run(make(ratios=[0.3, 0.5], methods=STANDARDIZED), home)
    assert made == cells("code", "math", "all", ratio="0.50") | REPORT
    assert {file: time for file, time in times(home, "subsets").items() if file in files} == files


def test_the_model_runs_on_a_row_that_is_added_and_on_none_when_it_goes(
    recipe: Recipe, home: Path, tmp_path: Path
) -> None:
    """A pool of a million rows that grows by one is not read again."""
    before = versions(home)
    write_jsonl(tmp_path / "pool.jsonl", pool_rows(21))
    outputs = {"corpora/candidate_pool", "extraction/candidate_activations", *CONTAMINATED}
    assert run(recipe, home, *CORPORA_AND_EXTRACTION) == outputs
    activations = metadata_of(home, "extraction/candidate_activations")
    assert (activations["n_extracted"], activations["n_removed"], activations["n_samples"]) == (1, 0, 21)

    write_jsonl(tmp_path / "pool.jsonl", pool_rows(20))
    assert run(recipe, home, *CORPORA_AND_EXTRACTION) == outputs
    activations = metadata_of(home, "extraction/candidate_activations")
    assert (activations["n_extracted"], activations["n_removed"], activations["n_samples"]) == (0, 1, 20)
    assert versions(home) == before


def test_other_layers_are_extracted_from_the_corpora_that_there_are(make: MakeRecipe, home: Path) -> None:
    """A corpus does not depend on the model; every activation does."""
    made = run(make(extraction={"max_tokens": 64, "layers": [1]}), home, *CORPORA_AND_EXTRACTION)
    in_domain = [f"extraction/in_domain_activations[{capability}]" for capability in ("code", "math")]
    assert made == {"extraction/candidate_activations", *in_domain}
    assert [metadata_of(home, name)["n_extracted"] for name in sorted(made)] == [20, 4, 4]
    assert {metadata_of(home, name)["layers"] for name in made} == {"1 to 1 (1)"}


def test_a_capability_more_extracts_its_own_examples_alone(make: MakeRecipe, home: Path, tmp_path: Path) -> None:
    """Adding my own capability to a published selection costs my few dozen examples."""
    write_jsonl(tmp_path / "logic.jsonl", in_domain_rows("logic"))
    names = ("code", "logic", "math")
    before = versions(home)
    made = run(make(capabilities={name: {"source": f"{name}.jsonl"} for name in names}, methods=STANDARDIZED), home)
    below = {"extraction/in_domain_activations[logic]", "features/standardized_centroids[logic]"}
    # The list of capabilities is in the version of every score, lest `all` stay as it is when one goes.
    checked = {f"corpora/in_domain_set[{name}]" for name in names} | CONTAMINATED | scores(*names, "all")
    assert made == checked | below | cells("logic", "all") | REPORT
    after = versions(home)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == scores("all") | cells("all") | REPORT


def test_of_one_capability_that_is_left_there_is_no_comprehensive_target(make: MakeRecipe, home: Path) -> None:
    """It would be the same once more. What there is of it is named as no longer of the recipe, and can be cleaned."""
    before, recipe = versions(home), make(capabilities={"math": {"source": "math.jsonl"}}, methods=STANDARDIZED)
    made = run(recipe, home)
    assert made == {"corpora/in_domain_set[math]"} | CONTAMINATED | scores("math") | REPORT
    after = versions(home)
    assert {name for name in before if after[name] != before[name]} == REPORT
    answer = nait("status", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0
    assert "scoring/nait_standardized_scores: all, code" in answer.out
    assert "selection/nait_standardized_subset: all|0.30, code|0.30" in answer.out
    asked = nait("explain", "0", "--target", "all", "--recipe", recipe.path, "--home", home)
    assert (asked.code, asked.out) == (2, "")
    assert "'all' is of several capabilities together, and the recipe has one: say 'math'" in asked.err
    summary = nait("summary", "--recipe", recipe.path, "--home", home)
    assert (summary.code, "Rows for all" in summary.out) == (0, False)


def test_another_change_option_makes_directions_from_the_activations_that_there_are(
    make: MakeRecipe, home: Path
) -> None:
    """Both definitions of the activation change come from one reading of the examples."""
    before = versions(home)
    made = run(make(features={"change": "mean_minus_first"}), home, "--select", "group:extraction or group:features")
    assert made == {f"features/nait_directions[{capability}]" for capability in ("code", "math")}
    assert all(versions(home)[name] != before[name] for name in made)


def test_a_feature_file_stands_in_for_the_examples(make: MakeRecipe, home: Path, tmp_path: Path) -> None:
    """The feature library: whoever has the file selects as its maker does, without the examples."""
    shutil.copytree(home / "features" / "math", tmp_path / "library" / "math")
    (tmp_path / "math.jsonl").unlink()
    capabilities = {"code": {"source": "code.jsonl"}, "math": {"features": "library/math"}}
    before = versions(home)
    made = run(make(capabilities=capabilities), home)
    features = {f"features/{name}[math]" for name in ("nait_directions", "standardized_centroids")}
    assert features <= made
    assert not any(name.startswith("extraction/") for name in made)
    after = versions(home)
    # The file holds the direction without its explained variance, so that table differs, and no examples, so that what
    # they would score is not known, which lies beside the scores; no score and no subset differs.
    differ = {"features/nait_directions[math]"} | scores("code", "math", "all") | PAGE
    assert {name for name in before if after[name] != before[name]} == differ
    record = Warehouse(home=str(home)).records()["features/nait_directions[math]"]
    assert [name.partition(":")[0] for name in record.inputs] == ["dtype", "feature_file", "model"]
    assert "explained_variance_ratio" not in metadata_of(home, "features/nait_directions[math]")


def test_a_feature_file_of_another_model_is_refused_once_the_model_changes(
    make: MakeRecipe, home: Path, tmp_path: Path, llama: Any
) -> None:
    """Else the new model's activations would be scored along the old model's directions."""
    own = tmp_path / "own_model"
    shutil.copytree(make().model.source, own)
    capabilities = {"math": {"features": str(home / "features" / "math")}}
    fields = {"capabilities": capabilities, "methods": ["nait"], "ratios": [0.5]}
    other = quick_home(tmp_path / "other")
    run(make(model={"source": str(own), "dtype": "float32"}, **fields), other)
    changed = copy.deepcopy(llama)
    changed.layers[0].mlp.down_proj.weight.data.mul_(2)
    changed.save_pretrained(own)

    answer = nait(
        "run", "--recipe", make(model={"source": str(own), "dtype": "float32"}, **fields).path, "--home", other
    )

    assert answer.code == 2
    assert "was made with model" in answer.err


def test_scores_older_than_the_pool_are_said_to_be_so(make: MakeRecipe, home: Path, tmp_path: Path) -> None:
    """A person can select what to make; rows that are gone must not end in a riddle."""
    recipe = make()
    rows = (tmp_path / "pool.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "pool.jsonl").write_text(rows[0])
    run(recipe, home, "--select", "group:corpora")

    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:selection/nait_subset")

    assert answer.code == 1
    assert "are older than the pool. Materialize them first" in answer.err


def test_a_feature_file_of_other_layers_is_refused_before_anything_is_read(
    make: MakeRecipe, home: Path, tmp_path: Path
) -> None:
    """Found only after the pool had been read, it would cost hours."""
    recipe = make(
        extraction={"max_tokens": 64, "layers": [1]},
        capabilities={"math": {"features": str(home / "features" / "math")}},
    )
    answer = nait("run", "--recipe", recipe.path, "--home", tmp_path / "other")
    assert answer.code == 2
    assert "was made with layers (0, 1), and the recipe's is (1,)" in answer.err
    assert not (tmp_path / "other" / "activations").exists()


def test_without_its_dagster_folder_everything_is_noted_again_and_nothing_extracted(recipe: Recipe, home: Path) -> None:
    """The folder is Dagster's memory, not ours: who deletes it gets a working UI back, without the model."""
    shutil.rmtree(home / "dagster")
    answer = nait("status", "--recipe", recipe.path, "--home", home)
    assert answer.code == 3
    assert answer.out.count("unknown to this Dagster instance") == 14  # assets
    before = versions(home)
    made = run(recipe, home, "--select", "group:extraction")
    in_domain = {f"extraction/in_domain_activations[{capability}]" for capability in recipe.capability_names}
    assert made == {"extraction/candidate_activations", *in_domain}
    assert {metadata_of(home, name)["n_extracted"] for name in made} == {0}
    assert versions(home) == before


def test_explain_shows_scores_ranks_neurons_and_text(recipe: Recipe, home: Path) -> None:
    """The answer to "why was this row chosen?", from the command line."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        query = "SELECT method, sample_id, score FROM scoring.scores WHERE target = 'math' AND rank = 1 ORDER BY method"
        (_, best, score), (_, best_standardized, score_standardized) = snapshot.connection.execute(query).fetchall()
    arguments = ("--target", "math", "--reasons", "3", "--recipe", recipe.path, "--home", home)
    answer = nait("explain", best_standardized, *arguments)
    assert answer.code == 0, answer.err
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    assert f"nait_standardized score {score_standardized:.5f} rank 1 of 20" in lines
    assert sum(re.match(r"\d+:\d+ ", line) is not None for line in lines) == 3
    assert any(line.startswith("[user] math question") for line in lines)
    assert f"nait score {score:.5f} rank 1 of 20" in " ".join(nait("explain", best[:12], *arguments).out.split())


@pytest.mark.parametrize(
    ("sample_id", "target", "said"),
    [
        ("0000", "math", "sample id '0000': no candidate has it"),
        ("", "math", "sample id '': 20 samples begin so"),
        ("0", "poetry", "'poetry' is not among the recipe's targets, code, math, all"),
    ],
)
def test_explain_refuses_what_it_cannot_find(
    recipe: Recipe, home: Path, sample_id: str, target: str, said: str
) -> None:
    """A mistyped id or target must not look like an answer."""
    answer = nait("explain", sample_id, "--target", target, "--recipe", recipe.path, "--home", home)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_the_summary_names_the_best_rows_and_where_the_subsets_lie(recipe: Recipe, home: Path) -> None:
    """What `make demo` ends with."""
    answer = nait("summary", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    assert "Best for math (nait_standardized):" in answer.out
    assert f"{home}/subsets" in answer.out
