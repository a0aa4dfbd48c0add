"""After any edit, what a home has made step by step is what a fresh home makes of the same recipe and files at once.

A home that says that it is current is the promise of the whole project; every way of breaking it that anybody thought
of has a test of its own, and this one tries those that nobody thought of. Left out is what depends on a home's past by
design: costs, history, times, and the calibration of a projection and a trained autoencoder, which are frozen.
"""

import copy
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from nait_assets.cli.messages import AUDIT_BROKEN
from nait_assets.definitions import build_definitions
from nait_assets.errors import UserError
from nait_assets.extraction import activation_table
from nait_assets.leftovers import leftovers
from nait_assets.lineage import asset_path
from nait_assets.measurements import engine
from nait_assets.recipe import Recipe, load_recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Store
from nait_assets_tests.at_once import BlockedError, Outcomes, make_at_once
from nait_assets_tests.command import Answer, instance_of, nait
from nait_assets_tests.edits import METHODS, World, beginning, edit, with_system

OF_THE_PAST = {"lineage.costs", "lineage.versions", "selection.history", "report.method_costs"}
EXACT = ("corpora/", "extraction/", "measurements/")
"""Outputs whose content is the same to the bit. That of others is sums over samples in the order in which they lie in a
table, which is another one where they were read on different days; their last digits differ, and with them versions."""
CLOSE = 1e-5
Rows = list[dict[str, Any]]
Picture = dict[str, str | Rows]
"""All that two homes must agree in, by the name of the thing."""


@pytest.fixture
def world(causal_folder: Path, tmp_path: Path) -> World:
    """An empty one, with two sets of weights."""
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(causal_folder, tmp_path / "files" / "model"))
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    shutil.copy(model / "model.safetensors", first)
    tensors = load_file(first)
    save_file({name: tensor.flip(0).contiguous() for name, tensor in tensors.items()}, second, {"format": "pt"})
    return World(tmp_path / "files", (first, second), beginning(Random(0), []))


def command(world: World, home: Path, name: str, *options: str) -> Answer:
    """A command on a home, its paths as in any other home; a run reads one sample at a time.

    What shares a batch changes a sample's numbers in their last digits, and what shares one depends on what was there.
    """
    alone = ["--batch-tokens", "1"] if name == "run" else []
    answer = nait(name, "--recipe", world.recipe, "--home", home, *alone, *options)
    return Answer(answer.code, answer.out, answer.err.replace(str(home), "HOME"))


def rows_of(store: Store, recipe: Recipe, gone: set[str]) -> Iterator[tuple[str, Rows]]:
    """Every table of a file, without what the recipe no longer has: rows, and tables of the assets that are gone."""
    has: dict[str, set[str]] = {
        "method": set(recipe.methods),
        "target": set(recipe.targets),
        "capability": set(recipe.capability_names),
        "ratio": set(recipe.ratios),
        "corpus": {"candidates", *recipe.capability_names},
    }
    with store.snapshot() as snapshot:
        query = "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'store'"
        for (name,) in snapshot.connection.execute(query).fetchall():
            if name in OF_THE_PAST or name.endswith("_staged") or name.replace(".", "/") in gone:
                continue
            frame = snapshot.connection.sql(f"FROM {name}").pl()
            for column in set(frame.columns) & set(has):
                frame = frame.filter(frame[column].is_in(list(has[column])))
            if len(frame):
                yield name, in_order(frame)


def in_order(frame: pl.DataFrame) -> Rows:
    """Rows by what of them is no number."""
    given = [name for name, kind in sorted(frame.schema.items()) if not (kind.is_float() or kind.is_nested())]
    return sorted(frame.to_dicts(), key=lambda row: repr([row[name] for name in given]))


def close(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


def picture(home: Path, recipe: Recipe, checked: Outcomes | None = None) -> Picture:
    """Tables, records, files and outcomes of checks of what a recipe has.

    Args:
        home: home with all of it.
        recipe: the recipe.
        checked: outcomes of its checks; those that its Dagster instance knows by default.
    """
    warehouse, definitions = Warehouse(home=str(home)), build_definitions(recipe, home)
    left = leftovers(recipe, definitions, warehouse)
    names = {one.reference for one in left}
    gone = {one.output.key for one in left} - {asset_path(spec.key) for spec in definitions.resolve_all_asset_specs()}
    found: Picture = {}
    for name, record in warehouse.records().items():
        if name in names:
            continue
        exact = record.asset.startswith(EXACT)
        known = record.data_version, {key: version for key, version in record.inputs.items() if key.startswith(EXACT)}
        found[f"record {name}"] = f"{record.code_version} {known if exact else ''} {sorted(record.inputs)}"
        output = recipe.outputs.get(record.asset)
        if output is not None and output.store(warehouse, record.partition).path != warehouse.tables.path:
            for table, rows in rows_of(output.store(warehouse, record.partition), recipe, gone):
                found[f"{table} of {name}"] = rows
    found |= {f"table {name}": rows for name, rows in rows_of(warehouse.tables, recipe, gone)}
    checked = outcomes(home, definitions) if checked is None else checked
    said = {f"check {key.to_user_string()} [{name}]": str(status) for (key, name), status in checked.items()}
    return found | files(home, recipe) | said


def files(home: Path, recipe: Recipe) -> Picture:
    """Files that others take."""
    found: Picture = {}
    for method in recipe.methods:
        for target in recipe.targets:
            for ratio in recipe.ratios:
                folder = home / "subsets" / method / target / ratio
                place = f"file {method}/{target}/{ratio}"
                found[f"{place}: all"] = str(sorted(file.name for file in folder.iterdir()))
                found[f"{place}: train.parquet"] = pl.read_parquet(folder / "train.parquet", glob=False).to_dicts()
                for name in ("train.jsonl", "alpaca.json"):
                    found[f"{place}: {name}"] = (folder / name).read_text() if (folder / name).exists() else ""
                card = (folder / "README.md").read_text()
                found[f"{place}: README.md"] = re.sub(r"`[0-9a-f]{16}`", "`VERSION`", card)
    return found


def outcomes(home: Path, definitions: Any) -> Outcomes:
    """The latest evaluation of each check of each partition."""
    graph = definitions.resolve_asset_graph()
    with instance_of(home) as instance:
        infos = instance.event_log_storage.get_asset_check_partition_info(list(graph.asset_check_keys))
    found: Outcomes = {}
    for info in infos:
        partitions = graph.get(info.check_key.asset_key).partitions_def
        keys = {str(key) for key in partitions.get_partition_keys()} if partitions else {None}
        if info.partition_key in keys:
            found[info.check_key, info.partition_key] = info.latest_execution_status
    return found


def different(one: Picture, other: Picture) -> str:
    """What is not the same, in a few lines."""
    lines = []
    for name in sorted({*one, *other}):
        if not close(one.get(name), other.get(name)):
            both = [set(_lines(given.get(name, ""))) for given in (one, other)]
            shown = [" | ".join(sorted(mine - theirs))[:600] for mine, theirs in (both, both[::-1])]
            lines.append(f"{name}:\n  incremental: {shown[0]}\n  fresh:       {shown[1]}")
    return "\n".join(lines[:12])


def _lines(content: str | Rows) -> list[str]:
    return content.splitlines() if isinstance(content, str) else [str(row) for row in content]


class Walk:
    """Edits of a world, with a home that is brought up to date after each, and a fresh home beside it."""

    def __init__(self, world: World, seed: int, methods: list[str], folder: Path):
        self.world, self.home, self.folder, self.random = world, folder / "home", folder, Random(seed)
        self.did = [f"seed {seed}"]
        self.known: dict[str, tuple[Answer, Picture]] = {}
        world.put(beginning(self.random, methods))
        self.compare()
        world.earlier.append(copy.deepcopy(world.state))

    def step(self) -> None:
        """One edit. Where its recipe or files are refused, both homes say the same, and it is taken back."""
        before = copy.deepcopy(self.world.state)
        self.did.append(edit(self.random, self.world, self.home))
        if self.compare():
            self.world.earlier.append(copy.deepcopy(self.world.state))
            return
        self.did.append("take it back")
        self.world.put(before)
        assert self.compare(), self.story()

    def story(self) -> str:
        """What was done so far, and to what it came."""
        return f"{' > '.join(self.did)}\n{json.dumps(self.world.state.recipe)}"

    def compare(self) -> bool:
        """Bring the home up to date and compare it; whether the recipe could be made."""
        said, (fresh_said, fresh) = command(self.world, self.home, "run"), self.fresh()
        assert (said.code, said.err) == (fresh_said.code, fresh_said.err), f"{self.story()}\n{said}\n{fresh_said}"
        if said.code:
            return False
        status, audit = command(self.world, self.home, "status"), command(self.world, self.home, "audit")
        if audit.code == AUDIT_BROKEN and all("`nait clean` removes it" in line for line in broken(audit)):
            command(self.world, self.home, "clean", "--yes")  # what an edit deleted was the recipe's no longer
            audit = command(self.world, self.home, "audit")
        assert (status.code, audit.code) == (0, 0), f"{self.story()}\n{status.out}{audit.out}{audit.err}"
        found = different(picture(self.home, load_recipe(self.world.recipe)), fresh)
        assert not found, f"{self.story()}\n{found}"
        return True

    def fresh(self) -> tuple[Answer, Picture]:
        """What a fresh home of the same recipe and files has, or why it cannot be made; once for each state."""
        key = self.world.state.key
        if key not in self.known:
            home = self.folder / "fresh"
            shutil.rmtree(home, ignore_errors=True)
            try:
                recipe = load_recipe(self.world.recipe)
                self.known[key] = Answer(0, "", ""), picture(home, recipe, make_at_once(recipe, home))
            except (BlockedError, UserError):
                shutil.rmtree(home, ignore_errors=True)
                self.known[key] = command(self.world, home, "run"), {}
        return self.known[key]


def broken(audit: Answer) -> list[str]:
    """Lines of an audit that name something broken."""
    return [line for line in audit.out.splitlines() if "BROKEN" in line]


def test_a_few_edits(world: World, tmp_path: Path) -> None:
    """A method of each kind: of activations, of a reading under the head, and of texts."""
    walk = Walk(world, 1, ["nait_standardized", "rds_plus", "bm25"], tmp_path)
    for _ in range(6):
        walk.step()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_two_hundred_edits(world: World, tmp_path: Path, seed: int) -> None:
    """Twenty of each seed, from three methods that the seed chooses."""
    walk = Walk(world, 100 + seed, Random(seed).sample(METHODS, 3), tmp_path)
    for _ in range(20):
        walk.step()


def test_a_fault_of_old_is_found(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a reading's version left out what it had refused, and scores of fewer rows were called current."""
    for module in (engine, activation_table):
        monkeypatch.setattr(module, "version_with_refused", lambda version, _rejected: version)
    walk = Walk(world, 1, ["rds_plus"], tmp_path)
    state = copy.deepcopy(world.state)
    state.pool.extend(with_system(walk.random) for _ in range(10))
    world.put(state)
    with pytest.raises(AssertionError, match=r"rds_plus"):
        walk.compare()
