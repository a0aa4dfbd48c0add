"""How assets are partitioned, and which partitions each one needs of the ones before it."""

from dataclasses import dataclass

import dagster as dg

from nait_assets.recipe import COMPREHENSIVE_TARGET, SIZE_MARK, Recipe

CELL_DIMENSIONS = ("capability", "ratio")


@dataclass(frozen=True)
class Partitions:
    """Partitions of a recipe, and the mappings between them.

    Attributes:
        capability: Every capability, and every smaller in-domain set.
        with_examples: Those that the model reads examples of; the others come from feature files.
        evaluation: Held-out sets.
        task: Tasks whose examples the recipe names.
        target: What candidates are scored for: those, and, where there are several, all capabilities together.
        cell: Target x ratio. Its dimension is called `capability` so that keys read `math|0.10`.
        trained_cell: Cells whose subsets a model is trained on; None where the recipe trains none.
        trained_ratio: Ratios of those cells; None as well.
    """

    capability: dg.StaticPartitionsDefinition
    with_examples: dg.StaticPartitionsDefinition
    evaluation: dg.StaticPartitionsDefinition
    task: dg.StaticPartitionsDefinition
    target: dg.StaticPartitionsDefinition
    cell: dg.MultiPartitionsDefinition
    trained_cell: dg.MultiPartitionsDefinition | None = None
    trained_ratio: dg.StaticPartitionsDefinition | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "Partitions":
        """Partitions from the names in a recipe."""
        target, ratio = (dg.StaticPartitionsDefinition(list(names)) for names in (recipe.targets, recipe.ratios))
        trained_cell = trained_ratio = None
        if recipe.training is not None:
            trained, trained_ratio = (
                dg.StaticPartitionsDefinition(names)
                for names in (recipe.training.targets_of(recipe), recipe.training.ratios_of(recipe))
            )
            trained_cell = dg.MultiPartitionsDefinition({"capability": trained, "ratio": trained_ratio})
        return cls(
            dg.StaticPartitionsDefinition(recipe.in_domain_names),
            dg.StaticPartitionsDefinition(recipe.in_domain_sets),
            dg.StaticPartitionsDefinition(recipe.evaluation_names),
            dg.StaticPartitionsDefinition(recipe.evaluation.names_with_examples),
            target,
            dg.MultiPartitionsDefinition({"capability": target, "ratio": ratio}),
            trained_cell,
            trained_ratio,
        )

    def of_output(self, name: str | None) -> dg.PartitionsDefinition | None:
        """The partitions that an output names, `capability`; None for an output without partitions."""
        definition: dg.PartitionsDefinition | None = getattr(self, name) if name else None
        return definition

    def examples_to_features(self) -> dg.PartitionMapping:
        """Each capability's features rest on its own examples; one from a feature file rests on none."""
        return dg.StaticPartitionMapping({name: name for name in self.with_examples.get_partition_keys()})

    def features_to_scores(self) -> dg.PartitionMapping:
        """A target rests on its own capability, the comprehensive target on every one; on no smaller set."""
        of_all = {COMPREHENSIVE_TARGET} & set(self.target.get_partition_keys())
        return dg.StaticPartitionMapping(
            {name: {name} if SIZE_MARK in name else {name, *of_all} for name in self.capability.get_partition_keys()}
        )

    def whole_sets(self) -> dg.PartitionMapping:
        """The examples of all capabilities, without smaller sets of them."""
        keys = [name for name in self.with_examples.get_partition_keys() if SIZE_MARK not in name]
        return dg.SpecificPartitionsPartitionMapping(keys)

    def scores_to_subsets(self) -> dg.PartitionMapping:
        """A cell rests on its target's scores."""
        return dg.MultiToSingleDimensionPartitionMapping("capability")

    def subsets_to_models(self) -> dg.PartitionMapping:
        """A model rests on the subset of its cell."""
        same = {name: dg.DimensionPartitionMapping(name, dg.IdentityPartitionMapping()) for name in CELL_DIMENSIONS}
        return dg.MultiPartitionMapping(same)


def cell_of(partition_key: object) -> tuple[str, str]:
    """Target and ratio of a subset's partition key."""
    target, _, ratio = str(partition_key).partition("|")
    return target, ratio
