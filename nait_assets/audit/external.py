"""What the outside world is now: the versions of the sources, the model and the feature files that outputs read."""

from typing import cast, get_args

from nait_assets.corpora.corpus import corpus_name, is_corpus, source_inputs
from nait_assets.features.capability import feature_file_inputs
from nait_assets.measurements import autoencoder
from nait_assets.models.running import model_inputs
from nait_assets.recipe import FeatureName, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.scoring.inputs import MEASUREMENT_OF


def external_versions(
    recipe: Recipe, warehouse: Warehouse, model: LanguageModel, asset: str, partition: str
) -> dict[str, str]:
    """The versions that an output's inputs from outside have now, by the name that its record gives them.

    Args:
        recipe: That names them.
        warehouse: That remembers the hashes of files.
        model: Of the recipe.
        asset: Key of the output as a path.
        partition: Of the output, or "".

    Raises:
        UserError: A source, the model or a feature file cannot be found or reached.
    """
    room, name = asset.split("/")
    if is_corpus(asset):
        return source_inputs(recipe, corpus_name(asset, partition), warehouse.hashes)
    if asset in MEASUREMENT_OF:
        return MEASUREMENT_OF[asset].outside(recipe, model)
    if asset == autoencoder.ASSET:
        return autoencoder.outside(recipe, model)
    if room == "extraction":
        return model_inputs(model, recipe.model.source)
    if name in get_args(FeatureName):
        return feature_file_inputs(recipe, model, partition, cast("FeatureName", name))
    return {}
