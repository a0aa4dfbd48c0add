"""The pre-experienced model of IFD: the recipe's model, briefly trained on a few varied candidates.

Cherry (arXiv 2308.12032, section 2.1, "learning from brief experience"): k-means over the instructions' embeddings,
each the mean of the last hidden state over its tokens; some rows of each of 100 clusters, 10 here; one epoch on their
responses. So the model that judges has seen what an instruction is, and the difficulty that it finds is not that of
the format.

What differs: LoRA on every linear layer and a constant learning rate instead of full training, so that it fits where
the model fits; rows of a cluster by a hash, where the published code takes every n-th one without the 1% least and most
perplexing; and at most a tenth of the pool, or a small one would be learnt by heart.
Cost: a forward pass over every instruction, and of each chosen row a pass forwards and back an epoch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.conversation import conversations_of
from nait_assets.errors import DataError, NumericalError
from nait_assets.lineage import Record
from nait_assets.measurements.outputs import OutputReader
from nait_assets.measurements.trained import TRAINED_FROM, is_trained_from
from nait_assets.models.adapter import ALL_LINEAR, adapted
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.cost import Cost
from nait_assets.models.encoding import EncodedSample, encode, plan
from nait_assets.models.running import RunOptions, model_inputs
from nait_assets.models.training import train_epoch
from nait_assets.recipe import Extraction, Recipe, fingerprint, seeded_order
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.resources import LanguageModel
from nait_assets.resources.files import replacing_folder
from nait_assets.resources.language_model import LoadedModel

ALGORITHM = "1"
LARGEST_SHARE = 10
"""At most one row in as many is learnt from."""
BATCH_ROWS = 16


class PreExperiencedModelOptions(MeasurementOptions):
    """The brief training of the model that judges."""

    section = "pre_experienced_model"
    clusters: int = Field(100, ge=1, description="Groups of instructions, by k-means; fewer for a small pool.")
    per_cluster: int = Field(10, ge=1, description="Rows of each group to train on; fewer for a small pool.")
    epochs: int = Field(1, ge=1, description="Epochs of that training.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Learning rate of AdamW, constant.")
    rank: int = Field(16, ge=1, description="Rank of LoRA, on every linear layer.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of k-means, of which rows are taken, and of LoRA.")


@dataclass(frozen=True)
class Experience:
    """What a brief training did.

    Attributes:
        sample_ids: Rows that were learnt from.
        n_clusters: Groups that they were taken from.
        losses: Mean loss of the responses, by epoch, each row's as it was just before it was trained on.
        n_refused: Candidates that could not be learnt from.
        cost: Cost of all of it but the time.
        kept: Whether the model that was there is of the same training; then there is nothing else to tell.
    """

    sample_ids: tuple[str, ...]
    n_clusters: int
    losses: tuple[float, ...]
    n_refused: int
    cost: Cost
    kept: bool = False


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that the training reads."""
    options = PreExperiencedModelOptions.of(recipe)
    return [recipe.model, *recipe.extraction.reading, options]


def gain_experience(
    pool: pl.DataFrame,
    model: LanguageModel,
    extraction: Extraction,
    options: PreExperiencedModelOptions,
    run_options: RunOptions,
    folder: Path,
    log_line: Callable[[str], None],
    before: Record | None = None,
) -> Experience:
    """Train the model briefly and save it with its tokenizer; or keep the one that is there, of the same training.

    Args:
        pool: Columns `sample_id`, `messages`.
        model: Model of the recipe.
        extraction: Extraction of the recipe; tokens and template are read.
        options: How many rows, and how they are learnt.
        run_options: How the model is run.
        folder: Folder that it is saved in; what is there is replaced once it is whole.
        log_line: Function that takes lines for the run's log.
        before: Record of the model that is there, or None.

    Raises:
        DataError: No candidate can be learnt from.
    """
    names = sorted(pool["sample_id"].to_list())
    identity = fingerprint(ALGORITHM, options, extraction.reading, model_inputs(model, model.source), names)
    if is_trained_from(folder, identity, before):
        return Experience((), 0, (), 0, Cost(), kept=True)
    tokenizer = model.tokenizer()
    pairs = conversations_of(pool)
    samples, refused = encode_with_answers(pairs, tokenizer, extraction)
    usable = {sample.sample_id: sample for sample in samples if not sample.unanswered}
    instructions, _ = encode(
        ((sample_id, given.before_response()) for sample_id, given in pairs if sample_id in usable),
        tokenizer,
        extraction,
    )
    if not instructions:
        unanswered = [(sample.sample_id, sample.unanswered) for sample in samples if sample.unanswered]
        first = next(iter([*refused, *unanswered]), ("", "there is none"))[1]
        raise DataError(f"pre-experienced model: no candidate can be trained on; the first: {first}")
    loaded = model.fresh_causal()
    log_line(f"embedding {len(instructions)} instructions")
    sample_ids, embeddings = embedded(loaded, instructions, run_options)
    clusters, each = scaled(options.clusters, options.per_cluster, len(sample_ids))
    chosen = varied_rows(sample_ids, embeddings, clusters, each, options.seed)
    log_line(f"training on {len(chosen)} rows of {clusters} clusters, {options.epochs} epoch(s)")
    rows = [usable[sample_id] for sample_id in chosen]
    network, losses = trained(loaded, rows, options)
    with replacing_folder(folder) as temporary:
        network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / TRAINED_FROM).write_text(identity)
    n_trained = len(rows) * options.epochs
    n_tokens = sum(len(one.token_ids) for one in instructions)
    n_tokens += options.epochs * sum(len(row.token_ids) for row in rows)
    cost = Cost(n_forward=len(sample_ids) + n_trained, n_backward=n_trained, n_tokens=n_tokens)
    return Experience(tuple(chosen), clusters, tuple(losses), len(pool) - len(usable), cost)


def embedded(model: LoadedModel, samples: Sequence[EncodedSample], options: RunOptions) -> tuple[list[str], np.ndarray]:
    """Sample ids in ascending order, and `(n_samples, width)` means of the last hidden state over all tokens."""
    reader = OutputReader(model, losses=False)
    sample_ids: list[str] = []
    vectors: list[np.ndarray] = []
    for shard in plan(samples, options.batch_tokens_on(model.device.type), options.shard_tokens):
        for result in reader.read(shard.batches):
            if result.pooled is not None:
                sample_ids += [sample.sample_id for sample in result.samples]
                vectors.append(result.pooled.columns["vector"])
    order = np.argsort(np.asarray(sample_ids))
    return [sample_ids[index] for index in order], np.concatenate(vectors)[order]


def scaled(clusters: int, per_cluster: int, n_samples: int) -> tuple[int, int]:
    """Clusters and rows of each that keep to a tenth of the pool; at least one."""
    most = max(1, n_samples // LARGEST_SHARE)
    each = min(per_cluster, most)
    return max(1, min(clusters, most // each)), each


def varied_rows(sample_ids: Sequence[str], embeddings: np.ndarray, clusters: int, each: int, seed: int) -> list[str]:
    """Sample ids of at most `each` rows of each k-means cluster, in the order in which they are learnt from.

    Args:
        sample_ids: Ids in ascending order, so that a pool in another order gives the same clusters.
        embeddings: `(n_samples, width)`.
        clusters: At most the number of samples.
        each: Rows of a cluster, drawn by a hash of the seed and the sample's id.
        seed: Seed of k-means and of the draw.
    """
    from sklearn.cluster import KMeans

    cluster_of = KMeans(clusters, n_init=1, random_state=seed).fit_predict(embeddings.astype(np.float64))
    n_taken, chosen = [0] * clusters, []
    for index in seeded_order(sample_ids, str(seed)):
        if n_taken[cluster_of[index]] < each:
            n_taken[cluster_of[index]] += 1
            chosen.append(sample_ids[index])
    return chosen


def trained(
    model: LoadedModel, rows: Sequence[AnsweredSample], options: PreExperiencedModelOptions
) -> tuple[Any, list[float]]:
    """The network with what LoRA learnt merged into its weights, and the mean loss by epoch.

    AdamW at a constant learning rate; a step is the mean over 16 rows of each row's mean loss over its response tokens.

    Args:
        model: A copy of one's own, as it is changed.
        rows: Rows in the order of the first epoch; the others have the seed's.
        options: How they are learnt.

    Raises:
        NumericalError: The loss of a row is NaN or infinite.
    """
    import torch

    adapter = adapted(model, options.rank, 2 * options.rank, 0.0, ALL_LINEAR, options.seed)
    optimizer = torch.optim.AdamW(adapter.weights.values(), lr=options.learning_rate, weight_decay=0.0)
    losses = []
    for epoch in range(options.epochs):
        order = np.random.default_rng([options.seed, epoch]).permutation(len(rows)) if epoch else range(len(rows))
        try:
            result = train_epoch(
                adapter, optimizer, [rows[index] for index in order], BATCH_ROWS, lambda _: options.learning_rate
            )
        except NumericalError as error:
            raise NumericalError(
                f"pre-experienced model: {error}. Nothing was stored. Try `model.dtype: float32`, or a lower "
                "`measurements.pre_experienced_model.learning_rate`."
            ) from error
        losses.append(math.fsum(result.losses) / len(rows))
    return adapter.merged(), losses
