"""Rewards by a tiny random classifier, against its own answer to each pair alone."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nait_assets.errors import ModelError, RecipeError
from nait_assets.measurements.rewards import FIELD, RewardModel, encoded, load, pair_of, rated
from nait_assets.recipe import Recipe
from nait_assets.resources.model_source import ModelSource
from nait_assets_tests.command import nait, quick_home
from nait_assets_tests.conftest import conversation

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LIMIT = 24
LONG = "the cat sat on a mat while two dogs add three numbers and print sum of list def return x y " * 3
TEXTS = [("one?", "two dogs"), ("the cat sat on a mat?", "x"), ("print sum", LONG), (LONG, "a mat"), ("y", "z")]


def save_classifier(folder: Path, tokenizer: Any, n_outputs: int = 1) -> Path:
    """A two-layer BERT of random weights with a classifier's head, and a tokenizer that parts a pair of texts."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=400,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LIMIT,
        pad_token_id=2,
        num_labels=n_outputs,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    own = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="</s>", model_input_names=names
    )
    own.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A tiny reward model as a local folder."""
    return save_classifier(tmp_path_factory.mktemp("reward"), tokenizer)


def loaded(folder: Path, home: Path, max_tokens: int = 512) -> RewardModel:
    """A reward model in memory."""
    import torch

    return load(ModelSource(str(folder), None, home, FIELD), max_tokens, torch.device("cpu"))


@pytest.fixture
def model(reward_folder: Path, tmp_path: Path) -> RewardModel:
    """The tiny reward model in memory."""
    return loaded(reward_folder, tmp_path)


def samples_of(texts: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    """Named conversations."""
    return [(f"s{place}", conversation(*pair)["messages"]) for place, pair in enumerate(texts)]


def literal_reward(model: RewardModel, question: str, answer: str, limit: int) -> tuple[float, int, bool]:
    """Special tokens set by hand, the longer text cut token by token, and the pair read alone."""
    import torch

    parts = [model.encoder.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (question, answer)]
    n_answer, cut = len(parts[1]), False
    while len(parts[0]) + len(parts[1]) + 3 > limit:
        parts[0 if len(parts[0]) > len(parts[1]) else 1].pop()
        cut = True
    ids = [1, *parts[0], 2, *parts[1], 2]
    kinds = [0] * (len(parts[0]) + 2) + [1] * (len(parts[1]) + 1)
    with torch.inference_mode():
        logits = model.encoder.model(
            input_ids=torch.tensor([ids]),
            token_type_ids=torch.tensor([kinds]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        ).logits
    assert logits.shape == (1, 1)
    return float(logits[0, 0]), n_answer, cut


def test_a_reward_is_what_the_model_says_of_the_pair_alone(model: RewardModel) -> None:
    """Batches, padding and order must not show; the answer's length is that before the cut."""
    expected = [literal_reward(model, *pair, LIMIT) for pair in TEXTS]
    assert [cut for _, _, cut in expected] == [False, False, True, True, False]
    assert np.ptp([reward for reward, _, _ in expected]) > 0.05
    for batch_tokens in (1, 40, 10_000):
        part = rated(model, samples_of(TEXTS), batch_tokens)
        assert part.rejected == []
        assert part.rows["sample_id"].to_list() == [f"s{place}" for place in range(5)]
        np.testing.assert_allclose(part.rows["reward"], [reward for reward, _, _ in expected], atol=1e-5)
        assert part.rows["n_response_tokens"].to_list() == [n_tokens for _, n_tokens, _ in expected]
        assert part.rows["truncated"].to_list() == [cut for _, _, cut in expected]
        assert part.cost.n_forward == 5


def test_the_recipes_limit_cuts_where_it_is_the_smaller(reward_folder: Path, tmp_path: Path) -> None:
    """And the model's own where that is: what stands behind it has no position."""
    small = loaded(reward_folder, tmp_path, 10)
    assert loaded(reward_folder, tmp_path, 512).limit == LIMIT
    part = rated(small, samples_of(TEXTS[:3]), 100)
    expected = [literal_reward(small, *pair, 10) for pair in TEXTS[:3]]
    np.testing.assert_allclose(part.rows["reward"], [reward for reward, _, _ in expected], atol=1e-5)
    assert part.rows["truncated"].to_list() == [cut for _, _, cut in expected]


def test_a_model_without_padding_reads_pairs_one_by_one(model: RewardModel) -> None:
    """Some classifiers find the end of a text by their padding token, and would take another's."""
    alone = replace(model, pads=False)
    found, expected = (rated(one, samples_of(TEXTS), 10_000).rows for one in (alone, model))
    np.testing.assert_allclose(found["reward"], expected["reward"], atol=1e-5)


def test_the_question_is_everything_in_front_of_the_last_answer() -> None:
    """A single question stands as it is; turns have headings, or nobody could tell who says what."""
    turns = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three?"},
        {"role": "assistant", "content": "four"},
    ]
    assert pair_of(turns[1:3]) == ("one?", "two")
    assert pair_of(turns) == ("System: be kind\n\nUser: one?\n\nAssistant: two\n\nUser: three?", "four")


def test_a_sample_that_cannot_be_rated_has_a_reason(model: RewardModel) -> None:
    """Never a number: it would be ranked. The others are rated all the same."""
    asked = [{"role": "user", "content": "one?"}]
    samples = [*samples_of(TEXTS[:1]), ("open", asked), ("blank", [*asked, {"role": "assistant", "content": " "}])]
    part = rated(model, samples, 100)
    assert part.rows["sample_id"].to_list() == ["s0"]
    assert part.rejected == [("open", "it has no response"), ("blank", "it has no response")]


def test_tokens_that_the_model_does_not_know_are_a_reason(model: RewardModel) -> None:
    """On a GPU the lookup would end the process."""
    with pytest.raises(ValueError, match="is not among the reward model's 4"):
        encoded(replace(model, n_known=4), conversation("one?", "two")["messages"])


def test_a_reward_that_is_no_number_is_a_reason(reward_folder: Path, tmp_path: Path) -> None:
    """Infinite rewards would stand first."""
    import torch

    broken = loaded(reward_folder, tmp_path)
    encoder = copy.deepcopy(broken.encoder)
    torch.nn.init.constant_(encoder.model.classifier.bias, float("nan"))
    part = rated(replace(broken, encoder=encoder), samples_of(TEXTS[:2]), 100)
    assert part.rows.is_empty()
    assert part.rejected == [("s0", "the reward model says nan"), ("s1", "the reward model says nan")]


def test_identity_follows_the_files(reward_folder: Path, tmp_path: Path) -> None:
    """Other weights are another model, wherever the folder stands."""
    changed = Path(shutil.copytree(reward_folder, tmp_path / "copy"))
    model = ModelSource(str(changed), None, tmp_path, FIELD)
    before = model.identity()
    assert before == ModelSource(str(reward_folder), None, tmp_path, FIELD).identity()
    (changed / "config.json").write_text((changed / "config.json").read_text() + " ")
    assert model.identity() != before


# Bad input


@pytest.fixture
def refused(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., str]:
    """What `nait run` says to a recipe with a wrong reward model, without having made anything."""

    def run_with(source: str | Path, **spec: str) -> str:
        section = {"source": str(source), **spec}
        recipe = make_recipe(methods=["instruction_mining"], measurements={"rewards": section})
        home = quick_home(tmp_path / "home")
        answer = nait("run", "--recipe", recipe.path, "--home", home)
        assert answer.code != 0
        assert not (home / "warehouse.duckdb").exists()
        assert "Traceback" not in answer.out + answer.err
        return " ".join((answer.out + answer.err).split())

    return run_with


def test_a_missing_folder_is_named_as_it_was_resolved(refused: Callable[..., str], tmp_path: Path) -> None:
    """Relative to the recipe, with what would have worked."""
    said = refused("nowhere")
    assert f"measurements.rewards.source: folder {tmp_path / 'nowhere'} does not exist" in said
    assert "'hub:<org>/<name>'" in said


def test_a_classifier_with_several_outputs_is_refused(
    refused: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    """Which of them would be the reward nobody knows."""
    said = refused(save_classifier(tmp_path / "three", tokenizer, 3))
    assert "has 3 outputs, and a reward model has one" in said


def test_a_tokenizer_that_runs_the_pair_together_is_refused(
    refused: Callable[..., str], reward_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """The model would read question and answer as one text, and say something."""
    folder = Path(shutil.copytree(reward_folder, tmp_path / "plain"))
    tokenizer.save_pretrained(folder)
    assert "puts nothing between a question and its answer" in refused(folder)


def test_an_unreachable_hub_names_the_model(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says how to use a local copy."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "hf download some/reward" in refused("hub:some/reward", revision=COMMIT)


def test_a_model_without_a_trained_head_is_refused(reward_folder: Path, tmp_path: Path) -> None:
    """The library makes one up at random, with a warning."""
    from transformers import BertModel

    bare = Path(shutil.copytree(reward_folder, tmp_path / "bare"))
    config = json.loads((bare / "config.json").read_text())
    BertModel.from_pretrained(reward_folder).save_pretrained(bare)
    (bare / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"lack 2 weights of BertForSequenceClassification, such as classifier\.bias"):
        loaded(bare, tmp_path)


def test_broken_weights_are_told_with_the_model(reward_folder: Path, tmp_path: Path) -> None:
    """Each format's reader raises a class of its own."""
    broken = Path(shutil.copytree(reward_folder, tmp_path / "copy"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"measurements\.rewards\.source: .* cannot be read"):
        loaded(broken, tmp_path)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (None, "method 'instruction_mining' needs the section `measurements.rewards`"),
        ({}, "measurements.rewards.source: this field is required"),
        ({"source": "hub:some/reward"}, "measurements.rewards: 'hub:some/reward' needs a `revision`"),
        ({"source": "folder", "revision": "main"}, "revision 'main' is of a hub repository"),
        ({"source": "folder", "max_tokens": 3}, "measurements.rewards.max_tokens: "),
    ],
)
def test_a_wrong_section_is_refused_with_the_recipe(
    make_recipe: Callable[..., Recipe], section: dict[str, Any] | None, said: str
) -> None:
    """Before anything is read."""
    measurements = {} if section is None else {"rewards": section}
    with pytest.raises(RecipeError) as refusal:
        make_recipe(methods=["instruction_mining"], measurements=measurements)
    assert said in str(refusal.value)
