"""The warm-up of LESS: a real adapter on a real two-layer network, trained, cut off and taken up again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from nait_assets.errors import DataError, NumericalError, RecipeError
from nait_assets.measurements import less_checkpoints
from nait_assets.measurements.less_checkpoints import FIRST, SECOND, WARMUP_RATIO, WEIGHTS, draw, rate, warm_up
from nait_assets.models.adapter import adapted, resolve_targets
from nait_assets.recipe import Recipe, seeded_order
from nait_assets.resources import LanguageModel
from nait_assets.resources.files import folder_version
from nait_assets_tests.conftest import conversation, less_sections

OPTIONS = {"share": 0.5, "epochs": 3, "rank": 2, "alpha": 4, "learning_rate": 0.05, "batch_size": 3, "dimensions": 64}


@pytest.fixture
def recipe_of(make_recipe: Callable[..., Recipe], causal_folder: Path) -> Callable[..., Recipe]:
    """A recipe with small options, some of them replaced."""

    def of(**options: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        return make_recipe(methods=["less"], model=model, measurements=less_sections(**{**OPTIONS, **options}))

    return of


def pool(n: int = 12) -> pl.DataFrame:
    """Questions with their answers."""
    rows = [conversation(f"the cat {number}?", f"dogs add {number * 7} numbers") for number in range(n)]
    return pl.DataFrame([{"sample_id": f"s{number:02}", **row} for number, row in enumerate(rows)])


def train(recipe: Recipe, folder: Path, rows: pl.DataFrame | None = None) -> less_checkpoints.WarmUp:
    """Warm up on a pool."""
    model = LanguageModel.of(recipe, folder.parent)
    return warm_up(pool() if rows is None else rows, recipe, model, folder, None, lambda _: None)


def test_same_seed_makes_the_same_bytes_and_another_seed_others(
    recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The content hash of the folder is its version: a warm-up made again must not look like another."""
    first, again, other = (tmp_path / name / "checkpoints" for name in ("first", "again", "other"))
    train(recipe_of(), first)
    torch.manual_seed(99)  # whatever else drew from the global generator
    train(recipe_of(), again)
    train(recipe_of(seed=1), other)
    assert folder_version(first) == folder_version(again) != folder_version(other)


def test_warm_up_cut_off_between_epochs_goes_on_to_the_same_bytes(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of training is not to be lost, and what comes after must be what would have come."""
    whole, cut = tmp_path / "whole" / "checkpoints", tmp_path / "cut" / "checkpoints"
    train(recipe_of(), whole)
    write = less_checkpoints._train_epoch

    def dies(*arguments: Any) -> Any:
        if arguments[4] == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(less_checkpoints, "_train_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        train(recipe_of(), cut)
    assert not cut.exists()
    monkeypatch.undo()
    outcome = train(recipe_of(), cut)
    assert outcome.n_resumed == 2
    assert outcome.cost.n_backward == outcome.n_samples  # one epoch
    assert folder_version(cut) == folder_version(whole)
    assert sorted(path.name for path in cut.parent.glob(".checkpoints*")) == []


def test_epochs_of_another_warm_up_are_not_taken_up(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of another learning rate in the middle would give gradients of a training that never was."""
    folder = tmp_path / "home" / "checkpoints"
    train_epoch = less_checkpoints._train_epoch

    def dies(*arguments: Any) -> Any:
        if arguments[4] == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(less_checkpoints, "_train_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        train(recipe_of(), folder)
    monkeypatch.undo()
    assert train(recipe_of(learning_rate=0.01), folder).n_resumed == 0
    assert [path.name for path in folder.parent.iterdir() if "checkpoints" in path.name] == ["checkpoints"]


def test_checkpoint_holds_what_adam_knew(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """Against Adam and the clipping written out, without dropout: the moments are half of the candidates' direction."""
    recipe, folder = recipe_of(dropout=0.0, epochs=1, share=1.0, batch_size=5), tmp_path / "home" / "checkpoints"
    train(recipe, folder, pool(7))
    model = LanguageModel.of(recipe, tmp_path / "home")
    adapter = adapted(model.load_causal(), 2, 4, 0.0, ("q_proj", "k_proj", "v_proj", "o_proj"), 0)
    rows = pool(7)
    samples, _ = less_checkpoints.answered(rows, recipe, model)
    samples = [next(one for one in samples if one.sample_id == name) for name in draw(rows, 1.0, 0)["sample_id"]]
    order = seeded_order([sample.sample_id for sample in samples], "0:epoch:1")
    theta = {name: weight.detach().double() for name, weight in adapter.weights.items()}
    m = {name: torch.zeros_like(weight) for name, weight in theta.items()}
    v = {name: torch.zeros_like(weight) for name, weight in theta.items()}
    for step, batch in enumerate((order[:5], order[5:])):
        adapter.put({name: weight.float() for name, weight in theta.items()})
        gradient = torch.stack([adapter.gradient(samples[place]).double() for place in batch]).mean(0)
        gradient *= min(1.0, 1.0 / gradient.norm().item())
        offset, rate = 0, 0.05 * (0.0, 1.0)[step]
        for name, weight in theta.items():
            g = gradient[offset : offset + weight.numel()].reshape(weight.shape)
            offset += weight.numel()
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            corrected = m[name] / (1 - 0.9 ** (step + 1)), v[name] / (1 - 0.999 ** (step + 1))
            theta[name] = weight - rate * corrected[0] / (corrected[1].sqrt() + 1e-8)
    (checkpoint,) = less_checkpoints.checkpoints_in(folder)
    for file, wanted in ((FIRST, m), (SECOND, v)):
        found = checkpoint.tensors(file)
        for name in wanted:
            scale = wanted[name].abs().max()
            torch.testing.assert_close(found[name].double(), wanted[name], rtol=1e-3, atol=1e-4 * scale + 1e-12)
    moved = checkpoint.tensors(WEIGHTS)
    assert all((moved[name] - theta[name]).abs().max() < 2e-3 for name in theta)  # a zero gradient's sign is rounding
    assert checkpoint.state["learning_rate"] == pytest.approx(0.025)


def test_training_lowers_the_loss(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """An adapter that does not learn gives the gradients of the frozen model, four times over."""
    losses = [one.state["loss"] for one in train(recipe_of(epochs=4), tmp_path / "home" / "checkpoints").checkpoints]
    assert losses[-1] < losses[0] - 0.5


def test_cached_model_stays_as_it_is(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """Every other method reads the same network in the same process."""
    recipe = recipe_of()
    network = LanguageModel.of(recipe, tmp_path / "home").load_causal().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modules = {name: type(module) for name, module in network.named_modules()}
    train(recipe, tmp_path / "home" / "checkpoints")
    after = LanguageModel.of(recipe, tmp_path / "home").load_causal().network
    assert after is network
    assert {name: type(module) for name, module in network.named_modules()} == modules
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not network.training


def test_adapter_copies_no_frozen_weights(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """A second copy of a 7B model would not fit beside the first."""
    model = LanguageModel.of(recipe_of(), tmp_path / "home").load_causal()
    adapter = adapted(model, 2, 4, 0.1, ("q_proj",), 0)
    frozen = {weight.data_ptr() for weight in adapter.network.parameters() if not weight.requires_grad}
    assert frozen == {weight.data_ptr() for weight in model.network.parameters()}


def test_row_more_in_the_pool_leaves_the_share_as_it_was() -> None:
    """A pool that grows must not draw a new share: the checkpoints would all be others."""
    drawn = draw(pool(40), 0.25, 0)["sample_id"].to_list()
    more = draw(pool(44), 10 / 44, 0)["sample_id"].to_list()
    assert len(drawn) == 10 == len(more)
    assert len(set(drawn) & set(more)) >= 7
    assert set(drawn) != set(draw(pool(40), 0.25, 1)["sample_id"].to_list())


def test_learning_rate_rises_and_falls_as_published() -> None:
    """By the published schedule the four epochs' means are those of the checkpoint weights in LESS's README.

    Those are means of what transformers' trainer logs, which is the rate of the step after.
    """
    n_steps = 420  # 4 x 105: its first checkpoint is 105
    rates = np.asarray([rate(step, n_steps, 2e-5) for step in range(n_steps + 1)])
    assert rates.max() == pytest.approx(2e-5)
    means = [epoch.mean() for epoch in np.array_split(rates[1:], 4)]
    assert means == pytest.approx([1.6877e-05, 1.2859e-05, 7.7030e-06, 2.5616e-06], rel=0.003)


@pytest.mark.parametrize("n_steps", [*range(2, 40), 100, 134, 422, 1000])
def test_learning_rate_is_that_of_transformers_trainer(n_steps: int) -> None:
    """LESS was trained by it: the rise is rounded up, so that even of four steps the first has a rate of zero."""
    from transformers import TrainingArguments, get_linear_schedule_with_warmup

    warmup = TrainingArguments.get_warmup_steps(SimpleNamespace(warmup_steps=WARMUP_RATIO), n_steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-5)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, n_steps)
    theirs = []
    for _ in range(n_steps):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [rate(step, n_steps, 2e-5) for step in range(n_steps)] == pytest.approx(theirs)


def test_a_warm_up_of_one_step_is_refused(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """Its only learning rate is zero: it would train nothing, and weigh every gradient by nothing."""
    with pytest.raises(DataError, match=r"the warm-up has a single step.*Use more epochs"):
        train(recipe_of(epochs=1, batch_size=100), tmp_path / "home" / "checkpoints")


def test_a_share_is_drawn_exactly() -> None:
    """In floats 0.07 x 100 is a little more than 7."""
    assert [len(draw(pool(100), share, 0)) for share in (0.07, 0.14, 0.28, 0.55, 0.56, 0.071)] == [7, 14, 28, 55, 56, 8]


def test_share_without_a_response_is_refused(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """There is nothing to train on, and the reason is the first sample's."""
    rows = pl.DataFrame([{"sample_id": "a", "messages": [{"role": "user", "content": "two?"}]}])
    with pytest.raises(
        DataError, match=r"measurements.less_checkpoints.share: 0.5 of 1 candidates are 1, .* its response is empty"
    ):
        train(recipe_of(), tmp_path / "home" / "checkpoints", rows)


def test_loss_that_is_not_finite_names_the_sample(
    recipe_of: Callable[..., Recipe], tmp_path: Path, causal_folder: Path
) -> None:
    """NaN would spread into every checkpoint after it."""
    folder = Path(shutil.copytree(causal_folder, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = torch.inf
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    recipe = recipe_of().model_copy(update={"model": recipe_of().model.model_copy(update={"source": str(folder)})})
    with pytest.raises(NumericalError, match=r"the loss of sample s\d\d is nan in epoch 1; use a smaller"):
        train(recipe, tmp_path / "home" / "checkpoints")


def test_model_without_the_modules_is_told_which_it_has() -> None:
    """GPT-2's attention is one module of another name; a guess would adapt another part of the network."""
    from transformers import AutoModel, GPT2Config

    with torch.device("meta"):
        network = AutoModel.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2))
    with pytest.raises(
        RecipeError, match=r"GPT2Model has no linear module q_proj; looked for .* those it has: c_attn, c_fc, c_p"
    ):
        resolve_targets(network, ("q_proj", "c_attn"), "field")
    assert resolve_targets(network, ("c_attn",), "field") == ["c_attn"]
