"""Feature files: what is written comes back, and what does not fit is refused with one clear error."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from nait_assets.errors import SourceError
from nait_assets.features.library import Basis, FeatureOrigin, feature_file, read_feature_file, write_feature_file
from nait_assets.recipe import Recipe

BASIS = Basis(
    model="model-1",
    dtype="bfloat16",
    algorithm="4",
    site="mlp",
    layers=(3, 11),
    template="chat",
    template_date="2024-07-26",
    max_tokens=256,
    truncate="prompt",
    change="last_minus_first",
    pool="all",
)
ORIGIN = FeatureOrigin(
    **dataclasses.asdict(BASIS),
    feature="nait_directions",
    capability="math",
    nait_assets="0.1.0",
    n_samples=64,
    data_version="0123456789abcdef",
)
MATRIX = np.arange(8, dtype=np.float32).reshape(2, 4)
READER: dict[str, Any] = {"feature": "nait_directions", "basis": BASIS}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A feature file."""
    path = tmp_path / "features" / "math" / "nait_directions.safetensors"
    write_feature_file(path, ORIGIN, {"direction": MATRIX})
    return path


def with_metadata(file: Path, **changed: str | None) -> Path:
    """The file with other metadata; None takes a field out."""
    metadata = {"format": "nait-feature-2", **{name: str(value) for name, value in dataclasses.asdict(ORIGIN).items()}}
    metadata = {
        name: value for name, value in {**metadata, "layers": "[3, 11]", **changed}.items() if value is not None
    }
    save_file(load_file(file), file, metadata=metadata)
    return file


def test_a_feature_file_comes_back_as_it_was_written(file: Path) -> None:
    """The paper's feature library: the matrix bit for bit, and everything that it rests on."""
    origin, tensors = read_feature_file(file, **READER)
    assert origin == ORIGIN
    assert list(tensors) == ["direction"]
    np.testing.assert_array_equal(tensors["direction"], MATRIX)
    assert tensors["direction"].dtype == np.float32


def test_every_part_of_the_basis_is_compared() -> None:
    """The cases below are all of it."""
    (cases,) = (mark for mark in test_a_feature_read_elsewhere_is_refused.pytestmark if mark.name == "parametrize")
    assert {case[0] for case in cases.args[1]} == {each.name for each in dataclasses.fields(Basis)}


def test_the_same_feature_is_the_same_bytes(tmp_path: Path) -> None:
    """Users of a file are stale when its bytes change; the library orders metadata by chance."""
    files = [tmp_path / f"{number}.safetensors" for number in range(20)]
    for number, path in enumerate(files):
        tensors = {"centroid": MATRIX, "mean_activation": 2 * MATRIX}
        write_feature_file(path, ORIGIN, tensors if number % 2 else dict(reversed(tensors.items())))
    assert len({path.read_bytes() for path in files}) == 1
    np.testing.assert_array_equal(load_file(files[0])["mean_activation"], 2 * MATRIX)


def test_a_file_of_an_earlier_version_is_refused_with_what_to_do(file: Path) -> None:
    """It does not say what has to be compared."""
    with pytest.raises(SourceError, match=r"of an earlier version of this project.* make it again"):
        read_feature_file(with_metadata(file, format="nait-feature-1"), **READER)


def test_a_transposed_matrix_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Safetensors stores memory as it lies: a view in another order would come back scrambled."""
    path = tmp_path / "f.safetensors"
    write_feature_file(path, ORIGIN, {"direction": np.ascontiguousarray(MATRIX.T).T})
    np.testing.assert_array_equal(read_feature_file(path, **READER)[1]["direction"], MATRIX)


def test_any_safetensors_reader_sees_what_a_feature_rests_on(file: Path) -> None:
    """The file is to be shared: its metadata must speak for itself, without this project's code."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as handle:
        metadata = handle.metadata()
    assert metadata == {
        "format": "nait-feature-2",
        "dtype": "bfloat16",
        "algorithm": "4",
        "template_date": "2024-07-26",
        "truncate": "prompt",
        "feature": "nait_directions",
        "capability": "math",
        "model": "model-1",
        "site": "mlp",
        "layers": "[3, 11]",
        "template": "chat",
        "max_tokens": "256",
        "change": "last_minus_first",
        "nait_assets": "0.1.0",
        "n_samples": "64",
        "data_version": "0123456789abcdef",
    }


def test_a_failed_write_leaves_the_old_file_and_no_other(file: Path) -> None:
    """Half a file would be read by the next run."""
    with pytest.raises(SafetensorError, match="object"):
        write_feature_file(file, ORIGIN, {"direction": np.array([object()])})
    np.testing.assert_array_equal(read_feature_file(file, **READER)[1]["direction"], MATRIX)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("field", "wanted", "shown"),
    [
        ("model", "model-2", r"model model-1, and the recipe's is model-2"),
        ("site", "residual", r"site mlp, and the recipe's is residual"),
        ("layers", (3, 12), r"layers \(3, 11\), and the recipe's is \(3, 12\)"),
        ("layers", (11, 3), r"layers \(3, 11\), and the recipe's is \(11, 3\)"),
        ("template", "plain", r"template chat, and the recipe's is plain"),
        ("dtype", "float32", r"dtype bfloat16, and the recipe's is float32"),
        ("algorithm", "5", r"algorithm 4, and the recipe's is 5"),
        ("template_date", "2025-01-01", r"template_date 2024-07-26, and the recipe's is 2025-01-01"),
        ("max_tokens", 512, r"max_tokens 256, and the recipe's is 512"),
        ("truncate", "answer", r"truncate prompt, and the recipe's is answer"),
        ("change", "mean_minus_first", r"change last_minus_first, and the recipe's is mean_minus_first"),
        ("pool", "answer", r"pool all, and the recipe's is answer"),
    ],
)
def test_a_feature_read_elsewhere_is_refused(file: Path, field: str, wanted: Any, shown: str) -> None:
    """Neuron 7 of another model, site or layer is another neuron: scores would be noise that looks like scores."""
    with pytest.raises(SourceError, match=shown) as error:
        read_feature_file(file, "nait_directions", dataclasses.replace(BASIS, **{field: wanted}))
    assert str(file) in str(error.value)
    assert "make the file again" in str(error.value)


def test_another_feature_is_refused(file: Path) -> None:
    """One file named for two methods: the message says which was found, which is needed, and what to name."""
    with pytest.raises(
        SourceError, match=r"holds nait_directions, .* needs standardized_centroids: name the folder"
    ) as e:
        read_feature_file(file, **{**READER, "feature": "standardized_centroids"})
    assert str(file) in str(e.value)


def test_a_models_own_weights_are_no_feature_file(tmp_path: Path) -> None:
    """The likeliest wrong safetensors file, in bfloat16, which numpy cannot hold."""
    path = tmp_path / "model.safetensors"
    save_torch_file({"weight": torch.zeros(2, 2, dtype=torch.bfloat16)}, path, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"not a feature file: .* Name a nait_directions\.safetensors") as error:
        read_feature_file(path, **READER)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 100], ids=["empty", "a few bytes", "cut off"])
def test_a_corrupt_file_is_refused(file: Path, keep: int) -> None:
    """A download that was cut off."""
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        SourceError, match=r"is not a readable safetensors file: .* Name a nait_directions\.safetensors"
    ) as e:
        read_feature_file(file, **READER)
    assert str(file) in str(e.value)


@pytest.mark.parametrize("changed", [{"site": None}, {"layers": "3 and 11"}, {"n_samples": "many"}], ids=str)
def test_damaged_metadata_is_refused(file: Path, changed: dict[str, str | None]) -> None:
    """A file that another tool wrote again: one error, not a KeyError from inside."""
    with pytest.raises(SourceError, match=r"is damaged: its metadata .* Name a nait_directions\.safetensors") as error:
        read_feature_file(with_metadata(file, **changed), **READER)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "tensors", [{"other": MATRIX}, {"direction": MATRIX[:1]}, {"direction": MATRIX[0]}], ids=["name", "rows", "vector"]
)
def test_tensors_that_are_not_one_row_per_layer_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Rows are matched with layers by place: a row too few would shift every layer."""
    path = tmp_path / "f.safetensors"
    write_feature_file(path, ORIGIN, tensors)
    with pytest.raises(SourceError, match=r"is damaged: of 2 layers .*'direction'.* Name a nait_directions"):
        read_feature_file(path, **READER)


def test_a_recipe_names_a_file_or_a_folder_of_files(file: Path, make_recipe: Callable[..., Recipe]) -> None:
    """A folder holds one file for each feature, as the features of a run do."""
    folder = make_recipe(capabilities={"math": {"features": str(file.parent)}})
    assert feature_file(folder, "math", "nait_directions") == file
    relative = make_recipe(capabilities={"math": {"features": "features/math/nait_directions.safetensors"}})
    assert feature_file(relative, "math", "nait_directions") == file


@pytest.mark.parametrize("given", ["nowhere.safetensors", "features"], ids=["no file", "nothing in the folder"])
def test_a_missing_file_is_refused(file: Path, make_recipe: Callable[..., Recipe], given: str) -> None:
    """The message says which field of which recipe, where we looked, and what to name."""
    recipe = make_recipe(capabilities={"math": {"features": given}})
    with pytest.raises(SourceError, match=r"capabilities\.math\.features: there is no file .*Name a feature file") as e:
        feature_file(recipe, "math", "nait_directions")
    assert str(recipe.path) in str(e.value)
    assert str(recipe.path.parent / given) in str(e.value)
