"""The extractor: the model runs once on what is missing; the table is a function of corpus and settings."""

import contextlib
import copy
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nait_assets.conversation import sample_id
from nait_assets.errors import DataError, NumericalError, RecipeError, WarehouseError
from nait_assets.extraction import activation_table
from nait_assets.extraction.extractor import ALGORITHM, Outcome, extract, extraction_identity
from nait_assets.extraction.neurons import Reader
from nait_assets.lineage import Record
from nait_assets.models.encoding import EncodedSample, encode
from nait_assets.models.running import BATCH_TOKENS, RunOptions
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import DEFAULT_RECIPE, Extraction, fingerprint, load_recipe
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import _load
from nait_assets.resources.warehouse import Store, Transaction
from nait_assets.tables import MESSAGES, REJECTED_SAMPLES
from nait_assets_tests.conftest import CHAT_TEMPLATE, pool_rows

SETTINGS = Extraction(max_tokens=99)
OPTIONS = RunOptions(batch_tokens=128, shard_tokens=100)
ONE_BY_ONE = RunOptions(batch_tokens=1, shard_tokens=1)  # every sample is a batch, every batch a shard
ALL_AT_ONCE = RunOptions(batch_tokens=10_000)
BOS = 1


def corpus_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    conversations = [row["messages"] for row in rows]
    columns = {"sample_id": [sample_id(messages) for messages in conversations], "messages": conversations}
    return pl.DataFrame(columns, schema={"sample_id": pl.String, "messages": MESSAGES})


CORPUS = corpus_of(pool_rows(8))


@dataclass
class Bench:
    """An activation table, a model, and how often the model ran."""

    store: Store
    model: LanguageModel
    rows_read: int = 0
    batches_read: int = 0
    stop_at_batch: int | None = None
    fails_on: int | None = None
    lines: list[str] = field(default_factory=list)

    def extract(
        self,
        corpus: pl.DataFrame = CORPUS,
        settings: Extraction = SETTINGS,
        keep_first_and_last: bool = False,
        options: RunOptions = OPTIONS,
    ) -> Outcome:
        """One run, which counts from nothing."""
        self.rows_read = self.batches_read = 0
        self.lines.clear()
        return extract(
            corpus,
            "candidates",
            self.model,
            settings,
            self.store,
            keep_first_and_last,
            options,
            record,
            self.lines.append,
        )

    def watch(self) -> None:
        """Count what the model reads from now on."""
        self.model.load().network.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        token_ids = named["input_ids"][0]
        if token_ids[0] != BOS:  # the trial whether the model can be packed
            return
        self.batches_read += 1
        if self.batches_read == self.stop_at_batch:
            raise KeyboardInterrupt("killed")
        if self.fails_on in token_ids.tolist():
            raise RuntimeError(f"no kernel for token {self.fails_on}")
        self.rows_read += int((token_ids == BOS).sum())

    def rows(self) -> list[tuple[Any, ...]]:
        """Everything that the table holds, in a fixed order."""
        with self.store.snapshot() as snapshot:
            query = f"FROM {activation_table.ACTIVATION} JOIN {activation_table.SAMPLE} USING (sample_id) ORDER BY ALL"
            return snapshot.connection.sql(query).fetchall()

    def rejected(self) -> dict[str, str]:
        """Reasons by sample, of this corpus."""
        with self.store.snapshot() as snapshot:
            query = f"SELECT sample_id, reason FROM {REJECTED_SAMPLES.name} WHERE corpus = 'candidates'"
            return dict(snapshot.connection.sql(query).fetchall())

    @property
    def spool(self) -> Path:
        """Where finished shards lie until they are folded in."""
        return self.store.path.with_name("candidates.spool")


def record(version: str) -> Record:
    return Record("extraction/candidate_activations", "", "1", version)


@pytest.fixture
def bench(tmp_path: Path, model_folder: Path) -> Iterator[Bench]:
    """A table that is not there yet, and the two-layer Llama, freshly loaded."""
    _load.cache_clear()
    model = LanguageModel(source=str(model_folder), dtype="float32", home=str(tmp_path / "home"), device="cpu")
    bench = Bench(Store(tmp_path / "activations" / "candidates.duckdb"), model)
    bench.watch()
    yield bench
    _load.cache_clear()


@pytest.fixture
def own_folder(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(model_folder, tmp_path / "own_model"))


def columns_of(reader: Reader, one: EncodedSample) -> dict[str, np.ndarray]:
    """A sample's activations, read by itself through the model's own attention, `(n_layers, width)` each."""
    (reading,) = reader.read([[one]])
    assert reading.pooled is not None
    return {name: values[0] for name, values in reading.pooled.columns.items()}


# What the table holds


def test_every_sample_has_its_own_mean_at_every_layer(bench: Bench) -> None:
    """From text to table through batches and shards: a row under another's id would be found by nothing else."""
    outcome = bench.extract()

    loaded = bench.model.load()
    site = resolve_site(loaded.network, "mlp", "all")
    encoded, _ = encode(CORPUS.rows(), bench.model.tokenizer(), Extraction(max_tokens=99))
    reader = Reader(loaded, site, keep_first_and_last=False, packs=False)
    expected = {one.sample_id: columns_of(reader, one)["activation"] for one in encoded}
    assert (outcome.n_extracted, outcome.layers, outcome.width) == (8, (0, 1), 48)
    with bench.store.snapshot() as snapshot:
        assert activation_table.samples(snapshot).rows() == sorted(
            (one.sample_id, len(one.token_ids), "", 1, 1) for one in encoded
        )
        for name in CORPUS["sample_id"]:
            found = activation_table.of_sample(snapshot, name)
            np.testing.assert_allclose([found[0], found[1]], expected[name], atol=1e-6)


def test_in_domain_table_holds_the_ends(bench: Bench) -> None:
    """The activation change is the last token's minus the first one's; the pool has no such columns."""
    bench.extract(keep_first_and_last=True)

    loaded = bench.model.load()
    encoded, _ = encode(CORPUS.rows(), bench.model.tokenizer(), Extraction(max_tokens=99))
    in_order = sorted(encoded, key=lambda one: one.sample_id)
    site = resolve_site(loaded.network, "mlp", "all")
    reader = Reader(loaded, site, keep_first_and_last=True, packs=False)
    pooled = [columns_of(reader, one) for one in in_order]
    with bench.store.snapshot() as snapshot:
        for layer in (0, 1):
            first = activation_table.matrix(snapshot, layer, "first_token_activation")
            last = activation_table.matrix(snapshot, layer, "last_token_activation")
            np.testing.assert_allclose(first, [one["first_token_activation"][layer] for one in pooled], atol=1e-6)
            np.testing.assert_allclose(last, [one["last_token_activation"][layer] for one in pooled], atol=1e-6)


def test_pool_table_holds_no_ends(bench: Bench) -> None:
    """They would triple the largest table."""
    bench.extract(keep_first_and_last=False)

    with bench.store.snapshot() as snapshot:
        columns = snapshot.connection.sql(f"FROM {activation_table.ACTIVATION}").columns
    assert columns == ["sample_id", "layer", "activation", "digest"]


def test_outcome_says_what_was_read_by_what(bench: Bench) -> None:
    """Speed and memory are compared between machines: only if it is known what was read, where and how."""
    encoded, _ = encode(CORPUS.rows(), bench.model.tokenizer(), Extraction(max_tokens=60))

    outcome = bench.extract(settings=Extraction(max_tokens=60))

    assert outcome.n_tokens == sum(len(one.token_ids) for one in encoded)
    assert outcome.n_cut == sum(one.cut != "" for one in encoded) > 0
    assert outcome.seconds > 0
    assert (outcome.device, outcome.dtype, outcome.engine) == ("cpu", "float32", "local")
    assert 50e6 < outcome.peak_memory_bytes < 50e9  # in bytes: kilobytes would be too little, pages as well


def test_batches_suit_the_device_unless_the_options_say_otherwise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU wants large batches and a CPU small ones; whoever knows better says so."""
    bench.extract(options=RunOptions())
    elsewhere = bench.batches_read
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 1)
    bench.extract(settings=Extraction(max_tokens=98), options=RunOptions())
    of_the_device = bench.batches_read
    bench.extract(settings=Extraction(max_tokens=97), options=RunOptions(batch_tokens=128))

    assert (elsewhere, of_the_device, bench.batches_read) == (1, 8, 4)


def test_progress_lines_carry_samples_speed_and_time_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a day wants to know how much of it is left; one line in 15 seconds, not one a batch."""
    bench.extract(options=ONE_BY_ONE)
    assert bench.lines == []

    monkeypatch.setattr("nait_assets.models.progress.LINE_SECONDS", 0.0)
    bench.extract(settings=Extraction(max_tokens=98), options=ONE_BY_ONE)

    assert len(bench.lines) == 8
    for number, line in enumerate(bench.lines, start=1):
        assert re.fullmatch(rf"candidates: {number} of 8 samples read, [\d,]+ tokens/s, 0:00:0\d left", line)


def test_truncated_samples_are_marked(bench: Bench) -> None:
    """What was not read of a sample cannot count for it: the user must be able to see which ones."""
    bench.extract(settings=Extraction(max_tokens=60))

    encoded, _ = encode(CORPUS.rows(), bench.model.tokenizer(), Extraction(max_tokens=60))
    marks = {one.sample_id: one.cut for one in encoded}
    assert set(marks.values()) == {"", "prompt"}
    with bench.store.snapshot() as snapshot:
        found = activation_table.samples(snapshot)
    assert dict(found.select("sample_id", "cut").rows()) == marks


def test_a_table_that_is_read_again_has_the_version_of_its_numbers(bench: Bench) -> None:
    """Equal bits make nothing behind them stale; other bits, whatever made them other, make everything behind stale."""
    first = bench.extract()
    bench.store.path.unlink()
    assert bench.extract().data_version == first.data_version

    bench.store.path.unlink()
    network = bench.model.load().network
    with torch.no_grad():  # as another torch, another GPU or damaged memory: nothing that is known of the model changes
        network.layers[0].mlp.gate_proj.weight[0, 0] += 0.5
    again = bench.extract()

    assert again.extraction_id == first.extraction_id
    assert again.data_version != first.data_version


def test_the_version_of_a_table_covers_what_was_refused_and_why(bench: Bench, picky: set[str]) -> None:
    """Refused samples stand in the scores with their reason, and count in the size of a subset."""
    versions = {bench.extract(options=ONE_BY_ONE).data_version}
    for corpus in (CORPUS.filter(~pl.col("sample_id").is_in(sorted(picky)[:1])), CORPUS):
        outcome = bench.extract(corpus, options=ONE_BY_ONE)
        assert outcome.n_extracted == 0
        versions.add(outcome.data_version)
    assert len(versions) == 2
    with bench.store.transaction() as transaction:
        transaction.connection.execute(f"UPDATE {REJECTED_SAMPLES.name} SET reason = 'out of memory'")
        assert activation_table.content_of(transaction) not in versions


def test_record_is_stored_with_the_table(bench: Bench) -> None:
    """The version beside the data is of that data."""
    outcome = bench.extract()

    assert bench.store.records()["extraction/candidate_activations"].data_version == outcome.data_version


# Changes cost what they change


def test_second_run_loads_no_model_and_reads_nothing(bench: Bench) -> None:
    """Nothing changed: nothing is computed, and the version says so."""
    first = bench.extract()
    before = bench.rows()
    _load.cache_clear()

    second = bench.extract()

    assert _load.cache_info().currsize == 0
    assert (second.n_extracted, second.n_removed, second.n_tokens, bench.rows_read) == (0, 0, 0, 0)
    assert second.data_version == first.data_version
    assert bench.rows() == before


def test_added_row_runs_the_model_on_that_row(bench: Bench) -> None:
    """A pool of a million grows by one; the others' activations stay as they are, to the bit."""
    first = bench.extract(CORPUS[:-1])
    before = bench.rows()

    second = bench.extract(CORPUS)

    assert (first.n_extracted, second.n_extracted, second.n_removed, bench.rows_read) == (7, 1, 0, 1)
    assert second.sample_ids == tuple(sorted(CORPUS["sample_id"]))
    assert [row for row in bench.rows() if row[0] != CORPUS["sample_id"][-1]] == before
    assert second.data_version != first.data_version


def test_replaced_rows_cost_the_new_ones_alone(bench: Bench, tmp_path: Path) -> None:
    """Rows that come and rows that go in one change; the result is that of a table made from nothing."""
    bench.extract(CORPUS[:6])

    outcome = bench.extract(CORPUS[2:])

    assert (outcome.n_extracted, outcome.n_removed, bench.rows_read) == (2, 2, 2)
    from_nothing = Bench(Store(tmp_path / "other" / "candidates.duckdb"), bench.model)
    assert from_nothing.extract(CORPUS[2:]).sample_ids == outcome.sample_ids
    for mine, other in zip(bench.rows(), from_nothing.rows(), strict=True):
        assert (mine[:2], mine[3:]) == (other[:2], other[3:])
        np.testing.assert_allclose(mine[2], other[2], atol=1e-6)


def test_removed_row_vanishes_and_nothing_is_read(bench: Bench) -> None:
    """A sample that is no longer in the pool must not be scored."""
    bench.extract(CORPUS)
    gone = CORPUS["sample_id"][0]
    expected = [row for row in bench.rows() if row[0] != gone]

    outcome = bench.extract(CORPUS[1:])

    assert (outcome.n_extracted, outcome.n_removed, bench.rows_read) == (0, 1, 0)
    assert bench.rows() == expected


def test_order_of_the_corpus_is_no_change(bench: Bench) -> None:
    """Rows are joined by id; a shuffled file is the same pool."""
    first = bench.extract(CORPUS)

    second = bench.extract(CORPUS.reverse())

    assert bench.rows_read == 0
    assert second.data_version == first.data_version


@pytest.mark.parametrize(
    ("changed", "ends"),
    [
        (Extraction(max_tokens=99, layers=(1,)), False),
        (Extraction(max_tokens=99, site="residual"), False),
        (Extraction(max_tokens=30), False),
        (Extraction(max_tokens=99, template="plain"), False),
        (SETTINGS, True),
    ],
    ids=["layers", "site", "max_tokens", "template", "ends"],
)
def test_changed_settings_read_everything_again(bench: Bench, changed: Extraction, ends: bool) -> None:
    """Activations of two settings cannot be compared, so that none of the old ones may stay."""
    first = bench.extract()

    second = bench.extract(settings=changed, keep_first_and_last=ends)

    assert bench.rows_read == second.n_extracted == 8
    assert second.data_version != first.data_version
    with bench.store.snapshot() as snapshot:
        assert activation_table.layers_of(snapshot) == list(second.layers)
        assert activation_table.matrix(snapshot, 1).shape == (8, second.width)


def test_changed_weights_read_everything_again_with_the_new_weights(bench: Bench, own_folder: Path, llama: Any) -> None:
    """A model that was trained further in place has the same name and other activations."""
    bench.model = LanguageModel(**{**bench.model.model_dump(), "source": str(own_folder)})
    bench.extract()
    before = bench.rows()
    changed = copy.deepcopy(llama)
    with torch.no_grad():
        changed.layers[0].mlp.up_proj.weight.mul_(2)
    changed.save_pretrained(own_folder)

    bench.extract()

    for old, new in zip(before, bench.rows(), strict=True):
        if old[1] == 0:
            np.testing.assert_allclose(new[2], 2 * np.float32(old[2]), rtol=1e-5)


# Cut off


def test_run_that_was_cut_off_goes_on_and_gives_the_same_table(bench: Bench, tmp_path: Path) -> None:
    """A day's extraction must survive a restart; other batches round differently, so the plan must be the same."""
    undisturbed = Bench(Store(tmp_path / "undisturbed" / "candidates.duckdb"), bench.model)
    expected = undisturbed.extract(options=ONE_BY_ONE)
    bench.stop_at_batch = 2
    with pytest.raises(KeyboardInterrupt, match="killed"):
        bench.extract(options=ONE_BY_ONE)
    n_before = bench.rows_read
    assert n_before > 0
    assert not bench.store.path.exists()

    bench.stop_at_batch = None
    outcome = bench.extract(CORPUS.reverse(), options=ONE_BY_ONE)

    assert bench.rows_read == 8 - n_before
    assert outcome.data_version == expected.data_version
    assert bench.rows() == undisturbed.rows()
    assert not bench.spool.exists()


def test_cut_off_update_leaves_the_old_table(bench: Bench) -> None:
    """Until the new rows are whole, the old ones are what there is."""
    bench.extract(CORPUS[:4])
    before = bench.rows()
    bench.stop_at_batch = 2

    with pytest.raises(KeyboardInterrupt, match="killed"):
        bench.extract(CORPUS, options=ONE_BY_ONE)

    assert bench.rows() == before


def test_shards_of_other_settings_are_not_taken(bench: Bench, tmp_path: Path) -> None:
    """The samples and batches of a run with another site have the same names; their numbers are others."""
    undisturbed = Bench(Store(tmp_path / "undisturbed" / "candidates.duckdb"), bench.model)
    residual = Extraction(max_tokens=99, site="residual", layers=(0,))
    undisturbed.extract(settings=residual, options=ONE_BY_ONE)
    bench.stop_at_batch = 2
    with pytest.raises(KeyboardInterrupt, match="killed"):
        bench.extract(options=ONE_BY_ONE)

    bench.stop_at_batch = None
    bench.extract(settings=residual, options=ONE_BY_ONE)

    assert bench.rows_read == 8
    assert bench.rows() == undisturbed.rows()
    assert not bench.spool.exists()


def test_corpus_that_changed_after_the_cut_is_read_right(bench: Bench, tmp_path: Path) -> None:
    """The plan is another one then; a shard is taken only where its samples are the same."""
    undisturbed = Bench(Store(tmp_path / "undisturbed" / "candidates.duckdb"), bench.model)
    undisturbed.extract(CORPUS[1:], options=ONE_BY_ONE)
    bench.stop_at_batch = 3
    with pytest.raises(KeyboardInterrupt, match="killed"):
        bench.extract(CORPUS[:-1], options=ONE_BY_ONE)

    bench.stop_at_batch = None
    bench.extract(CORPUS[1:], options=ONE_BY_ONE)

    assert bench.rows() == undisturbed.rows()


def test_shards_that_another_run_has_folded_are_not_folded_again(bench: Bench) -> None:
    """Two runs of the same extraction: the second to finish finds its rows in the table and its shards gone."""
    reference = Bench(Store(bench.store.path.parent / "reference.duckdb"), bench.model)
    expected = reference.extract()
    bench.store = Overtaken(bench.store.path, lambda: Bench(Store(bench.store.path), bench.model).extract())

    outcome = bench.extract()

    assert outcome.data_version == expected.data_version
    assert bench.rows() == reference.rows()


def test_table_that_another_run_has_replaced_is_not_written_half(bench: Bench) -> None:
    """The samples that were there when the run began are gone: a record of all would stand beside a table of some."""
    bench.extract(CORPUS[:6])
    other = Extraction(max_tokens=99, site="residual")
    bench.store = Overtaken(
        bench.store.path, lambda: Bench(Store(bench.store.path), bench.model).extract(settings=other)
    )

    with pytest.raises(WarehouseError, match=r"candidates\.duckdb: the shards hold 0 of the 6 .* Run again"):
        bench.extract(CORPUS[:6])

    with bench.store.snapshot() as snapshot:
        assert activation_table.matrix(snapshot, 0).shape == (8, 32)


class Overtaken(Store):
    """A table that another run writes just before this one does."""

    def __init__(self, path: Path, other: Callable[[], object]):
        super().__init__(path)
        self.other = other

    def transaction(self) -> contextlib._GeneratorContextManager[Transaction]:
        """The other run, then this one's transaction."""
        self.other()
        return super().transaction()


# What cannot be read


@pytest.fixture
def picky(bench: Bench, tokenizer: Any) -> set[str]:
    """Make the bench's model fail on a token; the samples that have it."""
    bench.fails_on = 323
    encoded, _ = encode(CORPUS.rows(), tokenizer, Extraction(max_tokens=99))
    refused = {one.sample_id for one in encoded if 323 in one.token_ids}
    assert len(refused) == 3
    return refused


def test_sample_that_the_model_fails_on_is_recorded_and_its_neighbours_are_read(
    bench: Bench, picky: set[str], tmp_path: Path
) -> None:
    """One bad row among a million must not end a day's run, nor cost the rows beside it."""
    outcome = bench.extract(options=ALL_AT_ONCE)

    assert (outcome.n_rejected, outcome.n_extracted) == (3, 5)
    assert set(outcome.sample_ids) == set(CORPUS["sample_id"]) - picky
    assert set(bench.rejected()) == picky
    assert set(bench.rejected().values()) == {"the model fails on it: RuntimeError: no kernel for token 323"}
    without = Bench(Store(tmp_path / "without" / "candidates.duckdb"), bench.model)
    without.extract(CORPUS.filter(~pl.col("sample_id").is_in(list(picky))), options=ONE_BY_ONE)
    assert [row[:2] for row in bench.rows()] == [row[:2] for row in without.rows()]
    for mine, other in zip(bench.rows(), without.rows(), strict=True):
        np.testing.assert_allclose(mine[2], other[2], atol=1e-6)


def test_rejected_samples_are_tried_again_in_the_next_run(bench: Bench, picky: set[str]) -> None:
    """What did not fit in memory today may fit tomorrow; that all of them fail again is no reason to fail."""
    first = bench.extract(CORPUS[:-1], options=ALL_AT_ONCE)

    second = bench.extract(CORPUS, options=ALL_AT_ONCE)

    assert (first.n_extracted, first.n_rejected) == (4, 3)
    assert (second.n_extracted, second.n_rejected) == (1, 3)
    assert bench.batches_read == 1 + 3  # of those that were rejected, each by itself
    assert set(bench.rejected()) == picky


def test_rejected_sample_that_leaves_the_corpus_is_forgotten(bench: Bench, picky: set[str]) -> None:
    """The list is of this corpus, not of all that ever were."""
    bench.extract(options=ALL_AT_ONCE)

    outcome = bench.extract(CORPUS.filter(~pl.col("sample_id").is_in(list(picky))))

    assert (outcome.n_rejected, bench.batches_read) == (0, 0)
    assert bench.rejected() == {}


def test_rejections_of_a_run_that_was_cut_off_are_kept(bench: Bench, picky: set[str]) -> None:
    """The reason lies in the shard's manifest; a sample in no table and no list would be dropped in silence."""
    bench.stop_at_batch = 8  # the last

    with pytest.raises(KeyboardInterrupt):
        bench.extract(options=ONE_BY_ONE)
    bench.stop_at_batch = None
    outcome = bench.extract(options=ONE_BY_ONE)

    assert (bench.batches_read, outcome.n_extracted, outcome.n_rejected) == (1, 5, 3)
    assert set(bench.rejected()) == picky


def test_corpus_that_the_model_rejects_whole_fails_and_is_tried_again(bench: Bench, picky: set[str]) -> None:
    """An empty table would fail later, where nobody can tell why; what lies in the spool must not decide for ever."""
    corpus = CORPUS.filter(pl.col("sample_id").is_in(list(picky)))

    for _ in range(2):
        with pytest.raises(DataError, match=r"candidates: not one example can be read; the first: the model fails"):
            bench.extract(corpus, options=ONE_BY_ONE)
        assert bench.batches_read == 3

    assert not bench.store.path.exists()
    assert not bench.spool.exists()


def test_corpus_without_samples_fails_with_the_reason(bench: Bench) -> None:
    """A message instead of an index out of range."""
    with pytest.raises(DataError, match="candidates: not one example can be read: there is none"):
        bench.extract(CORPUS[:0])


def test_refused_sample_is_recorded_with_its_reason_and_the_rest_goes_on(bench: Bench, own_folder: Path) -> None:
    """Never dropped in silence, never scored with an invented value."""
    refusal = "{% if 'while' in m['content'] %}{{ raise_exception('no loops') }}{% endif %}"
    refusing = f"{{% for m in messages %}}{refusal}{{% endfor %}}"
    (own_folder / "chat_template.jinja").write_text(refusing + CHAT_TEMPLATE)
    bench.model = LanguageModel(**{**bench.model.model_dump(), "source": str(own_folder)})
    picked = {name for name, messages in CORPUS.rows() if any("while" in turn["content"] for turn in messages)}
    assert 0 < len(picked) < 8

    for n_extracted in (8 - len(picked), 0):  # a second run says the same and tries no sample again with the model
        outcome = bench.extract()

        assert (outcome.n_rejected, outcome.n_extracted) == (len(picked), n_extracted)
        assert set(outcome.sample_ids) == set(CORPUS["sample_id"]) - picked
        with bench.store.snapshot() as snapshot:
            rejected = snapshot.connection.sql(
                f"SELECT sample_id, corpus, reason FROM {REJECTED_SAMPLES.name}"
            ).fetchall()
            assert set(activation_table.samples(snapshot)["sample_id"]) == set(CORPUS["sample_id"]) - picked
        assert {name for name, _, _ in rejected} == picked
        remedy = "`extraction: {template: plain}` or another model reads it"
        assert {row[1:] for row in rejected} == {("candidates", f"the chat template refuses it: no loops; {remedy}")}


def test_corpus_that_is_refused_whole_fails_with_the_reason(bench: Bench, own_folder: Path) -> None:
    """An empty activation table would fail later, where nobody can tell why."""
    (own_folder / "chat_template.jinja").write_text("{{ raise_exception('no system, please') }}")
    bench.model = LanguageModel(**{**bench.model.model_dump(), "source": str(own_folder)})

    with pytest.raises(DataError, match=r"candidates: not one example can be read; .* no system, please"):
        bench.extract()

    assert not bench.store.path.exists()


def test_more_tokens_than_the_model_can_read_are_refused(bench: Bench) -> None:
    """Learned positions end there, and rotary ones were never trained beyond."""
    with pytest.raises(RecipeError, match=r"extraction\.max_tokens: 513 is more than .* 512 tokens; use 512 or less"):
        bench.extract(settings=Extraction(max_tokens=513))


def test_nan_stores_nothing_and_names_the_sample(bench: Bench, own_folder: Path, llama: Any, tokenizer: Any) -> None:
    """One poisoned value would spread into every mean and every score."""
    encoded, _ = encode(CORPUS.rows(), tokenizer, Extraction(max_tokens=99))
    one, token = token_of_one_sample(encoded)
    poisoned = copy.deepcopy(llama)
    with torch.no_grad():
        poisoned.embed_tokens.weight[token] = torch.nan
    poisoned.save_pretrained(own_folder)
    bench.model = LanguageModel(**{**bench.model.model_dump(), "source": str(own_folder)})

    with pytest.raises(NumericalError, match=rf"for 1 of 2 samples of a batch: {one.sample_id}\."):
        bench.extract()

    assert not bench.store.path.exists()
    for file in bench.spool.rglob("*.arrow"):
        assert one.sample_id.encode() not in file.read_bytes()


def token_of_one_sample(samples: list[EncodedSample]) -> tuple[EncodedSample, int]:
    """A sample and a token that no other sample has."""
    for one in samples:
        others = {token for other in samples if other is not one for token in other.token_ids}
        if alone := set(one.token_ids) - others:
            return one, min(alone)
    raise AssertionError("every token is in two samples")


@pytest.mark.parametrize("corpus", [CORPUS, CORPUS[:0]], ids=["samples", "no samples"])
def test_layer_out_of_range_fails_before_the_model_is_loaded(bench: Bench, corpus: pl.DataFrame) -> None:
    """Known in a second instead of after minutes of loading."""
    _load.cache_clear()

    with pytest.raises(RecipeError, match=r"extraction\.layers: 7 is out of range; LlamaModel has layers 0 to 1"):
        bench.extract(corpus, settings=Extraction(layers=(1, 7)))

    assert _load.cache_info().currsize == 0
    assert not bench.store.path.exists()


# Identity


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": Extraction(max_tokens=99, site="residual")},
        {"settings": Extraction(max_tokens=99, layers=(0,))},
        {"settings": Extraction(max_tokens=99, template="plain")},
        {"settings": Extraction(max_tokens=98)},
        {"keep_first_and_last": True},
        {"dtype": "bfloat16"},
        {"weights": 2.0},
        {"calibration": "of another pool"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_identity_changes_with_what_changes_an_activation(
    bench: Bench, own_folder: Path, llama: Any, changed: dict[str, Any]
) -> None:
    """Whatever is missing here would leave old activations in a table of new ones."""

    def identity(
        settings: Extraction = SETTINGS,
        keep_first_and_last: bool = False,
        dtype: str = "float32",
        weights: float = 1.0,
        calibration: str = "",
    ) -> str:
        network = copy.deepcopy(llama)
        with torch.no_grad():
            network.norm.weight.mul_(weights)
        network.save_pretrained(own_folder)
        model = LanguageModel(**{**bench.model.model_dump(), "source": str(own_folder), "dtype": dtype})
        return extraction_identity(model, settings, keep_first_and_last, calibration)

    assert identity() == identity()
    assert identity(**changed) != identity()


def test_identity_does_not_change_with_the_device(bench: Bench) -> None:
    """A pool that a GPU read is not read again on a laptop."""
    identities = {
        extraction_identity(LanguageModel(**{**bench.model.model_dump(), "device": device}), SETTINGS, False, "")
        for device in ("auto", "cpu", "cuda:0")
    }

    assert len(identities) == 1


def test_batches_and_shards_change_nothing_but_rounding(bench: Bench, tmp_path: Path) -> None:
    """They are run configuration, which is in no identity: so they must be in no result."""
    one_by_one = Bench(Store(tmp_path / "other" / "candidates.duckdb"), bench.model)

    identities = {bench.extract().extraction_id, one_by_one.extract(options=ONE_BY_ONE).extraction_id}

    assert len(identities) == 1
    for mine, other in zip(bench.rows(), one_by_one.rows(), strict=True):
        assert mine[:2] == other[:2]
        np.testing.assert_allclose(mine[2], other[2], atol=1e-6)


def test_demos_activations_are_those_of_earlier_homes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Activations are the costly part: what renames a field or moves a section must not have them read again.

    The values are of a CPU that multiplies bfloat16.
    """
    recipe = load_recipe(DEFAULT_RECIPE)
    weights = "gguf:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    monkeypatch.setattr(LanguageModel, "identity", lambda _: weights)
    libraries = {"transformers": "5.23", "tokenizers": "0.22", "torch": "2.13"}
    monkeypatch.setattr("nait_assets.extraction.extractor.library_versions", lambda: libraries)
    model = LanguageModel.of(recipe, tmp_path).with_dtype(torch.bfloat16)
    assert f"{ALGORITHM}:{fingerprint(recipe.model, recipe.extraction)}" == "4:8008e82f42ba"
    identities = [extraction_identity(model, recipe.extraction, ends, "") for ends in (False, True)]
    assert identities == ["ec3593a8045d", "e0e041592e26"]
