"""The autoencoder: what training comes to on data of known structure, and that it goes on where it stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nait_assets.errors import DataError, RecipeError
from nait_assets.extraction.neurons import Reader
from nait_assets.measurements.autoencoder_options import SparseAutoencoderOptions
from nait_assets.measurements.autoencoder_tokens import Tokens, budget, spool
from nait_assets.measurements.autoencoder_training import Trained, auxk_loss, new_coder, train
from nait_assets.models.encoding import EncodedSample
from nait_assets.models.sites import resolve_site
from nait_assets_tests.models.small_networks import loaded, network_of, sample, tokens_by_hand

CPU = torch.device("cpu")
WIDTH, RANK = 16, 4
OPTIONS = SparseAutoencoderOptions(k=4, expansion=2, epochs=10, learning_rate=1e-2)


def low_rank(n: int, seed: int = 0) -> np.ndarray:
    """`(n, WIDTH)` float32: combinations of four directions, far from the origin, and a little noise."""
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(RANK, WIDTH))
    return (random.normal(size=(n, RANK)) @ basis + 5 + 0.01 * random.normal(size=(n, WIDTH))).astype(np.float32)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """4,096 tokens that train and 512 that judge."""
    low_rank(4608).tofile(tmp_path / "tokens.f32")
    return Tokens(tmp_path / "tokens.f32", WIDTH, 512, 4096, n_samples=20, n_skipped=0)


def trained(
    tokens: Tokens, folder: Path, options: SparseAutoencoderOptions = OPTIONS, stop: int = 0, of: str = "tokens"
) -> Trained:
    """Train with a checkpoint after every step; fail after step `stop`."""

    def after_step(step: int, _steps: int, _loss: float) -> None:
        if step == stop:
            raise KeyboardInterrupt

    folder.mkdir(exist_ok=True)
    return train(tokens, folder, options, CPU, 1, "identity", of, after_step, checkpoint_seconds=0)


def test_training_lowers_the_loss_and_explains_held_out_tokens(tokens: Tokens, tmp_path: Path) -> None:
    """Tokens of four directions are rebuilt from four latents each, of samples that training did not see."""
    found = trained(tokens, tmp_path / "out")

    assert found.steps == 40
    assert found.curve[-1][1] < 0.3 * found.curve[0][1]
    assert found.explained_variance > 0.8
    assert 0 < found.l0 <= 4
    assert 0 <= found.dead_share < 1


def test_figures_are_those_of_the_definition(tokens: Tokens, tmp_path: Path) -> None:
    """Explained variance, L0 and dead latents against a literal loop in float64 over the stored weights."""
    from sparsify import SparseCoder

    found = trained(tokens, tmp_path / "out", OPTIONS.model_copy(update={"epochs": 1}))

    coder = SparseCoder.load_from_disk(tmp_path / "out")
    weight, bias, decoder, center = (
        tensor.detach().double().numpy()
        for tensor in (coder.encoder.weight, coder.encoder.bias, coder.W_dec, coder.b_dec)
    )
    rows = low_rank(4608).astype(np.float64)
    fired, error, n_active = set(), 0.0, 0
    for place, row in enumerate(rows):
        latents = np.maximum(weight @ (row - center) + bias, 0)
        best = [latent for latent in np.argsort(-latents)[:4] if latents[latent] > 0]
        fired |= set(best)
        if place < 512:
            n_active += len(best)
            error += ((row - center - sum(latents[latent] * decoder[latent] for latent in best)) ** 2).sum()
    variance = ((rows[:512] - rows[:512].mean(axis=0)) ** 2).sum()
    assert found.explained_variance == pytest.approx(1 - error / variance, abs=1e-4)
    assert found.l0 == pytest.approx(n_active / 512, abs=0.01)
    assert found.dead_share == pytest.approx(1 - len(fired) / 32, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(decoder, axis=1), 1, atol=1e-5)


def test_training_that_is_cut_off_goes_on_to_the_same_bytes(tokens: Tokens, tmp_path: Path) -> None:
    """A day's training must survive a kill, and nobody may be able to tell afterwards."""
    whole = trained(tokens, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tokens, tmp_path / "cut", stop=17)
    steps: list[int] = []

    resumed = train(
        tokens, tmp_path / "cut", OPTIONS, CPU, 1, "identity", "tokens", lambda step, *_: steps.append(step)
    )

    assert steps == list(range(18, 41))
    assert resumed == whole
    for name in ("sae.safetensors", "cfg.json", "training.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_checkpoint_of_other_tokens_is_not_gone_on_from(tokens: Tokens, tmp_path: Path) -> None:
    """A pool that changed while a training lay still has other tokens: half of each would be of neither."""
    with pytest.raises(KeyboardInterrupt):
        trained(tokens, tmp_path / "cut", stop=17, of="other tokens")

    assert trained(tokens, tmp_path / "cut") == trained(tokens, tmp_path / "whole")


def test_another_seed_gives_another_autoencoder(tokens: Tokens, tmp_path: Path) -> None:
    """The seed reaches weights and order: who varies it sees how much of a result is luck."""
    first, second = (
        trained(tokens, tmp_path / str(seed), OPTIONS.model_copy(update={"seed": seed})) for seed in (0, 1)
    )

    assert first.curve != second.curve


def test_auxk_loss_moves_the_encoder_of_dead_latents_alone() -> None:
    """In `sparsify` it moves their decoder only, and a latent that does not fire cannot come to fire."""
    coder = new_coder(WIDTH, OPTIONS)
    x = torch.from_numpy(low_rank(64))
    dead = torch.zeros(32, dtype=torch.bool)
    dead[[3, 7, 8]] = True

    auxk_loss(coder, x, coder(x).sae_out, dead, x.var()).backward()

    moved = coder.encoder.weight.grad.abs().sum(dim=1) > 0
    assert moved.any()
    assert not moved[~dead].any()


def test_more_latents_kept_than_there_are_is_refused() -> None:
    """K = 192 is the paper's: too many for a small model."""
    with pytest.raises(
        RecipeError,
        match=r"measurements\.sparse_autoencoder\.k: 33 is more than the 32 latents .*2 x 16.*use 32 or less",
    ):
        new_coder(WIDTH, OPTIONS.model_copy(update={"k": 33}))


SAMPLES = [sample(f"s{n}", n) for n in (5, 9, 12, 7, 3, 8)]


def small_reader() -> Reader:
    network = network_of("Llama")
    return Reader(loaded(network), resolve_site(network, "residual", [1]), keep_first_and_last=False)


def spooled(folder: Path, reader_of: object = small_reader, identity: str = "one", say: object = str) -> Tokens:
    return spool(folder, identity, (SAMPLES[:2], SAMPLES[2:]), reader_of, 12, 12, say)  # type: ignore[arg-type]


def test_spooled_tokens_are_those_of_the_layer_without_first_ones(tmp_path: Path) -> None:
    """The first token's residual is a hundred times the others': it would be all that is learnt."""
    tokens = spooled(tmp_path)

    network = network_of("Llama")
    wanted = [
        np.concatenate([tokens_by_hand(network, one, "residual")[1, 1:] for one in part])
        for part in (SAMPLES[:2][::-1], sorted(SAMPLES[2:], key=lambda one: -len(one.token_ids)))
    ]
    assert (tokens.n_held_out, tokens.n_training) == tuple(map(len, wanted))
    np.testing.assert_allclose(tokens.rows(), np.concatenate(wanted), atol=1e-5)


def test_spool_that_is_cut_off_reads_the_rest_alone(tmp_path: Path) -> None:
    """Measurement the pool is hours of a large model: what a killed run had read is not read again."""
    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spooled(tmp_path / "cut", say=cut)
    rest, whole = spooled(tmp_path / "cut"), spooled(tmp_path / "whole")

    assert 0 < rest.n_forward < whole.n_forward == 6
    assert rest.path.read_bytes() == whole.path.read_bytes()
    assert spooled(tmp_path / "cut", reader_of=None).n_read == 0, "all is there: no model is loaded"


def test_sample_on_which_the_model_fails_is_left_out_and_counted(tmp_path: Path) -> None:
    """A token outside the vocabulary fails one sample; its neighbours of the batch train all the same."""
    broken = EncodedSample("broken", np.array([1, 5, 999], np.int32))

    tokens = spool(tmp_path, "one", (SAMPLES[:1], [SAMPLES[1], broken]), small_reader, 64, 64, str)

    assert (tokens.n_samples, tokens.n_skipped) == (2, 1)
    assert tokens.n_training == 8


def test_held_out_samples_are_not_trained_on() -> None:
    """Tokens of one sample are alike: judged on them, an autoencoder that learnt by heart looks good."""
    held, training = budget([sample(f"s{n}", 11) for n in range(40)], 100)

    assert len(held) == 1
    assert len(training) == 10
    assert not {one.sample_id for one in held} & {one.sample_id for one in training}
    held, training = budget([sample(f"s{n}", 11) for n in range(2)], 10**6)
    assert (len(held), len(training)) == (1, 1)
    with pytest.raises(DataError, match="the pool has 1 readable candidates, and an autoencoder needs at least two"):
        budget([sample("s", 5)], 100)
