"""Codes and gates: eq. 6 and 7 of MoNA in float64, and autoencoders that others trained."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from nait_assets.conversation import conversations_of
from nait_assets.errors import ModelError, UserError
from nait_assets.measurements import autoencoder, codes, gates
from nait_assets.measurements.engine import MeasurementContext
from nait_assets.models.encoding import encode
from nait_assets.models.running import RunOptions
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Extraction, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.conftest import pool_rows
from nait_assets_tests.models.small_networks import FAMILIES, NEURONS, network_of, reader, sample, tokens_by_hand

K, WIDTH, N_LATENTS, LAYER = 3, 32, 64, 0
GATED = ["Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma 2", "Gemma 3", "Phi-3"]


def weights(width: int = WIDTH) -> dict[str, torch.Tensor]:
    """Of an autoencoder, with biases so low that some tokens have fewer than K positive latents."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "encoder.weight": random(N_LATENTS, width),
        "encoder.bias": random(N_LATENTS) - 8,
        "W_dec": random(N_LATENTS, width),
        "b_dec": random(width),
    }


def in_sparsify(folder: Path, width: int = WIDTH, **settings: Any) -> Path:
    """An autoencoder as `sparsify` saves it."""
    folder.mkdir(parents=True)
    save_file(weights(width), folder / "sae.safetensors")
    fields = {"activation": "topk", "expansion_factor": 2, "num_latents": 0, "k": 8, "d_in": width, **settings}
    (folder / "cfg.json").write_text(json.dumps(fields))
    return folder


def in_sae_lens(folder: Path, rescale: bool = False, apply_b_dec: bool = True, **settings: Any) -> Path:
    """The same function as SAELens stores it."""
    folder.mkdir(parents=True)
    stored = weights()
    norms = stored["W_dec"].norm(dim=1) if rescale else torch.ones(N_LATENTS)
    shift = torch.zeros(N_LATENTS) if apply_b_dec else stored["encoder.weight"] @ stored["b_dec"]
    tensors = {
        "W_enc": (stored["encoder.weight"] / norms[:, None]).T.contiguous(),
        "b_enc": (stored["encoder.bias"] - shift) / norms,
        "W_dec": stored["W_dec"],
        "b_dec": stored["b_dec"],
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    fields = {
        "architecture": "topk",
        "d_in": WIDTH,
        "d_sae": N_LATENTS,
        "k": 8,
        "normalize_activations": "none",
        "apply_b_dec_to_input": apply_b_dec,
        "rescale_acts_by_decoder_norm": rescale,
        "metadata": {"hook_name": f"blocks.{LAYER}.hook_resid_post"},
        **settings,
    }
    (folder / "cfg.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def context(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., MeasurementContext]:
    """What a reading may use, with options of MoNA."""

    def make(section: str = "sparse_autoencoder", **options: Any) -> MeasurementContext:
        recipe = make_recipe(methods=["mona"], measurements={section: {"k": K, "layer": LAYER, **options}})
        home = tmp_path / "home"
        model = LanguageModel.of(recipe, home)
        return MeasurementContext(
            recipe, Warehouse(home=str(home)), model, RunOptions(batch_tokens=40), "candidates", str
        )

    return make


def samples() -> pl.DataFrame:
    rows = [row["messages"] for row in pool_rows(6)]
    return pl.DataFrame({"sample_id": [f"s{place}" for place in range(6)], "messages": rows})


def vectors(parts: Iterator[Any], n_columns: int) -> dict[str, np.ndarray]:
    """Of a reading: dense vectors by sample."""
    found = {}
    for row in pl.concat([part.rows for part in parts]).iter_rows(named=True):
        assert row["indices"] == sorted(row["indices"])
        assert all(value > 0 for value in row["values"])
        found[row["sample_id"]] = np.zeros(n_columns)
        found[row["sample_id"]][row["indices"]] = row["values"]
    return found


def literal_codes(context: MeasurementContext) -> dict[str, np.ndarray]:
    """Eq. 6 and 7, token by token, latent by latent."""
    network = context.model.load().network
    stored = {name: tensor.double().numpy() for name, tensor in weights().items()}
    encoded, _ = encode(conversations_of(samples()), context.model.tokenizer(), Extraction(max_tokens=64))
    means = {}
    for one in encoded:
        hidden = tokens_by_hand(network, one, "residual")[LAYER]
        total = np.zeros(N_LATENTS)
        for token in hidden[1:]:
            latents = [
                float(stored["encoder.weight"][latent] @ (token - stored["b_dec"]) + stored["encoder.bias"][latent])
                for latent in range(N_LATENTS)
            ]
            for latent in sorted(range(N_LATENTS), key=lambda place: -latents[place])[:K]:
                total[latent] += max(latents[latent], 0)
        means[one.sample_id] = total / (len(hidden) - 1)
    return means


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, vector in wanted.items():
        np.testing.assert_allclose(found[name], vector, atol=1e-4)


@pytest.mark.parametrize("stored", ["sparsify, of several", "sparsify, by itself", "SAELens", "rescaled", "shifted"])
def test_code_is_the_mean_of_the_k_largest_latents_of_each_token(
    stored: str, context: Callable[..., MeasurementContext], tmp_path: Path
) -> None:
    """Eq. 6 and 7, from each format that an autoencoder may come in; K is the recipe's, not the autoencoder's."""
    folder = tmp_path / "sae"
    if stored == "sparsify, of several":
        in_sparsify(folder / f"layers.{LAYER}")
        in_sparsify(folder / "layers.1", width=7)
    elif stored == "sparsify, by itself":
        folder = in_sparsify(folder / f"layers.{LAYER}")
    else:
        in_sae_lens(folder, rescale=stored == "rescaled", apply_b_dec=stored != "shifted")
    given = context(source=str(folder))

    codes.preflight(given.recipe, given.model)
    found = vectors(codes.read(given, samples()), N_LATENTS)

    wanted = literal_codes(given)
    assert any(np.count_nonzero(vector) > 0 for vector in wanted.values())
    assert_same(found, wanted)


@pytest.mark.parametrize("family", GATED)
def test_gate_site_is_the_activated_gate_of_every_gated_family(family: str) -> None:
    """act(x W_gate), without the product with the other half: Phi-3 fuses the two, Gemma activates by GELU."""
    network = network_of(family)
    one = sample("s", 9)
    inputs: list[torch.Tensor] = []
    block = getattr(network, FAMILIES[family].layers)[1]
    handle = block.mlp.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0][0]))
    with torch.no_grad():
        network(input_ids=torch.from_numpy(one.token_ids.astype(np.int64))[None])
    handle.remove()
    x = inputs[0].double()
    fused = hasattr(block.mlp, "gate_up_proj")
    weight = (block.mlp.gate_up_proj if fused else block.mlp.gate_proj).weight.double()[:NEURONS]
    gate = x @ weight.T
    gelu = family.startswith("Gemma")
    wanted = torch.nn.functional.gelu(gate, approximate="tanh") if gelu else torch.nn.functional.silu(gate)

    (reading,) = reader(network, "gate", [1], keep_first_and_last=False).read([[one]])

    assert reading.pooled is not None
    np.testing.assert_allclose(reading.pooled.columns["activation"][0, 0], wanted[1:].mean(0).detach(), atol=1e-5)


def test_gates_are_the_mean_of_the_k_widest_gates_of_each_token(context: Callable[..., MeasurementContext]) -> None:
    """The control: the same as a code, of the model's own neurons."""
    given = context("gates", k=30)  # more than are open: closed ones do not count
    network = given.model.load().network
    width = resolve_site(network, "gate", [LAYER]).width

    found = vectors(gates.read(given, samples()), width)

    encoded, _ = encode(conversations_of(samples()), given.model.tokenizer(), Extraction(max_tokens=64))
    wanted = {}
    for one in encoded:
        caught: list[torch.Tensor] = []
        handle = network.layers[LAYER].mlp.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0]))  # noqa: B023
        with torch.no_grad():
            network(input_ids=torch.from_numpy(one.token_ids.astype(np.int64))[None])
        handle.remove()
        weight = network.layers[LAYER].mlp.gate_proj.weight.double().numpy()
        total = np.zeros(width)
        for x in caught[0].double().numpy()[1:]:
            before = weight @ x
            opened = before / (1 + np.exp(-before))
            for neuron in sorted(range(width), key=lambda place: -opened[place])[:30]:
                total[neuron] += max(opened[neuron], 0)
        wanted[one.sample_id] = total / (len(one.token_ids) - 1)
    assert_same(found, wanted)


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_tokens_in_chunks_come_to_the_same_mean(
    chunk: int, context: Callable[..., MeasurementContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks bound the memory, and their borders fall within samples."""
    monkeypatch.setattr("nait_assets.measurements.top_k.CHUNK_TOKENS", chunk)
    given = context(source=str(in_sparsify(tmp_path / "sae")))

    assert_same(vectors(codes.read(given, samples()), N_LATENTS), literal_codes(given))


def refusal(given: MeasurementContext) -> str:
    with pytest.raises(UserError) as error:
        codes.preflight(given.recipe, given.model)
    return str(error.value)


def test_autoencoder_of_another_width_or_hook_point_is_refused(
    context: Callable[..., MeasurementContext], tmp_path: Path
) -> None:
    """An autoencoder of another model or layer gives numbers that mean nothing, and that nobody would notice."""
    other = in_sparsify(tmp_path / "wide" / "layers.0", width=16)
    folder = in_sparsify(tmp_path / "first" / "layers.1").parent
    in_sparsify(tmp_path / "mlp" / "layers.0.mlp")

    assert "it is of 16 dimensions" in refusal(context(source=str(other)))
    said = refusal(context(source=str(folder)))
    assert "has no autoencoder of layer 0" in said
    assert "its hook points are layers.1" in said
    said = refusal(context(source=str(folder / "layers.1")))
    assert "it is of hook point 'layers.1', and layer 0's output is read" in said
    assert "'layers.0.mlp'" in refusal(context(source=str(tmp_path / "mlp" / "layers.0.mlp")))
    lens = in_sae_lens(tmp_path / "lens", metadata={"hook_name": "blocks.1.hook_resid_post"})
    assert "'blocks.1.hook_resid_post'" in refusal(context(source=str(lens)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"transcode": True}, "`transcode: true`. A TopK autoencoder of a layer's output works"),
        ({"activation": "groupmax"}, "`activation: groupmax`"),
        ({"num_latents": 2}, "measurements.sparse_autoencoder.k: 3 is more than the 2 latents"),
    ],
)
def test_autoencoder_of_another_kind_is_refused(
    settings: dict[str, Any], said: str, context: Callable[..., MeasurementContext], tmp_path: Path
) -> None:
    """What is not TopK of a layer's output would be read as if it were."""
    assert said in refusal(context(source=str(in_sparsify(tmp_path / "sae", **settings))))


@pytest.mark.parametrize(
    "settings", [{"architecture": "jumprelu"}, {"normalize_activations": "expected_average_only_in"}]
)
def test_sae_lens_autoencoder_of_another_kind_is_refused(
    settings: dict[str, Any], context: Callable[..., MeasurementContext], tmp_path: Path
) -> None:
    """Of SAELens's architectures one is read; the others compute something else."""
    said = refusal(context(source=str(in_sae_lens(tmp_path / "sae", **settings))))

    assert next(iter(settings.values())) in said
    assert "Of SAELens only architecture topk" in said


def test_broken_files_are_refused(context: Callable[..., MeasurementContext], tmp_path: Path) -> None:
    """A download that was cut off: one sentence each, not a trace of some reader."""
    assert "nowhere does not exist" in refusal(context(source=str(tmp_path / "nowhere")))
    folder = in_sparsify(tmp_path / "sae")
    (folder / "sae.safetensors").write_bytes(b"cut off")
    given = context(source=str(folder))
    with pytest.raises(ModelError, match="cannot be read"):
        autoencoder.note(given.recipe, given.model, tmp_path / "out")
    (folder / "sae.safetensors").unlink()
    assert "has no sae.safetensors" in refusal(given)
    (folder / "cfg.json").write_text("{")
    assert "is not JSON" in refusal(given)


COMMIT = "a" * 40


def test_autoencoder_of_the_hub_is_that_of_the_commit_and_the_layer(
    context: Callable[..., MeasurementContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sparsify`'s own loader takes no revision: it would read whatever the repository holds on that day."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshots = tmp_path / "cache" / "models--org--sae" / "snapshots"
    in_sparsify(snapshots / COMMIT / f"layers.{LAYER}")
    in_sparsify(snapshots / ("b" * 40) / f"layers.{LAYER}", width=16)
    given = context(source="hub:org/sae", revision=COMMIT)

    codes.preflight(given.recipe, given.model)

    assert (
        autoencoder.external_versions(given.recipe, given.model)["autoencoder:hub:org/sae"] == f"hub:org/sae@{COMMIT}"
    )
    assert_same(vectors(codes.read(given, samples()), N_LATENTS), literal_codes(given))
    assert "it is of 16 dimensions" in refusal(context(source="hub:org/sae", revision="b" * 40))
    said = refusal(context(source="hub:org/nothing", revision=COMMIT))
    assert said.startswith("the hub's model 'org/nothing'")
    assert "name the folder in `measurements.sparse_autoencoder.source`" in said


def test_run_with_a_found_autoencoder_trains_none_and_notices_that_its_files_change(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The weights stay where they are; their hash is what everything behind them rests on."""
    folder = in_sparsify(tmp_path / "sae" / f"layers.{LAYER}")
    measurements = {"sparse_autoencoder": {"k": K, "source": str(folder.parent)}}
    recipe = make_recipe(
        methods=["mona"], ratios=[0.3], measurements=measurements, capabilities={"code": {"source": "code.jsonl"}}
    )
    home = quick_home(tmp_path / "home")

    before = autoencoder.external_versions(recipe, LanguageModel.of(recipe, home))

    assert "measurements/candidate_codes" in run(recipe, home)
    assert [file.name for file in (home / "trained" / "sparse_autoencoder").iterdir()] == ["autoencoder.json"]
    stored = weights()
    save_file({**stored, "encoder.bias": stored["encoder.bias"] + 1}, folder / "sae.safetensors")
    model = LanguageModel.of(recipe, home)
    after = autoencoder.AUTOENCODER.external_versions(recipe, Warehouse(home=str(home)), model, "")
    assert {name for name in before if before[name] != after[name]} == {f"autoencoder:{folder.parent}"}
