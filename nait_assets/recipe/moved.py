"""Fields of earlier recipes that are elsewhere now: each is refused with its new place."""

from typing import Any

_JUDGE = (
    "endpoint", "model", "dimension", "temperature", "api_key_variable", "concurrency", "timeout_seconds", "retries",
    "max_answer_tokens", "max_calls", "max_tokens_total", "max_cost", "price_per_million_input_tokens",
    "price_per_million_output_tokens",
)  # fmt: skip
_WARM_UP = ("share", "epochs", "rank", "alpha", "dropout", "target_modules", "learning_rate", "batch_size")
_EXPERIENCE = ("clusters", "per_cluster", "epochs", "learning_rate", "rank", "seed")
MOVED = {
    "options.mona": "measurements.sparse_autoencoder`, where `sparse_autoencoder` is `source`; for `gate_overlap`, "
    "`layer` and `k` are in `measurements.gates",
    "options.instruction_mining": "measurements.rewards`, where `reward_model.source` is `source`, and "
    "`reward_model.revision` is `revision",
    "options.sentence_embedding.model": "measurements.embeddings.source",
    "options.sentence_embedding.revision": "measurements.embeddings.revision",
    "options.selectit.models": "measurements.ratings.models",
    "options.less.dimensions": "measurements.gradients.dimensions",
    "options.less.projection": "measurements.gradients.projection",
    "options.less.seed": "measurements.less_checkpoints.seed` and `measurements.gradients.seed",
    **{f"options.alpagasus.{field}": f"measurements.judgements.{field}" for field in _JUDGE},
    **{f"options.less.{field}": f"measurements.less_checkpoints.{field}" for field in _WARM_UP},
    **{f"options.ifd_pre_experienced.{field}": f"measurements.pre_experienced_model.{field}" for field in _EXPERIENCE},
}
"""The new place of a field, between two backquotes, by its old one."""


def new_place(field: str, given: Any) -> str | None:
    """The new place of a field that no longer is where it was, between two backquotes; None where there was none.

    Args:
        field: Its old place, such as `options.mona`.
        given: What the recipe has there.
    """
    section, _, name = field.partition(".")
    if (
        section == "evaluation"
        and name
        and (isinstance(given, list) or (isinstance(given, dict) and "source" in given))
    ):
        return f"evaluation.held_out.{name}"
    return MOVED.get(field)
