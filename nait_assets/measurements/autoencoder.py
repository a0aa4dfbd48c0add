"""The autoencoder of a recipe: one that it names, or one that is trained on its pool."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.conversation import conversations_of
from nait_assets.extraction.neurons import Reader
from nait_assets.lineage import Record
from nait_assets.measurements import published_autoencoder
from nait_assets.measurements.autoencoder_options import SparseAutoencoderOptions, layer_read
from nait_assets.measurements.autoencoder_tokens import budget, seeded, spool
from nait_assets.measurements.autoencoder_training import Trained, finish, train
from nait_assets.measurements.trained import TrainedOutput
from nait_assets.models.cost import Cost
from nait_assets.models.encoding import encode
from nait_assets.models.frozen import why_stale
from nait_assets.models.running import RunOptions, model_inputs
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version, replacing_folder
from nait_assets.tables import CANDIDATE_POOL

VERSION = "2"
SECONDS_BETWEEN_LINES = 10.0
FOUND = "autoencoder.json"


@dataclass(frozen=True)
class Made:
    """What making the autoencoder came to.

    Attributes:
        trained: What the training came to; None for one that the recipe names.
        kept: Whether it had been trained before.
        shown: More that people look at.
        cost: Cost of this time.
    """

    trained: Trained | None
    kept: bool
    shown: dict[str, object]
    cost: Cost


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that the autoencoder depends on."""
    return [recipe.model, *recipe.extraction.reading, SparseAutoencoderOptions.of(recipe)]


def is_named(recipe: Recipe) -> bool:
    """Whether the recipe names an autoencoder, so that none is trained."""
    return SparseAutoencoderOptions.of(recipe).source is not None


def external_versions(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """Versions of the model, and of the autoencoder that the recipe names.

    Raises:
        ModelError: One of them is not to be found.
    """
    return {**model_inputs(model, recipe.model.source), **published_autoencoder.external_versions(recipe, model)}


@dataclass(frozen=True, eq=False)
class AutoencoderOutput(TrainedOutput):
    """The autoencoder, which a pool that changes keeps."""

    def why_outlived(self, warehouse: Warehouse, partition: str) -> str:  # noqa: ARG002
        """Whether too little of what trained it is left in the pool."""
        trained = Trained.read(self.folder(warehouse))
        if trained is None or not warehouse.tables.path.exists():
            return ""
        with warehouse.tables.snapshot() as tables:
            if not tables.has_table(CANDIDATE_POOL.name):
                return ""
            return why_stale(trained.sample_ids, tables.rows(CANDIDATE_POOL.only("sample_id"))["sample_id"].to_list())


AUTOENCODER = AutoencoderOutput(
    "measurements/sparse_autoencoder",
    place="trained/sparse_autoencoder",
    versions=external_versions,
    reset_name="autoencoder",
)


def load(recipe: Recipe, model: LanguageModel, folder: Path) -> Any:
    """The autoencoder as `sparsify`'s module: the one that the recipe names, or the one trained in the folder."""
    if is_named(recipe):
        return published_autoencoder.load(published_autoencoder.find(recipe, model))
    from sparsify import SparseCoder

    return SparseCoder.load_from_disk(folder)


def note(recipe: Recipe, model: LanguageModel, folder: Path) -> Made:
    """Of an autoencoder that the recipe names, its place and version; its weights stay where they are.

    Raises:
        ModelError: It is not there, or does not fit the model.
    """
    found = published_autoencoder.find(recipe, model)
    published_autoencoder.load(found)
    shown: dict[str, object] = {"layer": found.layer, "n_latents": found.n_latents, "trained_with_k": found.k or 0}
    noted = {**shown, **published_autoencoder.external_versions(recipe, model)}
    with replacing_folder(folder) as temporary:
        (temporary / FOUND).write_text(json.dumps(noted, indent=1) + "\n")
    return Made(None, False, shown, Cost())


def make(
    recipe: Recipe,
    model: LanguageModel,
    pool: pl.DataFrame,
    folder: Path,
    before: Record | None,
    options: RunOptions,
    log_line: Callable[[str], None],
) -> Made:
    """Train the autoencoder in a folder beside `folder`, which takes its place; or keep the one that is there.

    Args:
        recipe: Without an autoencoder of its own.
        model: Loaded only if tokens have to be read.
        pool: Columns `sample_id` and `messages`.
        folder: Folder of the result.
        before: Result that is there, or None.
        options: How the model is run.
        log_line: Function that takes lines for the run's log.

    Raises:
        RecipeError: The model lacks the layer.
        DataError: The pool is too small.
    """
    section, extraction = SparseAutoencoderOptions.of(recipe), recipe.extraction
    layer = layer_read(recipe, model)
    identity = fingerprint(VERSION, settings(recipe), layer, model.identity(), str(model.resolved_dtype()))
    held = Trained.read(folder)
    if held and held.identity == identity and before and folder_version(folder) == before.data_version:
        outlived = why_stale(held.sample_ids, pool["sample_id"].to_list())
        if not outlived:
            return Made(held, True, {}, Cost())
        log_line(f"autoencoder: {outlived}; it is trained anew")
    device = model.resolved_device()
    batch_tokens = options.batch_tokens_on(device.type)
    ordered = conversations_of(seeded(pool, section.seed))
    encoded, refused = encode(ordered, model.tokenizer(), extraction)
    samples = budget(encoded, section.training_tokens)
    names = [[sample.sample_id for sample in part] for part in samples]
    of_tokens = fingerprint(identity, names, batch_tokens, options.shard_tokens)
    part = folder.with_name(f"{folder.name}.part")

    def reader() -> Reader:
        loaded = model.load()
        return Reader(loaded, resolve_site(loaded.network, "residual", [layer]), keep_first_and_last=False)

    tokens = spool(part, of_tokens, samples, reader, batch_tokens, options.shard_tokens, log_line)
    trained = train(tokens, part, section, device, layer, identity, of_tokens, _telling(log_line))
    trained = replace(trained, sample_ids=tuple(name for of_part in names for name in of_part))
    trained.write(part)
    finish(part, folder)
    return Made(trained, False, {"n_refused": len(refused)}, Cost(n_forward=tokens.n_forward, n_tokens=tokens.n_read))


def _telling(log_line: Callable[[str], None]) -> Callable[[int, int, float], None]:
    told = time.monotonic()

    def after_step(step: int, steps: int, loss: float) -> None:
        nonlocal told
        if step == steps or time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log_line(f"autoencoder: step {step:,} of {steps:,}, {loss:.3f} of the variance unexplained")

    return after_step
