"""Measurements of a sentence encoder: where each sample lies in its space.

The text of a sample, all messages but the system's, is cut into chunks as long as the encoder reads, each is embedded
by the encoder's own modules, and the mean of the chunks is scaled to unit norm. That is the baseline DLRDS-BGE of MoNA
(chunks of 512 tokens averaged), with any model of the package `sentence-transformers`. Departures and doubts: the
baseline does not say whether a short last chunk counts less, and here it does not; prompts that some encoders want in
front of a query, and chat templates, are left out, as both sides are texts of the same kind.

Cost: one pass of the encoder over each sample; MiniLM has 23 million parameters.
"""

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.models.cost import Cost
from nait_assets.recipe import Recipe, RecipeError, fingerprint
from nait_assets.resources import LanguageModel
from nait_assets.resources.dataset_source import hub_commit, hub_error
from nait_assets.resources.files import HashCache
from nait_assets.resources.language_model import IDENTITY_SUFFIXES
from nait_assets.tables import VECTOR

if TYPE_CHECKING:
    import torch

MODULES = "modules.json"
"""The file that makes a folder a model of sentence-transformers."""
FIELD = "options.sentence_embedding.model"
BATCH_TOKENS = 16384
PART_SAMPLES = 512
LONGEST_CHUNK, NO_LIMIT = 512, 100_000
"""Tokens of a chunk where the encoder has no limit, and from where on its limit means none."""


@dataclass(frozen=True)
class SentenceModel:
    """Where a sentence encoder is.

    Attributes:
        source: 'package:<module>' with a folder `model` in it, 'hub:<org>/<name>', or an absolute folder.
        revision: Of the hub.
        home: Where hashes of files are remembered.
    """

    source: str
    revision: str | None
    home: Path

    @classmethod
    def of(cls, recipe: Recipe, home: str | Path) -> "SentenceModel":
        """The encoder that a recipe names; a relative folder is relative to the recipe."""
        options = recipe.options.sentence_embedding
        remote = options.model.startswith(("package:", "hub:"))
        source = options.model if remote else str(recipe.resolve(options.model))
        return cls(source, options.revision, Path(home))

    @property
    def hub_id(self) -> str | None:
        """`<org>/<name>` of a model of the hub, else None."""
        return self.source.removeprefix("hub:") if self.source.startswith("hub:") else None

    def identity(self) -> str:
        """A commit of the hub, or the hash of the files.

        Raises:
            RecipeError: There is no such model.
        """
        if self.hub_id:
            return f"hub:{self.hub_id}@{hub_commit(self.hub_id, self.revision, 'model')}"
        folder, hashes = self.folder(), HashCache(self.home / "hashes.json")
        files = sorted(file for file in folder.rglob("*") if file.suffix in IDENTITY_SUFFIXES)
        return f"folder:{fingerprint([[file.relative_to(folder).as_posix(), hashes.sha256(file)] for file in files])}"

    def folder(self) -> Path:
        """The folder of a model that is not of the hub.

        Raises:
            RecipeError: It is not there, or holds no model of sentence-transformers.
        """
        folder = self._of_package() if self.source.startswith("package:") else Path(self.source)
        if not folder.is_dir():
            raise RecipeError(
                f"{FIELD}: folder {folder} does not exist. "
                "Use a folder, 'package:<module>' or 'hub:<org>/<name>' with a model of sentence-transformers."
            )
        if not (folder / MODULES).is_file():
            raise RecipeError(
                f"{FIELD}: {folder} is not a model of sentence-transformers: it has no {MODULES}. "
                "`SentenceTransformer(...).save(FOLDER)` writes one."
            )
        return folder

    def check(self) -> None:
        """Raise RecipeError where there is no such model; of the hub's, one small file is read."""
        if not self.hub_id:
            self.folder()
            return
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        commit = hub_commit(self.hub_id, self.revision, "model")
        try:
            hf_hub_download(self.hub_id, MODULES, revision=commit)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise hub_error(self.hub_id, self.revision, "model", error) from error
            raise RecipeError(
                f"{FIELD}: the hub's {self.hub_id!r} is not a model of sentence-transformers: it has no {MODULES}."
            ) from error
        except Exception as error:  # the hub's client raises half a dozen unrelated classes
            raise hub_error(self.hub_id, self.revision, "model", error) from error

    def load(self, device: "torch.device") -> Any:
        """The encoder in memory, in float32; the same process loads it once.

        Raises:
            RecipeError: It cannot be read.
        """
        name = self.hub_id or str(self.folder())
        commit = hub_commit(self.hub_id, self.revision, "model") if self.hub_id else None
        try:
            encoder = _load(self.identity(), name, commit, device)
        except Exception as error:  # the readers of each format raise classes of their own
            if self.hub_id and isinstance(error, OSError):
                raise hub_error(self.hub_id, self.revision, "model", error) from error
            raise RecipeError(f"{FIELD}: {self.source!r} cannot be read: {type(error).__name__}: {error}") from error
        if not getattr(encoder.tokenizer, "is_fast", False):
            raise RecipeError(
                f"{FIELD}: {self.source!r} has the tokenizer {type(encoder.tokenizer).__name__}, which cannot cut long "
                "texts into chunks; use an encoder with a fast tokenizer of transformers."
            )
        return encoder

    def _of_package(self) -> Path:
        module = self.source.removeprefix("package:")
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(
                f"{FIELD}: {self.source!r}: the package {module!r} is not installed. "
                f"`pip install {module.replace('_', '-')}` installs it, or name a local folder."
            )
        return Path(spec.submodule_search_locations[0]) / "model"


@functools.lru_cache(maxsize=1)
def _load(_identity: str, name: str, commit: str | None, device: "torch.device") -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    return SentenceTransformer(name, revision=commit, device=str(device)).float().eval()


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
        `(n_chunks,)` places of the texts, and each chunk as the encoder's tokenizer gives it. A text without tokens of
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
    kept = [place for place, mask in enumerate(special) if not all(mask)]
    chunks = [{name: values[place] for name, values in found.items()} for place in kept]
    return np.asarray([owners[place] for place in kept], dtype=np.int64), chunks


def embed(encoder: Any, chunks: Sequence[dict[str, list[int]]], batch_tokens: int) -> np.ndarray:
    """`(n_chunks, dimensions)` embeddings, float64, as the encoder's last module gives them.

    Args:
        encoder: In memory.
        chunks: From `chunks_of`.
        batch_tokens: Most tokens of a batch, padding included.
    """
    import torch

    lengths = np.asarray([len(chunk["input_ids"]) for chunk in chunks])
    order = np.argsort(lengths, kind="stable")
    rows: list[np.ndarray | None] = [None] * len(chunks)
    for batch in _batches(order, lengths, batch_tokens):
        padded = encoder.tokenizer.pad([chunks[place] for place in batch], return_tensors="pt")
        with torch.inference_mode():
            found = encoder({name: values.to(encoder.device) for name, values in padded.items()})
        for place, row in zip(batch, found["sentence_embedding"].double().cpu().numpy(), strict=True):
            rows[place] = row
    return np.stack([row for row in rows if row is not None])


def _batches(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in order.tolist():  # the longest comes last, and sets the width of the batch
        if batch and (len(batch) + 1) * lengths[place] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
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
    encoder = SentenceModel.of(context.recipe, context.model.home).load(context.model.resolved_device())
    batch_tokens = context.options.batch_tokens or BATCH_TOKENS
    texts = [text_of(messages) for messages in samples["messages"].to_list()]
    by_length = sorted(range(len(texts)), key=lambda place: (len(texts[place]), samples["sample_id"][place]))
    for begin in range(0, len(by_length), PART_SAMPLES):
        places = by_length[begin : begin + PART_SAMPLES]
        names = [samples["sample_id"][place] for place in places]
        found, n_chunks, n_tokens = vectors(encoder, [texts[place] for place in places], batch_tokens)
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
    return [recipe.options.sentence_embedding.model, recipe.options.sentence_embedding.revision]


def outside(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """The encoder's version."""
    encoder = SentenceModel.of(recipe, model.home)
    return {f"sentence_model:{recipe.options.sentence_embedding.model}": encoder.identity()}


def check(recipe: Recipe, model: LanguageModel) -> None:
    """Raise RecipeError where there is no such encoder."""
    SentenceModel.of(recipe, model.home).check()


MEASUREMENT = Measurement(
    "embeddings",
    "Where each sample lies in the space of a sentence encoder. One row is one sample: the mean of its chunks' "
    "embeddings, of unit norm.",
    pl.Schema({"vector": VECTOR}),
    read,
    settings,
    outside=outside,
    check=check,
)
