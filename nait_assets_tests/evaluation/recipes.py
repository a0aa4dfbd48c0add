"""A recipe that trains and evaluates the tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nait_assets.recipe import Recipe
from nait_assets_tests.conftest import CAPABILITIES, conversation, write_jsonl

MakeRecipe = Callable[..., Recipe]
TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "epochs": 1,
    "learning_rate": 0.01,
    "max_tokens": 64,
    "runs": {"methods": ["length_long"], "targets": ["math", "code"]},
    "reference": {"full": False, "random": 2},
    "probes": {"number": 6, "rows": 5, "uniform": 2, "batch_size": 2},
}
N_EXAMPLES = 5


def trained_recipe(make_recipe: MakeRecipe, causal_folder: Path, folder: Path, **fields: Any) -> Recipe:
    """A recipe of two cheap methods with a loss task for each capability."""
    tasks = {}
    for capability in CAPABILITIES:
        rows = [
            conversation(f"{capability} exam {number}?", f"print the {capability} of x {number * 3}")
            for number in range(N_EXAMPLES)
        ]
        write_jsonl(folder / f"{capability}_exam.jsonl", rows)
        tasks[capability] = {"source": f"{capability}_exam.jsonl"}
    given = {
        "methods": ["random", "length_long"],
        "ratios": [0.3],
        "training": TRAINING,
        "evaluation": {"tasks": tasks, "max_tokens": 128},
        "model": {"source": str(causal_folder), "dtype": "float32"},
    }
    return make_recipe(**{**given, **fields})
