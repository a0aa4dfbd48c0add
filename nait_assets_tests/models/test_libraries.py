"""Which versions of libraries have everything read again, and which have not."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

from nait_assets.extraction.extractor import extraction_identity
from nait_assets.measurements.catalogue import MEASUREMENTS
from nait_assets.models.libraries import LIBRARIES, SENTENCES, library_versions
from nait_assets.models.running import model_inputs
from nait_assets.recipe import Extraction, Recipe
from nait_assets.resources import LanguageModel

WITHOUT_A_MODEL = {"judgements", "rewards"}
"""Of a service behind an address; and, in this recipe, of a reward model that it does not name."""


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Let libraries have these versions."""
    before = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or before(name))


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("2.13.0", "2.13"),
        ("2.13.1", "2.13"),
        ("2.13.1+cu128", "2.13"),
        ("2.13+cpu", "2.13"),
        ("0.22.1", "0.22"),
        ("5.24.0.dev0", "5.24.0.dev0"),
        ("5.24.0rc1", "5.24.0rc1"),
    ],
)
def test_a_release_is_named_by_major_and_minor_and_what_is_none_whole(
    monkeypatch: pytest.MonkeyPatch, version: str, named: str
) -> None:
    """As docs/extraction.md says: a patch and a build change rounding at most, a development version anything."""
    installed(monkeypatch, torch=version)
    assert library_versions()["torch"] == named


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_minor_version_has_everything_read_again_and_a_patch_nothing(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, tmp_path: Path, library: str
) -> None:
    """Rows that two releases have read must not lie in one table; nor may a mended bug of Windows cost a week."""
    model = LanguageModel(source=str(model_folder), dtype="float32", home=str(tmp_path), device="cpu")

    def identities(version: str) -> tuple[object, ...]:
        installed(monkeypatch, **{library: version})
        inputs = model_inputs(model, "m")
        return extraction_identity(model, Extraction(), False, ""), inputs[library], tuple(inputs.items())

    first, patch, minor = identities("3.4.5"), identities("3.4.6+cpu"), identities("3.5.0")
    assert first == patch
    assert all(one != other for one, other in zip(first, minor, strict=True))


def test_every_measurement_of_a_model_here_names_the_libraries(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """A kind of measurement that forgets them would mix what two releases have read."""
    source = tmp_path / "encoder"
    source.mkdir()
    sections = {"embeddings": {"source": str(source)}}
    recipe = make_recipe(
        model={"source": str(causal_folder), "dtype": "float32"}, methods=["random"], measurements=sections
    )
    model = LanguageModel.of(recipe, tmp_path / "home")
    for measurement in MEASUREMENTS:
        if measurement.name not in WITHOUT_A_MODEL:
            assert {*LIBRARIES} <= {*measurement.external_versions(recipe, model)}, measurement.name
    (embeddings,) = (one for one in MEASUREMENTS if one.name == "embeddings")
    assert SENTENCES in embeddings.external_versions(recipe, model)
