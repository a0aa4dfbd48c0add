"""The `nait` command, run in this process as its entry point runs it, and what Dagster recorded of what it made."""

import contextlib
import importlib.resources
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import dagster as dg

from nait_assets import cli
from nait_assets.lineage import reference
from nait_assets.recipe import Recipe
from nait_assets.resources.instance import open_instance


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


def nait(*arguments: str | Path) -> Answer:
    """Run `nait` with arguments."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["nait", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.execute()
    return Answer(code, out.getvalue(), err.getvalue())


def quick_home(folder: Path) -> Path:
    """An empty home, whose Dagster instance can be looked at before a command has made it."""
    (folder / "dagster").mkdir(parents=True)
    settings = importlib.resources.files("nait_assets").joinpath("dagster.yaml")
    (folder / "dagster" / "dagster.yaml").write_bytes(settings.read_bytes())
    return folder


@contextlib.contextmanager
def instance_of(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a home."""
    with open_instance(home / "dagster") as instance:
        yield instance


def materializations(home: Path) -> dict[str, list[dg.AssetMaterialization]]:
    """Every materialization that a home's instance knows, the latest first, by asset and partition."""
    found: dict[str, list[dg.AssetMaterialization]] = {}
    if not (home / "dagster").exists():
        return found
    with instance_of(home) as instance:
        for asset in instance.all_asset_keys():
            for record in instance.fetch_materializations(asset, limit=1000).records:
                event = record.asset_materialization
                assert event is not None
                found.setdefault(reference("/".join(asset.path), event.partition), []).append(event)
    return found


def run(recipe: Recipe, home: Path, *options: str) -> set[str]:
    """Run a recipe; the outputs that were made, by asset and partition."""
    before = Counter({name: len(events) for name, events in materializations(home).items()})
    answer = nait("run", "--recipe", recipe.path, "--home", home, *options)
    assert answer.code == 0, answer.out + answer.err
    return set(Counter({name: len(events) for name, events in materializations(home).items()}) - before)


def metadata_of(home: Path, output: str) -> dict[str, object]:
    """What the latest materialization of an output says of it."""
    return {name: value.value for name, value in materializations(home)[output][0].metadata.items()}
