"""A subset before it is stored: what is read for it, which rows are chosen, and the manifest of what it rests on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from nait_assets import __version__
from nait_assets.corpora.eligibility import ineligible
from nait_assets.errors import WarehouseError
from nait_assets.extraction import activation_table
from nait_assets.lineage import Record
from nait_assets.recipe import ACTIVATIONS, POOL, Recipe, Strategy
from nait_assets.resources import Warehouse
from nait_assets.scoring.latest import Latest
from nait_assets.selection.choice import Budget, Choice, chosen_rows, columns_read, gather, read_beside_pool
from nait_assets.selection.duplicates import Duplicates, duplicates_in, near_duplicates_read, texts_of
from nait_assets.selection.held_against import Standing, held_against, standing
from nait_assets.selection.strategies.similarity import Vectors
from nait_assets.selection.turns import rows_by_turn, takes_turns
from nait_assets.tables import CANDIDATE_POOL, CONTAMINATED_CANDIDATES, scores_table


@dataclass(frozen=True)
class Chosen:
    """The subset of a method, target and ratio.

    Attributes:
        method: method that scored the candidates.
        target: target that they were scored for.
        ratio: share of the pool to keep.
        strategy: strategy that took them from the ranking.
        choice: rows that were chosen.
        n_candidates: number of candidates in the ranking.
        flagged: candidates that leak an example; they are among the chosen where the recipe does not drop them.
        near: near duplicates and the candidate that each repeats; None where the recipe looks for none.
        n_pool: number of candidates in the pool.
        examples: what the pool holds of the chosen rows, columns of `tables.EXAMPLE`.
        inputs: versions of everything that was read.
        turns: number of rows taken in the turn of each capability; empty where capabilities took no turns.
        standing: where its rows stand against what chance and the examples reach.
    """

    method: str
    target: str
    ratio: str
    strategy: Strategy
    choice: Choice
    n_candidates: int
    flagged: frozenset[str]
    near: Mapping[str, str] | None
    n_pool: int
    examples: pl.DataFrame
    inputs: Mapping[str, str]
    turns: Mapping[str, int]
    standing: Standing

    @property
    def ground(self) -> str:
        """What the ratio is a share of, in words."""
        return "the pool" if self.n_candidates == self.n_pool else "the candidates that every method has judged"

    @property
    def lowest(self) -> str:
        """What the lowest score of the subset is called: only of the best ranks is it a threshold."""
        return "threshold" if self.strategy.name == "top" else "lowest_score"

    @property
    def cell(self) -> dict[str, str]:
        """Values of the slice columns of `tables.SUBSETS`."""
        return {"method": self.method, "target": self.target, "ratio": self.ratio}

    @property
    def counts(self) -> dict[str, int]:
        """Rows that the ratio asks for and that the best ranks added; candidates below `min_score`, and tokens."""
        low = {} if self.strategy.min_score is None else {"n_too_low": self.choice.n_too_low}
        tokens = {} if self.choice.n_tokens is None else {"n_tokens": self.choice.n_tokens}
        return {"n_wanted": self.choice.n_wanted, "n_filled_up": self.choice.n_filled_up, **low, **tokens}

    @cached_property
    def duplicates(self) -> Duplicates:
        """The duplicates among the chosen rows."""
        return duplicates_in(texts_of(self.with_messages()), self.near)

    def with_messages(self) -> pl.DataFrame:
        """The chosen rows, best first, with what the pool holds of them: columns of `tables.EXAMPLE`, score and rank.

        Raises:
            WarehouseError: A chosen candidate is no longer in the pool.
        """
        chosen = self.choice.rows
        rows = chosen.join(self.examples, on="sample_id", how="inner", maintain_order="left", validate="1:1")
        if len(rows) < len(chosen):
            gone = chosen.join(self.examples, on="sample_id", how="anti")["sample_id"].to_list()
            raise WarehouseError(
                f"{len(gone)} chosen candidate(s) are no longer in the pool, such as {gone[0]}: the scores "
                f"{scores_table(self.method).name} for {self.target} are older than the pool. Materialize them first; "
                "`nait run` does so in order."
            )
        return rows

    def manifest(self, record: Record, recipe: Recipe, upstream: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What the subset rests on: nothing in it changes unless one of these does.

        Args:
            record: version record of the subset.
            recipe: recipe of the subset.
            upstream: every record that it rests on, directly or not, as `lineage.upstream` gives them.
        """
        key = f"model:{recipe.model.source}"
        read: Mapping[str, str] = next((entry["inputs"] for entry in upstream.values() if key in entry["inputs"]), {})
        return {
            "asset": record.asset,
            "partition": record.partition,
            "data_version": record.data_version,
            "code_version": record.code_version,
            "nait_assets": __version__,
            **self.cell,
            "model": {"source": recipe.model.source, "identity": read[key], "dtype": read["dtype"]} if read else None,
            "recipe": recipe.model_dump(mode="json"),
            "inputs": dict(record.inputs),
            "lineage": upstream,
            "selection": self.strategy.settings,
            **({"rows_by_turn": dict(self.turns)} if self.turns else {}),
            **self.standing.stated,
            **self.counts,
            **self.duplicates.counts,
            "n_contaminated": len(self.flagged & set(self.choice.rows["sample_id"].to_list())),
        }


def chosen_by(recipe: Recipe, strategy: Strategy) -> dict[str, Any]:
    """Fields of the recipe that decide, beside scores and ratio, which rows a subset takes, by name."""
    found = {f"selection.{name}": value for name, value in strategy.settings.items()}
    found |= {"selection.of": recipe.selection.of, "decontamination.action": recipe.decontamination.action}
    found |= {"selection.tokens": recipe.selection.tokens} if recipe.selection.tokens is not None else {}
    return found | ({"filters.action": recipe.filters.action} if recipe.filters else {})


def beside(recipe: Recipe) -> tuple[str, ...]:
    """Methods whose scores say who may be chosen: all of the recipe where `selection.of` is `judged`, else none."""
    return recipe.methods if recipe.selection.of == "judged" else ()


def _judged_by_all(scores: pl.DataFrame, others: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The scores of those candidates that have one in every other table too."""
    for other in others:
        scores = scores.join(other.filter(pl.col("rank").is_not_null()), on="sample_id", how="semi")
    return scores


def choose(
    recipe: Recipe, warehouse: Warehouse, method: str, target: str, ratio: str, latest: Latest[Vectors]
) -> Chosen:
    """Read a method's scores for a target, and choose from them as the recipe says.

    Args:
        recipe: recipe of the subset.
        warehouse: warehouse of the home.
        method: method that scored the candidates.
        target: target that they were scored for.
        ratio: share of the pool to keep.
        latest: vectors that an earlier subset was chosen by.

    Raises:
        WarehouseError: Something has not been made.
    """
    strategy = recipe.strategy_of(method, target)
    contamination = [CONTAMINATED_CANDIDATES] if recipe.has_examples else []
    table = scores_table(method)
    with warehouse.tables.snapshot() as tables:
        tables.note(CANDIDATE_POOL.asset)
        n_pool = tables.n_rows(CANDIDATE_POOL)
        scores = tables.read(table.only(*columns_read(strategy)), target=target)
        of_others = (
            tables.read(scores_table(other).only("sample_id", "rank"), target=target) for other in beside(recipe)
        )
        scores = _judged_by_all(scores, of_others)
        thresholds = held_against(recipe, tables, method, target)
        flagged = frozenset(name for table in contamination for name in tables.read(table)["sample_id"].to_list())
        dropped = ineligible(recipe, tables)["sample_id"].to_list()
        near = near_duplicates_read(recipe, tables)
    material = gather(strategy, warehouse, tables.inputs[CANDIDATE_POOL.asset], latest)
    budget, counted = _budget(recipe, warehouse)
    choice = chosen_rows(scores, ratio, dropped, strategy, material, budget)
    inputs = {**tables.inputs, **_noted_beside(recipe, warehouse, method), **(material.inputs or {}), **counted}
    by_turns = takes_turns(recipe, method, target)
    chosen_ids = choice.rows["sample_id"].to_list()
    found = standing(thresholds, choice.rows["score"])
    with warehouse.tables.snapshot() as again:
        again.note(CANDIDATE_POOL.asset)
        again.note(table.asset, target)
        if not again.inputs.items() <= inputs.items():
            raise WarehouseError("the pool or its scores were made anew while a subset was chosen from them; run again")
        examples = again.rows_of(CANDIDATE_POOL, chosen_ids)
        whose = again.rows_of(table.only("sample_id", "whose_turn"), chosen_ids, target=target)
    turns = rows_by_turn(whose, chosen_ids, recipe.capability_names) if by_turns else {}
    sizes = len(scores), flagged, near, n_pool
    return Chosen(method, target, ratio, strategy, choice, *sizes, examples, inputs, turns, found)


def _budget(recipe: Recipe, warehouse: Warehouse) -> tuple[Budget | None, dict[str, str]]:
    """The budget of tokens of every subset, if there is one, and the version of what they were counted by."""
    if recipe.selection.tokens is None:
        return None, {}
    with activation_table.activations_of(warehouse, POOL).snapshot() as stored:
        stored.note(ACTIVATIONS)
        counts = activation_table.samples(stored).select("sample_id", "n_tokens")
    return Budget(recipe.selection.tokens, dict(counts.iter_rows())), stored.inputs


def _noted_beside(recipe: Recipe, warehouse: Warehouse, method: str) -> dict[str, str]:
    """Versions of what the method's strategies read beside the pool: every subset rests on it, for whichever target."""
    inputs: dict[str, str] = {}
    for key in read_beside_pool(recipe.strategies_of(method)):
        with recipe.outputs[key].store(warehouse, "").snapshot() as stored:
            stored.note(key)
            inputs |= stored.inputs
    return inputs
