"""Feature files: a capability's features as safetensors, to be used on another pool (the paper's feature library).

A file holds one feature of one capability, a matrix `(n_layers, width)` for each tensor, and in its metadata what the
feature rests on: the model, the site, the layers and the template must be the reader's own.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nait_assets.errors import SourceError
from nait_assets.recipe import FeatureName, Recipe
from nait_assets.resources.files import replacing

FORMAT = "nait-feature-1"
TENSORS: dict[FeatureName, tuple[str, ...]] = {
    "nait_directions": ("direction",),
    "standardized_centroids": ("mean_activation", "centroid"),
}


@dataclass(frozen=True)
class FeatureOrigin:
    """What a feature rests on.

    Attributes:
        feature: Its asset's name.
        capability: Capability that it is of.
        model: Identity of weights and tokenizer.
        site: Site of the activations.
        layers: Layers of the tensors' rows, in order.
        template: How conversations were written out.
        max_tokens: Most tokens read of an example.
        change: Activation change that a direction is of; "" for other features.
        nait_assets: Version of this project that wrote the file.
        n_samples: In-domain examples.
        data_version: Data version of the feature.
    """

    feature: str
    capability: str
    model: str
    site: str
    layers: tuple[int, ...]
    template: str
    max_tokens: int
    change: str
    nait_assets: str
    n_samples: int
    data_version: str


def write_feature_file(path: Path, origin: FeatureOrigin, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a feature file, whole or not at all."""
    from safetensors.numpy import save_file

    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asdict(origin).items()}
    with replacing(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            temporary,
            metadata={"format": FORMAT, **metadata},
        )


def feature_file(recipe: Recipe, capability: str, feature: FeatureName) -> Path:
    """The file that a recipe names for a capability's feature.

    Raises:
        SourceError: There is no such file, or the folder has none for this feature.
    """
    given = recipe.capabilities[capability].features
    assert given is not None
    path = recipe.resolve(given)
    where = f"{recipe.path}: capabilities.{capability}.features"
    file = path / f"{feature}.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise SourceError(
            f"{where}: there is no file {file}. Name a feature file, or a folder with {feature}.safetensors in it."
        )
    return file


def read_feature_file(
    path: Path, feature: FeatureName, model: str, site: str, layers: tuple[int, ...], template: str, change: str
) -> tuple[FeatureOrigin, dict[str, np.ndarray]]:
    """A feature and what it rests on.

    Args:
        path: Path of the file.
        feature: Feature that the file should hold.
        model: Identity of the reader's model.
        site: Site of the reader's extraction.
        layers: Layers of the reader's extraction.
        template: Template of the reader's extraction.
        change: Change of the reader's directions; "" for other features.

    Raises:
        SourceError: The file is not a feature file, holds another feature, or rests on something else than asked for.
    """
    from safetensors import SafetensorError, safe_open

    fix = f"Name a {feature}.safetensors that this project wrote, or give examples of the capability instead."
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
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
    wanted = {"model": model, "site": site, "layers": layers, "template": template, "change": change}
    for name, value in wanted.items():
        if getattr(origin, name) != value:
            raise SourceError(
                f"{path} was made with {name} {getattr(origin, name)}, and the recipe's is {value}: a feature holds "
                "only where it was read. Set the recipe's to the file's, or make the file again with this recipe."
            )
    shapes = {name: tensors[name].shape if name in tensors else None for name in TENSORS[feature]}
    if any(shape is None or len(shape) != 2 or shape[0] != len(layers) for shape in shapes.values()):
        raise SourceError(
            f"{path} is damaged: of {len(layers)} layers it should hold matrices, and has {shapes}. {fix}"
        )
    return origin, tensors


def _origin(path: Path, metadata: Mapping[str, str], fix: str) -> FeatureOrigin:
    try:
        return FeatureOrigin(
            feature=metadata["feature"],
            capability=metadata["capability"],
            model=metadata["model"],
            site=metadata["site"],
            layers=tuple(json.loads(metadata["layers"])),
            template=metadata["template"],
            max_tokens=json.loads(metadata["max_tokens"]),
            change=metadata["change"],
            nait_assets=metadata["nait_assets"],
            n_samples=json.loads(metadata["n_samples"]),
            data_version=metadata["data_version"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path} is damaged: its metadata lacks or has an invalid {error}. {fix}") from error
