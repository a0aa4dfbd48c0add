"""An autoencoder that others trained: where it lies, whether it fits the model, and its weights in memory.

Two formats are read, told apart by their files: `sparsify` (`cfg.json`, `sae.safetensors`, in a folder a hook point,
such as `layers.15`), and that of SAELens for the TopK architecture (`cfg.json`, `sae_weights.safetensors`). Only
autoencoders of a layer's output fit: of the residual stream, not of an MLP, and no transcoders.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nait_assets.errors import ModelError
from nait_assets.measurements.autoencoder_options import SparseAutoencoderOptions, layer_read, require_latents
from nait_assets.models.sites import LAYER_LISTS
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.resources.model_source import ModelSource, folder_identity, resolved

FIELD = "measurements.sparse_autoencoder.source"
SPARSIFY, SAE_LENS = "sae.safetensors", "sae_weights.safetensors"
WHAT_WORKS = (
    "A TopK autoencoder of a layer's output works, in the format of EleutherAI's sparsify (cfg.json, sae.safetensors) "
    "or of SAELens (cfg.json, sae_weights.safetensors)."
)


@dataclass(frozen=True)
class Found:
    """A trained autoencoder.

    Attributes:
        folder: Folder of its files.
        weights: Name of the weights' file, which tells the format.
        settings: Content of its cfg.json.
        layer: Layer whose output it rebuilds.
        k: Latents of each token that it was trained to keep.
        n_latents: Size of its dictionary.
    """

    folder: Path
    weights: str
    settings: dict[str, Any]
    layer: int
    k: int | None
    n_latents: int


def source_of(recipe: Recipe, home: str | Path) -> ModelSource:
    """Where the autoencoder that the recipe names is, or the folder of those of several layers."""
    options = SparseAutoencoderOptions.of(recipe)
    assert options.source is not None
    return ModelSource(resolved(recipe, options.source), options.revision, Path(home), FIELD)


def external_versions(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """The version of the autoencoder that the recipe names: a commit of the hub, or a hash of the files.

    Raises:
        ModelError: It is not there, or cannot be reached.
    """
    options = SparseAutoencoderOptions.of(recipe)
    if options.source is None:
        return {}
    source = source_of(recipe, model.home)
    if source.hub_id:
        version = source.identity()
    else:
        version = folder_identity(_point(source.folder, layer_read(recipe, model), source.source), source.home)
    return {f"autoencoder:{options.source}": version}


def find(recipe: Recipe, model: LanguageModel, weights: bool = True) -> Found:
    """The autoencoder that the recipe names, held against the model.

    Args:
        recipe: Recipe that names one.
        model: The recipe's model.
        weights: Whether the weights of an autoencoder on the hub are fetched too; its settings alone are small.

    Raises:
        ModelError: It is not there, it cannot be read, or it is not one of this layer of this model.
    """
    options = SparseAutoencoderOptions.of(recipe)
    named = options.source
    assert named is not None
    layer, source = layer_read(recipe, model), source_of(recipe, model.home)
    root = _fetched(source, layer, weights) if source.hub_id else source.folder
    folder = _point(root, layer, named)
    settings = _settings(folder, named)
    lens = "d_sae" in settings or (folder / SAE_LENS).exists()
    found = _of_sae_lens(folder, settings, layer, named) if lens else _of_sparsify(folder, settings, layer, named)
    if not (folder / found.weights).exists() and (weights or not source.hub_id):
        raise ModelError(f"{_where(named)}: {folder} has no {found.weights}. {WHAT_WORKS}")
    width = int(model.skeleton().config.hidden_size)
    if settings.get("d_in") != width:
        raise ModelError(
            f"{_where(named)}: it is of {settings.get('d_in')} dimensions ({folder / 'cfg.json'}), and {model.source} "
            f"has {width}. Use one that was trained on this model."
        )
    require_latents(options.k, found.n_latents, str(folder / "cfg.json"))
    return found


def load(found: Found) -> Any:
    """The autoencoder as `sparsify`'s module, on the CPU in its own dtype.

    Raises:
        ModelError: Its weights are not those of its settings.
    """
    try:
        return _converted(found) if found.weights == SAE_LENS else _sparsify(found.folder)
    except Exception as error:  # the readers of safetensors and torch raise classes of their own
        raise ModelError(f"the autoencoder in {found.folder} cannot be read: {error}. {WHAT_WORKS}") from error


def _sparsify(folder: Path) -> Any:
    from sparsify import SparseCoder

    return SparseCoder.load_from_disk(folder)


def _where(named: str) -> str:
    return f"{FIELD}: {named!r}"


def _fetched(source: ModelSource, layer: int, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    assert source.hub_id is not None
    file = "*" if weights else "cfg.json"
    patterns = [file, *(f"{name}/{file}" for name in _points(layer))]
    with source.reading():
        return Path(snapshot_download(source.hub_id, revision=source.commit, allow_patterns=patterns))


def _points(layer: int) -> list[str]:
    """Names of a layer's output in `sparsify`: modules of the network."""
    return [f"{name}.{layer}" for name in LAYER_LISTS]


def _point(root: Path, layer: int, named: str) -> Path:
    """The folder of a layer's autoencoder within a folder of several, or the folder of one."""
    for name in _points(layer):
        if (root / name / "cfg.json").is_file():
            return root / name
    if not (root / "cfg.json").is_file():
        there = ", ".join(sorted(folder.parent.name for folder in root.glob("*/cfg.json"))) or "none"
        raise ModelError(
            f"{_where(named)}: {root} has no autoencoder of layer {layer}, which was looked for as "
            f"{', '.join(_points(layer))} and as cfg.json itself; its hook points are {there}. "
            "Set measurements.sparse_autoencoder.layer to one of those that are a layer's output."
        )
    own = re.fullmatch(r".*\b(?:layers|h)\.(\d+)(\..+)?", root.name)
    if own and (int(own[1]) != layer or own[2]):
        raise ModelError(
            f"{_where(named)}: it is of hook point {root.name!r}, and layer {layer}'s output is read. "
            "Set measurements.sparse_autoencoder.layer, or name the folder of that layer."
        )
    return root


def _settings(folder: Path, named: str) -> dict[str, Any]:
    try:
        settings = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{_where(named)}: {folder / 'cfg.json'} is not JSON: {error}. {WHAT_WORKS}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{_where(named)}: {folder / 'cfg.json'} holds no settings. {WHAT_WORKS}")
    return settings


def _of_sparsify(folder: Path, settings: dict[str, Any], layer: int, named: str) -> Found:
    wrong = [name for name in ("transcode", "skip_connection", "signed") if settings.get(name)]
    if settings.get("activation", "topk") != "topk" or wrong:
        what = f"{wrong[0]}: true" if wrong else f"activation: {settings['activation']}"
        raise ModelError(f"{_where(named)}: {folder / 'cfg.json'} has `{what}`. {WHAT_WORKS}")
    n_latents = settings.get("num_latents") or settings.get("d_in", 0) * settings.get("expansion_factor", 32)
    return Found(folder, SPARSIFY, settings, layer, settings.get("k"), n_latents)


def _of_sae_lens(folder: Path, settings: dict[str, Any], layer: int, named: str) -> Found:
    """Fields stand at the top, or in `metadata` from SAELens 6 on."""
    everything = {**settings.get("metadata", {}), **settings}
    kind = everything.get("architecture") or everything.get("activation_fn_str") or everything.get("activation_fn")
    kind = everything.get("activation_fn_str", kind) if kind == "standard" else kind
    if kind != "topk" or everything.get("normalize_activations", "none") not in ("none", None):
        what = f"architecture {kind}, normalize_activations {everything.get('normalize_activations', 'none')}"
        raise ModelError(
            f"{_where(named)}: {folder / 'cfg.json'} is of SAELens with {what}. {WHAT_WORKS} Of SAELens only "
            "architecture topk without normalize_activations is read."
        )
    point = everything.get("hook_name")
    fitting = (f"blocks.{layer}.hook_resid_post", f"blocks.{layer + 1}.hook_resid_pre")
    if point not in fitting:
        raise ModelError(
            f"{_where(named)}: it is of hook point {point!r}, and layer {layer}'s output is {fitting[0]!r}. "
            "Set measurements.sparse_autoencoder.layer, or name another autoencoder."
        )
    k = everything.get("k") or (everything.get("activation_fn_kwargs") or {}).get("k")
    return Found(folder, SAE_LENS, everything, layer, k, int(everything["d_sae"]))


def _converted(found: Found) -> Any:
    """An autoencoder of SAELens as `sparsify`'s module: the same function, folded into its weights."""
    import torch
    from safetensors.torch import load_file
    from sparsify import SparseCoder, SparseCoderConfig

    stored = load_file(found.folder / SAE_LENS)
    encoder, bias = stored["W_enc"].T, stored["b_enc"]  # (n_latents, width)
    if not found.settings.get("apply_b_dec_to_input", True):
        bias = bias + encoder @ stored["b_dec"]
    if found.settings.get("rescale_acts_by_decoder_norm", False):
        norms = stored["W_dec"].norm(dim=1)
        encoder, bias = encoder * norms[:, None], bias * norms
        stored["W_dec"] = stored["W_dec"] / norms[:, None]
    config = SparseCoderConfig(num_latents=found.n_latents, k=found.k or 1)
    coder = SparseCoder(encoder.shape[1], config, dtype=encoder.dtype)
    with torch.no_grad():
        coder.encoder.weight.copy_(encoder)
        coder.encoder.bias.copy_(bias)
        coder.W_dec.copy_(stored["W_dec"])
        coder.b_dec.copy_(stored["b_dec"])
    return coder
