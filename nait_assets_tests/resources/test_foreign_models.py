"""Model folders of strangers: each is read, or refused in a sentence, soon; no program in one ever runs."""

import datetime
import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.errors import ModelError
from nait_assets.measurements import embeddings, rewards
from nait_assets.models.chat_template import ChatTemplateError, rendered
from nait_assets.resources import LanguageModel
from nait_assets.resources.model_source import ModelSource
from nait_assets_tests.bad_inputs import limited
from nait_assets_tests.models.test_chat_template import ENDLESS

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nEvil = EvilConfig = EvilTokenizer = object\n"
MESSAGES = [{"role": "user", "content": "add"}, {"role": "assistant", "content": "sum"}]


class _Touch:
    """What a pickle would run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _json(name: str, **fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def _file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _own_code(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "modeling_evil.py").write_text(EVIL)
        for each in changes:
            each(folder)

    return change


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps([_Touch(folder / "ran"), bytes(100_000)]))


CODE = {name: f"modeling_evil.Evil{kind}" for name, kind in (("AutoConfig", "Config"), ("AutoModel", ""))}
CODE |= {"AutoModelForCausalLM": "modeling_evil.Evil"}
FOLDERS: dict[str, Callable[[Path], None]] = {
    "code of a model": _own_code(_json("config.json", model_type="evil", auto_map=CODE)),
    "code of a model from another repository": _own_code(
        _json("config.json", model_type="evil", auto_map={name: f"org/name--{what}" for name, what in CODE.items()})
    ),
    "code of a tokenizer": _own_code(
        _json(
            "tokenizer_config.json",
            tokenizer_class="EvilTokenizer",
            auto_map={"AutoTokenizer": ["modeling_evil.EvilTokenizer", None]},
        )
    ),
    "100,000 layers": _json("config.json", num_hidden_layers=100_000),
    "a billion layers": _json("config.json", num_hidden_layers=10**9),
    "a million experts": _json("config.json", num_local_experts=10**6),
    "layers of a section": _json("config.json", text_config={"num_hidden_layers": 10**9}),
    "a vocabulary of a trillion": _json("config.json", vocab_size=10**12),
    "a width of a million": _json("config.json", hidden_size=1_000_000, intermediate_size=1_000_000),
    "a width that is negative": _json("config.json", hidden_size=-1),
    "a width that is a text": _json("config.json", hidden_size="wide"),
    "an unknown kind": _json("config.json", model_type="nosuch"),
    "no JSON": _file("config.json", b"{"),
    "100,000 brackets": _file("config.json", b"[" * 100_000),
    "a list as configuration": _file("config.json", b"[]"),
    "a pickle as weights": _pickled,
    "safetensors with a large header": _file("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "safetensors cut short": lambda folder: (
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000]) and None
    ),
    "empty weights": _file("model.safetensors", b""),
    "an index that leads out": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {"embed_tokens.weight": "../../../../etc/passwd"}})
        ),
    )[0],
    "a tokenizer that is no JSON": _file("tokenizer.json", b"{"),
    "a tokenizer without a model": _file("tokenizer.json", b"{}"),
    "a tokenizer's settings that are a list": _file("tokenizer_config.json", b"[]"),
    "a chat template without end": _file("chat_template.jinja", ENDLESS["loops"].encode()),
    "a chat template that is computed early": _file("chat_template.jinja", b"{{ 10 ** (10 ** 8) }}"),
    "a chat template that escapes": _file("chat_template.jinja", b"{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "a chat template that includes": _file("chat_template.jinja", b"{% include '/etc/passwd' %}"),
    "a chat template that is no template": _file("chat_template.jinja", b"{% if %}"),
}


@pytest.fixture
def folder(causal_folder: Path, tmp_path: Path) -> Path:
    """A model's folder of one's own."""
    return Path(shutil.copytree(causal_folder, tmp_path / "model"))


def used(folder: Path) -> str:
    """All that is done with a language model."""
    model = LanguageModel(source=str(folder), home=str(folder.parent / "home"), device="cpu", dtype="float32")
    model.identity()
    model.skeleton()
    model.require_head()
    text = rendered(model.tokenizer(), MESSAGES, datetime.date(2026, 1, 1))
    model.load()
    model.load_causal()
    return text


def test_the_folder_is_read_as_it_is(folder: Path) -> None:
    """Each change below is the only one."""
    assert "add" in used(folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_refused_soon_and_in_a_sentence(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where somebody says yes to whatever is asked."""
    FOLDERS[name](folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    with limited(60), pytest.raises((ModelError, ChatTemplateError)) as error:
        used(folder)
    assert len(str(error.value)) < 1500
    assert not list(folder.rglob("ran"))
    assert "[y/N]" not in capsys.readouterr().out


def test_the_refusal_names_the_programs(folder: Path) -> None:
    """So that its owner can read them, or find a model without."""
    FOLDERS["code of a model"](folder)
    with pytest.raises(ModelError, match=r"model\.source: .* \(modeling_evil\.py\), which is never done"):
        LanguageModel(source=str(folder), home=str(folder.parent / "home")).skeleton()


def test_code_that_transformers_has_itself_is_not_needed(folder: Path) -> None:
    """Many folders name code that the library has meanwhile: they are read by the library's."""
    _own_code(_json("config.json", auto_map=CODE))(folder)
    assert "add" in used(folder)
    assert not list(folder.rglob("ran"))


@pytest.mark.parametrize("kind", ["embeddings", "rewards"])
def test_other_models_bring_no_code_either(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders and reward models are loaded by the same libraries."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    _own_code(
        _json(
            "config.json",
            model_type="evil",
            auto_map={**CODE, "AutoModelForSequenceClassification": "modeling_evil.Evil"},
        )
    )(folder)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "modeling_evil.Evil"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    source = ModelSource(str(folder), None, folder.parent / "home", f"measurements.{kind}.source")
    with limited(60), pytest.raises(ModelError):
        embeddings.load(source, "cpu") if kind == "embeddings" else rewards.load(source, 64, "cpu")
    assert not list(folder.rglob("ran"))


@pytest.mark.slow
def test_a_yes_on_standard_input_runs_nothing(folder: Path) -> None:
    """Of a whole command."""
    FOLDERS["code of a model"](folder)
    (folder.parent / "pool.jsonl").write_text(json.dumps({"messages": MESSAGES}) + "\n")
    (folder.parent / "recipe.yaml").write_text(
        "name: t\nmodel: {source: model}\ncandidates: {source: pool.jsonl}\n"
        "capabilities: {math: {source: pool.jsonl}}\nmethods: [nait_standardized]\nratios: [1]\n"
    )
    command = [sys.executable, "-m", "nait_assets.cli", "run", "--recipe", "recipe.yaml", "--home", "home"]
    ended = subprocess.run(command, cwd=folder.parent, input="y\n" * 100, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "modeling_evil.py" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(folder.rglob("ran"))
