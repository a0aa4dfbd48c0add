"""What in-domain examples alone tell of a capability's direction, before a model has read anything."""

from collections.abc import Sequence

import polars as pl

from nait_assets.conversation import conversations_of
from nait_assets.corpora.corpus import read_corpus
from nait_assets.errors import DataError, UserError
from nait_assets.extraction.extractor import encoded_samples
from nait_assets.extraction.neurons import tokens_of
from nait_assets.features.capability import whole_examples
from nait_assets.features.directions import LEAST_CHANGING
from nait_assets.models import cuts
from nait_assets.models.encoding import EncodedSample
from nait_assets.recipe import ALL, Pooling, Recipe
from nait_assets.resources import LanguageModel
from nait_assets.tables import NAIT_DIRECTIONS


def require_direction(recipe: Recipe, model: LanguageModel, capability: str, pooling: Pooling) -> None:
    """Whether a direction can be made of a capability's examples, as far as their tokens tell.

    Raises:
        DataError: Most examples are cut, or all but one have a single token of the pooling, in which nothing changes.
    """
    samples = _samples(recipe, model, capability)
    if not samples:
        return
    is_whole = whole_examples(pl.DataFrame(cuts.columns_of(samples), schema=cuts.COLUMNS), recipe, capability)
    used = [sample for sample, is_used in zip(samples, is_whole, strict=True) if is_used]
    key = NAIT_DIRECTIONS.of_pooling(pooling).asset
    readers = ", ".join(name for name in recipe.methods if key in recipe.reads_of(name))
    # of `all` the first token, which begins the sample, is no part of the mean
    n_changing = sum(int(tokens_of(pooling, sample).sum()) > (pooling != ALL) for sample in used)
    if n_changing < LEAST_CHANGING:
        raise DataError(
            f"capability {capability!r}: {len(used) - n_changing} of {len(used)} examples have a single token in the "
            f"pool {pooling!r}, from whose first to whose last nothing changes, and a direction takes at least "
            f"{LEAST_CHANGING} that change. Let {readers} read another: the option `pool: all`, with `all` in "
            "`extraction.pool`; or give it more examples."
        )


def _samples(recipe: Recipe, model: LanguageModel, capability: str) -> Sequence[EncodedSample]:
    """A capability's examples as the model reads them; none where they are not here, or cannot be had."""
    if not recipe.capability_named(capability).examples:
        return []
    try:
        examples = conversations_of(read_corpus(recipe, capability).examples)
    except UserError:
        return []  # the output that holds them says so, before the model is loaded
    return encoded_samples(examples, model, recipe.extraction)[0]
