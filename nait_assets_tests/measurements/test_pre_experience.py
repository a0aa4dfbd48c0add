"""The pre-experienced model: which rows it learns from, and that it learns from them alone."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nait_assets.conversation import Conversation
from nait_assets.errors import DataError, NumericalError
from nait_assets.measurements.pre_experience import (
    BATCH_ROWS,
    PreExperiencedModelOptions,
    gain_experience,
    scaled,
    trained,
    varied_rows,
)
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction, Recipe
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel
from nait_assets_tests.conftest import conversation

QUICK = PreExperiencedModelOptions(clusters=2, per_cluster=2, epochs=2, learning_rate=0.01, rank=4)


@pytest.fixture
def model(make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path) -> LanguageModel:
    """The two-layer Llama with a head."""
    return LanguageModel.of(make_recipe(model={"source": str(causal_folder), "dtype": "float32"}), tmp_path / "home")


@pytest.fixture
def rows(tokenizer: Any) -> list[AnsweredSample]:
    """Three conversations."""
    texts = [("add two numbers", "the sum is x"), ("print a list", "print x and y"), ("the cat", "sat on a mat")]
    pairs = [(f"s{place}", conversation(*text)["messages"]) for place, text in enumerate(texts)]
    return encode_with_answers(pairs, tokenizer, Extraction(max_tokens=64))[0]


@pytest.mark.parametrize(
    ("clusters", "per_cluster", "n", "wanted"),
    [
        (100, 10, 52_002, (100, 10)),  # the paper's
        (100, 10, 10_000, (100, 10)),
        (100, 10, 2_000, (20, 10)),
        (100, 10, 528, (5, 10)),
        (100, 10, 40, (1, 4)),
        (100, 10, 3, (1, 1)),
        (3, 1, 1000, (3, 1)),
    ],
)
def test_a_small_pool_gives_fewer_clusters_and_at_most_a_tenth_of_its_rows(
    clusters: int, per_cluster: int, n: int, wanted: tuple[int, int]
) -> None:
    """A pool that was learnt by heart has no difficult rows."""
    assert scaled(clusters, per_cluster, n) == wanted


def test_rows_come_from_every_cluster_alike() -> None:
    """A cluster of many must not crowd out a small one: variety is what they are taken for."""
    centres = np.array([[0.0, 0], [50, 0], [0, 50]])
    sizes = [30, 6, 4]
    embeddings = np.concatenate(
        [centre + np.random.default_rng(0).normal(size=(size, 2)) for centre, size in zip(centres, sizes, strict=True)]
    )
    names = [f"s{place:02}" for place in range(40)]

    chosen = varied_rows(names, embeddings, clusters=3, each=3, seed=0)

    places = [int(name[1:]) for name in chosen]
    groups = [sum(low <= place < high for place in places) for low, high in ((0, 30), (30, 36), (36, 40))]
    assert groups == [3, 3, 3]
    assert chosen == varied_rows(names, embeddings, clusters=3, each=3, seed=0)
    assert chosen != varied_rows(names, embeddings, clusters=3, each=3, seed=1)


def test_instruction_is_what_stands_before_the_first_response() -> None:
    """An embedding of the response too would tell what the row is worth learning for."""
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]

    assert [message.role for message in Conversation.of(messages).before_response().messages] == ["system", "user"]
    assert [message.role for message in Conversation.of(messages[2:]).before_response().messages] == ["user"]


def test_a_step_is_adamw_on_the_mean_loss_of_the_responses(model: LanguageModel, rows: list[AnsweredSample]) -> None:
    """Against the same step taken by hand on the same adapters; prompts and headings are not learnt."""
    from peft import LoraConfig, get_peft_model

    assert len(rows) < BATCH_ROWS
    options = QUICK.model_copy(update={"epochs": 1})
    found, losses = trained(model.fresh_causal(), rows, options)

    torch.manual_seed(options.seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    network = get_peft_model(model.fresh_causal().network, config)
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    by_row = []
    for row in rows:
        logits = network(input_ids=torch.from_numpy(row.token_ids.astype(np.int64))[None]).logits[0].double()
        tokens = [place for place, member in enumerate(row.answers) if member]
        likelihoods = [logits[place - 1].log_softmax(dim=0)[int(row.token_ids[place])] for place in tokens]
        by_row.append(-sum(likelihoods) / len(tokens))
    (sum(by_row) / len(rows)).backward()
    for parameter in learnt:  # the first step of Adam is the learning rate along the gradient's sign
        assert parameter.grad is not None
        gradient = parameter.grad
        parameter.data -= options.learning_rate * gradient / (gradient.abs() + 1e-8)
    wanted = network.merge_and_unload()

    assert losses == pytest.approx([float(sum(by_row).detach()) / len(rows)], rel=1e-5)
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_more_epochs_learn_more(model: LanguageModel, rows: list[AnsweredSample]) -> None:
    """Each epoch's loss is that before it was trained on."""
    _, losses = trained(model.fresh_causal(), rows, QUICK.model_copy(update={"epochs": 8}))

    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.1


def test_training_leaves_the_model_in_memory_and_the_random_numbers_as_they_were(
    model: LanguageModel, rows: list[AnsweredSample]
) -> None:
    """The model in memory is shared by all that is read in the process."""
    shared = model.load_causal()
    before = copy.deepcopy(shared.network.state_dict())
    state = torch.random.get_rng_state()

    own = model.fresh_causal()
    trained(own, rows, QUICK)

    assert own is not shared
    assert model.load_causal() is shared
    torch.testing.assert_close(shared.network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_loss_that_is_no_number_names_the_sample_and_stores_nothing(
    model: LanguageModel, rows: list[AnsweredSample]
) -> None:
    """A model of NaN would judge everything alike."""
    own = model.fresh_causal()
    own.network.lm_head.weight.fill_(torch.nan)

    with pytest.raises(NumericalError, match=r"the loss of sample s0 is nan\. Nothing was stored"):
        trained(LoadedModel(own.network, own.device, own.dtype), rows, QUICK)


def test_pool_of_which_nothing_can_be_learnt_is_one_error(
    model: LanguageModel, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """With the reason of the first, and before the model is loaded."""
    pool = pl.DataFrame({"sample_id": ["a"], "messages": [conversation("add two numbers " * 30, "x")["messages"]]})
    recipe = make_recipe(extraction={"max_tokens": 64, "truncate": "answer"})

    with pytest.raises(DataError, match=r"no candidate can be trained on; the first: its response is cut off"):
        gain_experience(pool, model, recipe.extraction, QUICK, RunOptions(), tmp_path / "made", lambda _line: None)

    assert not (tmp_path / "made").exists()
