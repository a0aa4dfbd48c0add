"""A home as Python sees it: what a recipe's runs have made, read-only, as data sets and frames.

Belongs here: reading, by the names that the recipe uses. Does not belong here: making anything, which is Dagster's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from nait_assets.audit.why import Why, why
from nait_assets.catalogue import Catalogue, Output
from nait_assets.definitions import catalogue_of
from nait_assets.errors import DamagedError, NotFoundError, WarehouseError
from nait_assets.evaluation.tables import COMPARISON, FORESIGHT
from nait_assets.lineage import Record, reference
from nait_assets.recipe import load_recipe, ratio_key
from nait_assets.resources import Warehouse, home_of
from nait_assets.resources.home import require_current, require_recipe
from nait_assets.selection.catalogue import subset_output
from nait_assets.tables import Table, scores_table

if TYPE_CHECKING:
    import datasets


class Home:
    """What the runs of a recipe have made. Nothing is written, and a run may go on meanwhile.

    Args:
        recipe: recipe file; `$NAIT_RECIPE`, else the demo, by default, as for the command line.
        folder: folder of the home; `$NAIT_HOME`, else `data/home/<recipe name>`, by default.

    Attributes:
        recipe: the recipe, as it was read.
        folder: folder of the home.

    Raises:
        RecipeError: The recipe cannot be read or contradicts itself.
        WarehouseError: Nothing has been made yet, or the home is another recipe's or another version's.
    """

    def __init__(self, recipe: str | Path | None = None, folder: str | Path | None = None):
        self.recipe = load_recipe(Path(recipe) if recipe is not None else None)
        self.folder = Path(folder).expanduser().absolute() if folder is not None else home_of(self.recipe)
        self._warehouse = Warehouse(home=str(self.folder))
        require_current(self.folder)
        require_recipe(self.folder, self.recipe.name)
        if not self._warehouse.tables.path.is_file():
            raise WarehouseError(f"nothing has been made in {self.folder} yet: `nait run` makes it.")

    def __repr__(self) -> str:
        return f"Home({str(self.recipe.path)!r}, {str(self.folder)!r})"

    def outputs(self) -> pl.DataFrame:
        """What has been made: columns `output`, `partition`, `data_version`, `code_version`, `made_at` (UTC)."""
        columns = ("output", "partition", "data_version", "code_version", "made_at")
        rows = [
            (record.asset, record.partition, record.data_version, record.code_version, record.made_at)
            for record in self._records.values()
        ]
        return pl.DataFrame(rows, dict.fromkeys(columns, pl.String()), orient="row").sort("output", "partition")

    def read(self, output: str, partition: str = "") -> pl.DataFrame:
        """The rows of any output that is a table.

        Args:
            output: key as in the lineage graph, such as `measurements/candidate_outputs`.
            partition: partition key, such as `math` or `math|0.10`; "" for an output without partitions.

        Raises:
            NotFoundError: The recipe has no such output, or it has no table of its own.
            WarehouseError: It has not been made.
        """
        found = self._output(output)
        if found.table is None and type(found).read is Output.read:
            places = self._places(found, partition)
            raise NotFoundError(f"{output} has no table of its own{f'; its files are {places}' if places else ''}.")
        with self._warehouse.tables.snapshot() as tables:
            rows, _ = found.read(self._warehouse, tables, partition)
        return rows

    def candidates(self) -> pl.DataFrame:
        """The pool, one row a candidate: `sample_id`, `messages`, `source`, `source_row`, `topic`, ..."""
        return self.read("corpora/candidate_pool")

    def examples(self, capability: str) -> pl.DataFrame:
        """The in-domain examples of a capability; columns as of the pool."""
        return self.read("corpora/in_domain_set", self._one_of(capability, self.recipe.in_domain_names, "capability"))

    def scores(self, method: str, target: str) -> pl.DataFrame:
        """A method's ranking of the pool for a target: `rank`, `score`, `sample_id`, `reason`, ..., best first.

        Raises:
            NotFoundError: The recipe has no such method or target.
            WarehouseError: The candidates have not been scored.
        """
        self._one_of(method, self.recipe.methods, "method")
        self._one_of(target, self.recipe.targets, "target")
        return self.read(scores_table(method).asset, target).sort("rank", nulls_last=True)

    def subset(self, method: str, target: str, ratio: str | float) -> "datasets.Dataset":
        """The rows that a method chose for a target, best first; verified against the subset's record.

        Args:
            method: a method of the recipe.
            target: a capability, or, of several, `all`.
            ratio: share of the pool, as the recipe has it, `0.1` or `"0.10"`.

        Raises:
            NotFoundError: The recipe has no such method, target or ratio.
            WarehouseError: The subset has not been made.
            DamagedError: Its files are not those that were written.
        """
        import datasets

        self._one_of(method, self.recipe.methods, "method")
        self._one_of(target, self.recipe.targets, "target")
        try:
            ratio = self._one_of(ratio_key(ratio), self.recipe.ratios, "ratio")
        except ValueError as error:
            raise NotFoundError(f"{error}; {self.recipe.path} has {', '.join(self.recipe.ratios)}.") from error
        output = subset_output(method)
        record = self._record(output.key, f"{target}|{ratio}")
        faults = output.faults(self._warehouse, record)
        if faults:
            raise DamagedError(f"{record.reference}: {'; '.join(faults)}")
        folder = output.folder(self._warehouse, target, ratio)
        return datasets.Dataset.from_polars(pl.read_parquet(folder / "train.parquet", glob=False))  # without a cache

    def explain(self, sample_id: str, target: str, method: str | None = None, reasons: int = 5) -> Why:
        """Why a candidate scores as it does and is chosen or not, as `nait explain` prints it.

        Args:
            sample_id: a candidate's id, or the beginning of one.
            target: a capability, or, of several, `all`.
            method: method whose score is explained; by default the recipe's recommended one.
            reasons: most reasons, and most nearest in-domain examples.

        Raises:
            NotFoundError: There is no such candidate, target or method, or several candidates begin so.
            WarehouseError: The candidates have not been scored.
        """
        return why(self.recipe, self._warehouse, sample_id, target, reasons, method)

    def results(self) -> pl.DataFrame:
        """What training did: a row a model, task and metric, with 95 % intervals and differences from random rows.

        Raises:
            NotFoundError: The recipe trains nothing.
            WarehouseError: No model has been trained and evaluated yet.
        """
        return self._of_training(COMPARISON)

    def foresight(self) -> pl.DataFrame:
        """How far each method's scores foretold what training did: rank correlations with 95 % intervals.

        Raises:
            NotFoundError: The recipe trains no probes.
            WarehouseError: They have not been trained and evaluated yet.
        """
        return self._of_training(FORESIGHT)

    def _of_training(self, table: Table) -> pl.DataFrame:
        if table.asset not in self._catalogue:
            needed = "`training` (with `probes` for foresight) and `evaluation.tasks`"
            raise NotFoundError(
                f"{self.recipe.path} trains nothing that is measured: its sections {needed} say what is."
            )
        return self.read(table.asset)

    @property
    def _catalogue(self) -> Catalogue:
        return catalogue_of(self.recipe)

    @property
    def _records(self) -> Mapping[str, Record]:
        return self._warehouse.records()

    def _output(self, key: str) -> Output:
        catalogue = self._catalogue
        if key not in catalogue:
            raise NotFoundError(f"{self.recipe.path} has no output {key!r}; it has {', '.join(sorted(catalogue))}.")
        return catalogue[key]

    def _record(self, key: str, partition: str) -> Record:
        name = reference(key, partition)
        record = self._records.get(name)
        if record is None:
            raise WarehouseError(f"{name} has not been made in {self.folder}. `nait run` makes it.")
        return record

    def _places(self, output: Output, partition: str) -> str:
        record = self._record(output.key, partition)
        return ", ".join(map(str, output.files(self.recipe, self._warehouse, record.partition)))

    def _one_of(self, name: str, names: "tuple[str, ...] | list[str]", what: str) -> str:
        if name not in names:
            raise NotFoundError(f"{self.recipe.path} has no {what} {name!r}; it has {', '.join(names)}.")
        return name
