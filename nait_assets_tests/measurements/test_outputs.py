"""Outputs: losses and vectors against a slow reference, and what keeps them from being read."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers

from nait_assets.errors import ModelError, NumericalError, RecipeError
from nait_assets.measurements import outputs
from nait_assets.measurements.engine import MeasurementContext, store_of
from nait_assets.measurements.outputs import OutputReader, require_outputs
from nait_assets.models import one_pass
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.encoding import EncodedSample
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.language_model import LoadedModel
from nait_assets_tests.conftest import conversation
from nait_assets_tests.models import small_networks
from nait_assets_tests.models.small_networks import answered, causal, largest_error, loaded

BOTH_WAYS = pytest.mark.parametrize("packs", [True, False])


BATCH = [answered("long", 12, slice(5, 10)), answered("middle", 7, slice(6, 7)), answered("none", 2, slice(2, 2))]


@pytest.fixture(scope="module")
def network() -> Any:
    """A small Llama under a random head."""
    return causal("LlamaConfig", **small_networks.GROUPED)


def by_hand(network: Any, one: EncodedSample) -> dict[str, Any]:
    """Losses token by token and the position-weighted mean, alone, in float64, by eager attention and loops."""
    network = copy.deepcopy(network).double()
    network.set_attn_implementation("eager")
    ids = [int(number) for number in one.token_ids]
    with torch.no_grad():
        hidden = network.base_model(input_ids=torch.tensor([ids]), use_cache=False)[0][0]
        logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    losses = [0.0]
    for place in range(1, len(ids)):
        row = [float(value) for value in logits[place - 1]]
        top = max(row)
        losses.append(top + float(np.log(sum(np.exp(value - top) for value in row))) - row[ids[place]])
    vector = np.zeros(hidden.shape[1])
    for place in range(len(ids)):
        vector += (place + 1) / sum(range(1, len(ids) + 1)) * hidden[place].numpy()
    answers = one.answers if isinstance(one, AnsweredSample) else []
    answered = [loss for loss, member in zip(losses, answers, strict=False) if member]
    return {"text_loss": np.mean(losses[1:]), "answer_loss": np.mean(answered) if answered else 0, "vector": vector}


def columns(network: Any, batch: list[Any], **arguments: Any) -> dict[str, np.ndarray]:
    """What comes of a batch of which every sample can be read."""
    (reading,) = OutputReader(loaded(network), **arguments).read([batch])
    assert reading.samples == tuple(batch)
    assert reading.pooled is not None
    return reading.pooled.columns


@BOTH_WAYS
def test_losses_and_vectors_equal_a_slow_reference(network: Any, packs: bool) -> None:
    """Perplexity, IFD and RDS+ are nothing but these numbers."""
    found = columns(network, BATCH, packs=packs)

    assert {name: column.dtype for name, column in found.items()} == dict.fromkeys(found, np.float32)
    for row, one in enumerate(BATCH):
        wanted = by_hand(network, one)
        assert found["text_loss"][row] == pytest.approx(wanted["text_loss"], rel=1e-5)
        assert found["answer_loss"][row] == pytest.approx(wanted["answer_loss"], rel=1e-5)
        assert largest_error(found["vector"][row], wanted["vector"]) < 1e-5


def test_logits_in_chunks_give_the_same_losses(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory at once must not change a loss."""
    whole = columns(network, BATCH)
    monkeypatch.setattr(one_pass, "LOGITS", 5 * 64)

    chunked = columns(network, BATCH)

    for name, column in whole.items():
        np.testing.assert_allclose(chunked[name], column, rtol=1e-6)


def test_no_more_logits_are_made_at_once_than_allowed(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 16,384 tokens and a vocabulary of 128,000 would be 8 GB of float32."""
    monkeypatch.setattr(one_pass, "LOGITS", 5 * 64)
    sizes: list[int] = []
    handle = network.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, logits: sizes.append(logits.numel())
    )

    columns(network, BATCH, packs=True)
    handle.remove()

    assert max(sizes) <= 5 * 64
    assert sum(sizes) == (11 + 6 + 1) * 64


def test_a_batch_neighbour_has_no_influence(network: Any) -> None:
    """Otherwise an added row would change the others' scores."""
    together = columns(network, BATCH)

    for row, one in enumerate(BATCH):
        for name, alone in columns(network, [one]).items():
            np.testing.assert_allclose(together[name][row], alone[0], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("family", ["Mistral", "Qwen3", "Gemma 2", "Phi-3", "GPT-NeoX", "GPT-2"])
def test_families_of_models_are_read_as_they_are_by_themselves(family: str) -> None:
    """Heads differ: some are tied to the embeddings, Gemma squashes its logits."""
    sizes = dict(small_networks.FAMILIES[family].sizes)
    if family == "Gemma 2":
        sizes["final_logit_softcapping"] = 0.5
    own = causal(small_networks.FAMILIES[family].config, **sizes)

    found = columns(own, BATCH)

    for row, one in enumerate(BATCH):
        wanted = by_hand(own, one)
        assert found["text_loss"][row] == pytest.approx(wanted["text_loss"], rel=1e-5)
        assert largest_error(found["vector"][row], wanted["vector"]) < 1e-5


def test_head_that_does_more_to_its_logits_is_used_as_it_is(network: Any) -> None:
    """Cohere scales its logits behind the head: losses of unscaled ones would be of no model."""
    own = causal("CohereConfig", **{**small_networks.GROUPED, "logit_scale": 0.25})
    reader = OutputReader(loaded(own))

    assert not reader.packs
    assert columns(own, BATCH)["text_loss"][0] == pytest.approx(by_hand(own, BATCH[0])["text_loss"], rel=1e-5)
    assert OutputReader(loaded(network)).packs


def test_forward_pass_leaves_the_network_as_it_was(network: Any) -> None:
    """The same network in memory is used for other things."""
    before = network.config._attn_implementation

    columns(network, BATCH, packs=True)
    columns(network, BATCH, packs=False)

    assert network.config._attn_implementation == before
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("broken", ["lm_head", "embed_tokens"])
def test_a_model_that_gives_nan_fails_and_names_the_samples(network: Any, broken: str) -> None:
    """NaN that is stored is a rank later."""
    own = copy.deepcopy(network)
    token = int(BATCH[1].token_ids[3])
    assert token not in BATCH[0].token_ids[1:]
    weight = own.lm_head.weight if broken == "lm_head" else own.model.embed_tokens.weight
    with torch.no_grad():
        weight[token if broken == "embed_tokens" else slice(None)] = torch.nan
    names = "middle" if broken == "embed_tokens" else "long, middle, none"

    with pytest.raises(NumericalError, match=rf"of 3 samples of a batch: {names}\. Nothing was stored"):
        columns(own, BATCH, packs=True)


def test_without_losses_the_vector_is_the_plain_mean(network: Any) -> None:
    """As k-means of the pre-experienced model takes it; the head is not used."""
    own = copy.deepcopy(network)
    own.lm_head.weight.data.fill_(torch.nan)
    found = columns(own, BATCH, losses=False)

    with torch.no_grad():
        ids = torch.from_numpy(BATCH[0].token_ids.astype(np.int64))[None]
        wanted = network.base_model(input_ids=ids)[0][0].mean(dim=0)
    assert list(found) == ["vector"]
    assert largest_error(found["vector"][0], wanted.numpy()) < 1e-5


# The readings


@pytest.fixture
def context(make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path) -> MeasurementContext:
    """Of a recipe over the two-layer Llama with a head."""
    recipe = make_recipe(model={"source": str(causal_folder), "dtype": "float32"}, extraction=CUT_BEHIND.model_dump())
    home = tmp_path / "home"
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)
    for name in ("outputs", "answers"):
        with store_of(warehouse, name, "candidates").transaction():
            pass
    return MeasurementContext(recipe, warehouse, model, RunOptions(batch_tokens=64), "candidates", lambda _line: None)


def read(name: str, context: MeasurementContext, rows: dict[str, Any]) -> tuple[pl.DataFrame, dict[str, str]]:
    """All rows of a reading of these conversations, and the reasons of those without one."""
    reading = next(one for one in outputs.MEASUREMENTS if one.name == name)
    missing = pl.DataFrame({"sample_id": list(rows), "messages": list(rows.values())})
    parts = list(reading.read(context, missing))
    frame = pl.concat([part.rows for part in parts]).sort("sample_id")
    assert frame.schema == {"sample_id": pl.String(), **reading.columns}
    return frame, dict(pair for part in parts for pair in part.rejected)


CUT_BEHIND = Extraction(max_tokens=64, truncate="answer")
ROWS = {
    "a": conversation("add two numbers", "the sum is x")["messages"],
    "b": conversation("print a list", "x y")["messages"],
    "c": conversation("the cat sat on a mat while two dogs add three numbers " * 4, "cut off")["messages"],
}


def test_outputs_and_answers_are_of_the_same_tokens(
    context: MeasurementContext, causal_folder: Path, tokenizer: Any
) -> None:
    """IFD divides one by the other."""
    found, refused = read("outputs", context, ROWS)
    alone, refused_alone = read("answers", context, ROWS)

    network = transformers.AutoModelForCausalLM.from_pretrained(causal_folder)
    samples, _ = encode_with_answers(ROWS.items(), tokenizer, CUT_BEHIND)
    for row, one in enumerate(samples[:2]):
        wanted = by_hand(network, one)
        assert found["text_loss"][row] == pytest.approx(wanted["text_loss"], rel=1e-5)
        assert found["answer_loss"][row] == pytest.approx(wanted["answer_loss"], rel=1e-5)
        assert alone["answer_loss_alone"][row] == pytest.approx(by_hand(network, one.alone())["answer_loss"], rel=1e-5)
    assert found["n_tokens"].to_list() == [len(one.token_ids) for one in samples]
    assert found["n_answer_tokens"].to_list() == [int(one.answers.sum()) for one in samples]
    # What is cut off keeps what does not need the response.
    assert found["answer_loss"].is_null().to_list() == [False, False, True]
    assert alone["sample_id"].to_list() == ["a", "b"]
    assert refused == {}
    assert list(refused_alone) == ["c"]
    assert "its response is cut off" in refused_alone["c"]


def test_sample_that_the_model_fails_on_is_rejected_with_a_reason(
    context: MeasurementContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad row of a million must not end the run, the first time or the next."""
    forward = OutputReader._forward

    def failing(reader: OutputReader, batch: Any) -> Any:
        if any(one.sample_id == "b" for one in batch):
            raise RuntimeError("no kernel for this one")
        return forward(reader, batch)

    monkeypatch.setattr(OutputReader, "_forward", failing)

    found, refused = read("outputs", context, ROWS)

    assert found["sample_id"].to_list() == ["a", "c"]
    assert refused == {"b": "the model fails on it: RuntimeError: no kernel for this one"}


def test_all_samples_refused_by_the_template_leave_the_model_unread(
    context: MeasurementContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading it can take minutes."""

    def load(_model: LanguageModel) -> LoadedModel:
        raise AssertionError("loaded")

    monkeypatch.setattr(LanguageModel, "load_causal", load)

    _, refused = read("answers", context, {"c": ROWS["c"]})

    assert list(refused) == ["c"]


def test_base_model_is_refused_before_anything_is_read(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """The head would be made up at random, or the run fail after an hour of other work."""
    recipe = make_recipe(methods=["perplexity_low"])

    with pytest.raises(ModelError, match=r"no language-model head \(lm_head\.weight\): they are of a base model"):
        require_outputs(recipe, LanguageModel.of(recipe, tmp_path / "home"))


def test_context_that_is_too_short_is_refused_before_anything_is_read(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """Behind its context a model's losses are noise."""
    recipe = make_recipe(model={"source": str(causal_folder)}, extraction={"max_tokens": 513})

    with pytest.raises(RecipeError, match=r"extraction\.max_tokens: 513 is more than the model's context of 512"):
        require_outputs(recipe, LanguageModel.of(recipe, tmp_path / "home"))
