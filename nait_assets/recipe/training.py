"""The section `training`: what is trained on which rows, and how. A recipe without it trains nothing."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from nait_assets.recipe.ratios import ratio_key
from nait_assets.recipe.section import Section
from nait_assets.recipe.sections import ModelSpec

Keep = Literal["weights", "adapter", "none"]


class TrainedCells(Section):
    """The subsets that a model is trained on: every method for every target and ratio."""

    methods: tuple[str, ...] | None = Field(None, description="Methods; all of the recipe by default, [] for none.")
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="Targets; all by default but smaller sets of examples."
    )
    ratios: tuple[str, ...] | None = Field(None, min_length=1, description="Ratios; all of the recipe by default.")

    @field_validator("ratios", mode="before")
    @classmethod
    def _ratios_are_keys(cls, ratios: Any) -> Any:
        return [ratio_key(ratio) for ratio in ratios] if isinstance(ratios, list | tuple) else ratios


class References(Section):
    """Models that those of the methods are compared with."""

    base: bool = Field(True, description="The base model without training.")
    full: bool = Field(True, description="A model trained on the whole pool.")
    random: int = Field(3, ge=0, description="Random draws of every ratio, a model each.")
    random_matched: int = Field(
        0, ge=0, description="Random draws a subset with its number of answer tokens and their lengths, a model each."
    )


class Lora(Section):
    """An adapter of low rank on linear layers."""

    rank: int = Field(16, ge=1, description="Rank of the adapter.")
    alpha: float = Field(32, gt=0, description="alpha / rank scales what the adapter adds.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs that training leaves out.")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="Linear modules that get an adapter, by name; all but the head by default."
    )


class Probes(Section):
    """Small subsets chosen by no method, and a model trained briefly on each."""

    number: int = Field(32, ge=4, description="Subsets.")
    rows: int = Field(96, ge=2, description="Rows of each.")
    uniform: int = Field(8, ge=0, description="Subsets drawn from the whole pool; the others are neighbourhoods.")
    epochs: int = Field(1, ge=1, description="Epochs of each training.")
    batch_size: int = Field(8, ge=1, description="Rows of a step.")
    learning_rate: float | None = Field(None, gt=0, description="Highest learning rate; that of `training` by default.")
    seed: int = Field(0, ge=0, description="Seed of which rows they are, and of their order.")

    @model_validator(mode="after")
    def _some_of_each(self) -> "Probes":
        if self.uniform > self.number:
            raise ValueError(f"uniform: {self.uniform} is more than the {self.number} subsets that `number` asks for")
        return self


class Training(Section):
    """What is trained, and how: the defaults are those of arXiv 2603.13201, Table 7."""

    base: ModelSpec | None = Field(None, description="The model that is trained; the recipe's by default.")
    runs: TrainedCells = TrainedCells()
    reference: References = References()
    probes: Probes | None = Field(None, description="Small subsets for a forecast of what training does.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="A model each; a seed sets the order of the rows.")
    kind: Literal["full", "lora"] = Field("full", description="full: all weights; lora: an adapter of low rank.")
    lora: Lora | None = Field(None, description="Of `kind: lora`.")
    learning_rate: float = Field(2e-5, gt=0, description="Highest learning rate.")
    batch_size: int = Field(128, ge=1, description="Rows of a step, over all devices.")
    max_tokens: int = Field(2048, ge=8, description="Tokens of a row that are read; longer ones are cut.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Of the learning rate.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of the steps, rounded down, in which it rises.")
    weight_decay: float = Field(0.1, ge=0, description="Of AdamW.")
    epochs: int = Field(3, ge=1, description="Times that every row is read.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which longer gradients are clipped.")
    bf16: Literal["auto"] | bool = Field(
        "auto", description="Products in bfloat16 over float32 weights; auto: where the hardware multiplies it."
    )
    loss_on: Literal["answers", "all"] = Field("answers", description="Tokens that a loss is taken over.")
    gradient_checkpointing: bool = Field(False, description="Less memory for more time; the result is the same.")
    accelerate: str | None = Field(
        None, description="A file of `accelerate config`, for several processes or machines; one process by default."
    )
    keep: Keep | None = Field(
        None,
        description="What stays on disk after its evaluation: weights, adapter, none; what was trained by default.",
    )
    report_to: tuple[str, ...] = Field((), description="Trackers that transformers reports to, such as tensorboard.")

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
            raise ValueError(f"seeds {list(seeds)} must be distinct, from 0 to 2**32 - 1")
        return seeds

    @field_validator("betas")
    @classmethod
    def _betas_are_shares(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {list(betas)} must lie in [0, 1)")
        return betas

    @model_validator(mode="after")
    def _adapter_fits_kind(self) -> "Training":
        if self.kind == "full" and self.lora is not None:
            raise ValueError("`lora` is of `kind: lora`; set that, or leave `lora` out")
        if self.kind == "full" and self.keep == "adapter":
            raise ValueError("`keep: adapter` is of `kind: lora`: full training has no adapter; keep weights or none")
        if self.kind == "lora" and self.keep == "weights":
            raise ValueError(
                "`keep: weights` is of `kind: full`; keep the adapter, which AutoModelForCausalLM loads with its base"
            )
        return self

    @property
    def adapter(self) -> Lora | None:
        """The adapter that is trained; None where all weights are."""
        return (self.lora or Lora()) if self.kind == "lora" else None

    @property
    def kept(self) -> Keep:
        """What stays on disk."""
        return self.keep or ("adapter" if self.kind == "lora" else "weights")

    def require_fit(self, recipe: Any) -> None:
        """Whether the runs are of methods, targets and ratios of the recipe.

        Raises:
            ValueError: They name one that the recipe does not have.
        """
        for name in ("methods", "targets", "ratios"):
            known = getattr(recipe, name)
            for given in getattr(self.runs, name) or ():
                if given in known:
                    continue
                if name == "targets":
                    raise ValueError(f"training.runs.targets: {recipe.not_a_target(given)}")
                raise ValueError(f"training.runs.{name}: {given!r} is not among the recipe's {', '.join(known)}")

    def methods_of(self, recipe: Any) -> list[str]:
        """Methods whose subsets are trained on."""
        return list(recipe.methods if self.runs.methods is None else self.runs.methods)

    def targets_of(self, recipe: Any) -> list[str]:
        """Targets whose subsets are trained on."""
        default = [name for name in recipe.targets if name not in recipe.smaller_sets]
        return [name for name in recipe.targets if name in (self.runs.targets or default)]

    def ratios_of(self, recipe: Any) -> list[str]:
        """Ratios whose subsets are trained on."""
        return [name for name in recipe.ratios if name in (self.runs.ratios or recipe.ratios)]
