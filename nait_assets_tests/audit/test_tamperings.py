"""Whatever is changed in a finished home, the audit names the output, or the documentation what it passes over."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from nait_assets.recipe import PROJECT_ROOT, Recipe, load_recipe
from nait_assets_tests.audit.tamperings import DAMAGED, HOME, MANIFEST_FIELDS, NOT_COVERED, SUBSET, TAMPERINGS
from nait_assets_tests.command import Answer, nait, quick_home, run
from nait_assets_tests.conftest import conversation, in_domain_rows, pool_rows, write_jsonl

pytestmark = pytest.mark.slow
METHODS = ["nait", "nait_standardized", "random", "perplexity_low", "mona", "cherry"]


def audit(work: Path, *arguments: str | Path) -> Answer:
    """`nait audit` on the home in a folder."""
    return nait("audit", *arguments, "--recipe", work / "recipe.yaml", "--home", work / "home")


def recipe_in(work: Path) -> Recipe:
    """A recipe with every kind of output, over data and a model that lie beside it, so that all can be copied."""
    write_jsonl(work / "pool.jsonl", [*pool_rows(), {"messages": []}])
    for capability in ("code", "math"):
        write_jsonl(work / f"{capability}.jsonl", in_domain_rows(capability))
    write_jsonl(work / "held_out.jsonl", [conversation("code held out?", "yes"), conversation("and this?", "no")])
    write_jsonl(work / "list.jsonl", pool_rows(6))
    fields = {
        "name": "tampered",
        "model": {"source": "model", "dtype": "float32"},
        "extraction": {"max_tokens": 64},
        "candidates": {"source": "pool.jsonl", "topic_field": "topic"},
        "capabilities": {name: {"source": f"{name}.jsonl"} for name in ("code", "math")},
        "evaluation": {"held_out": {"unseen": {"source": "held_out.jsonl"}}},
        "published": {"cherry": {"source": "list.jsonl"}},
        "filters": {"near_duplicates": {}, "action": "report"},
        "methods": METHODS,
        "measurements": {"sparse_autoencoder": {"k": 4, "expansion": 2, "training_tokens": 400}},
        "ratios": [0.3],
    }
    (work / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return load_recipe(work / "recipe.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, causal_folder: Path) -> Path:
    """A folder with data, model, recipe and a home in which everything has been made."""
    work = tmp_path_factory.mktemp("finished")
    shutil.copytree(causal_folder, work / "model")
    run(recipe_in(work), quick_home(work / "home"))
    return work


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, which the test may break."""
    return Path(shutil.copytree(finished, tmp_path / "work"))


def test_a_home_that_was_copied_holds(work: Path) -> None:
    """Else what follows shows nothing."""
    answer = audit(work)
    assert answer.code == 0, answer.out + answer.err
    assert answer.out.splitlines()[-1].startswith(f"{HOME:<44} intact: ")


def test_every_field_of_a_manifest_is_among_what_is_altered(work: Path) -> None:
    """A field that comes later would else be left out of the table."""
    assert sorted(json.loads((work / SUBSET / "manifest.json").read_text())) == sorted(MANIFEST_FIELDS)


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_tampered_with_is_named(work: Path, name: str) -> None:
    """By its output and link, or by its file; a person has to know where to look, and a program that it must."""
    tamper, where = TAMPERINGS[name]
    tamper(work)
    answer = audit(work)
    refused = where.endswith("version of nait_assets") or where.startswith("belongs to the recipe")
    assert answer.code == (2 if refused else 4), answer.out + answer.err
    said = answer.err if answer.err else "\n".join(line for line in answer.out.splitlines() if "BROKEN" in line)
    assert where in said, said
    assert "Traceback" not in answer.out + answer.err


@pytest.mark.parametrize("name", DAMAGED)
def test_status_says_which_file_is_damaged_and_what_it_can_without(work: Path, name: str) -> None:
    """Remembered hashes are no more than a help; empty settings are Dagster's own, and an empty database a new one."""
    tamper, where = DAMAGED[name]
    tamper(work)
    answer = nait("status", "--recipe", work / "recipe.yaml", "--home", work / "home")
    is_new = name.endswith("empty") and "history" in where
    if where == "hashes.json" or is_new or name in ("dagster.yaml empty", "dagster.yaml a list"):
        assert answer.code in (0, 3, 4), answer.err
    else:
        assert answer.code == 4, answer.out + answer.err
        assert where in answer.out + answer.err
    assert "Traceback" not in answer.out + answer.err


@pytest.mark.parametrize("name", NOT_COVERED)
def test_what_is_not_covered_is_in_the_documentation(work: Path, name: str) -> None:
    """What the audit passes over must not be taken for verified."""
    NOT_COVERED[name](work)
    assert audit(work).code == 0
    page = " ".join((PROJECT_ROOT / "docs" / "checks.md").read_text(encoding="utf-8").split())
    assert name in page
