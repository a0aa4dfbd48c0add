"""MoNA and its control: the formulas of the paper in float64, and a whole run over the tiny Llama."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from nait_assets.errors import ModelError, RecipeError
from nait_assets.measurements.top_k import SPARSE
from nait_assets.recipe import Recipe
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods import mona
from nait_assets_tests.command import metadata_of, quick_home, run
from nait_assets_tests.conftest import conversation, pool_rows, write_jsonl
from nait_assets_tests.scoring.given import for_capabilities

N_LATENTS = 12
RANDOM = np.random.default_rng(0)
SMALL = {"k": 4, "expansion": 2, "training_tokens": 400}


def sparse(vectors: np.ndarray, sample_ids: list[str]) -> pl.DataFrame:
    """Rows of a reading of sparse vectors."""
    rows = [
        {"sample_id": name, "indices": np.flatnonzero(row).tolist(), "values": row[np.flatnonzero(row)].tolist()}
        for name, row in zip(sample_ids, vectors, strict=True)
    ]
    return pl.DataFrame(rows, schema={"sample_id": pl.String, **SPARSE})


def vectors(n: int, n_latents: int = N_LATENTS) -> np.ndarray:
    """Half of the numbers are 0, the others positive, exact in float32."""
    return np.round(RANDOM.uniform(0, 4, (n, n_latents)) * (RANDOM.random((n, n_latents)) < 0.5), 3).astype(np.float32)


POOL = np.concatenate([vectors(6), np.zeros((1, N_LATENTS), np.float32)])
NAMES = [f"s{number}" for number in range(len(POOL))]
EXAMPLES = {"code": vectors(3), "math": vectors(5, N_LATENTS + 30)}


def literal_jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Eq. 9, latent by latent."""
    size = max(len(one), len(other))
    pairs = [(float(one[k]) if k < len(one) else 0.0, float(other[k]) if k < len(other) else 0.0) for k in range(size)]
    largest = sum(max(a, b) for a, b in pairs)
    return sum(min(a, b) for a, b in pairs) / largest if largest else 0.0


def literal_prototype(names: list[str]) -> np.ndarray:
    """Eq. 8 of each capability, and the mean of those."""
    found = np.zeros(N_LATENTS + 30)
    for name in names:
        mean = np.zeros(N_LATENTS + 30)
        for example in EXAMPLES[name]:
            for k, value in enumerate(example):
                mean[k] += float(value) / len(EXAMPLES[name])
        found += mean / len(names)
    return found


def inputs(*targets: str) -> ScoringInputs:
    capabilities = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}
    frames = {name: sparse(rows, [f"{name}{n}" for n in range(len(rows))]) for name, rows in EXAMPLES.items()}
    features = {target: {name: frames[name] for name in capabilities[target]} for target in targets}
    return for_capabilities(NAMES, mona.EXAMPLES, features, frames={mona.CODES: sparse(POOL, NAMES)})


@pytest.mark.parametrize("block", [2**22, 5, 1])
def test_score_is_the_generalised_jaccard_similarity_with_the_mean_example(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eq. 8 and 9; candidates are looked at in blocks, which must not show."""
    monkeypatch.setattr(mona, "BLOCK_NUMBERS", block)
    found = mona.score(inputs("code", "math", "all")).values

    for place, names in enumerate((["code"], ["math"], ["code", "math"])):
        expected = [literal_jaccard(row, literal_prototype(names)) for row in POOL]
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-12)
    assert (found[-1] == 0).all(), "a candidate without a latent shares none"


def test_score_by_example_is_the_similarity_with_each_example() -> None:
    """From these the round robin chooses; `all` has the examples of every capability."""
    found = {name: one.matrix() for name, one in mona.score(inputs("math", "all")).by_example.items()}

    expected = {name: [[literal_jaccard(row, one) for one in EXAMPLES[name]] for row in POOL] for name in EXAMPLES}
    np.testing.assert_allclose(found["math"], expected["math"], rtol=1e-12)
    most = max(len(expected["code"][0]), len(expected["math"][0]))
    for row, code, math in zip(found["all"], expected["code"], expected["math"], strict=True):
        turns = [part[turn] for turn in range(most) for part in (code, math) if turn < len(part)]
        np.testing.assert_allclose(row, turns, rtol=1e-12)


def test_scores_of_a_target_do_not_depend_on_the_other_targets() -> None:
    """Another target's examples wake latents of higher numbers: longer vectors must not round in another way."""
    alone, along = mona.score(inputs("code")), mona.score(inputs("math", "code"))

    np.testing.assert_array_equal(alone.values[:, 0], along.values[:, 1])
    np.testing.assert_array_equal(alone.by_example["code"].matrix(), along.by_example["code"].matrix())


def test_candidate_equal_to_the_only_example_has_similarity_1() -> None:
    """The scale of the score: 1 is the same code, 0 not one latent in common."""
    rows = sparse(POOL[:1], ["s0"])
    same = for_capabilities(["s0"], mona.EXAMPLES, {"math": {"math": rows}}, frames={mona.CODES: rows})
    other = sparse((POOL[:1] == 0).astype(np.float32), ["x"])
    apart = for_capabilities(["s0"], mona.EXAMPLES, {"math": {"math": other}}, frames={mona.CODES: rows})

    assert mona.score(same).values[0, 0] == pytest.approx(1, abs=1e-12)
    assert mona.score(apart).values[0, 0] == 0


def table(file: Path, query: str) -> list[Any]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_run_makes_both_methods_once_and_a_candidate_more_is_read_alone(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """From the recipe to the subset; an autoencoder that was trained anew would change the code of every example."""
    recipe = make_recipe(
        methods=["mona", "gate_overlap"],
        ratios=[0.3],
        measurements={"sparse_autoencoder": SMALL, "gates": {"k": SMALL["k"]}},
        capabilities={"code": {"source": "code.jsonl"}},
    )
    home = quick_home(tmp_path / "home")

    made = run(recipe, home)

    assert {"measurements/sparse_autoencoder", "measurements/candidate_codes", "measurements/candidate_gates"} <= made
    assert "extraction/candidate_activations" not in made
    for method in ("mona", "gate_overlap"):
        scores = table(home / "warehouse.duckdb", f"SELECT score, rank, turn, reason FROM scoring.{method}_scores")
        assert len(scores) == 20
        assert all(0 < score <= 1 and turn and reason is None for score, _, turn, reason in scores)
        assert len({round(score, 9) for score, *_ in scores}) >= 15, "a score that says the same of all says nothing"
        count = f"SELECT count(*) FROM selection.subsets WHERE method = '{method}'"
        assert table(home / "warehouse.duckdb", count) == [(6,)]
    shown = metadata_of(home, "measurements/sparse_autoencoder")
    assert shown["n_latents"] == 64
    assert 0 < shown["l0"] <= 4  # type: ignore[operator]
    assert run(recipe, home) == set()

    weights = (home / "trained" / "sparse_autoencoder" / "sae.safetensors").read_bytes()
    write_jsonl(tmp_path / "pool.jsonl", [*pool_rows(), conversation("one more question?", "one more answer")])
    made = run(recipe, home)

    assert (home / "trained" / "sparse_autoencoder" / "sae.safetensors").read_bytes() == weights
    assert metadata_of(home, "measurements/sparse_autoencoder")["kept"] is True
    assert metadata_of(home, "measurements/candidate_codes")["n_read"] == 1
    assert "measurements/in_domain_codes[code]" not in made


def test_gate_overlap_refuses_a_model_without_gates_before_anything_is_read(
    make_recipe: Callable[..., Recipe], tmp_path: Path, tokenizer: Any
) -> None:
    """GPT-2's MLP has no gate projection: there is nothing that this control could compare."""
    from transformers import GPT2Config, GPT2Model

    from nait_assets.measurements import gates
    from nait_assets.resources import LanguageModel

    folder = tmp_path / "gpt2"
    GPT2Model(GPT2Config(vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    recipe = make_recipe(methods=["gate_overlap"], model={"source": str(folder), "dtype": "float32"})

    with pytest.raises(ModelError, match=r"GPT2Model: the gate projection.*mlp\.gate_proj.*Llama, Mistral") as error:
        gates.preflight(recipe, LanguageModel.of(recipe, tmp_path / "home"))
    assert "GPT-2 families" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, r"measurements\.gates\.layer: 2 is out of range; .* has layers 0 to 1"),
        ({"k": 49}, r"measurements\.gates\.k: 49 is more than the 48 gates of layer 0"),
    ],
)
def test_gates_that_the_model_lacks_are_refused(
    options: dict[str, int], message: str, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Before anything is read: a layer or K that the model does not have."""
    from nait_assets.measurements import gates
    from nait_assets.resources import LanguageModel

    recipe = make_recipe(methods=["gate_overlap"], measurements={"gates": options})

    with pytest.raises(RecipeError, match=message):
        gates.preflight(recipe, LanguageModel.of(recipe, tmp_path / "home"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"measurements\.sparse_autoencoder\.k: .*greater than or equal to 1"),
        ({"layer": -1}, r"measurements\.sparse_autoencoder\.layer"),
        ({"source": "hub:a/b"}, r"'hub:a/b' needs a `revision`"),
        ({"revision": "abc"}, r"revision 'abc' is of a hub repository"),
        ({"expantion": 3}, r"unknown field; did you mean 'expansion'"),
    ],
)
def test_bad_options_are_refused_with_the_recipe(
    options: dict[str, Any], message: str, make_recipe: Callable[..., Recipe]
) -> None:
    """A recipe that cannot work is refused when it is loaded."""
    with pytest.raises(RecipeError, match=message):
        make_recipe(methods=["mona"], measurements={"sparse_autoencoder": options})
