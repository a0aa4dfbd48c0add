"""Ratings: five probabilities for each model and wording, in their places, against the model's own logits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nait_assets.errors import UserError
from nait_assets.measurements import ratings
from nait_assets.measurements.ratings import MEASUREMENT, QUESTIONS, Asker, RatingReader, conversation_text, rated
from nait_assets.recipe import Extraction, ModelSpec, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.language_model import LoadedModel
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.conftest import conversation, pool_rows

MAX_TOKENS, CONTEXT = 64, 512
READING = Extraction(max_tokens=MAX_TOKENS)
PAIRS = [(f"sample {number}", row["messages"]) for number, row in enumerate(pool_rows(5))]
LONG = ("long", conversation("why? " * 200, "because")["messages"])


def save_rater(folder: Path, tokenizer: Any, seed: int = 0) -> Path:
    """Two layers with random weights so large that marks differ by what is asked."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 420, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(**sizes, **heads, max_position_embeddings=CONTEXT, initializer_range=0.2)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rater_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_rater(tmp_path_factory.mktemp("rater"), tokenizer)


@pytest.fixture(scope="module")
def loaded(rater_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    home = tmp_path_factory.mktemp("home")
    return LanguageModel(source=str(rater_folder), dtype="float32", home=str(home), device="cpu").load_causal()


@pytest.fixture
def asker(tokenizer: Any) -> Asker:
    return Asker(tokenizer, "tiny", READING, CONTEXT)


def rate(asker: Asker, loaded: LoadedModel, pairs: Any, batch_tokens: int = 4096) -> Any:
    reader = RatingReader(loaded, asker.marks.token_ids)
    return rated(pairs, [asker], [reader], [10], batch_tokens, set())


def by_hand(loaded: LoadedModel, tokenizer: Any, messages: Any, question: str) -> np.ndarray:
    """`(5,)` probabilities of the digits, float64: every softmax over all tokens first, then over the five."""
    asked = [{"role": "user", "content": f"{conversation_text(messages)}\n\n{question}"}]
    text = "<s>" + tokenizer.apply_chat_template(asked, tokenize=False) + "<|assistant|>\n"
    token_ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        logits = loaded.network(token_ids).logits[0, -1].double()
    all_tokens = logits.softmax(dim=0)
    digits = [tokenizer.convert_tokens_to_ids(mark) for mark in "12345"]
    five = np.asarray([float(all_tokens[digit]) for digit in digits])
    return five / five.sum()


def test_ratings_equal_a_slow_reference(asker: Asker, loaded: LoadedModel, tokenizer: Any) -> None:
    """Renormalised once: a second softmax would leave every rating near a fifth."""
    part = rate(asker, loaded, PAIRS)

    assert part.rejected == []
    assert part.rows["sample_id"].to_list() == [name for name, _ in PAIRS]
    for row, (_, messages) in zip(part.rows["ratings"].to_list(), PAIRS, strict=True):
        found = np.asarray(row).reshape(len(QUESTIONS), 5)
        wanted = np.stack([by_hand(loaded, tokenizer, messages, question) for question in QUESTIONS])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.ptp(found) > 0.1  # the reference is not a row of fifths
    assert (part.cost.n_forward, part.cost.n_backward) == (25, 0)


def test_a_rating_does_not_depend_on_its_batch(asker: Asker, loaded: LoadedModel) -> None:
    """Samples are filled up on the right: nothing of it may be seen."""
    together, alone = rate(asker, loaded, PAIRS), rate(asker, loaded, PAIRS, batch_tokens=1)

    found, wanted = (np.asarray(part.rows["ratings"].to_list()) for part in (together, alone))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert RatingReader(loaded, asker.marks.token_ids).packs


def test_only_the_last_tokens_go_through_the_head(asker: Asker, loaded: LoadedModel) -> None:
    """The logits of whole batches over a large vocabulary would not fit in memory."""
    seen: list[torch.Size] = []
    head = loaded.network.get_output_embeddings()
    reader = RatingReader(loaded, asker.marks.token_ids, packs=True)
    handle = head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    try:
        (prompt, *_), (other, *_) = asker.prompts(*PAIRS[0]), asker.prompts(*LONG)
        list(reader.read([[prompt, other, prompt]]))
    finally:
        handle.remove()

    assert len(prompt.token_ids) != len(other.token_ids)
    assert [tuple(shape) for shape in seen] == [(3, 2, 32)]


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_the_question_is_whole_however_long_the_conversation(tokenizer: Any, template: str) -> None:
    """A cut question asks for nothing, and the next token is then any word."""
    asker = Asker(tokenizer, "tiny", Extraction(template=template, max_tokens=MAX_TOKENS), CONTEXT)
    for prompt, question in zip(asker.prompts(*LONG), QUESTIONS, strict=True):
        text = tokenizer.decode(prompt.token_ids)
        assert question in text
        assert text.count("why?") >= 6
        assert text.endswith("<|assistant|>\n" if template == "chat" else "### Response:\n")
        assert prompt.cut == "prompt"
        assert "Response:\nbecause\n" in text
        assert len(prompt.token_ids) <= CONTEXT
    assert not any(prompt.cut for prompt in asker.prompts("short", conversation("a?", "b")["messages"]))


def test_a_short_context_leaves_less_of_the_conversation(tokenizer: Any) -> None:
    """And not an error: other methods of the recipe may want a long one."""
    asker = Asker(tokenizer, "tiny", Extraction(max_tokens=2048), 300)

    assert asker.marks.n_room < 300
    assert max(len(prompt.token_ids) for prompt in asker.prompts(*LONG)) <= 300


def test_a_context_without_room_is_refused(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"the context of 'tiny', 100 tokens, has no room"):
        Asker(tokenizer, "tiny", READING, 100)


# Which token a digit is


def with_template(tokenizer: Any, template: str) -> Any:
    """A copy of the tokenizer with a chat template of its own."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_a_digit_is_the_token_that_the_reply_begins_with(tokenizer: Any) -> None:
    """With a space in front it may be another token, and the model puts its probability there."""
    bare = Asker(tokenizer, "tiny", READING, CONTEXT)
    assert tokenizer.convert_ids_to_tokens(list(bare.marks.token_ids)) == ["1", "2", "3", "4", "5"]

    spaced_digits = with_template(
        tokenizer, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    )
    spaced_digits.add_tokens([f" {mark}" for mark in "12345"])
    spaced = Asker(spaced_digits, "tiny", READING, CONTEXT)

    assert spaced_digits.convert_ids_to_tokens(list(spaced.marks.token_ids)) == [" 1", " 2", " 3", " 4", " 5"]
    prompt = spaced.prompts(*PAIRS[0])[0]
    assert spaced_digits.decode(prompt.token_ids).endswith("assistant:")


def broken_tokenizer(kind: str) -> Any:
    """A tokenizer by characters that knows no digits, or writes a five as a word."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    known = [letter for letter in letters if kind == "several" or not letter.isdigit()]
    vocabulary = {token: place for place, token in enumerate(["<unk>", "<s>", *known])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    if kind == "several":
        backend.normalizer = normalizers.Replace("5", "five")
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["unknown", "several"])
def test_a_tokenizer_without_a_token_for_each_digit_is_refused(kind: str) -> None:
    """The first piece of a digit has a probability, too: it would be taken for the mark's."""
    message = "the tokenizer of 'hub:some/model', .*, does not write each digit from 1 to 5 as a single token"
    with pytest.raises(UserError, match=message):
        Asker(broken_tokenizer(kind), "hub:some/model", Extraction(template="plain", max_tokens=MAX_TOKENS), 4096)


# What fails


def test_a_failed_prompt_never_shifts_others(
    asker: Asker, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the published code all scores behind a failed prompt belong to other samples."""
    whole = rate(asker, loaded, PAIRS)
    forward = RatingReader._forward

    def failing(self: Any, batch: Any) -> Any:
        if any((one.sample_id, getattr(one, "question", None)) == ("sample 2", 3) for one in batch):
            raise RuntimeError("this prompt is too much")
        return forward(self, batch)

    monkeypatch.setattr(RatingReader, "_forward", failing)
    part = rate(asker, loaded, PAIRS)

    assert part.rejected == [("sample 2", "the model fails on it: RuntimeError: this prompt is too much")]
    left = whole.rows.filter(pl.col("sample_id") != "sample 2")
    assert part.rows["sample_id"].to_list() == left["sample_id"].to_list()
    np.testing.assert_allclose(part.rows["ratings"].to_list(), left["ratings"].to_list(), atol=1e-6)


def test_a_sample_that_cannot_be_asked_about_has_a_reason(tokenizer: Any, loaded: LoadedModel) -> None:
    template = tokenizer.chat_template.replace(
        "{% for", "{% if 'sample' in messages[0]['content'] %}{{ raise_exception('not this') }}{% endif %}{% for", 1
    )
    picky = Asker(with_template(tokenizer, template), "tiny", READING, CONTEXT)
    bad = ("bad", conversation("a sample?", "yes")["messages"])

    part = rate(picky, loaded, [PAIRS[0], bad, PAIRS[1]])

    assert part.rejected == [("bad", "it cannot be asked about: not this")]
    assert part.rows["sample_id"].to_list() == ["sample 0", "sample 1"]


# Several models, and all of it


@pytest.fixture
def rating_recipe(make_recipe: Callable[..., Recipe], rater_folder: Path) -> Callable[..., Recipe]:
    def make(models: Sequence[dict[str, Any]] = (), **options: Any) -> Recipe:
        model = {"source": str(rater_folder), "dtype": "float32"}
        sections = {"options": {"selectit": options}, "measurements": {"ratings": {"models": models}}}
        return make_recipe(model=model, methods=["selectit"], ratios=[0.3], **sections)

    return make


def test_every_model_has_its_place(
    rating_recipe: Callable[..., Recipe], rater_folder: Path, tmp_path: Path, tokenizer: Any
) -> None:
    """A model's ratings go with its own parameters, whatever order they are loaded in."""
    other = save_rater(tmp_path / "other", tokenizer, seed=1)
    recipe = rating_recipe(models=[{"source": str(folder), "dtype": "float32"} for folder in (other, rater_folder)])
    model = LanguageModel.of(recipe, tmp_path, "cpu")
    models = ratings.models_of(recipe, model)
    askers = [ratings._asker(recipe, *one) for one in models]
    loaded = [one.load_causal() for _, one in models]
    readers = [RatingReader(one, asker.marks.token_ids) for one, asker in zip(loaded, askers, strict=True)]

    part = rated(PAIRS, askers, readers, [1, 2], 4096, set())

    both = np.asarray(part.rows["ratings"].to_list()).reshape(len(PAIRS), 2, 25)
    for place, one in enumerate(loaded):
        own = rate(askers[0], one, PAIRS).rows["ratings"].to_list()
        np.testing.assert_allclose(both[:, place], np.asarray(own), atol=1e-6)
    assert np.abs(both[:, 0] - both[:, 1]).max() > 0.01
    assert part.cost.n_forward == 50
    outside = MEASUREMENT.external_versions(recipe, model)
    assert len({version for name, version in outside.items() if name.startswith("model:")}) == 2


def test_alpha_and_level_rate_nothing_again(rating_recipe: Callable[..., Recipe], rater_folder: Path) -> None:
    plain = MEASUREMENT.code_version(rating_recipe())

    assert MEASUREMENT.code_version(rating_recipe(alpha=0.5, level="token")) == plain
    assert MEASUREMENT.code_version(rating_recipe(models=[{"source": str(rater_folder), "dtype": "float32"}])) == plain
    assert MEASUREMENT.code_version(rating_recipe(models=[{"source": str(rater_folder)}])) != plain


def test_a_model_that_is_not_there_is_told_before_anything_is_made(
    rating_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = rating_recipe(models=[ModelSpec(source=str(tmp_path / "none")).model_dump()])

    with pytest.raises(UserError, match="none does not exist"):
        MEASUREMENT.preflight(recipe, LanguageModel.of(recipe, tmp_path))


def test_a_model_without_a_head_is_told_before_anything_is_made(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Its probabilities would be those of random weights."""
    recipe = make_recipe(methods=["selectit"])

    with pytest.raises(UserError, match="head"):
        MEASUREMENT.preflight(recipe, LanguageModel.of(recipe, tmp_path))


def test_a_recipe_with_ratings(rating_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """From the recipe to subsets; once made, nothing is made again."""
    home = quick_home(tmp_path / "home")

    made = run(rating_recipe(), home)
    again = run(rating_recipe(), home)

    assert MEASUREMENT.assets[0] in made
    assert not any("in_domain_ratings" in name for name in made)
    assert any(name.startswith("selection/selectit_subset") for name in made)
    assert again == set()
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        scores = tables.connection.sql("SELECT * FROM scoring.selectit_scores WHERE target = 'all'").pl()
    assert len(scores) == 20
    assert scores["score"].is_between(0, 5).all()
    assert scores["score"].n_unique() == 20
