"""The definitions: what a person sees of an asset, what its code version depends on, and what importing them costs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from nait_assets.definitions import build_definitions
from nait_assets.models.config import ExtractionConfig
from nait_assets.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
HEAVY = ("torch", "transformers", "sklearn", "altair", "vl_convert", "datasets", "huggingface_hub", "safetensors")
HEAVY += ("bm25s", "peft", "sentence_transformers", "openai", "sparsify", "scipy")
CORPORA = {"corpora/candidate_pool", "corpora/contaminated_candidates", "corpora/in_domain_set"}
AUDIT = "audit/lineage_audit"
EXTRACTION = {"extraction/candidate_activations", "extraction/in_domain_activations"}
FEATURES = {"features/nait_directions", "features/neuron_statistics", "features/standardized_centroids"}
SCORES = {f"scoring/{method}_scores" for method in ("nait", "nait_standardized", "random")}
PAGE = {"report/selection_report"}
REPORT = {"report/method_comparison", *PAGE}
SUBSETS = {f"selection/{method}_subset" for method in ("nait", "nait_standardized", "random")}


def specs(recipe: Recipe, home: Path) -> dict[str, dg.AssetSpec]:
    """Every asset of a recipe, by its key as a path."""
    definitions = build_definitions(recipe, home).resolve_all_asset_specs()
    return {"/".join(spec.key.path): spec for spec in definitions}


def test_a_recipe_has_these_assets(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Keys are what people select, and under which versions are stored: a new name makes everything again."""
    assert set(specs(make_recipe(), tmp_path)) == CORPORA | EXTRACTION | FEATURES | SCORES | SUBSETS | REPORT | {AUDIT}


@pytest.mark.parametrize(
    ("fields", "absent"),
    [
        ({"methods": ["nait"]}, {"features/neuron_statistics", "features/standardized_centroids"}),
        ({"methods": ["nait_standardized"]}, {"features/nait_directions"}),
        ({"methods": ["random"]}, EXTRACTION | FEATURES),
        (
            {"capabilities": {"math": {"features": "library"}}},
            {"corpora/contaminated_candidates", "corpora/in_domain_set", "extraction/in_domain_activations"},
        ),
    ],
)
def test_what_no_method_reads_is_not_there(
    make_recipe: MakeRecipe, tmp_path: Path, fields: dict[str, Any], absent: set[str]
) -> None:
    """An asset that nobody needs would still be asked for, computed and stored."""
    methods = fields.get("methods", ["nait", "nait_standardized", "random"])
    unused = {f"scoring/{name}_scores" for name in ("nait", "nait_standardized", "random") if name not in methods}
    unused |= {name.replace("scoring", "selection").replace("_scores", "_subset") for name in unused}
    everything = CORPORA | EXTRACTION | FEATURES | SCORES | SUBSETS | REPORT | {AUDIT}
    assert set(specs(make_recipe(**fields), tmp_path)) == everything - absent - unused


JUDGE = {"judgements": {"endpoint": "http://localhost:1/v1", "model": "judge"}}
REWARDS = {"rewards": {"source": "a-folder"}}


@pytest.mark.parametrize(
    ("method", "measurements", "read"),
    [
        ("nait_neighbours", {}, EXTRACTION | {"features/neuron_statistics"}),
        ("neuron_diversity", {}, {"extraction/candidate_activations", "features/neuron_statistics"}),
        ("mona", {}, {f"measurements/{name}" for name in ("candidate_codes", "in_domain_codes", "sparse_autoencoder")}),
        ("gate_overlap", {}, {"measurements/candidate_gates", "measurements/in_domain_gates"}),
        ("rds_plus", {}, {"measurements/candidate_outputs", "measurements/in_domain_outputs"}),
        ("perplexity_low", {}, {"measurements/candidate_outputs"}),
        ("perplexity_high", {}, {"measurements/candidate_outputs"}),
        ("ifd", {}, {"measurements/candidate_outputs", "measurements/candidate_answers"}),
        (
            "ifd_pre_experienced",
            {},
            {
                "measurements/candidate_experienced_answers",
                "measurements/candidate_experienced_outputs",
                "measurements/pre_experienced_model",
            },
        ),
        ("selectit", {}, {"measurements/candidate_ratings"}),
        ("instruction_mining", REWARDS, {"measurements/candidate_embeddings", "measurements/candidate_rewards"}),
        ("alpagasus", JUDGE, {"measurements/candidate_judgements"}),
        (
            "less",
            {},
            {f"measurements/{name}" for name in ("candidate_gradients", "in_domain_gradients", "less_checkpoints")},
        ),
        ("sentence_embedding", {}, {"measurements/candidate_embeddings", "measurements/in_domain_embeddings"}),
        *((name, {}, set()) for name in ("bm25", "dsir", "length_long", "length_short", "balanced_random")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_method_has_what_it_reads_and_nothing_of_the_others(
    make_recipe: MakeRecipe, tmp_path: Path, method: str, measurements: dict[str, Any], read: set[str]
) -> None:
    """A method that is not listed must cost nothing, and be nowhere in the graph."""
    own = {f"scoring/{method}_scores", f"selection/{method}_subset"}
    found = set(specs(make_recipe(methods=[method], measurements=measurements), tmp_path))
    assert found == CORPORA | read | own | REPORT | {AUDIT}


def test_every_asset_says_what_it_is(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """In the UI the group is the room, and the description says what one row is."""
    for name, spec in specs(make_recipe(), tmp_path).items():
        assert spec.group_name == name.split("/")[0]
        assert spec.kinds, name
        assert "One row is" in (spec.description or ""), name
        assert spec.code_version, name
        if name != AUDIT:  # which looks at what no input tells of, and has a schedule instead
            assert spec.automation_condition is not None, name
            assert spec.automation_condition.get_label() == "when_inputs_change"


def test_what_runs_the_model_shares_a_pool(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Two processes with a model each do not fit where one does; a limit on the pool keeps them apart."""
    definitions = build_definitions(make_recipe(), tmp_path)
    pools = {name: definitions.resolve_assets_def(dg.AssetKey(name.split("/"))).op.pool for name in EXTRACTION}
    assert set(pools.values()) == {"language_model"}


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"name": "another"}, PAGE),
        ({"ratios": [0.1, 0.3, 0.5]}, REPORT),
        ({"methods": ["random", "nait_standardized", "nait"]}, set()),
        ({"seed": 1}, {"scoring/random_scores"}),
        ({"candidates": {"source": "pool.jsonl", "limit": 10}}, {"corpora/candidate_pool"}),
        (
            {"capabilities": {"code": {"source": "code.jsonl", "limit": 3}, "math": {"source": "math.jsonl"}}},
            {"corpora/in_domain_set"},
        ),
        (
            {"capabilities": {"math": {"source": "math.jsonl"}}},
            {"corpora/contaminated_candidates", "corpora/in_domain_set", *SCORES, *REPORT},
        ),
        ({"decontamination": {"ngram": 8}}, {"corpora/contaminated_candidates"}),
        ({"decontamination": {"action": "drop"}}, SUBSETS),
        ({"model": {"source": "elsewhere", "dtype": "float32"}}, EXTRACTION | PAGE),
        (
            {"extraction": {"max_tokens": 32}},
            {*EXTRACTION, *PAGE, "features/nait_directions", "features/standardized_centroids"},
        ),
        ({"features": {"change": "mean_minus_first"}}, {"features/nait_directions"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_code_version_changes_with_the_fields_that_the_asset_reads(
    make_recipe: MakeRecipe, tmp_path: Path, fields: dict[str, Any], changed: set[str]
) -> None:
    """A field too many recomputes what did not change; a field too few keeps what is wrong."""
    before = {name: spec.code_version for name, spec in specs(make_recipe(), tmp_path).items()}
    after = {name: spec.code_version for name, spec in specs(make_recipe(**fields), tmp_path).items()}
    assert {name for name in before if before[name] != after[name]} == changed


def test_code_version_does_not_depend_on_where_the_recipe_lies(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A project folder that is moved, or cloned elsewhere, is the same project."""
    before = {name: spec.code_version for name, spec in specs(make_recipe(), tmp_path).items()}
    (tmp_path / "moved").mkdir()
    recipe = make_recipe()
    moved = recipe.model_copy(update={"path": tmp_path / "moved" / "recipe.yaml"})
    assert {name: spec.code_version for name, spec in specs(moved, tmp_path / "moved").items()} == before


def test_importing_the_definitions_imports_no_heavy_library(tmp_path: Path) -> None:
    """Web server, daemon and every run import them; with torch that takes ten seconds each time."""
    program = f"import sys, nait_assets.definitions; print([name for name in {HEAVY} if name in sys.modules])"
    environment = {"NAIT_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []  # and it writes nothing


@pytest.mark.parametrize(
    "configuration",
    [
        {"resources": {"warehouse": {"config": {"home": "ELSEWHERE"}}}},
        {"resources": {"language_model": {"config": {"source": "ELSEWHERE"}}}},
        {"resources": {"language_model": {"config": {"home": "ELSEWHERE"}}}},
        {"ops": {"extraction__candidate_activations": {"config": {"ray_address": "ray://attacker.example:1"}}}},
    ],
)
def test_no_run_chooses_where_it_writes_or_what_it_loads(
    make_recipe: MakeRecipe, tmp_path: Path, configuration: dict[str, Any]
) -> None:
    """Whoever may start a run in the web page is not thereby someone who may write to any folder of the machine."""
    elsewhere = tmp_path / "elsewhere"
    filled = yaml.safe_load(yaml.safe_dump(configuration).replace("ELSEWHERE", str(elsewhere)))
    job = build_definitions(make_recipe(), tmp_path / "home").resolve_implicit_global_asset_job_def()
    with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config entry"):
        job.execute_in_process(
            run_config=filled, asset_selection=[dg.AssetKey(["extraction", "candidate_activations"])]
        )
    assert not elsewhere.exists()


def test_a_run_takes_its_ray_cluster_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray runs what it unpickles: the address is the operator's to give, as to Ray's own programs."""
    assert ExtractionConfig().options().ray_address is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert ExtractionConfig().options().ray_address == "head:6379"
