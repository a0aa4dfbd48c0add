"""The recipe: everything that a user may set and that can change a result."""

from nait_assets.recipe.evaluation import AnswerTask, ChoiceTask, CodeTask, Evaluation, LossTask, NamedTask, Task
from nait_assets.recipe.filters import Filters, NearDuplicates, Quality
from nait_assets.recipe.fingerprints import fingerprint, seeded_order
from nait_assets.recipe.load import load_recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.recipe.methods import declared_methods
from nait_assets.recipe.paths import DEFAULT_RECIPE, PROJECT_ROOT
from nait_assets.recipe.pooling import ALL, POOLINGS, ActivationOptions, Pooling, pooled
from nait_assets.recipe.ratios import ratio_key, rounded_up
from nait_assets.recipe.schema import (
    ACTIVATIONS,
    CANDIDATES,
    COMPREHENSIVE_TARGET,
    EVALUATION,
    EXAMPLES,
    POOL,
    PUBLISHED,
    SIZE_MARK,
    STATISTICS,
    TASKS,
    FeatureName,
    Recipe,
)
from nait_assets.recipe.section import Section
from nait_assets.recipe.sections import (
    Capability,
    CsvOptions,
    Extraction,
    FieldTemplates,
    FormatName,
    ModelSpec,
    Prices,
    Projection,
    Source,
    TurnsFormat,
)
from nait_assets.recipe.strategies import Selection, Strategy, StrategyName
from nait_assets.recipe.training import Training
