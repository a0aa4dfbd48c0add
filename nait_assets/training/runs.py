"""A training run: rows, base, settings and seed. What it makes is named by its content, so nothing is trained twice.

Belongs here: what a run is, its key and its folder. Does not belong here: which runs an output consists of
(`planned`), and how one is carried out (`making`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nait_assets.conversation import Conversation
from nait_assets.models.libraries import library_versions
from nait_assets.recipe import Recipe, Training, fingerprint
from nait_assets.resources import LanguageModel
from nait_assets.training.launch import Launch

ALGORITHM = "1"
TRAINERS = ("accelerate", "peft", "trl")
"""Libraries that train, beside those that read."""
FOLDER = "training"
MANIFEST = "training.json"
"""In a model's folder: what it was trained on and how, what it cost, and the hash of each file."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One model that is to be there.

    Attributes:
        label: How messages name it, such as `nait [math|0.10], seed 0`.
        conversations: Pairs of `sample_id` and conversation in the order of the ids, so that two methods that choose
            the same rows in another order share a model.
        seed: Seed of the order in which rows are read, and of an adapter's beginning.
        settings: All that is set of the training, as `settings_of` gives it.
        base: `source`, `identity` and `dtype` of the model that is trained.
        launch: How processes are started.
        number: Seed, draw or probe by which the output that it is for tells its models apart.
    """

    label: str
    conversations: Sequence[tuple[str, Conversation]]
    seed: int
    settings: Mapping[str, Any]
    base: Mapping[str, str]
    launch: Launch = field(default_factory=Launch)
    number: int = 0

    @cached_property
    def sample_ids(self) -> list[str]:
        """The rows."""
        return [sample_id for sample_id, _ in self.conversations]

    @cached_property
    def key(self) -> str:
        """Hash of all that the weights depend on, save for rounding."""
        base = [self.base["identity"], self.base["dtype"]]
        given = [dict(self.settings), base, self.seed, *self.launch.settings, library_versions(*TRAINERS)]
        return fingerprint(ALGORITHM, self.sample_ids, *given)

    def folder(self, home: Path) -> Path:
        """Where the model lies."""
        return model_folder(home, self.key)

    def growing(self, home: Path) -> Path:
        """Where its checkpoints are while it is trained."""
        return model_folder(home, f".growing.{self.key}")


def model_folder(home: Path, key: str) -> Path:
    """The folder of a trained model."""
    return home / FOLDER / key


def in_order(conversations: Sequence[tuple[str, Conversation]]) -> list[tuple[str, Conversation]]:
    """Conversations in the order of their ids."""
    return sorted(conversations, key=lambda pair: pair[0])


def base_of(recipe: Recipe, model: LanguageModel) -> LanguageModel:
    """The model that is trained: the recipe's, or the one that `training.base` names.

    Args:
        recipe: Recipe with a section `training`.
        model: Model of the recipe, whose home and device the other has too.
    """
    spec = training_of(recipe).base
    if spec is None:
        return model
    return LanguageModel.of(recipe, Path(model.home), model.device, spec, "training.base.source")


def training_of(recipe: Recipe) -> Training:
    """The section of a recipe that trains something."""
    assert recipe.training is not None, "a recipe without the section `training` trains nothing"
    return recipe.training


READING = ("template", "template_date", "system", "unshown", "truncate")
"""What of the recipe's `extraction` decides how a row is read; training has a `max_tokens` of its own."""


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Fields of the recipe that the weights depend on, beside the base; the same for all runs but the probes'."""
    training = training_of(recipe)
    names = (
        "learning_rate",
        "batch_size",
        "max_tokens",
        "schedule",
        "warmup_ratio",
        "weight_decay",
        "epochs",
        "betas",
        "max_grad_norm",
        "bf16",
        "loss_on",
    )
    reading = recipe.extraction.model_dump(mode="json", include={*READING})
    adapter = training.adapter.model_dump(mode="json") if training.adapter else None
    return {**{name: getattr(training, name) for name in names}, "adapter": adapter, "reading": reading}


def probe_settings_of(recipe: Recipe) -> dict[str, Any]:
    """As `settings_of`, of the probes."""
    training = training_of(recipe)
    assert training.probes is not None, "a recipe without the section `training.probes` trains none"
    probes = training.probes
    own = {"epochs": probes.epochs, "batch_size": probes.batch_size}
    rate = {} if probes.learning_rate is None else {"learning_rate": probes.learning_rate}
    return {**settings_of(recipe), **own, **rate}
