"""From a corpus to its activation table: what is missing is read, shard by shard, and folded in at the end.

Finished shards lie beside the table until they are folded in. A killed run loses the shard in flight; the next run
makes the same plan, finds the finished shards by name, and goes on.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather

from nait_assets.extraction import activation_table
from nait_assets.extraction.encoding import EncodedSample, Shard, encode, plan
from nait_assets.extraction.progress import Progress
from nait_assets.extraction.reading import PooledActivations, read_batch
from nait_assets.extraction.sites import Site, resolve_site
from nait_assets.lineage import Record
from nait_assets.recipe import Extraction, RecipeError, fingerprint
from nait_assets.resources.files import replacing
from nait_assets.resources.language_model import LanguageModel, LoadedModel
from nait_assets.resources.warehouse import Store
from nait_assets.tables import REJECTED_SAMPLES

ALGORITHM = "1"


@dataclass(frozen=True)
class Budget:
    """Run configuration: none of it changes a result, save for rounding.

    Attributes:
        batch_tokens: Most tokens of a batch, padding included.
        shard_tokens: Tokens after which finished batches are stored.
    """

    batch_tokens: int
    shard_tokens: int


@dataclass(frozen=True)
class Outcome:
    """What an extraction did.

    Attributes:
        extraction_id: Identity of what was read, where and how.
        sample_ids: Every sample that the table now holds.
        n_extracted: Samples that the model ran on, in this run or in one that was cut off before.
        n_removed: Samples that are no longer in the corpus.
        n_rejected: Samples that could not be read.
        n_truncated: Samples read in this run that were cut to `max_tokens`.
        n_tokens: Tokens that the model read in this run, padding excluded.
        n_padding: Padding tokens.
        seconds: Wall time of the forward passes.
        device: Where the model ran, or "" if it did not.
        dtype: Of the forward pass.
        layers: Layers read.
        width: Neurons or dimensions of a layer.
    """

    extraction_id: str
    sample_ids: tuple[str, ...]
    n_extracted: int
    n_removed: int
    n_rejected: int
    n_truncated: int
    n_tokens: int
    n_padding: int
    seconds: float
    device: str
    dtype: str
    layers: tuple[int, ...]
    width: int

    @property
    def data_version(self) -> str:
        """Hash of what the table holds: an activation is a function of the extraction's identity and the sample."""
        return fingerprint(self.extraction_id, self.sample_ids)


def model_inputs(model: LanguageModel, source: str) -> dict[str, str]:
    """The versions of what an extraction reads beside the corpus: the model, and the dtype that this machine gives it.

    Args:
        model: Of the recipe.
        source: As the recipe names it.

    Raises:
        RecipeError: The model cannot be found.
    """
    return {f"model:{source}": model.identity(), "dtype": str(model.resolved_dtype()).removeprefix("torch.")}


def extraction_identity(model: LanguageModel, settings: Extraction, ends: bool) -> str:
    """The hash of everything that an activation depends on beside the sample.

    Raises:
        RecipeError: The model cannot be found.
    """
    return fingerprint(ALGORITHM, model.identity(), settings, str(model.resolved_dtype()), ends)


def extract(
    corpus: pl.DataFrame,
    corpus_name: str,
    model: LanguageModel,
    settings: Extraction,
    store: Store,
    ends: bool,
    budget: Budget,
    record_of: Callable[[str], Record],
    say: Callable[[str], None],
) -> Outcome:
    """Bring a corpus' activation table up to date: the model runs on the samples that the table does not hold.

    Args:
        corpus: Columns `sample_id` and `messages`.
        corpus_name: Shown in the progress, and noted with rejected samples.
        model: Loaded only if a sample is missing.
        settings: Of the recipe.
        store: The corpus' file.
        ends: Whether to keep the first and the last token's activations beside the mean.
        budget: Of batches and shards.
        record_of: The version record for a data version, written in the same transaction.
        say: Where progress lines go when there is no terminal.

    Raises:
        RecipeError: The model cannot be found, lacks the site or a layer, has a shorter context than the recipe's
            `max_tokens`, or its chat template refuses every example.
        NonFiniteActivations: The model computed NaN or infinity.
    """
    skeleton = model.skeleton()
    site = resolve_site(skeleton, settings.site, settings.layers)
    _require_context(skeleton.config, settings.max_tokens)
    identity = extraction_identity(model, settings, ends)
    held = _held(store)
    known = held.sample_ids if held.extraction_id == identity else frozenset()
    missing = corpus.filter(~pl.col("sample_id").is_in(list(known)))
    conversations = list(zip(missing["sample_id"].to_list(), missing["messages"].to_list(), strict=True))
    encoded, refused = (
        encode(conversations, model.tokenizer(), settings.template, settings.max_tokens) if conversations else ([], [])
    )
    if len(refused) == len(corpus):
        raise RecipeError(f"{corpus_name}: every example is refused when it is written out; the first: {refused[0][1]}")
    shards = plan(encoded, budget.batch_tokens, budget.shard_tokens)
    schema = activation_table.shard_schema(site.width, ends)
    spool = store.path.parent / f"{store.path.stem}.spool" / f"{identity}-{fingerprint(schema.to_string())}"
    progress = Progress(corpus_name, [len(shard.samples) for shard in shards], say)
    tables = [_stored_or_read(shard, spool, schema, model, settings, progress) for shard in shards]
    seconds = progress.close()

    rejected_ids = {sample_id for sample_id, _ in refused}
    wanted = tuple(sorted(set(corpus["sample_id"].to_list()) - rejected_ids))
    outcome = Outcome(
        extraction_id=identity,
        sample_ids=wanted,
        n_extracted=len(encoded),
        n_removed=len(known - set(wanted)),
        n_rejected=len(refused),
        n_truncated=sum(sample.truncated for sample in encoded),
        n_tokens=progress.n_tokens,
        n_padding=progress.n_padding,
        seconds=seconds,
        device=str(model.resolved_device()),
        dtype=str(model.resolved_dtype()).removeprefix("torch."),
        layers=site.layers,
        width=site.width,
    )
    with store.writing() as transaction:
        activation_table.fold(transaction, identity, wanted, tables, schema)
        transaction.replace(REJECTED_SAMPLES, _rejected(refused), corpus=corpus_name)
        transaction.put_record(record_of(outcome.data_version))
    shutil.rmtree(spool.parent, ignore_errors=True)
    return outcome


def _require_context(config: Any, max_tokens: int) -> None:
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and max_tokens > context:
        raise RecipeError(
            f"extraction.max_tokens: {max_tokens} is more than the model's context of {context} tokens; "
            f"use {context} or less."
        )


def _held(store: Store) -> activation_table.Contents:
    if not store.path.exists():
        return activation_table.Contents(None, frozenset())
    with store.reading() as snapshot:
        return activation_table.contents(snapshot)


def _stored_or_read(
    shard: Shard, spool: Path, schema: pa.Schema, model: LanguageModel, settings: Extraction, progress: Progress
) -> pa.Table:
    """A shard's rows: from the spool where a run that was cut off left them, else from the model."""
    file = spool / f"{shard.name}.arrow"
    if not file.exists():
        loaded = model.load()
        site = resolve_site(loaded.network, settings.site, settings.layers)
        table = pa.concat_tables([_read(loaded, site, batch, schema, progress) for batch in shard.batches])
        with replacing(file) as temporary:
            feather.write_feather(table, str(temporary), compression="uncompressed")
    else:
        progress.skip(len(shard.samples))
    return feather.read_table(str(file), memory_map=True)


def _read(
    loaded: LoadedModel, site: Site, batch: Sequence[EncodedSample], schema: pa.Schema, progress: Progress
) -> pa.Table:
    started = time.monotonic()
    pooled = read_batch(loaded, site, batch, ends="first_token_activation" in schema.names)
    lengths = [len(sample.token_ids) for sample in batch]
    progress.advance(len(batch), sum(lengths), len(batch) * max(lengths) - sum(lengths), time.monotonic() - started)
    return _rows(pooled, site, batch, schema)


def _rows(pooled: PooledActivations, site: Site, batch: Sequence[EncodedSample], schema: pa.Schema) -> pa.Table:
    """A batch's activations as rows of one sample and layer each."""
    n_layers = len(site.layers)
    columns = {
        "sample_id": pa.array(np.repeat([sample.sample_id for sample in batch], n_layers)),
        "layer": pa.array(np.tile(np.asarray(site.layers, dtype=np.int16), len(batch))),
        "n_tokens": pa.array(
            np.repeat(np.asarray([len(sample.token_ids) for sample in batch], dtype=np.int32), n_layers)
        ),
        "truncated": pa.array(np.repeat([sample.truncated for sample in batch], n_layers)),
    }
    vectors = {"activation": pooled.mean, "first_token_activation": pooled.first, "last_token_activation": pooled.last}
    for name, values in vectors.items():
        if values is not None:
            columns[name] = pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(values).reshape(-1)), site.width
            )
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _rejected(refused: Sequence[tuple[str, str]]) -> pl.DataFrame:
    rows = [
        {"corpus": "", "source": None, "source_row": None, "sample_id": sample_id, "reason": reason, "excerpt": ""}
        for sample_id, reason in refused
    ]
    return pl.DataFrame(rows, schema=REJECTED_SAMPLES.columns)
