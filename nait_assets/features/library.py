"""Feature files: a capability's features as safetensors, to be used on another pool (the paper's feature library).

A file holds one feature of one capability, a matrix `(n_layers, width)` for each tensor, and in its metadata what the
feature rests on: the model and how it was read must be the reader's own. The same feature is the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nait_assets.errors import SourceError
from nait_assets.recipe import ALL, FeatureName, Pooling, Recipe, pooled
from nait_assets.resources.files import replacing

FORMAT = "nait-feature-2"
EARLIER_FORMATS = ("nait-feature-1",)
TENSORS: dict[FeatureName, tuple[str, ...]] = {
    "nait_directions": ("direction",),
    "standardized_centroids": ("mean_activation", "centroid"),
}


@dataclass(frozen=True)
class Basis:
    """What the numbers of a feature rest on: a reader's have to be the same.

    Attributes:
        model: Identity of weights and tokenizer.
        dtype: dtype of the forward pass.
        algorithm: Version of the extraction.
        site: Site of the activations.
        layers: Layers of the tensors' rows, in order.
        template: How conversations were written out.
        template_date: Date that the chat template was told.
        max_tokens: Most tokens read of an example.
        truncate: What of a longer one gave way.
        change: Activation change that a direction is of; "" for other features.
        pool: Pooling of the activations.
    """

    model: str
    dtype: str
    algorithm: str
    site: str
    layers: tuple[int, ...]
    template: str
    template_date: str
    max_tokens: int
    truncate: str
    change: str
    pool: Pooling


@dataclass(frozen=True)
class FeatureOrigin(Basis):
    """What a feature is and what it rests on.

    Attributes:
        feature: Its asset's name.
        capability: Capability that it is of.
        nait_assets: Version of this project that wrote the file.
        n_samples: In-domain examples.
        data_version: Data version of the feature.
    """

    feature: str
    capability: str
    nait_assets: str
    n_samples: int
    data_version: str


def write_feature_file(path: Path, origin: FeatureOrigin, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a feature file, whole or not at all."""
    from safetensors.numpy import save

    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asdict(origin).items()}
    if origin.pool == ALL:  # as files were before there was a choice: their bytes stay the same
        del metadata["pool"]
    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    content = _in_order(save(ordered, metadata={"format": FORMAT, **metadata}))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header's keys in order: the library writes metadata in a random one.

    A file is the header's size in eight bytes, the header in JSON, filled up with spaces to a multiple of eight, and
    the tensors, whose places are counted from the header's end.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def feature_file(recipe: Recipe, capability: str, feature: FeatureName, pooling: Pooling = ALL) -> Path:
    """The file that a recipe names for a capability's feature of a pooling.

    Raises:
        SourceError: There is no such file, or the folder has none for this feature.
    """
    given = recipe.capability_named(capability).features
    assert given is not None
    path = recipe.resolve(given)
    where = f"{recipe.path}: capabilities.{capability}.features"
    name = f"{pooled(feature, pooling)}.safetensors"
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise SourceError(f"{where}: there is no file {file}. Name a feature file, or a folder with {name} in it.")
    return file


def read_feature_file(path: Path, feature: FeatureName, basis: Basis) -> tuple[FeatureOrigin, dict[str, np.ndarray]]:
    """A feature and what it rests on.

    Args:
        path: Path of the file.
        feature: Feature that the file should hold.
        basis: What the reader's own features rest on.

    Raises:
        SourceError: The file is not a feature file, holds another feature, or rests on something else than asked for.
    """
    from safetensors import SafetensorError, safe_open

    fix = f"Name a {feature}.safetensors that this project wrote, or give examples of the capability instead."
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") in EARLIER_FORMATS:
                raise SourceError(
                    f"{path} is of an earlier version of this project, whose feature files do not say how "
                    "examples were cut, and in which dtype they were read: make it again with this version."
                )
            if metadata.get("format") != FORMAT:  # asked first: a model's own weights are safetensors too, and large
                raise SourceError(
                    f"{path} is a safetensors file, yet not a feature file: its metadata lacks format {FORMAT}. {fix}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the handle is no mapping
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{path} is not a readable safetensors file: {error}. {fix}") from error
    origin = _origin(path, metadata, fix)
    if origin.feature != feature:
        raise SourceError(
            f"{path} holds {origin.feature}, and a method of the recipe needs {feature}: "
            "name the folder that holds both, or drop the method."
        )
    for name, value in ((each.name, getattr(basis, each.name)) for each in fields(Basis)):
        if getattr(origin, name) != value:
            raise SourceError(
                f"{path} was made with {name} {getattr(origin, name)}, and the recipe's is {value}: a feature holds "
                "only where it was read. Set the recipe's to the file's, or make the file again with this recipe."
            )
    shapes = {name: tensors[name].shape if name in tensors else None for name in TENSORS[feature]}
    if any(shape is None or len(shape) != 2 or shape[0] != len(basis.layers) for shape in shapes.values()):
        raise SourceError(
            f"{path} is damaged: of {len(basis.layers)} layers it should hold matrices, and has {shapes}. {fix}"
        )
    return origin, tensors


def _origin(path: Path, metadata: Mapping[str, str], fix: str) -> FeatureOrigin:
    try:
        with_pool = {"pool": ALL, **metadata}
        found: dict[str, Any] = {each.name: with_pool[each.name] for each in fields(FeatureOrigin)}
        numbers = {name: json.loads(metadata[name]) for name in ("layers", "max_tokens", "n_samples")}
        return FeatureOrigin(**{**found, **numbers, "layers": tuple(numbers["layers"])})
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path} is damaged: its metadata lacks or has an invalid {error}. {fix}") from error
