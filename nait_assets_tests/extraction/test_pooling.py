"""Poolings: which tokens are averaged, against a reference that reads one sample at a time and counts by hand."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nait_assets.conversation import sample_id
from nait_assets.errors import ModelError
from nait_assets.extraction import activation_table
from nait_assets.extraction.calibration import calibrate, projectors_of
from nait_assets.extraction.catalogue import CANDIDATES_OUTPUT
from nait_assets.extraction.extractor import Outcome, extract
from nait_assets.extraction.projection import NETWORK
from nait_assets.lineage import Record
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOLINGS, Extraction, Pooling, Projection, Recipe, pooled
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.language_model import _load
from nait_assets.resources.warehouse import Store
from nait_assets.tables import CALIBRATION_STATISTICS, MESSAGES, REJECTED_SAMPLES, content_version
from nait_assets_tests.conftest import pool_rows

TURNS = [
    ("system", "print the sum"),
    ("user", "add two numbers in a list of dogs"),
    ("assistant", "the sum is x"),
    ("user", "and the cats?"),
    ("assistant", "return two dogs, not a cat"),
]
ASKED_ALONE = [("user", "the cat sat on a mat"), ("assistant", "")]
KINDS = ("activation", "first_token_activation", "last_token_activation")


def corpus_of(conversations: list[list[tuple[str, str]]]) -> pl.DataFrame:
    messages = [[{"role": role, "content": text} for role, text in turns] for turns in conversations]
    columns = {"sample_id": [sample_id(one) for one in messages], "messages": messages}
    return pl.DataFrame(columns, schema={"sample_id": pl.String, "messages": MESSAGES})


SHORT = [[(one["role"], one["content"]) for one in row["messages"]] for row in pool_rows(5)]
CORPUS = corpus_of([TURNS, *SHORT])


@pytest.fixture
def model(tmp_path: Path, model_folder: Path) -> Iterator[LanguageModel]:
    """The two-layer Llama, freshly loaded."""
    _load.cache_clear()
    yield LanguageModel(source=str(model_folder), dtype="float32", home=str(tmp_path / "home"), device="cpu")
    _load.cache_clear()


def read(
    store: Store, model: LanguageModel, settings: Extraction, corpus: pl.DataFrame = CORPUS, **more: Any
) -> Outcome:
    """One run, all samples in one packed batch."""
    return extract(
        corpus,
        "candidates",
        model,
        settings,
        store,
        more.pop("keep_first_and_last", True),
        RunOptions(batch_tokens=10_000),
        lambda version: Record("extraction/candidate_activations", "", "1", version),
        lambda _: None,
        **more,
    )


def columns(store: Store, layer: int) -> dict[str, np.ndarray]:
    """All vectors of a layer by column, in the order of the sample ids."""
    with store.snapshot() as snapshot:
        names = [pooled(kind, one) for one in activation_table.poolings_of(snapshot) for kind in KINDS]
        return {name: activation_table.matrix(snapshot, layer, name).copy() for name in names}


def places_of(turns: list[dict[str, str]], tokenizer: Any) -> tuple[list[int], dict[Pooling, list[int]]]:
    """Token ids of a conversation, and the places of each pooling's tokens, found by the characters of the answers."""
    text, answers = "", set()
    for turn in turns:
        text += f"<|{turn['role']}|>\n"
        if turn["role"] == "assistant":
            answers |= set(range(len(text), len(text) + len(turn["content"])))
        text += f"{turn['content']}</s>\n"
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [tokenizer.bos_token_id, *found["input_ids"]]
    of_answer = [
        place for place, (begin, end) in enumerate(found["offset_mapping"], start=1) if answers & set(range(begin, end))
    ]
    before = [place for place in range(1, of_answer[-1]) if place not in of_answer]
    return ids, {"all": list(range(1, len(ids))), "answer": of_answer, "prompt": before}


def literal(network: Any, site: str, ids: list[int], layer: int) -> np.ndarray:
    """`(n_tokens, width)` activations of one sample by the model's own attention, float64."""
    kept: list[torch.Tensor] = []
    block = network.layers[layer]
    if site == "mlp":
        handle = block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0]))
    else:
        handle = block.register_forward_hook(
            lambda _m, _i, out: kept.append((out[0] if isinstance(out, tuple) else out)[0])
        )
    with torch.no_grad():
        network(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    return kept[0].double().numpy()


@pytest.mark.parametrize("site", ["mlp", "residual"])
def test_every_pooling_is_the_mean_of_its_own_tokens(
    tmp_path: Path, model: LanguageModel, tokenizer: Any, llama: Any, site: Any
) -> None:
    """Side by side in one pass, of packed samples and of several turns: a token of a neighbour would be seen."""
    store = Store(tmp_path / "candidates.duckdb")
    read(store, model, Extraction(max_tokens=99, site=site, pool=POOLINGS))

    rows = sorted(CORPUS.rows())
    assert max(len(messages) for _, messages in rows) == len(TURNS)
    for layer in (0, 1):
        found = columns(store, layer)
        for row, (_, messages) in enumerate(rows):
            ids, places = places_of(messages, tokenizer)
            values = literal(llama, site, ids, layer)
            for pooling in POOLINGS:
                first = 0 if pooling == "all" else places[pooling][0]  # of `all` the sink, which is not in the mean
                wanted = values[places[pooling]].mean(axis=0), values[first], values[places[pooling][-1]]
                for kind, vector in zip(KINDS, wanted, strict=True):
                    np.testing.assert_allclose(found[pooled(kind, pooling)][row], vector, rtol=1e-3, atol=1e-5)


def test_a_pooling_is_the_same_whatever_is_read_beside_it(tmp_path: Path, model: LanguageModel) -> None:
    """To the bit: so that a recipe that reads the answers too chooses by `all` what it chose before."""
    together, alone = Store(tmp_path / "together.duckdb"), Store(tmp_path / "alone.duckdb")
    read(together, model, Extraction(max_tokens=99, pool=["answer", "all"]))
    for pooling in ("all", "answer"):
        read(alone, model, Extraction(max_tokens=99, pool=pooling))
        with alone.snapshot() as snapshot:
            assert activation_table.poolings_of(snapshot) == (pooling,)
        for layer in (0, 1):
            of_both, of_one = columns(together, layer), columns(alone, layer)
            assert len(of_one) == 3
            for name, values in of_one.items():
                np.testing.assert_array_equal(of_both[name], values)


def test_a_further_pooling_is_read_once_and_says_why(
    tmp_path: Path, model: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    """One pass reads all poolings, so what is there is read again; the same poolings in another order are no change."""
    store = Store(tmp_path / "candidates.duckdb")
    assert read(store, model, Extraction(max_tokens=99)).n_extracted == 6
    with caplog.at_level("INFO", logger="nait_assets.extraction.extractor"):
        assert read(store, model, Extraction(max_tokens=99, pool=["all", "answer"])).n_extracted == 6
        assert read(store, model, Extraction(max_tokens=99, pool=["answer", "all"])).n_extracted == 0
    assert [line for line in caplog.messages if "again" in line] == [
        "candidates: all samples are read again: `extraction.pool` is all, answer, and all is what is stored; "
        "one pass reads them all"
    ]


@pytest.mark.parametrize("pool", ["answer", "prompt", ["all", "answer"]], ids=str)
def test_a_sample_without_an_answer_is_refused_where_answers_are_told_apart(
    tmp_path: Path, model: LanguageModel, pool: Any
) -> None:
    """There is no mean of no tokens; it is among the rejected, with the reason, and the others are read."""
    store, corpus = Store(tmp_path / "candidates.duckdb"), corpus_of([ASKED_ALONE, *SHORT])
    outcome = read(store, model, Extraction(max_tokens=99, pool=pool), corpus)
    assert (outcome.n_rejected, len(outcome.sample_ids)) == (1, 5)
    with store.snapshot() as snapshot:
        ((refused, reason),) = snapshot.rows(REJECTED_SAMPLES).select("sample_id", "reason").rows()
    named = "answer" if "answer" in pool else "prompt"
    assert (refused, reason) == (corpus["sample_id"][0], f"its response is empty; `extraction.pool` has {named}")
    assert read(store, model, Extraction(max_tokens=99), corpus).n_rejected == 0


def test_an_answer_with_nothing_before_it_has_no_prompt(tmp_path: Path, model_folder: Path) -> None:
    """The template's own words before an answer are a prompt; where it has none, only `prompt` is refused."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "terse"))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    model = LanguageModel(source=str(folder), dtype="float32", home=str(tmp_path / "home"), device="cpu")
    silent, store = [("assistant", "the cat sat")], Store(tmp_path / "candidates.duckdb")
    corpus = corpus_of([silent, [("user", "two dogs "), ("assistant", "sat on x")]])
    assert read(store, model, Extraction(max_tokens=99, pool=["all", "answer"]), corpus).n_rejected == 0
    assert read(store, model, Extraction(max_tokens=99, pool=["all", "prompt"]), corpus).n_rejected == 1
    with store.snapshot() as snapshot:
        (reason,) = snapshot.rows(REJECTED_SAMPLES)["reason"]
    assert reason == "nothing stands before its response; `extraction.pool` has prompt"


def test_changed_numbers_of_a_further_pooling_are_found(tmp_path: Path, model: LanguageModel) -> None:
    """A row's digest covers all of its vectors, and so does the table's version."""
    store = Store(tmp_path / "candidates.duckdb")
    read(store, model, Extraction(max_tokens=99, pool=POOLINGS))
    with store.snapshot() as snapshot:
        assert activation_table.altered_rows(snapshot) == ([], [])
    with store.transaction() as transaction:
        row = f"(SELECT min(sample_id) FROM {activation_table.SAMPLE})"
        zeros = "prompt_last_token_activation = list_transform(range(48), lambda x: 0)::FLOAT[48]"
        transaction.connection.execute(f"UPDATE {activation_table.ACTIVATION} SET {zeros} WHERE sample_id = {row}")
    with store.snapshot() as snapshot:
        assert [layer for _, layer in sorted(activation_table.altered_rows(snapshot)[0])] == [0, 1]


def test_each_pooling_is_projected_with_its_own_calibration(tmp_path: Path, model: LanguageModel) -> None:
    """The answers' neurons are standardised by the answers of the sample, and named by them."""
    projection = Projection(dimensions=16, calibration_samples=4)
    settings = Extraction(max_tokens=99, pool=["all", "answer"], projection=projection)
    warehouse, store = Warehouse(home=str(tmp_path)), Store(tmp_path / "activations" / "candidates.duckdb")
    for pooling in settings.pool:
        table = CALIBRATION_STATISTICS.of_pooling(pooling)
        frame, outcome = calibrate(CORPUS, model, settings, warehouse, RunOptions(), lambda _: None, pooling)
        assert outcome is not None
        with warehouse.tables.transaction() as transaction:
            transaction.replace(table, frame)
            transaction.put_record(Record(table.asset, "", "1", content_version(frame, table.key)))
    projectors, version, inputs = projectors_of(warehouse, settings)
    assert version == ",".join(inputs[CALIBRATION_STATISTICS.of_pooling(one).asset] for one in settings.pool)
    read(store, model, settings, projectors=projectors, calibration=version, keep_first_and_last=False)

    neurons = Store(tmp_path / "neurons.duckdb")
    read(neurons, model, Extraction(max_tokens=99, pool=["all", "answer"]))
    for pooling in settings.pool:
        means = {layer: columns(neurons, layer)[pooled("activation", pooling)] for layer in (0, 1)}
        with store.snapshot() as snapshot:
            found = activation_table.matrix(snapshot, NETWORK, pooled("activation", pooling))
            strongest = activation_table.strongest_neurons(snapshot, pooling=pooling)
        np.testing.assert_allclose(found, projectors[pooling].project(means), rtol=1e-3, atol=1e-3)
        name, layer, neuron, value = strongest.row(0)
        row = sorted(CORPUS["sample_id"]).index(name)
        statistics = projectors[pooling].statistics[layer]
        assert statistics.standardize(means[layer])[row, neuron] == pytest.approx(value, rel=1e-3)
    held = calibrate(CORPUS, model, settings.model_copy(update={"pool": ("all",)}), warehouse, RunOptions(), print)
    assert held[1] is None, "another pooling beside it leaves a calibration as it is"


def test_a_tokenizer_that_does_not_tell_characters_is_refused_before_anything_is_read(
    model: LanguageModel, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answers stand cannot be known then; `all` needs it not."""
    monkeypatch.setattr(type(model.tokenizer()), "is_fast", False)
    CANDIDATES_OUTPUT.preflight(make_recipe(), model, [""])
    with pytest.raises(ModelError, match=r"does not tell which characters a token holds"):
        CANDIDATES_OUTPUT.preflight(make_recipe(extraction={"pool": "answer"}), model, [""])
