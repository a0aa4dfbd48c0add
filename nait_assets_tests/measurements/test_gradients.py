"""The gradient features of LESS against autograd, Adam's formula and sign matrices written out."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nait_assets.errors import RecipeError, UserError
from nait_assets.measurements import gradients
from nait_assets.measurements.engine import MeasurementContext
from nait_assets.measurements.gradients import (
    MEASUREMENT,
    RandomProjection,
    adam_direction,
    features,
    preflight,
    read,
    weights_of,
)
from nait_assets.measurements.less_checkpoints import CHECKPOINTS, FIRST, SECOND, WEIGHTS, Checkpoint, answered, warm_up
from nait_assets.models.adapter import Adapter
from nait_assets.models.answers import AnsweredSample
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets_tests.conftest import conversation, less_sections

OPTIONS: dict[str, Any] = {
    "share": 0.5,
    "epochs": 2,
    "rank": 2,
    "alpha": 4,
    "learning_rate": 0.05,
    "batch_size": 3,
    "dimensions": 512,
}


@pytest.fixture
def recipe_of(make_recipe: Callable[..., Recipe], causal_folder: Path) -> Callable[..., Recipe]:
    """A recipe with small options, some of them replaced."""

    def of(model: Path = causal_folder, max_tokens: int = 64, **options: Any) -> Recipe:
        return make_recipe(
            methods=["less"],
            model={"source": str(model), "dtype": "float32"},
            extraction={"max_tokens": max_tokens},
            measurements=less_sections(**{**OPTIONS, **options}),
        )

    return of


def pool() -> pl.DataFrame:
    """Questions with their answers."""
    rows = [conversation(f"the cat {number}?", f"dogs add {number * 7} numbers") for number in range(8)]
    return pl.DataFrame([{"sample_id": f"s{number}", **row} for number, row in enumerate(rows)])


@pytest.fixture
def context(recipe_of: Callable[..., Recipe], tmp_path: Path) -> MeasurementContext:
    """A home with a warm-up in it, and the candidates to be read."""
    return warmed(recipe_of(), tmp_path / "home")


def warmed(recipe: Recipe, home: Path, corpus: str = POOL) -> MeasurementContext:
    """A context whose warm-up has been done."""
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)
    warm_up(pool(), recipe, model, CHECKPOINTS.folder(warehouse), None, lambda _: None)
    return MeasurementContext(recipe, warehouse, model, RunOptions(), corpus, lambda _: None)


def checkpoints_of(context: MeasurementContext) -> list[Checkpoint]:
    return gradients.checkpoints_in(CHECKPOINTS.folder(context.warehouse))


def samples_of(context: MeasurementContext, rows: pl.DataFrame) -> list[AnsweredSample]:
    return answered(rows, context.recipe, context.model)[0]


def adapter_of(context: MeasurementContext) -> Adapter:
    return checkpoints_of(context)[0].adapter(context.model.load_causal())


def rows_of(context: MeasurementContext, rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """What the reading says, by sample."""
    frame = pl.concat([part.rows for part in read(context, rows)])
    return {name: np.asarray(vector) for name, vector in frame.rows()}


@functools.cache
def whole_network(source: str) -> Any:
    """The model in float64, without an adapter."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source).double().eval().requires_grad_(False)


def literal_gradient(context: MeasurementContext, checkpoint: Checkpoint, sample: AnsweredSample) -> torch.Tensor:
    """`(n_weights,)` float64: a forward pass with merged matrices W + (alpha / rank) B A, and autograd over A and B."""
    network = whole_network(context.model.source)
    found = checkpoint.tensors(WEIGHTS)
    tensors = {name: tensor.double().requires_grad_() for name, tensor in found.items()}
    merged = {}
    for name, down in tensors.items():
        if ".lora_A." in name:
            module = name.removeprefix("base_model.model.").partition(".lora_A.")[0]
            up = tensors[name.replace(".lora_A.", ".lora_B.")]
            merged[f"{module}.weight"] = network.get_submodule(module).weight + 4 / 2 * up @ down
    ids = torch.tensor(sample.token_ids.astype(np.int64))
    logits = torch.func.functional_call(network, merged, (ids[None],)).logits[0]
    losses = [-logits[place - 1].log_softmax(0)[ids[place]] for place in range(1, len(ids)) if sample.answers[place]]
    loss = sum(losses) / len(losses)
    order = list(adapter_of(context).weights)
    return torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss, [tensors[name] for name in order])])


def literal_direction(context: MeasurementContext, checkpoint: Checkpoint, gradient: torch.Tensor) -> torch.Tensor:
    """Gamma, number by number."""
    order = list(adapter_of(context).weights)
    m, v = (
        [number for name in order for number in checkpoint.tensors(file)[name].reshape(-1).tolist()]
        for file in (FIRST, SECOND)
    )
    found = [
        (0.9 * m[place] + 0.1 * g) / (0.999 * v[place] + 0.001 * g * g + 1e-8) ** 0.5
        for place, g in enumerate(gradient.tolist())
    ]
    return torch.tensor(found, dtype=torch.float64)


def test_gradient_is_that_of_the_response_by_the_adapters_weights_alone(context: MeasurementContext) -> None:
    """Against matrices merged by hand: no dropout, the response's mean loss, each sample by itself."""
    adapter, checkpoint = adapter_of(context), checkpoints_of(context)[1]
    adapter.put(checkpoint.tensors(WEIGHTS))
    assert adapter.n_weights == 2 * 2 * ((32 + 32) + (32 + 16) + (32 + 16) + (32 + 32))
    for sample in samples_of(context, pool())[:3]:
        wanted = literal_gradient(context, checkpoint, sample)
        assert torch.allclose(adapter.gradient(sample).double(), wanted, rtol=1e-3, atol=1e-5)


def test_direction_has_epsilon_inside_the_root_and_no_bias_correction() -> None:
    """Outside of the root, or corrected, every direction of a weight that seldom moves would be another."""
    gradient, first, second = torch.tensor([0.0, 1e-4, 3.0]), torch.tensor([2.0, 0.0, -1.0]), torch.tensor([0.0, 0, 4])
    wanted = [1.8 / 1e-4, 1e-5 / (1e-11 + 1e-8) ** 0.5, (-0.9 + 0.3) / (3.996 + 0.009 + 1e-8) ** 0.5]
    assert adam_direction(gradient, first, second).tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["rademacher", "sketch"])
def test_candidates_vector_is_the_formula_written_out(
    recipe_of: Callable[..., Recipe], tmp_path: Path, kind: str
) -> None:
    """Direction, explicit matrix of signs, unit norm and the root of the weight, at each checkpoint, in float64."""
    context = warmed(recipe_of(projection=kind), tmp_path / "home")
    found = rows_of(context, pool()[:3])
    matrix = torch.tensor(sign_matrix(RandomProjection(adapter_of(context).n_weights, 512, kind, 0)))  # type: ignore[arg-type]
    rates = [checkpoint.state["learning_rate"] for checkpoint in checkpoints_of(context)]
    for sample in samples_of(context, pool()[:3]):
        blocks = []
        for checkpoint, rate in zip(checkpoints_of(context), rates, strict=True):
            direction = literal_direction(context, checkpoint, literal_gradient(context, checkpoint, sample))
            projected = direction @ matrix
            blocks.append(projected / projected.norm() * (rate / sum(rates)) ** 0.5)
        assert found[sample.sample_id] == pytest.approx(torch.cat(blocks).numpy(), abs=2e-4)


def test_example_has_its_plain_gradient(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """Only candidates are stepped on: an example's gradient is what a step should follow."""
    context = warmed(recipe_of(), tmp_path / "home", corpus="math")
    sample = samples_of(context, pool()[:1])[0]
    matrix = torch.tensor(sign_matrix(RandomProjection(adapter_of(context).n_weights, 512, "rademacher", 0)))
    projected = literal_gradient(context, checkpoints_of(context)[0], sample) @ matrix
    weight = weights_of(checkpoints_of(context))[0]
    found = rows_of(context, pool()[:1])["s0"][:512]
    assert found == pytest.approx((projected / projected.norm() * weight**0.5).numpy(), abs=2e-5)


def sign_matrix(projection: RandomProjection) -> np.ndarray:
    """`(n_weights, dimensions)` float64: the whole matrix that a projection multiplies by."""
    if projection.kind == "sketch":
        whole = np.zeros((projection.n_weights, projection.dimensions))
        indices, sign = projection.indices
        whole[np.arange(projection.n_weights), indices] = sign
        return whole
    return projection.signs(0, projection.n_weights, torch.device("cpu")).numpy() / projection.dimensions**0.5


@pytest.mark.parametrize("kind", ["rademacher", "sketch"])
def test_projection_keeps_cosines_within_its_error(kind: Any) -> None:
    """Over many pairs the error is as stated, and about zero on average; blocks do not repeat each other's signs."""
    generator = torch.Generator().manual_seed(0)
    n = 3 * gradients.BLOCK_WEIGHTS + 17
    vectors = torch.randn(40, n, generator=generator)
    vectors[20:] = 0.6 * vectors[:20] + 0.8 * vectors[20:]
    projection = RandomProjection(n, 1024, kind, 0)
    kept = torch.nn.functional.normalize(projection(vectors))
    wanted = torch.nn.functional.normalize(vectors)
    errors = (kept @ kept.T - wanted @ wanted.T)[np.triu_indices(40, 1)]
    assert errors.std() == pytest.approx(1024**-0.5, rel=0.15)
    assert errors.mean().abs() < 0.005
    repeated = torch.zeros(2, n)  # the same numbers in two blocks are as different as any two vectors
    repeated[0, :4096] = repeated[1, 4096:8192] = vectors[0, :4096]
    one, other = torch.nn.functional.normalize(projection(repeated))
    assert abs(one @ other) < 5 * 1024**-0.5


@pytest.mark.parametrize("kind", ["rademacher", "sketch"])
def test_projection_is_a_function_of_seed_and_shape(kind: Any) -> None:
    """Candidates and examples are projected in different runs, and must be by the same signs."""
    vector = torch.arange(1.0, 101.0)[None]
    found = RandomProjection(100, 32, kind, 0)(vector)
    assert torch.equal(found, RandomProjection(100, 32, kind, 0)(vector))
    assert not torch.equal(found, RandomProjection(100, 32, kind, 1)(vector))
    wanted = vector.double().numpy() @ sign_matrix(RandomProjection(100, 32, kind, 0))
    assert found.numpy() == pytest.approx(wanted, rel=1e-5, abs=1e-4)


def test_inner_product_is_the_weighted_sum_of_full_cosines(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """The claim that scoring rests on, against cosines without any projection, within its error."""
    candidates = warmed(recipe_of(dimensions=8192), tmp_path / "home")
    examples = warmed(recipe_of(dimensions=8192), tmp_path / "home", corpus="math")
    found, kept = rows_of(candidates, pool()[:2]), rows_of(examples, pool()[6:])
    one, other = samples_of(candidates, pool()[:2]), samples_of(candidates, pool()[6:])
    for y in one:
        for x in other:
            wanted = 0.0
            for checkpoint, weight in zip(
                checkpoints_of(candidates), weights_of(checkpoints_of(candidates)), strict=True
            ):
                direction = literal_direction(candidates, checkpoint, literal_gradient(candidates, checkpoint, y))
                gradient = literal_gradient(candidates, checkpoint, x)
                wanted += weight * float(direction @ gradient / direction.norm() / gradient.norm())
            assert float(found[y.sample_id] @ kept[x.sample_id]) == pytest.approx(wanted, abs=4 * 8192**-0.5)


@pytest.mark.parametrize("kind", ["rademacher", "sketch"])
def test_vector_does_not_depend_on_which_samples_are_read_along(
    recipe_of: Callable[..., Recipe], tmp_path: Path, kind: str
) -> None:
    """To the bit: a pool that grows is read in other groups, and its version must be that of one read at once."""
    context = warmed(recipe_of(projection=kind, dimensions=16), tmp_path / "home")
    together = rows_of(context, pool())
    for first, n in ((0, 1), (3, 1), (2, 3), (1, 7)):
        for name, vector in rows_of(context, pool()[first : first + n]).items():
            assert np.array_equal(vector, together[name]), f"{name} of {n}"
    assert np.linalg.norm(together["s3"]) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["rademacher", "sketch"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_vector_does_not_depend_on_the_memory_of_the_machine(
    recipe_of: Callable[..., Recipe], tmp_path: Path, kind: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: signs are made once for as many samples as there is room for, which is another number elsewhere."""
    context = warmed(recipe_of(projection=kind, dimensions=16), tmp_path / "home")
    expected = rows_of(context, pool())
    monkeypatch.setattr(gradients, "GROUP_SAMPLES", size)
    found = rows_of(context, pool())
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], vector) for name, vector in expected.items())


def test_signs_are_made_once_for_all_samples_that_are_projected_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost more than the product: made again for each few samples, they would be nearly all of the work."""
    made: list[int] = []
    signs = RandomProjection.signs

    def counted(self: RandomProjection, first: int, n: int, device: torch.device) -> torch.Tensor:
        made.append(n)
        return signs(self, first, n, device)

    monkeypatch.setattr(RandomProjection, "signs", counted)
    RandomProjection(10_000, 16, "rademacher", 0)(torch.ones(3 * gradients.PRODUCT_ROWS + 1, 10_000))
    assert sum(made) == 10_000


def test_sample_without_a_usable_gradient_has_a_reason(context: MeasurementContext) -> None:
    """Neither a question alone nor NaN becomes a vector, and the others of the group are read."""
    question = pl.DataFrame([{"sample_id": "q", "messages": [{"role": "user", "content": "two?"}]}])
    parts = list(read(context, pl.concat([pool()[:2], question])))
    assert [reason for part in parts for reason in part.rejected] == [("q", "its response is empty")]
    assert [name for part in parts for name in part.rows["sample_id"]] == ["s0", "s1"]
    adapter, samples = adapter_of(context), samples_of(context, pool()[:3])
    gradient = Adapter.gradient

    class Broken(Adapter):
        def gradient(self, sample: AnsweredSample) -> torch.Tensor:
            if sample.sample_id == "s2":
                raise torch.OutOfMemoryError
            return gradient(self, sample) * (torch.nan if sample.sample_id == "s0" else 1)

    broken = Broken(adapter.network, adapter.weights, adapter.device)
    projection = RandomProjection(adapter.n_weights, 64, "sketch", 0)
    vectors, reasons = features(samples, broken, checkpoints_of(context), projection, adams=True)
    assert reasons == {
        "s0": "its gradient is zero or not finite, at the checkpoint of epoch 1",
        "s2": f"its {len(samples[2].token_ids)} tokens do not fit in memory",
    }
    assert np.isfinite(vectors).all()


def test_every_pass_is_counted(context: MeasurementContext) -> None:
    """What LESS costs beside other methods is read from these numbers."""
    parts = list(read(context, pool()[:3]))
    n_tokens = sum(len(sample.token_ids) for sample in samples_of(context, pool()[:3]))
    cost = parts[0].cost
    assert (len(parts), cost.n_forward, cost.n_backward, cost.n_tokens) == (1, 6, 6, 2 * n_tokens)


def test_what_changes_the_vectors_changes_their_version(recipe_of: Callable[..., Recipe]) -> None:
    """A vector of another projection beside these would give cosines of nothing; the warm-up has its own version."""
    version = MEASUREMENT.code_version(recipe_of())
    assert version == MEASUREMENT.code_version(recipe_of(epochs=7))
    for changed in ({"dimensions": 64}, {"projection": "sketch"}, {"seed": 1}, {"max_tokens": 32}):
        assert MEASUREMENT.code_version(recipe_of(**changed)) != version


def test_model_is_checked_before_anything_is_made(
    recipe_of: Callable[..., Recipe], tmp_path: Path, model_folder: Path, causal_folder: Path
) -> None:
    """A day of warm-up should not end in a message that a second could give."""

    def problem(recipe: Recipe) -> str:
        with pytest.raises(UserError) as error:
            preflight(recipe, LanguageModel.of(recipe, tmp_path / "home"))
        return str(error.value)

    preflight(recipe_of(), LanguageModel.of(recipe_of(), tmp_path / "home"))
    assert "no linear module query; looked for query, v_proj" in problem(recipe_of(target_modules=["query", "v_proj"]))
    assert "more than the model's context of 512" in problem(recipe_of(max_tokens=513))
    assert "no language-model head" in problem(recipe_of(model=model_folder))
    bare = Path(shutil.copytree(causal_folder, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    assert "no chat template" in problem(recipe_of(model=bare))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"share": 0}, "measurements.less_checkpoints.share: Input should be greater than 0"),
        ({"share": 1.5}, "measurements.less_checkpoints.share: Input should be less than or equal to 1"),
        ({"dropout": 1.0}, "measurements.less_checkpoints.dropout: Input should be less than 1"),
        ({"dimensions": 8}, "measurements.gradients.dimensions: Input should be greater than or equal to 16"),
        ({"projection": "gauss"}, "measurements.gradients.projection: Input should be 'rademacher' or 'sketch'"),
        ({"target_modules": []}, "measurements.less_checkpoints.target_modules: List should have at least 1 item"),
        ({"target_modules": ["q_proj", "q_proj"]}, "must be distinct names, such as q_proj"),
        ({"epoch": 3}, "measurements.less_checkpoints.epoch: unknown field; did you mean 'epochs'?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_option_is_told_when_the_recipe_is_read(
    recipe_of: Callable[..., Recipe], option: dict[str, Any], says: str
) -> None:
    """Each in one line that names the field."""
    with pytest.raises(RecipeError) as error:
        recipe_of(**option)
    assert says in str(error.value)
    assert "1 problem(s)" in str(error.value)
