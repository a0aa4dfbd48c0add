"""Fixtures: a real two-layer Llama with random weights and its tokenizer, and recipes over small files."""

import importlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nait_assets.recipe import PROJECT_ROOT, Recipe, load_recipe

if TYPE_CHECKING:
    from nait_assets.resources import Warehouse

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks of the tests are so small that threads wait for each other

CHAT_TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "two",
    "dogs",
    "add",
    "three",
    "numbers",
    "and",
    "print",
    "sum",
    "of",
    "list",
    "def",
    "return",
    "x",
    "y",
    "in",
    "for",
    "is",
    "not",
]
CAPABILITIES = ("code", "math")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test must not depend on the recipe or home of the person who runs it."""
    lineage = [name for name in os.environ if name.startswith("OPENLINEAGE_")]
    for name in ("NAIT_RECIPE", "NAIT_HOME", "NAIT_DATA", "DAGSTER_HOME", "RAY_ADDRESS", *lineage):
        monkeypatch.delenv(name, raising=False)


def benchmark(name: str) -> ModuleType:
    """A module of the folder `benchmarks`, whose scripts import one another by name, as where one of them is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROJECT_ROOT / "benchmarks"))
        return importlib.import_module(name)


@pytest.fixture(params=["float32", "bfloat16"])
def fastest_dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `auto` means: on a CPU without bfloat16 instructions, and on one that has them, whichever is here."""
    import torch

    from nait_assets.resources import language_model

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(language_model, "_cpu_multiplies_bfloat16", lambda: request.param == "bfloat16")
    return str(request.param)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE tokenizer trained on a line of text, with a chat template and a beginning-of-sequence token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=CHAT_TEMPLATE
    )


@pytest.fixture(scope="session")
def llama() -> Any:
    """A two-layer Llama, 32 dimensions, 48 neurons a layer, random weights from a fixed seed."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return LlamaModel(config).eval()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, llama: Any, tokenizer: Any) -> Path:
    """The two-layer Llama as a local model folder."""
    folder = tmp_path_factory.mktemp("model")
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory: pytest.TempPathFactory, llama: Any, tokenizer: Any) -> Path:
    """The two-layer Llama under a random language-model head, as a local model folder."""
    import torch
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("causal")
    torch.manual_seed(1)
    network = LlamaForCausalLM(llama.config)
    network.model.load_state_dict(llama.state_dict())
    torch.nn.init.normal_(network.lm_head.weight, std=0.3)  # of likelihoods that differ from token to token
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def strict_model(model_folder: Path, tmp_path: Path) -> Path:
    """The two-layer Llama under a chat template that refuses system messages, as Gemma's does."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "strict"))
    (folder / "chat_template.jinja").write_text(REFUSES_SYSTEM + CHAT_TEMPLATE, encoding="utf-8")
    return folder


def conversation(question: str, answer: str) -> dict[str, Any]:
    """A row in the `messages` format."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def pool_rows(n: int = 20) -> list[dict[str, Any]]:
    """Distinct conversations of different lengths, half of them about code and half about mathematics."""
    rows = []
    for number in range(n):
        topic = CAPABILITIES[number % 2]
        text = " ".join(WORDS[: 3 + number % 7])
        rows.append({**conversation(f"{topic} question {number}: {text}?", f"{text} {number}"), "topic": topic})
    return rows


def half_with_system(n: int = 20) -> list[dict[str, Any]]:
    """The same, every second one with a system message in front."""
    system = {"role": "system", "content": "Be brief."}
    rows = pool_rows(n)
    return [{**row, "messages": [system, *row["messages"]]} if place % 2 else row for place, row in enumerate(rows)]


def in_domain_rows(capability: str, n: int = 4) -> list[dict[str, Any]]:
    """Examples of a capability that are not in the pool."""
    return [
        conversation(f"{capability} example {number}?", f"the {capability} answer is {number * 7}")
        for number in range(n)
    ]


@pytest.fixture
def make_recipe(tmp_path: Path, model_folder: Path) -> Callable[..., Recipe]:
    """Write data files and a recipe over the two-layer Llama, and load it.

    Called with fields of the recipe, it replaces them: `make_recipe(ratios=[0.5])`. Called again, it rewrites the
    recipe and leaves data files that exist as they are.
    """

    def make(**fields: Any) -> Recipe:
        if not (tmp_path / "pool.jsonl").exists():
            write_jsonl(tmp_path / "pool.jsonl", pool_rows())
        for capability in CAPABILITIES:
            if not (tmp_path / f"{capability}.jsonl").exists():
                write_jsonl(tmp_path / f"{capability}.jsonl", in_domain_rows(capability))
        recipe = {
            "name": "tiny",
            "model": {"source": str(model_folder), "dtype": "float32"},
            "extraction": {"max_tokens": 64},
            "candidates": {"source": "pool.jsonl", "topic_field": "topic"},
            "capabilities": {capability: {"source": f"{capability}.jsonl"} for capability in CAPABILITIES},
            "methods": ["nait", "nait_standardized", "random"],
            "ratios": [0.1, 0.3],
            **fields,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return load_recipe(path)

    return make


@pytest.fixture(scope="session")
def _kept_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the finished home lies that tests get copies of."""
    return tmp_path_factory.mktemp("kept") / "home"


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    """All methods, and one ratio, since a second would show no more."""
    return make_recipe(ratios=[0.3])


@pytest.fixture
def home(_kept_home: Path, recipe: Recipe, tmp_path: Path) -> Path:
    """A home in which everything of `recipe` has been made: a copy, which the test may break."""
    from nait_assets_tests.command import quick_home, run

    if not _kept_home.exists():
        run(recipe, quick_home(_kept_home))
    return Path(shutil.copytree(_kept_home, tmp_path / "home"))


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Capabilities code and math, the methods that the small home holds."""
    from nait_assets_tests.small_home import small_recipe as made

    return made(tmp_path_factory.mktemp("small_recipe"))


@pytest.fixture(scope="session")
def small_home(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> "Warehouse":
    """The small home of `small_home.py`, which no test changes: one that does builds its own."""
    from nait_assets_tests.small_home import build_home

    return build_home(small_recipe, tmp_path_factory.mktemp("small_home"))


def less_sections(**fields: Any) -> dict[str, dict[str, Any]]:
    """The `measurements` of a recipe of LESS: fields of its warm-up and of its gradients, in their two sections."""
    of_gradients = {name: value for name, value in fields.items() if name in ("dimensions", "projection", "seed")}
    of_warm_up = {name: value for name, value in fields.items() if name not in ("dimensions", "projection")}
    return {"less_checkpoints": of_warm_up, "gradients": of_gradients}
