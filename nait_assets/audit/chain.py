"""The chain of a subset, link by link: what each output holds, what it was made from, and whether both are still so.

Belongs here: verifying what is stored against its records. Does not belong here: what is to be made again (`planning`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nait_assets.catalogue import Catalogue
from nait_assets.errors import NotFoundError, UserError, WarehouseError
from nait_assets.lineage import Record, reference
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.selection.catalogue import subset_output

CONTENT, CODE = "content", "code"
MACHINE_INPUTS = {"dtype"}
"""Inputs that another machine may have otherwise, while what is stored is as it was."""


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
    """Verifies chains; what several subsets rest on is verified once.

    Attributes:
        recipe: Recipe whose outputs they are.
        warehouse: Warehouse that holds them.
        model: Model of the recipe.
        catalogue: outputs of the recipe.
        code_versions: Code versions that the assets have now, by key as a path.
    """

    recipe: Recipe
    warehouse: Warehouse
    model: LanguageModel
    catalogue: Catalogue
    code_versions: Mapping[str, str | None]
    _links: dict[str, list[Link]] = field(default_factory=dict)
    _records: dict[str, Record] | None = None

    @property
    def records(self) -> dict[str, Record]:
        """Every record of the home, by reference."""
        if self._records is None:
            self._records = self.warehouse.records()
        return self._records

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
            yield Link(output, CONTENT, False, "there is no record of it: it was never made, or its file is gone")
            return
        for name in sorted(record.inputs):
            if name in self.records or name.partition("[")[0] in self.code_versions:
                yield from self._chain(name, seen)
        yield from self._links_of(record)

    def _links_of(self, record: Record) -> list[Link]:
        if record.reference not in self._links:
            self._links[record.reference] = [*self._inputs(record), self._code(record), self._content(record)]
        return self._links[record.reference]

    def _inputs(self, record: Record) -> Iterator[Link]:
        try:
            outside, problem = self._outside(record), ""
        except UserError as error:
            outside, problem = {}, str(error)
        for name, version in sorted(record.inputs.items()):
            if name in MACHINE_INPUTS:
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
        output = self.catalogue.get(record.asset) if record.asset in self.code_versions else None
        return output.external_versions(self.recipe, self.warehouse, self.model, record.partition) if output else {}

    def _code(self, record: Record) -> Link:
        now = self.code_versions.get(record.asset)
        if now == record.code_version:
            return Link(record.reference, CODE, True, now)
        said = f"the version of recipe and code is now {now}; it was {record.code_version} when this was made"
        return Link(record.reference, CODE, False, said)

    def _content(self, record: Record) -> Link:
        output = self.catalogue.get(record.asset)
        if output is None:
            return Link(record.reference, CONTENT, None, "the recipe has no such output, so nobody says what it holds")
        try:
            faults = output.faults(self.warehouse, record)
        except WarehouseError as error:
            faults = [str(error)]
        return Link(record.reference, CONTENT, not faults, "; ".join(faults) or record.data_version)


def _unreachable(name: str, problem: str) -> bool | None:
    """A hub that cannot be asked says nothing; a local file that is not there is a broken link."""
    return None if "hub:" in name and "cannot be read" in problem else False


def first_broken(links: list[Link]) -> Link | None:
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
    if not found:
        raise NotFoundError(
            f"{recipe.path} has no subset {name!r}; they are named <method>/<target>/<ratio> with methods "
            f"{', '.join(recipe.methods)}; targets {', '.join(recipe.targets)}; ratios {', '.join(recipe.ratios)}."
        )
    return found
