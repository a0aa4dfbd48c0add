"""From a corpus to its activation table: what is missing is read, shard by shard, and folded in at the end.

Finished shards lie beside the table until they are folded in. A killed run loses the shard in flight; the next run
makes the same plan, finds the finished shards by name, and continues.
"""

import collections
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from nait_assets.conversation import Conversation, conversations_of
from nait_assets.errors import DataError
from nait_assets.extraction import activation_table, ray_engine
from nait_assets.extraction.neurons import why_not_pooled
from nait_assets.extraction.projection import Projector
from nait_assets.extraction.spool import Manifest
from nait_assets.extraction.worker import Job, Worker, peak_memory
from nait_assets.lineage import Record
from nait_assets.models.answers import encode_with_answers
from nait_assets.models.encoding import EncodedSample, Shard, encode, plan
from nait_assets.models.libraries import library_versions
from nait_assets.models.progress import Progress
from nait_assets.models.running import RunOptions, rejected_before, require_context
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import ALL, Extraction, Pooling, fingerprint
from nait_assets.resources.language_model import LanguageModel
from nait_assets.resources.warehouse import Store
from nait_assets.tables import REJECTED_SAMPLES, rejection_rows

ALGORITHM = "4"
log = logging.getLogger(__name__)
SHARD_BYTES = 64 * 2**20
"""Of a shard that is larger than one batch: what is in memory at once does not depend on how long the samples are."""


@dataclass(frozen=True)
class Outcome:
    """What an extraction did.

    Attributes:
        extraction_id: Identity of what was read, where and how.
        sample_ids: Every sample that the table now holds.
        n_extracted: Samples that the model ran on, in this run or in one that was cut off before.
        n_removed: Samples that are no longer in the corpus.
        n_rejected: Samples that could not be read.
        n_cut: Number of extracted samples that were cut to `max_tokens`.
        n_unshown: Number of extracted samples whose tools, calls or reasoning the template does not show.
        n_tokens: Tokens that the model read in this run.
        seconds: Wall time of reading and storing them, from the first batch on.
        peak_memory_bytes: Most memory that this process or a worker has held so far: the GPU's on a GPU, else resident.
        device: Device that runs the model.
        dtype: dtype of the forward pass.
        engine: `local` or `ray`.
        layers: Layers read.
        width: Neurons or dimensions of a layer.
        data_version: Hash of what the table holds: numbers, samples, and what was refused.
    """

    extraction_id: str
    sample_ids: tuple[str, ...]
    n_extracted: int
    n_removed: int
    n_rejected: int
    n_cut: int
    n_tokens: int
    seconds: float
    peak_memory_bytes: int
    device: str
    dtype: str
    engine: str
    layers: tuple[int, ...]
    width: int
    n_unshown: int = 0
    data_version: str = ""


def extraction_identity(model: LanguageModel, settings: Extraction, keep_first_and_last: bool, calibration: str) -> str:
    """The hash of everything that an activation depends on beside the sample.

    Args:
        model: Model of the recipe.
        settings: Extraction settings of the recipe.
        keep_first_and_last: Whether the first and the last token's activations are kept.
        calibration: Version of the calibration that a projection standardises with, or "".

    Raises:
        ModelError: The model cannot be found.
    """
    return fingerprint(
        ALGORITHM,
        library_versions(),
        model.identity(),
        settings,
        str(model.resolved_dtype()),
        keep_first_and_last,
        calibration,
    )


def extract(
    corpus: pl.DataFrame,
    corpus_name: str,
    model: LanguageModel,
    settings: Extraction,
    store: Store,
    keep_first_and_last: bool,
    options: RunOptions,
    record_of: Callable[[str], Record],
    log_line: Callable[[str], None],
    projectors: Mapping[Pooling, Projector] | None = None,
    calibration: str = "",
    lender: Store | None = None,
) -> Outcome:
    """Bring a corpus' activation table up to date: the model runs on the samples that the table does not hold.

    Args:
        corpus: Columns `sample_id` and `messages`.
        corpus_name: Shown in the progress, and noted with rejected samples.
        model: Loaded only if a sample is missing.
        settings: Extraction settings of the recipe.
        store: The corpus' file.
        keep_first_and_last: Whether to keep the first and the last token's activations beside the mean.
        options: How the model is run.
        record_of: The version record for a data version, written in the same transaction.
        log_line: Receives progress lines when there is no terminal.
        projectors: By pooling, what keeps a projection of all layers instead of their neurons.
        calibration: Version of the projectors' statistics.
        lender: File of a corpus that holds this one; what was read in the same way is taken from it.

    Raises:
        ModelError: The model cannot be found, or lacks the site.
        RecipeError: The model lacks a layer, or has a shorter context than the recipe's `max_tokens`.
        DataError: The model refuses every example.
        NumericalError: The model computed NaN or infinity.
    """
    skeleton = model.skeleton()
    site = resolve_site(skeleton, settings.site, settings.layers)
    require_context(skeleton.config, settings.max_tokens)
    identity = extraction_identity(model, settings, keep_first_and_last, calibration)
    held = _held(store)
    known = held.sample_ids if held.extraction_id == identity else frozenset()
    missing = corpus.filter(~pl.col("sample_id").is_in(list(known)))
    lent = _lent(lender, identity, missing["sample_id"].to_list())
    missing = missing.filter(~pl.col("sample_id").is_in(lent))
    if held.extraction_id not in (None, identity):
        log.info("%s: %s", corpus_name, _why_again(store, settings))
    conversations = conversations_of(missing)
    encoded, refused = encoded_samples(conversations, model, settings) if conversations else ([], [])
    unshown = collections.Counter(sample.unshown for sample in encoded if sample.unshown)
    for what, count in unshown.most_common():
        log_line(f"{corpus_name}: the template does not show the {what} of {count} conversation(s); they are used")
    batch_tokens = options.batch_tokens_on(model.resolved_device().type)
    folder = store.path.parent / f"{store.path.stem}.spool" / identity
    identified, sizes = (model, model.identity()), (site.width, site.layers)
    job = Job(*identified, settings, keep_first_and_last, projectors or {}, *sizes, str(folder))
    limits = options.shard_tokens, max(1, SHARD_BYTES // job.bytes_of_sample)
    alone = rejected_before(store, corpus_name) if held.extraction_id == identity else frozenset()
    shards = plan(encoded, batch_tokens, *limits, alone=alone)
    progress = Progress(corpus_name, [(len(shard.samples), shard.n_tokens) for shard in shards], log_line)
    with contextlib.closing(progress):
        manifests = _manifests(shards, job, options, progress)

    rejected = [*refused, *(pair for manifest in manifests for pair in manifest.rejected)]
    wanted = _wanted(corpus, corpus_name, rejected, job)
    outcome = _outcome(identity, wanted, len(known - set(wanted)), len(rejected), manifests, progress, job, options)
    outcome = replace(outcome, n_unshown=unshown.total())
    with contextlib.ExitStack() as stack:
        tables: Iterable[pa.Table] = map(job.spool.table, manifests)
        if lender is not None and lent:
            tables = itertools.chain(
                activation_table.lent(stack.enter_context(lender.snapshot()), lent, job.schema), tables
            )
        return _fold(store, corpus_name, outcome, tables, rejected, job, record_of)


def _lent(lender: Store | None, identity: str, sample_ids: Sequence[str]) -> list[str]:
    """Those of some samples that another file has of the same extraction."""
    held = activation_table.Contents(None, frozenset()) if lender is None else _held(lender)
    return sorted(held.sample_ids & set(sample_ids)) if held.extraction_id == identity else []


def encoded_samples(
    conversations: Sequence[tuple[str, Conversation]], model: LanguageModel, settings: Extraction
) -> tuple[Sequence[EncodedSample], list[tuple[str, str]]]:
    """The samples that can be pooled as the recipe says, and pairs of `sample_id` and reason of the others."""
    if settings.pool == (ALL,):  # where the answers stand does not matter, and is not looked for
        return encode(conversations, model.tokenizer(), settings)
    found, refused = encode_with_answers(conversations, model.tokenizer(), settings)
    reasons = {sample.sample_id: why_not_pooled(sample, settings.pool) for sample in found}
    refused += [(sample_id, reason) for sample_id, reason in reasons.items() if reason]
    return [sample for sample in found if not reasons[sample.sample_id]], refused


def _why_again(store: Store, settings: Extraction) -> str:
    """Why all samples are read again, as far as the table tells."""
    with store.snapshot() as snapshot:
        held = activation_table.poolings_of(snapshot)
    if held != settings.pool:
        return (
            f"all samples are read again: `extraction.pool` is {', '.join(settings.pool)}, "
            f"and {', '.join(held)} is what is stored; one pass reads them all"
        )
    return "all samples are read again: the model, its libraries or the recipe's `extraction` are others than before"


def _outcome(
    identity: str,
    wanted: tuple[str, ...],
    n_removed: int,
    n_rejected: int,
    manifests: Sequence[Manifest],
    progress: Progress,
    job: Job,
    options: RunOptions,
) -> Outcome:
    return Outcome(
        extraction_id=identity,
        sample_ids=wanted,
        n_extracted=sum(manifest.n_samples for manifest in manifests),
        n_removed=n_removed,
        n_rejected=n_rejected,
        n_cut=sum(manifest.n_cut for manifest in manifests),
        n_tokens=progress.n_tokens,
        seconds=progress.seconds,
        peak_memory_bytes=max([peak_memory(), *(manifest.peak_memory_bytes for manifest in manifests)]),
        device=str(job.model.resolved_device()),
        dtype=str(job.model.resolved_dtype()).removeprefix("torch."),
        engine=options.engine,
        layers=job.layers,
        width=job.width,
    )


def _wanted(corpus: pl.DataFrame, corpus_name: str, rejected: Sequence[tuple[str, str]], job: Job) -> tuple[str, ...]:
    """Sample ids that the table shall hold: those of the corpus that can be read.

    Raises:
        DataError: There are none.
    """
    wanted = tuple(sorted(set(corpus["sample_id"].to_list()) - {sample_id for sample_id, _ in rejected}))
    if not wanted:
        job.spool.remove()  # the next run tries them again
        reason = f"; the first: {rejected[0][1]}" if rejected else ": there is none"
        raise DataError(f"{corpus_name}: not one example can be read{reason}")
    return wanted


def _fold(
    store: Store,
    corpus_name: str,
    outcome: Outcome,
    tables: Iterable[pa.Table],
    rejected: Sequence[tuple[str, str]],
    job: Job,
    record_of: Callable[[str], Record],
) -> Outcome:
    """Fold finished shards into the table, with its record and the rejected samples: all in one transaction.

    Returns:
        The outcome with its data version.
    """
    with store.transaction() as transaction:
        activation_table.fold(transaction, outcome.extraction_id, outcome.sample_ids, tables, job.schema)
        transaction.replace(REJECTED_SAMPLES, rejection_rows(rejected), corpus=corpus_name)
        outcome = replace(outcome, data_version=activation_table.content_of(transaction))
        record = record_of(outcome.data_version)
        transaction.put_record(replace(record, beside=activation_table.identity_of(transaction)))
    job.spool.remove()  # last: a run that is killed before finds the shards, and folds them again
    return outcome


def _manifests(shards: Sequence[Shard], job: Job, options: RunOptions, progress: Progress) -> list[Manifest]:
    """The shards' manifests in order: from the spool where a run that was cut off left them, else from workers."""
    found = {shard.name: stored for shard in shards if (stored := job.spool.manifest(shard)) is not None}
    missing = [shard for shard in shards if shard.name not in found]
    for shard in shards:
        if shard.name in found:
            progress.skip(len(shard.samples), shard.n_tokens)
    if missing:
        found |= {manifest.shard: manifest for manifest in _read(missing, job, options, progress)}
    return [found[shard.name] for shard in shards]


def _read(shards: Sequence[Shard], job: Job, options: RunOptions, progress: Progress) -> Iterator[Manifest]:
    if options.engine == "local":
        worker = Worker(job)
        worker.load()
        progress.begin()
        yield from worker.read(shards, progress.advance)
        return
    sizes = {shard.name: (len(shard.samples), shard.n_tokens) for shard in shards}
    progress.begin()
    for manifest in ray_engine.read(shards, job, options):
        progress.advance(*sizes[manifest.shard])
        yield manifest


def _held(store: Store) -> activation_table.Contents:
    if not store.path.exists():
        return activation_table.Contents(None, frozenset())
    with store.snapshot() as snapshot:
        return activation_table.contents(snapshot)
