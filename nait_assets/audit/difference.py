"""What changed between two versions of a subset: which rows, and which input."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from nait_assets.audit.chain import subsets_of
from nait_assets.errors import NotFoundError
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.selection import history
from nait_assets.shown import QUESTION
from nait_assets.tables import CANDIDATE_POOL


@dataclass(frozen=True)
class Version:
    """One version of a subset.

    Attributes:
        name: `<method>/<target>/<ratio>@<data version>`.
        made_at: UTC, ISO 8601.
        sample_ids: Its rows, best first.
        lineage: What it rests on: `code_version`, `data_version` and `inputs` of every output, by reference.
    """

    name: str
    made_at: str
    sample_ids: tuple[str, ...]
    lineage: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Difference:
    """Rows of two versions, in the order of the version that has them, and why they differ."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    causes: tuple[str, ...]


def difference(before: Version, after: Version) -> Difference:
    """What the later version has gained, lost and kept, and which inputs changed."""
    old, new = set(before.sample_ids), set(after.sample_ids)
    return Difference(
        added=tuple(name for name in after.sample_ids if name not in old),
        removed=tuple(name for name in before.sample_ids if name not in new),
        kept=tuple(name for name in after.sample_ids if name in old),
        causes=tuple(changed_inputs(before.lineage, after.lineage)),
    )


def changed_inputs(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The changes that no other change explains: settings, code, sources, models, outputs that came or went."""
    causes = _changed_settings(before, after)
    for output in sorted({*before, *after} - {history.OWN}):
        if output not in before or output not in after:
            causes.append(f"{output} is {'new' if output in after else 'gone'}")
            continue
        old, new = before[output], after[output]
        if old["code_version"] != new["code_version"]:
            said = f"{old['code_version']} -> {new['code_version']}"
            causes.append(f"{output}: the recipe or the code changed ({said})")
        inputs = {name for name in {*old["inputs"], *new["inputs"]} if name not in before and name not in after}
        changed = sorted(name for name in inputs if old["inputs"].get(name) != new["inputs"].get(name))
        causes += [
            f"{output}: {name} changed ({old['inputs'].get(name, 'absent')} -> {new['inputs'].get(name, 'absent')})"
            for name in changed
        ]
        explained = changed or old["code_version"] != new["code_version"] or old["inputs"] != new["inputs"]
        if old["data_version"] != new["data_version"] and not explained:
            causes.append(f"{output} came out otherwise from the same inputs")
    return causes


def _changed_settings(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How rows are chosen otherwise from the same scores, of two versions that say how."""
    if history.OWN not in before or history.OWN not in after:
        return []
    old, new = (one[history.OWN] for one in (before, after))
    changed = [
        f"{name}: {old['settings'].get(name, 'absent')} -> {new['settings'].get(name, 'absent')}"
        for name in sorted({*old["settings"], *new["settings"]})
        if old["settings"].get(name) != new["settings"].get(name)
    ]
    versions = old["code_version"], new["code_version"]
    if not changed and versions[0].partition(":")[0] != versions[1].partition(":")[0]:
        changed = [f"the code that chooses changed ({' -> '.join(versions)})"]
    return changed


def _split(recipe: Recipe, name: str) -> tuple[str, str]:
    """A subset and which version of it, "" for the latest; smaller in-domain sets have the same mark in their names."""
    path, mark, wanted = name.rpartition("@")
    is_target = name.rpartition("/")[2] in recipe.targets
    return (name, "") if not mark or "/" in wanted or is_target else (path, wanted)


def find_version(snapshot: Snapshot, recipe: Recipe, name: str) -> Version:
    """A version by name: a subset alone is its latest; `@` takes the beginning of a data version, or `~N` for N before.

    Raises:
        NotFoundError: There is no such subset or version, or several versions begin so.
    """
    path, wanted = _split(recipe, name)
    cells = subsets_of(recipe, path)
    if len(cells) > 1:
        raise NotFoundError(f"{path!r} names {len(cells)} subsets; give one as <method>/<target>/<ratio>.")
    known = history.versions(snapshot, *cells[0])
    steps = wanted.removeprefix("~")
    if (wanted.startswith("~") and steps.isdigit()) or not wanted:
        place = len(known) - 1 - int(steps or 0)
        found = known.slice(place, 1) if place >= 0 else known.clear()
    else:
        found = known.filter(pl.col("data_version").str.starts_with(wanted)).unique("data_version", keep="last")
    if len(found) != 1:
        listed = ", ".join(f"{row['data_version']} ({row['made_at']})" for row in known.iter_rows(named=True))
        raise NotFoundError(f"{name!r} is not one version of {path}; it has {listed or 'none: it was never made'}.")
    row = found.row(0, named=True)
    return Version(
        f"{path}@{row['data_version']}", row["made_at"], tuple(row["sample_ids"]), json.loads(row["lineage"])
    )


@dataclass(frozen=True)
class Compared:
    """Two versions of a subset side by side.

    Attributes:
        before: the earlier version.
        after: the later one.
        difference: what the later one has gained, lost and kept, and why.
        texts: the first 90 characters of the rows that are still in the pool, by `sample_id`.
    """

    before: Version
    after: Version
    difference: Difference
    texts: Mapping[str, str]


def compare(recipe: Recipe, warehouse: Warehouse, before: str, after: str | None) -> Compared:
    """Two versions of a subset side by side.

    Args:
        recipe: Recipe whose subsets they are.
        warehouse: Warehouse that holds them.
        before: A version; if it is the only one given, it is compared with the one before it.
        after: Another version, of the same or of another subset.

    Raises:
        NotFoundError: A version does not exist.
        WarehouseError: Nothing has been materialized.
    """
    with warehouse.tables.snapshot() as snapshot:
        if after is None:
            before, after = f"{_split(recipe, before)[0]}@~1", before
        old, new = (find_version(snapshot, recipe, name) for name in (before, after))
        found = difference(old, new)
        named = snapshot.rows_of(CANDIDATE_POOL.only("sample_id", "messages"), (*found.added, *found.removed))
    texts = named.select("sample_id", QUESTION.str.slice(0, 90))
    return Compared(old, new, found, dict(texts.iter_rows()))


def text_of(compared: Compared, n_rows: int) -> str:
    """The text that `nait diff` prints.

    Args:
        compared: Versions side by side.
        n_rows: Rows to list of those that came and of those that went.
    """
    old, new, found = compared.before, compared.after, compared.difference

    def listed(names: tuple[str, ...], sign: str) -> list[str]:
        lines = [
            f"  {sign} {name}  {' '.join(compared.texts.get(name, '(no longer in the pool)').split())}"
            for name in names[:n_rows]
        ]
        return [*lines, f"  {sign} and {len(names) - n_rows} more"] if len(names) > n_rows else lines

    return "\n".join(
        [
            f"from {old.name}, made {old.made_at}",
            f"to   {new.name}, made {new.made_at}",
            f"rows: {len(found.added)} added, {len(found.removed)} removed, {len(found.kept)} kept",
            *listed(found.added, "+"),
            *listed(found.removed, "-"),
            "what changed:",
            *(f"  {cause}" for cause in found.causes or ("nothing that is recorded",)),
        ]
    )


def data_of(compared: Compared) -> dict[str, Any]:
    """The same as data: every row that came, went and stayed."""
    versions = {
        name: {"version": version.name, "made_at": version.made_at, "n_rows": len(version.sample_ids)}
        for name, version in (("before", compared.before), ("after", compared.after))
    }
    return {**versions, **asdict(compared.difference)}
