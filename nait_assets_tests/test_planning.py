"""Planning: what is out of date and why, in which order it is made, and what is found wrong before anything runs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from nait_assets.definitions import build_definitions
from nait_assets.errors import UserError
from nait_assets.lineage import Record, reference
from nait_assets.models.libraries import LIBRARIES, library_versions
from nait_assets.planning import Plan, Step, by_reasons, runs_of
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import sha256
from nait_assets.selection.subset import SUBSET_FILES

MakeRecipe = Callable[..., Recipe]
EVERYTHING = {"methods": ["nait", "nait_standardized", "random"], "ratios": [0.3]}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that knows nothing."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def plan_of(recipe: Recipe, home: Path, instance: dg.DagsterInstance, *only: str) -> Plan:
    """The plan of a recipe, or of some of its assets."""
    return Plan(
        build_definitions(recipe, home),
        recipe,
        Warehouse(home=str(home)),
        LanguageModel.of(recipe, home),
        instance,
        frozenset(dg.AssetKey(name.split("/")) for name in only) or None,
    )


def inputs_of_every_output(recipe: Recipe) -> dict[str, list[str]]:
    """The lineage of a recipe of the capabilities code and math, ratio 0.30, and all methods, written out."""
    model = f"model:{recipe.model.source}"
    pool, activations, statistics = (
        "corpora/candidate_pool",
        "extraction/candidate_activations",
        "features/neuron_statistics",
    )
    inputs = {pool: ["source:0:pool.jsonl"], activations: [pool, model, "dtype", *LIBRARIES], statistics: [activations]}
    for name in ("code", "math"):
        inputs[f"corpora/in_domain_set[{name}]"] = [f"source:0:{name}.jsonl"]
        inputs[f"extraction/in_domain_activations[{name}]"] = [
            f"corpora/in_domain_set[{name}]",
            model,
            "dtype",
            *LIBRARIES,
        ]
        inputs[f"features/nait_directions[{name}]"] = [f"extraction/in_domain_activations[{name}]"]
        inputs[f"features/standardized_centroids[{name}]"] = [f"extraction/in_domain_activations[{name}]", statistics]
    contaminated = "corpora/contaminated_candidates"
    inputs[contaminated] = [pool, "corpora/in_domain_set[code]", "corpora/in_domain_set[math]"]
    for target, names in {"code": ["code"], "math": ["math"], "all": ["code", "math"]}.items():
        directions = [f"features/nait_directions[{name}]" for name in names]
        centroids = [f"features/standardized_centroids[{name}]" for name in names]
        examples = [f"extraction/in_domain_activations[{name}]" for name in names]
        inputs[f"scoring/nait_scores[{target}]"] = [activations, *directions]
        inputs[f"scoring/nait_standardized_scores[{target}]"] = [activations, statistics, *centroids, *examples]
        inputs[f"scoring/random_scores[{target}]"] = [pool]
        for method in ("nait", "nait_standardized", "random"):
            scores = f"scoring/{method}_scores[{target}]"
            inputs[f"selection/{method}_subset[{target}|0.30]"] = [pool, contaminated, scores]
    corpora = (pool, "corpora/in_domain_set")
    read = (*corpora, "extraction/", "features/standardized_centroids", statistics, "scoring/", "selection/")
    compared = [name for name in inputs if name.startswith((pool, "scoring/", "selection/"))]
    inputs["report/method_comparison"] = compared
    inputs["report/selection_report"] = [
        *(name for name in inputs if name.startswith(read)),
        "report/method_comparison",
    ]
    return inputs


def records_when_all_is_current(plan: Plan, dtype: str = "float32") -> dict[str, Record]:
    """Records as a finished run leaves them; the version of an output is its own name, `v` in front."""
    recipe, folder, graph = plan.recipe, plan.recipe.path.parent, plan.defs.resolve_asset_graph()
    outside = {f"source:0:{name}.jsonl": sha256(folder / f"{name}.jsonl")[:16] for name in ("pool", "code", "math")}
    outside |= {f"model:{recipe.model.source}": plan.model.identity(), "dtype": dtype, **library_versions()}
    records = {}
    for name, inputs in inputs_of_every_output(recipe).items():
        asset, _, partition = name.rstrip("]").partition("[")
        code_version = graph.get(dg.AssetKey(asset.split("/"))).code_version
        assert code_version is not None
        versions = {source: outside.get(source, f"v {source}") for source in inputs}
        records[name] = Record(asset, partition, code_version, f"v {name}", versions, record_hash="as written")
    return records


def note(instance: dg.DagsterInstance, records: dict[str, Record]) -> None:
    """Let a Dagster instance know of outputs."""
    for record in records.values():
        event = dg.AssetMaterialization(record.asset.split("/"), partition=record.partition or None)
        instance.report_runless_asset_event(event)


def reasons(plan: Plan, records: dict[str, Record]) -> dict[str, tuple[str, ...]]:
    """Why each output that is not current is not."""
    steps = [step for stage in plan.stages() for asset in stage for step in plan.out_of_date(asset, records)]
    return {reference("/".join(step.asset.path), step.partition): step.reasons for step in steps}


@pytest.fixture
def plan(make_recipe: MakeRecipe, tmp_path: Path, instance: dg.DagsterInstance) -> Plan:
    """The plan of a recipe with every method."""
    return plan_of(make_recipe(**EVERYTHING), tmp_path / "home", instance)


@pytest.fixture
def records(plan: Plan) -> dict[str, Record]:
    """Records, files and a Dagster instance by which everything is current."""
    records = records_when_all_is_current(plan)
    note(plan.instance, records)
    leave_files(plan.warehouse.folder)
    return records


def leave_files(home: Path) -> None:
    """What a finished run leaves beside its tables."""
    files = [
        home / "features" / name / f"{feature}.safetensors"
        for name in ("code", "math")
        for feature in ("nait_directions", "standardized_centroids")
    ]
    for method in ("nait", "nait_standardized", "random"):
        for target in ("code", "math", "all"):
            folder = home / "subsets" / method / target / "0.30"
            files += [folder / name for name in SUBSET_FILES]
    for file in [*files, home / "report" / "index.html"]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_nothing_is_out_of_date_after_a_run(plan: Plan, records: dict[str, Record]) -> None:
    """An input that is expected and never recorded, or the reverse, recomputes everything for ever."""
    assert reasons(plan, records) == {}
    assert plan.check(records) == []


def test_everything_is_missing_before_the_first_run(plan: Plan) -> None:
    """An empty home."""
    found = reasons(plan, {})
    assert set(found) == set(inputs_of_every_output(plan.recipe))
    assert set(found.values()) == {("missing",)}


@pytest.mark.parametrize(
    "changed",
    [
        "corpora/candidate_pool",
        "corpora/in_domain_set[math]",
        "extraction/candidate_activations",
        "extraction/in_domain_activations[code]",
        "features/neuron_statistics",
        "features/nait_directions[math]",
        "features/standardized_centroids[math]",
        "scoring/random_scores[all]",
        "selection/nait_subset[all|0.30]",
    ],
)
def test_a_new_version_makes_what_was_made_from_the_old_one_stale(
    plan: Plan, records: dict[str, Record], changed: str
) -> None:
    """And nothing else: the steps after it are asked for only if what comes between really changes."""
    records[changed] = replace(records[changed], data_version="another")
    below = {name for name, inputs in inputs_of_every_output(plan.recipe).items() if changed in inputs}
    assert reasons(plan, records) == dict.fromkeys(below, (f"{changed} changed",))


def test_an_edited_file_makes_its_own_corpus_stale(plan: Plan, records: dict[str, Record]) -> None:
    """Dagster cannot see into files; this is why the command line has its own plan."""
    with (plan.recipe.path.parent / "math.jsonl").open("a") as file:
        file.write("\n")
    assert reasons(plan, records) == {"corpora/in_domain_set[math]": ("source:0:math.jsonl changed",)}


def test_another_model_in_the_same_folder_makes_every_activation_stale(
    make_recipe: MakeRecipe, tmp_path: Path, instance: dg.DagsterInstance, fastest_dtype: str
) -> None:
    """The folder's name says nothing about the weights in it; nor does it matter here which dtype `auto` is."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    recipe = make_recipe(**EVERYTHING, model={"source": str(folder)})
    records = records_when_all_is_current(plan_of(recipe, tmp_path / "home", instance), fastest_dtype)
    note(instance, records)
    leave_files(tmp_path / "home")
    (folder / "config.json").write_text('{"hidden_size": 1}')
    found = reasons(plan_of(recipe, tmp_path / "home", instance), records)
    assert set(found) == {name for name in records if name.startswith("extraction/")}
    assert set(found.values()) == {(f"model:{folder} changed",)}


def test_another_dtype_makes_every_activation_stale(make_recipe: MakeRecipe, tmp_path: Path, instance: Any) -> None:
    """`auto` is another dtype on another machine: a home that moved there must not mix the two."""
    plan = plan_of(make_recipe(**EVERYTHING), tmp_path / "home", instance)
    records = records_when_all_is_current(plan)
    note(instance, records)
    leave_files(tmp_path / "home")
    records = {
        name: replace(record, inputs={**record.inputs, "dtype": "bfloat16"}) if "dtype" in record.inputs else record
        for name, record in records.items()
    }
    found = reasons(plan, records)
    assert set(found) == {name for name in records if name.startswith("extraction/")}
    assert set(found.values()) == {("dtype changed",)}


def test_an_output_of_other_code_is_stale(plan: Plan, records: dict[str, Record]) -> None:
    """The code version holds the algorithm's number and the recipe's fields."""
    name = "features/nait_directions[math]"
    records[name] = replace(records[name], code_version="0:older")
    assert reasons(plan, records) == {name: ("the recipe or the code changed",)}


def test_sources_that_come_or_go_are_told(
    make_recipe: MakeRecipe, plan: Plan, records: dict[str, Record], tmp_path: Path
) -> None:
    """Each reason names what is different, so that a person can tell whether it is what they meant."""
    (tmp_path / "more.jsonl").write_text((tmp_path / "code.jsonl").read_text())
    recipe = make_recipe(**EVERYTHING, candidates=[{"source": "more.jsonl"}])
    found = reasons(plan_of(recipe, tmp_path / "home", plan.instance), records)
    assert found == {
        "corpora/candidate_pool": (
            "the recipe or the code changed",
            "new input source:0:more.jsonl",
            "source:0:pool.jsonl is no longer an input",
        )
    }


def test_an_output_that_dagster_has_forgotten_is_noted_again(
    plan: Plan, records: dict[str, Record], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Else the UI shows as missing what is there, and its condition waits for it for ever."""
    with dg.DagsterInstance.ephemeral() as empty:
        found = reasons(plan_of(plan.recipe, tmp_path / "home", empty), records)
    assert set(found) == set(records)
    assert set(found.values()) == {("unknown to this Dagster instance",)}


@pytest.mark.parametrize(
    ("file", "output"),
    [
        ("features/math/nait_directions.safetensors", "features/nait_directions[math]"),
        ("subsets/random/all/0.30/train.parquet", "selection/random_subset[all|0.30]"),
        ("subsets/nait/code/0.30/manifest.json", "selection/nait_subset[code|0.30]"),
    ],
)
def test_a_file_that_was_deleted_is_made_again(plan: Plan, records: dict[str, Record], file: str, output: str) -> None:
    """The table alone is not what a fine-tuning tool reads."""
    path = plan.warehouse.folder / file
    path.unlink()
    assert reasons(plan, records) == {output: (f"{path} is missing",)}


def test_rooms_are_made_in_order_and_what_is_independent_in_one_stage(plan: Plan) -> None:
    """Assets of one stage and partition share a run: a run costs more than most of the steps in it."""
    assert [["/".join(asset.path) for asset in stage] for stage in plan.stages()] == [
        ["corpora/candidate_pool", "corpora/in_domain_set"],
        ["corpora/contaminated_candidates"],
        ["extraction/candidate_activations", "extraction/in_domain_activations"],
        ["features/nait_directions", "features/neuron_statistics"],
        ["features/standardized_centroids"],
        [f"scoring/{method}_scores" for method in ("nait", "nait_standardized", "random")],
        [f"selection/{method}_subset" for method in ("nait_standardized", "nait", "random")],
        ["report/method_comparison"],
        ["report/selection_report"],
    ]


def test_stages_hold_the_selected_assets_alone(plan: Plan, tmp_path: Path) -> None:
    """`--select`."""
    plan = plan_of(plan.recipe, tmp_path / "home", plan.instance, "scoring/nait_scores", "corpora/candidate_pool")
    assert [["/".join(asset.path) for asset in stage] for stage in plan.stages()] == [
        ["corpora/candidate_pool"],
        ["scoring/nait_scores"],
    ]


def test_steps_with_the_same_partitions_share_a_run(plan: Plan) -> None:
    """Partition `code` of the scores is made for every method together, and apart from `math` and from the pool."""
    assets = [dg.AssetKey(["scoring", f"{method}_scores"]) for method in ("nait", "random")]
    pool = dg.AssetKey(["corpora", "candidate_pool"])
    steps = [Step(pool, None, ()), *(Step(asset, target, ()) for asset in assets for target in ("code", "math"))]
    assert runs_of(steps, plan.defs) == [(None, [pool]), ("code", assets), ("math", assets)]


def test_partitions_with_the_same_reasons_stand_together() -> None:
    """Fifty-four subsets that are missing are one line of `nait status`."""
    asset, missing = dg.AssetKey(["scoring", "nait_scores"]), ("missing",)
    steps = [Step(asset, "code", missing), Step(asset, "math", ("x changed",)), Step(asset, "all", missing)]
    assert by_reasons(steps) == {missing: ["code", "all"], ("x changed",): ["math"]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"candidates": {"source": "nowhere.jsonl"}}, r"no file .*nowhere\.jsonl"),
        ({"model": {"source": "nowhere"}}, r"model\.source: folder .*nowhere does not exist"),
        (
            {"capabilities": {"math": {"features": "nowhere"}}},
            r"capabilities\.math\.features: there is no file .*nowhere",
        ),
        ({"extraction": {"layers": [0, 7]}}, r"layers: 7 is out of range.*layers 0 to 1"),
        ({"model": {"source": "bert"}}, r"looked for.*model\.layers"),
    ],
    ids=["pool", "model", "features", "layer", "architecture"],
)
def test_bad_input_is_found_before_anything_runs(
    make_recipe: MakeRecipe, tmp_path: Path, instance: dg.DagsterInstance, fields: dict[str, Any], said: str
) -> None:
    """A typing error in the last capability must not cost the hours that the pool takes."""
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(
        json.dumps({"model_type": "bert", "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1})
    )
    plan = plan_of(make_recipe(**fields), tmp_path / "home", instance)
    with pytest.raises(UserError, match=said):
        plan.check({})


def test_a_check_returns_what_is_not_current(plan: Plan) -> None:
    """A run with nothing to do stops here, before it makes a second plan."""
    steps = plan.check({})
    assert {reference("/".join(step.asset.path), step.partition) for step in steps} == set(
        inputs_of_every_output(plan.recipe)
    )
