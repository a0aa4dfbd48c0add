"""The chain of a subset, link by link: what each output holds, what it was made from, and whether both are still so.

Belongs here: verifying what is stored against its records. Does not belong here: what is to be made again (`planning`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa

from nait_assets.catalogue import Catalogue, Output
from nait_assets.errors import NotFoundError, UserError, WarehouseError
from nait_assets.lineage import Record, reference
from nait_assets.models.libraries import LIBRARIES, SENTENCES
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import hashes_from_bytes
from nait_assets.resources.warehouse import Store
from nait_assets.selection.catalogue import subset_output
from nait_assets.training.runs import TRAINERS

CONTENT, CODE = "content", "code"
MACHINE_INPUTS = {"dtype", *LIBRARIES, SENTENCES, *TRAINERS}
"""Inputs that another machine may have otherwise, while what is stored is as it was."""
UNREADABLE = (
    WarehouseError,
    duckdb.Error,
    pl.exceptions.PolarsError,
    pa.ArrowException,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading something that was tampered with may end in, as a column may be gone or of another type."""


def _no_output(_key: str) -> Output | None:
    return None


@dataclass(frozen=True)
class Link:
    """One thing that a subset rests on.

    Attributes:
        output: Output whose record states it.
        what: `content`, `code`, or the input that was read.
        holds: Whether it is so; None if it cannot be verified here.
        says: What was found.
    """

    output: str
    what: str
    holds: bool | None
    says: str


@dataclass
class Auditor:
    """Verifies chains; what several subsets rest on is verified once, and every hash is taken from the bytes.

    Attributes:
        recipe: Recipe whose outputs they are.
        warehouse: Warehouse that holds them.
        model: Model of the recipe.
        catalogue: outputs of the recipe.
        code_versions: Code versions that the assets have now, by key as a path.
        output_named: Function from the key of an output that the recipe no longer has to the output, or None.
        damaged: What is wrong with the DuckDB files that cannot be read; complete once `records` is.
        taken: Hashes that were taken, by path.
    """

    recipe: Recipe
    warehouse: Warehouse
    model: LanguageModel
    catalogue: Catalogue
    code_versions: Mapping[str, str | None]
    output_named: Callable[[str], Output | None] = _no_output
    damaged: dict[Path, str] = field(default_factory=dict)
    taken: dict[Path, str] = field(default_factory=dict, repr=False)
    _links: dict[str, list[Link]] = field(default_factory=dict)
    _partitions: dict[str, frozenset[str]] = field(default_factory=dict)
    _records: dict[str, Record] | None = None

    @property
    def records(self) -> dict[str, Record]:
        """Every record of the files that can be read, by reference."""
        if self._records is None:
            self._records = {}
            for file in self.warehouse.files():
                try:
                    with hashes_from_bytes(self.taken):
                        self._records |= Store(file).records()
                except UNREADABLE as error:
                    self.damaged[file] = told(error)
        return self._records

    @property
    def verified(self) -> frozenset[str]:
        """References of the outputs that a chain was asked of, or rests on."""
        return frozenset(self._links)

    def output_of(self, asset: str) -> Output | None:
        """The output with a key, be it of the recipe or of an earlier one."""
        return self.catalogue.get(asset) or self.output_named(asset)

    def chain(self, method: str, target: str, ratio: str) -> list[Link]:
        """Every link that a subset rests on, those nearest to the sources first.

        A subset that was never made is one broken link.
        """
        return self.links(reference(subset_output(method).key, f"{target}|{ratio}"))

    def links(self, output: str) -> list[Link]:
        """As `chain`, of any output, by its reference such as `features/nait_directions[math]`."""
        return list(self._chain(output, set()))

    def _chain(self, output: str, seen: set[str]) -> Iterator[Link]:
        if output in seen:
            return
        seen.add(output)
        record = self.records.get(output)
        if record is None:
            yield Link(output, CONTENT, False, self._why_absent(output))
            return
        for name in sorted(record.inputs):
            if name in self.records or name.partition("[")[0] in self.code_versions:
                yield from self._chain(name, seen)
        yield from self._links_of(record)

    def _why_absent(self, name: str) -> str:
        asset, _, partition = name.partition("[")
        output = self.output_of(asset)
        file = output.store(self.warehouse, partition.removesuffix("]")).path if output else None
        if file in self.damaged:
            return self.damaged[file]
        gone = f"{file} is gone" if file and not file.exists() else "its file is gone"
        return f"there is no record of it: it was never made, or {gone}"

    def _links_of(self, record: Record) -> list[Link]:
        if record.reference not in self._links:
            with hashes_from_bytes(self.taken):
                links = [*self._inputs(record), self._code(record)] if self._is_of_recipe(record) else []
                self._links[record.reference] = [*links, self._content(record)]
        return self._links[record.reference]

    def _is_of_recipe(self, record: Record) -> bool:
        """Whether the recipe still has it: of a renamed capability's outputs it no longer says what they rest on."""
        output = self.catalogue.get(record.asset)
        if output is None or record.asset not in self.code_versions:
            return False
        if record.asset not in self._partitions:
            definition = Partitions.of(self.recipe).of_output(output.partitions)
            keys = definition.get_partition_keys() if definition else [""]
            self._partitions[record.asset] = frozenset(map(str, keys))
        return record.partition in self._partitions[record.asset]

    def _inputs(self, record: Record) -> Iterator[Link]:
        try:
            outside, problem = self._outside(record), ""
        except UserError as error:
            outside, problem = {}, str(error)
        for name, version in sorted(record.inputs.items()):
            if name.partition("#")[0] in MACHINE_INPUTS:
                continue
            parent = self.records.get(name)
            now = parent.data_version if parent else outside.get(name)
            if now is None and problem and ":" in name:
                yield Link(record.reference, name, _unreachable(name, problem), problem)
            elif now is None:
                yield Link(record.reference, name, False, "no longer exists, or the recipe no longer uses it")
            elif now != version:
                yield Link(record.reference, name, False, f"is now {now}; it was {version} when it was read")
            else:
                yield Link(record.reference, name, True, version)

    def _outside(self, record: Record) -> dict[str, str]:
        output = self.catalogue[record.asset]
        return output.external_versions(self.recipe, self.warehouse, self.model, record.partition)

    def _code(self, record: Record) -> Link:
        now = self.code_versions.get(record.asset)
        if now == record.code_version:
            return Link(record.reference, CODE, True, now)
        said = f"the version of recipe and code is now {now}; it was {record.code_version} when this was made"
        return Link(record.reference, CODE, False, said)

    def _content(self, record: Record) -> Link:
        output = self.output_of(record.asset)
        if output is None:
            return Link(record.reference, CONTENT, None, "the recipe has no such output, so nobody says what it holds")
        try:
            faults = [*output.faults(self.warehouse, record), *self._beside(output, record)]
        except UNREADABLE as error:
            faults = [told(error)]
        faults += record.faults
        if faults and not self._is_of_recipe(record):
            faults.append("the recipe no longer has it: `nait clean` removes it")
        return Link(record.reference, CONTENT, not faults, "; ".join(faults) or record.data_version)

    def _beside(self, output: Output, record: Record) -> Iterator[str]:
        """What of that which an output has beside its rows is not as its record says."""
        with output.store(self.warehouse, record.partition).snapshot() as stored:
            found = output.beside(self.warehouse, stored, record.partition)
        for name in sorted({*found, *record.beside}):
            if name not in found:
                yield f"{name} is gone"
            elif found[name] != record.beside.get(name):
                yield f"{name} is not as its record states"


def told(error: Exception) -> str:
    """What an error in `UNREADABLE` says to a person who audits."""
    return str(error) if isinstance(error, UserError) else f"cannot be read: {type(error).__name__}: {error}"


def _unreachable(name: str, problem: str) -> bool | None:
    """A hub that cannot be asked says nothing; a local file that is not there is a broken link."""
    return None if "hub:" in name and "cannot be read" in problem else False


def first_broken(links: Sequence[Link]) -> Link | None:
    """The broken link nearest to the sources, which is the cause of those behind it."""
    return next((link for link in links if link.holds is False), None)


def subsets_of(recipe: Recipe, name: str | None) -> list[tuple[str, str, str]]:
    """Method, target and ratio of the subsets whose path begins so: `nait/math/0.10`, `nait/math`, `nait`, or all.

    Raises:
        NotFoundError: The recipe has none.
    """
    every: list[tuple[str, str, str]] = [
        (m, t, r) for m in recipe.methods for t in recipe.targets for r in recipe.ratios
    ]
    wanted = tuple(name.strip("/").split("/")) if name else ()
    found = [cell for cell in every if cell[: len(wanted)] == wanted]
    if not found and len(wanted) > 1 and wanted[0] in recipe.methods and wanted[1] not in recipe.targets:
        raise NotFoundError(f"{recipe.path}: no subset {name!r}: {recipe.not_a_target(wanted[1])}.")
    if not found:
        raise NotFoundError(
            f"{recipe.path} has no subset {name!r}; they are named <method>/<target>/<ratio> with methods "
            f"{', '.join(recipe.methods)}; targets {', '.join(recipe.targets)}; ratios {', '.join(recipe.ratios)}."
        )
    return found
