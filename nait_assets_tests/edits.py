"""Random edits of a recipe and its files: what people do to a home between two runs, and some of what they should not.

Belongs here: the state of recipe and files as one value, the edits of it, and writing it to disk. Does not belong here:
what a home must be like afterwards (`test_incremental_is_fresh.py`).
"""

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from nait_assets_tests.conftest import CHAT_TEMPLATE, REFUSES_SYSTEM, WORDS, conversation, less_sections

METHODS = ("nait_standardized", "rds_plus", "bm25", "ifd", "less", "balanced_random", "nait", "perplexity_high", "dsir")
N_ROWS = 12
TOPICS = ("code", "math", None)
CHAT_TEMPLATES = (CHAT_TEMPLATE, REFUSES_SYSTEM + CHAT_TEMPLATE, CHAT_TEMPLATE.replace("<|", "[").replace("|>", "]"))
SELECTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"of": "judged"},
    {"strategy": "length_matched", "n_bins": 3},
    {"strategy": "diverse", "similarity_limit": 0.5},
    {"strategy": "round_robin_targets"},
    {"all": "top"},
)
EXTRACTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"site": "residual"},
    {"layers": [1]},
    {"template": "plain"},
    {"system": "fold"},
)
SOURCES: tuple[dict[str, Any], ...] = ({}, {"limit": 9}, {"limit": 9, "seed": 1}, {"limit": 8, "skip": 2})
OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("features", {"change": "mean_minus_first"}),
    ("decontamination", {"ngram": 2}),
    ("decontamination", {"action": "drop", "ngram": 3}),
    ("filters", {"near_duplicates": {"jaccard_threshold": 0.5, "window_size": 1}}),
    ("filters", {"quality": {"max_answer_words": 4}, "action": "report"}),
    ("options", {"bm25": {"k1": 0.5}}),
    ("measurements", less_sections(share=1.0, epochs=2, rank=2, alpha=4, learning_rate=0.02, batch_size=2, seed=1)),
)


@dataclass
class State:
    """What a home is made from.

    Attributes:
        recipe: the recipe as YAML has it.
        files: rows of each source, by file name.
        chat_template: the model's.
        weights: which of the model's weights.
    """

    recipe: dict[str, Any]
    files: dict[str, list[Any]] = field(default_factory=dict)
    chat_template: str = CHAT_TEMPLATE
    weights: int = 0

    @property
    def pool(self) -> list[Any]:
        """Rows of the pool's file."""
        return self.files["pool.jsonl"]

    @property
    def key(self) -> str:
        """The same for equal states."""
        return json.dumps([self.recipe, self.files, self.chat_template, self.weights])


@dataclass
class World:
    """A state on disk.

    Attributes:
        folder: where recipe and files lie.
        weights: files of weights to choose from.
        state: what lies there now.
        earlier: states that were there before.
    """

    folder: Path
    weights: tuple[Path, ...]
    state: State
    earlier: list[State] = field(default_factory=list)

    @property
    def recipe(self) -> Path:
        """The recipe file."""
        return self.folder / "recipe.yaml"

    def put(self, state: State) -> None:
        """Make the files be those of a state; what is so already stays as it is, its time included."""
        self.state = state
        wanted = {name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in state.files.items()}
        wanted["recipe.yaml"] = yaml.safe_dump(state.recipe)
        wanted["model/chat_template.jinja"] = state.chat_template
        for name, text in wanted.items():
            file = self.folder / name
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
        file = self.folder / "model" / "model.safetensors"
        weights = self.weights[state.weights].read_bytes()
        if file.read_bytes() != weights:
            file.write_bytes(weights)


def beginning(random: Random, methods: list[str]) -> State:
    """Twelve rows, two of them refused by one of the chat templates, and a capability of four examples."""
    state = State(
        {
            "name": "tiny",
            "model": {"source": "model", "dtype": "float32"},
            "extraction": {"max_tokens": 64},
            "candidates": {"source": "pool.jsonl", "topic_field": "topic"},
            "capabilities": {"math": {"source": "math.jsonl"}},
            "methods": methods,
            "ratios": [0.3],
            "measurements": less_sections(
                share=0.5, epochs=2, rank=2, alpha=4, learning_rate=0.01, batch_size=2, dimensions=16
            ),
        },
        chat_template=CHAT_TEMPLATES[1],
    )
    state.files["pool.jsonl"] = [a_row(random) for _ in range(N_ROWS - 2)] + [with_system(random) for _ in range(2)]
    for name in ("math", "code"):
        state.files[f"{name}.jsonl"] = [a_row(random) for _ in range(4)]
    return state


def words(random: Random, most: int = 8) -> str:
    """Some words, so many different ones that two rows are seldom the same."""
    return " ".join(random.choices(WORDS, k=random.randint(2, most))) + f" {random.randrange(1000)}"


def a_row(random: Random) -> dict[str, Any]:
    """A row that can be read."""
    return {**conversation(f"{words(random)}?", words(random)), "topic": random.choice(TOPICS)}


def with_system(random: Random) -> dict[str, Any]:
    """A row that one of the chat templates refuses."""
    row = a_row(random)
    return {**row, "messages": [{"role": "system", "content": "Be brief."}, *row["messages"]]}


def odd_row(random: Random, state: State) -> Any:
    """A row that some step refuses, cuts, or takes for another's."""
    longest = conversation(f"{words(random)}?", words(random, 120))
    return random.choice(
        [
            {"messages": "not a conversation"},
            with_system(random),
            longest,
            conversation(words(random, 120), "yes"),
            copy.deepcopy(random.choice(state.pool)),
            copy.deepcopy(random.choice(state.files["math.jsonl"])),
        ]
    )


def _place(random: Random, rows: list[Any]) -> int:
    return random.randrange(len(rows))


def _rows_of(random: Random, state: State) -> list[Any]:
    return state.files[random.choice(["pool.jsonl", "pool.jsonl", "math.jsonl", "code.jsonl"])]


def add_row(random: Random, state: State) -> None:
    rows = _rows_of(random, state)
    rows.insert(random.randint(0, len(rows)), a_row(random))


def add_odd_rows(random: Random, state: State) -> None:
    rows = _rows_of(random, state)
    for _ in range(random.randint(1, 4)):
        rows.insert(random.randint(0, len(rows)), odd_row(random, state))


def remove_row(random: Random, state: State) -> None:
    rows = _rows_of(random, state)
    if len(rows) > 3:
        rows.pop(_place(random, rows))


def remove_refused_rows(random: Random, state: State) -> None:
    state.files["pool.jsonl"] = [row for row in state.pool if len(row["messages"]) == 2]


def change_row(random: Random, state: State) -> None:
    rows = _rows_of(random, state)
    rows[_place(random, rows)] = a_row(random)


def reorder(random: Random, state: State) -> None:
    random.shuffle(_rows_of(random, state))


def change_topics(random: Random, state: State) -> None:
    for row in random.sample(state.pool, min(3, len(state.pool))):
        row["topic"] = random.choice(TOPICS)


def change_max_tokens(random: Random, state: State) -> None:
    state.recipe["extraction"]["max_tokens"] = random.choice([24, 40, 64, 96])


def change_extraction(random: Random, state: State) -> None:
    state.recipe["extraction"] = {
        "max_tokens": state.recipe["extraction"]["max_tokens"],
        **random.choice(EXTRACTIONS),
    }


def change_source(random: Random, state: State) -> None:
    state.recipe["candidates"] = {"source": "pool.jsonl", "topic_field": "topic", **random.choice(SOURCES)}


def change_seed(random: Random, state: State) -> None:
    state.recipe["seed"] = random.randrange(3)


def change_selection(random: Random, state: State) -> None:
    state.recipe["selection"] = random.choice(SELECTIONS)


def change_options(random: Random, state: State) -> None:
    name, value = random.choice(OPTIONS)
    if state.recipe.get(name) == value and name != "measurements":
        del state.recipe[name]
    else:
        state.recipe[name] = value


def change_methods(random: Random, state: State) -> None:
    methods = state.recipe["methods"]
    if len(methods) > 2:
        methods.pop(_place(random, methods))
    else:
        methods.append(random.choice([name for name in METHODS if name not in methods]))


def change_ratios(random: Random, state: State) -> None:
    state.recipe["ratios"] = random.choice([[0.3], [0.07, 0.3], [0.5]])


def rename_capability(random: Random, state: State) -> None:
    capabilities = state.recipe["capabilities"]
    old = random.choice(sorted(capabilities))
    new = next(name for name in random.sample(["math", "maths", "sums"], 3) if name not in capabilities)
    state.recipe["capabilities"] = {new if name == old else name: value for name, value in capabilities.items()}


def add_or_remove_capability(random: Random, state: State) -> None:
    capabilities = state.recipe["capabilities"]
    if "code" in capabilities and len(capabilities) > 1:
        del capabilities["code"]
    else:
        capabilities["code"] = {"source": "code.jsonl"}


def change_chat_template(random: Random, state: State) -> None:
    state.chat_template = random.choice(CHAT_TEMPLATES)


def change_weights(random: Random, state: State) -> None:
    state.weights = 1 - state.weights


EDITS: tuple[Callable[[Random, State], None], ...] = (
    add_row,
    add_odd_rows,
    add_odd_rows,
    remove_row,
    remove_refused_rows,
    change_row,
    reorder,
    change_topics,
    change_max_tokens,
    change_extraction,
    change_source,
    change_seed,
    change_selection,
    change_options,
    change_methods,
    change_methods,
    change_ratios,
    rename_capability,
    add_or_remove_capability,
    change_chat_template,
    change_weights,
)
"""Each changes the state; what comes up more often is there twice."""


def touch(random: Random, world: World, home: Path) -> None:
    """New times, the same bytes."""
    for file in world.folder.rglob("*"):
        if file.is_file() and home not in file.parents:
            os.utime(file)


def delete_output(random: Random, world: World, home: Path) -> None:
    """Something that a run has made is gone."""
    places = ["subsets/*/*/*", "features/*/*.safetensors", "activations/**/*.duckdb", "measurements/**/*.duckdb"]
    places += ["trained/*", "report/*", "hashes.json"]
    for place in random.sample(places, len(places)):
        found = sorted(home.glob(place))
        if found:
            one = random.choice(found)
            shutil.rmtree(one) if one.is_dir() else one.unlink()
            return


def go_back(random: Random, world: World, home: Path) -> None:
    """A state that was there before."""
    world.put(copy.deepcopy(random.choice(world.earlier)))


ELSE: tuple[Callable[[Random, World, Path], None], ...] = (touch, delete_output, delete_output, go_back, go_back)
"""What is done to files and home rather than to the state."""


def edit(random: Random, world: World, home: Path) -> str:
    """Do one thing; its name."""
    if random.random() < len(ELSE) / (len(ELSE) + len(EDITS)):
        other = random.choice(ELSE)
        other(random, world, home)
        return other.__name__
    state = copy.deepcopy(world.state)
    chosen = random.choice(EDITS)
    chosen(random, state)
    world.put(state)
    return chosen.__name__
