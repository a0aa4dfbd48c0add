"""The chain of a subset: it holds as it was made, and whatever is tampered with is the link that is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from nait_assets.audit.chain import subsets_of
from nait_assets.errors import NotFoundError
from nait_assets.extraction.activation_table import with_digests
from nait_assets.recipe import Recipe
from nait_assets_tests.command import Answer, nait, run

SUBSET = "nait_standardized/math/0.30"
FOLDER = f"subsets/{SUBSET}"
ACTIVATIONS = "activations/candidates.duckdb"
MakeRecipe = Callable[..., Recipe]


def audit(recipe: Recipe, home: Path, *arguments: str) -> Answer:
    """`nait audit` on a home."""
    return nait("audit", *arguments, "--recipe", recipe.path, "--home", home)


def edit(file: Path, statement: str) -> None:
    """One statement in a DuckDB file, as a person with the DuckDB shell would run it."""
    with duckdb.connect(str(file)) as connection:
        assert connection.execute(statement).fetchall() != [(0,)], "nothing was tampered with"


def in_tables(statement: str) -> Callable[[Path, Path], None]:
    """Tampering with the small tables."""
    return lambda home, data: edit(home / "warehouse.duckdb", statement)


def in_activations(statement: str) -> Callable[[Path, Path], None]:
    """Tampering with the candidates' activations."""
    return lambda home, data: edit(home / ACTIVATIONS, statement)


def append(name: str) -> Callable[[Path, Path], None]:
    """A line more in a file of the subset."""

    def tamper(home: Path, data: Path) -> None:
        with (home / FOLDER / name).open("a") as file:
            file.write("\n")

    return tamper


def another_manifest(home: Path, data: Path) -> None:
    """A manifest that states other inputs, with the hashes of the files as they are."""
    path = home / FOLDER / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"]["corpora/candidate_pool"] = "0" * 16
    path.write_text(json.dumps(manifest))


def forged_neuron(home: Path, data: Path) -> None:
    """A neuron is changed by someone who knows how digests are made."""
    query = "SELECT sample_id, layer, activation FROM extraction.activation ORDER BY sample_id, layer LIMIT 1"
    with duckdb.connect(str(home / ACTIVATIONS)) as connection:
        row = connection.sql(query).to_arrow_table().to_pylist()[0]
        row["activation"][0] += 1
        schema = pa.schema(
            [("sample_id", pa.string()), ("layer", pa.int16()), ("activation", pa.list_(pa.float32(), 48))]
        )
        forged = with_digests(pa.RecordBatch.from_pylist([row], schema)).to_pylist()[0]
        connection.execute(
            "UPDATE extraction.activation SET activation = ?::FLOAT[48], digest = ? WHERE sample_id = ? AND layer = ?",
            [forged["activation"], forged["digest"], forged["sample_id"], forged["layer"]],
        )


FIRST = "(SELECT min(sample_id) FROM extraction.activation)"
TAMPERED: dict[str, tuple[Callable[[Path, Path], object], str, str]] = {
    "a text in the pool": (
        in_tables("UPDATE corpora.candidate_pool SET topic = 'another' WHERE source_row = 1"),
        "corpora/candidate_pool, content",
        "have the hash",
    ),
    "a row gone from the pool": (
        in_tables("DELETE FROM corpora.candidate_pool WHERE source_row = 1"),
        "corpora/candidate_pool, content",
        "the 19 rows",
    ),
    "a score": (
        in_tables("UPDATE scoring.nait_standardized_scores SET score = score + 1 WHERE target = 'math' AND rank = 1"),
        "scoring/nait_standardized_scores[math], content",
        "have the hash",
    ),
    "a rank in the subset": (
        in_tables("UPDATE selection.subsets SET score = 1 WHERE method = 'nait_standardized' AND target = 'math'"),
        "selection/nait_standardized_subset[math|0.30], content",
        "are not those of",
    ),
    "a centroid": (
        in_tables("UPDATE features.standardized_centroids SET centroid = list_reverse(centroid) WHERE layer = 1"),
        "features/standardized_centroids[math], content",
        "have the hash",
    ),
    "a record": (
        in_tables("UPDATE lineage.versions SET data_version = 'forged' WHERE asset = 'features/neuron_statistics'"),
        "features/neuron_statistics, content",
        "not forged",
    ),
    "a neuron of one sample": (
        in_activations(
            "UPDATE extraction.activation SET activation = list_reverse(activation)::FLOAT[48] "
            f"WHERE layer = 0 AND sample_id = {FIRST}"
        ),
        "extraction/candidate_activations, content",
        "1 rows of",
    ),
    "a neuron and its digest": (
        forged_neuron,
        "extraction/candidate_activations, content",
        "holds other samples, numbers or refused samples",
    ),
    "a layer of one sample": (
        in_activations(f"DELETE FROM extraction.activation WHERE layer = 0 AND sample_id = {FIRST}"),
        "extraction/candidate_activations, content",
        "1 samples of",
    ),
    "the activations' file": (
        lambda home, data: (home / ACTIVATIONS).unlink(),
        "extraction/candidate_activations, content",
        "candidates.duckdb is gone",
    ),
    "the pool's source": (
        lambda home, data: (data / "pool.jsonl").write_text((data / "pool.jsonl").read_text() + "\n"),
        "corpora/candidate_pool, source:0:pool.jsonl",
        "when it was read",
    ),
    "a source that is gone": (
        lambda home, data: (data / "math.jsonl").unlink(),
        "corpora/in_domain_set[math], source:0:math.jsonl",
        "there is no file",
    ),
    "a line in train.jsonl": (append("train.jsonl"), "selection/", "train.jsonl changed"),
    "a line in the card": (append("README.md"), "selection/", "README.md changed"),
    "the subset's Parquet file": (
        lambda home, data: (home / FOLDER / "train.parquet").unlink(),
        "selection/nait_standardized_subset[math|0.30], content",
        "lacks train.parquet",
    ),
    "the manifest": (another_manifest, "selection/nait_standardized_subset[math|0.30], content", "of another version"),
    "a damaged manifest": (
        lambda home, data: (home / FOLDER / "manifest.json").write_text("{"),
        "selection/nait_standardized_subset[math|0.30], content",
        "is damaged",
    ),
}


def test_a_home_as_it_was_made_holds(recipe: Recipe, home: Path) -> None:
    """An audit that cries wolf is switched off."""
    answer = audit(recipe, home)
    assert answer.code == 0, answer.out
    lines = answer.out.splitlines()
    assert len(subsets_of(recipe, None)) == 9
    assert [line.split()[0] for line in lines[9:]] == ["report/method_comparison", "report/selection_report", "home"]
    assert all("intact: " in line and "unverifiable" not in line for line in lines)


def test_one_subset_is_shown_link_by_link(recipe: Recipe, home: Path) -> None:
    """From the source to the file in hand: what an auditor wants to see, in this order."""
    answer = audit(recipe, home, SUBSET)
    assert answer.code == 0
    shown = [line.split()[1].rstrip(",") for line in answer.out.splitlines()[1:]]
    order = list(dict.fromkeys(shown))
    assert order == [
        "corpora/candidate_pool",
        "corpora/in_domain_set[code]",
        "corpora/in_domain_set[math]",
        "corpora/contaminated_candidates",
        "extraction/candidate_activations",
        "extraction/in_domain_activations[math]",
        "features/neuron_statistics",
        "features/standardized_centroids[math]",
        "scoring/nait_standardized_scores[math]",
        "selection/nait_standardized_subset[math|0.30]",
    ]
    assert {line.split()[0] for line in answer.out.splitlines()[1:]} == {"ok"}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_link_that_was_tampered_with_is_named(recipe: Recipe, home: Path, tmp_path: Path, name: str) -> None:
    """Not merely that something is wrong, but what, so that a person knows where to look."""
    tamper, where, what = TAMPERED[name]
    tamper(home, tmp_path)
    answer = audit(recipe, home, SUBSET)
    assert answer.code == 4
    first = answer.out.splitlines()[0]
    assert f"BROKEN at {where}" in first, first
    assert what in first, first


def test_a_subset_that_does_not_rest_on_it_still_holds(recipe: Recipe, home: Path) -> None:
    """A broken capability must not discredit the others."""
    edit(
        home / "warehouse.duckdb", "UPDATE features.standardized_centroids SET n_samples = 1 WHERE capability = 'math'"
    )
    lines = {line.split()[0]: line for line in audit(recipe, home, "nait_standardized").out.splitlines()}
    assert "BROKEN" in lines["nait_standardized/math/0.30"]
    assert "BROKEN" in lines["nait_standardized/all/0.30"]
    assert "intact" in lines["nait_standardized/code/0.30"]


def test_a_damaged_output_that_the_recipe_no_longer_has_can_be_cleaned(
    recipe: Recipe, home: Path, make_recipe: MakeRecipe
) -> None:
    """No run makes it again, so the audit would call the home broken for ever."""
    shutil.rmtree(home / FOLDER)
    changed = make_recipe(methods=list(recipe.methods), ratios=[0.5])
    run(changed, home)
    answer = audit(changed, home)
    (broken,) = (line for line in answer.out.splitlines() if "BROKEN" in line)
    assert (answer.code, broken.endswith("; the recipe no longer has it: `nait clean` removes it")) == (4, True)
    assert nait("clean", "--yes", "--recipe", changed.path, "--home", home).code == 0
    assert audit(changed, home).code == 0


def test_a_subset_whose_scores_have_moved_on_is_named(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """Somebody re-scored and did not choose again: the subset in use is no longer what the scores say."""
    pool = (tmp_path / "pool.jsonl").read_text().splitlines()
    (tmp_path / "pool.jsonl").write_text("\n".join(pool[1:]) + "\n")
    run(recipe, home, "--select", "group:corpora or group:extraction or group:features or group:scoring")
    answer = audit(recipe, home, SUBSET)
    assert answer.code == 4
    first = answer.out.splitlines()[0]
    assert "BROKEN at selection/nait_standardized_subset[math|0.30], corpora/candidate_pool: is " in first


def test_another_model_is_another_link(recipe: Recipe, home: Path, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Weights that were exchanged under the same name are the hardest change to see."""
    model = Path(shutil.copytree(recipe.model.source, tmp_path / "model"))
    fields = {"methods": list(recipe.methods), "ratios": [0.3], "model": {"source": str(model), "dtype": "float32"}}
    moved = make_recipe(**fields)
    run(moved, home)
    assert audit(moved, home, SUBSET).code == 0
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    first = audit(moved, home, SUBSET).out.splitlines()[0]
    assert f"BROKEN at extraction/candidate_activations, model:{model}: is now folder:" in first


def test_a_recipe_that_has_changed_since_is_a_broken_link(home: Path, make_recipe: MakeRecipe) -> None:
    """Subsets of yesterday's recipe under today's name."""
    changed = make_recipe(ratios=[0.3], extraction={"max_tokens": 32})
    first = audit(changed, home, SUBSET).out.splitlines()[0]
    assert "BROKEN at extraction/candidate_activations, code: the version of recipe and code is now" in first


def test_a_hub_that_cannot_be_asked_breaks_nothing(home: Path, recipe: Recipe, make_recipe: MakeRecipe) -> None:
    """Offline, whether a branch has moved on cannot be told; what is stored can still be verified."""
    edit(
        home / "warehouse.duckdb",
        "UPDATE lineage.versions SET inputs = replace(inputs, 'source:0:math.jsonl', 'source:0:hub:nobody/nothing') "
        "WHERE asset = 'corpora/in_domain_set' AND partition = 'math'",
    )
    hub = {"source": "hub:nobody/nothing"}
    fields = {"methods": list(recipe.methods), "ratios": [0.3]}
    on_hub = make_recipe(**fields, capabilities={"code": {"source": "code.jsonl"}, "math": hub})
    lines = audit(on_hub, home, SUBSET).out.splitlines()
    assert any("unverified corpora/in_domain_set[math], source:0:hub:nobody/nothing" in line for line in lines)


def test_an_empty_home_is_a_broken_chain_and_an_unknown_subset_bad_input(recipe: Recipe, tmp_path: Path) -> None:
    """Nothing there and nothing wrong are not the same."""
    answer = audit(recipe, tmp_path / "empty", SUBSET)
    assert (answer.code, "it was never made" in answer.out) == (4, True)
    answer = audit(recipe, tmp_path / "empty", "nait/poetry")
    assert answer.code == 2
    assert "targets, code, math, all" in answer.err


def test_subsets_are_named_by_a_beginning_of_their_path(recipe: Recipe) -> None:
    """As their folders are."""
    assert len(subsets_of(recipe, "nait")) == 3
    assert subsets_of(recipe, "nait/math/") == [("nait", "math", "0.30")]
    with pytest.raises(NotFoundError, match="has no subset 'nai'"):
        subsets_of(recipe, "nai")
