"""A TopK sparse autoencoder of one layer, trained on the pool.

z = TopK(ReLU(W_enc (h - b_pre) + b_enc)), h' = z W_dec + b_pre (arXiv 2406.04093; eq. 6 of MoNA, arXiv 2503.15573). The
module, its first weights and its loss, the fraction of variance unexplained (FVU), are those of EleutherAI's
`sparsify`. Its `Trainer` is not used: it wants sequences of one length, in which samples see each other, runs the model
to its end, and shuffles no tokens; our samples are short and read one by one. Nor is its AuxK loss, which gives the
encoder no gradient, so that what is dead stays dead.

Tokens are drawn in a seeded order. A killed training continues from its last checkpoint, with the same bits on one CPU
and number of threads; a GPU adds up in any order. A trained autoencoder is frozen: a pool that changes keeps it, so
that codes stay comparable, as long as half of what trained it is left; `nait reset autoencoder` has it trained anew.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nait_assets.measurements.autoencoder_options import SparseAutoencoderOptions, require_latents
from nait_assets.measurements.autoencoder_tokens import Tokens
from nait_assets.models.training import scheduled
from nait_assets.resources.files import put_in_place, replacing

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 1024
AUXK_SHARE = 1 / 32
"""Of the AuxK loss in the loss, as in arXiv 2406.04093."""
DEAD_SHARE = 0.1
"""A latent is dead, for the AuxK loss, once it has not fired on this share of an epoch's tokens."""
WARMUP_RATIO, COOLDOWN_RATIO = 0.05, 0.2
"""Shares of the steps in which the learning rate rises, and falls to 0, in a straight line."""
PRODUCT_NUMBERS = 2**24
"""Of the tensor (tokens, k, width) that `sparsify` makes for the encoder's gradient: 64 MB."""
JUDGED_TOKENS = 200_000
"""Most tokens, training ones among them, on one of which a latent has to fire to count as alive."""
CHECKPOINT_SECONDS = 60.0
FIGURES = "training.json"


@dataclass(frozen=True)
class Trained:
    """What a training came to, stored beside the weights.

    Attributes:
        identity: Identity of the settings and the model.
        layer: Layer that was read.
        n_latents: Number of latents of the autoencoder.
        explained_variance: Share of the variance of held-out tokens: 1 - FVU.
        dead_share: Share of latents that fire on no token.
        l0: Mean number of latents that fire on a held-out token.
        n_tokens: Number of tokens that trained it.
        n_held_out: Tokens that judged it.
        n_samples: Candidates that these tokens are of.
        n_skipped: Candidates on which the model failed.
        steps: Steps of training.
        curve: Mean FVU of the steps since the last point, by step.
        sample_ids: Ids of the candidates that these tokens are of.
    """

    identity: str
    layer: int
    n_latents: int
    explained_variance: float
    dead_share: float
    l0: float
    n_tokens: int
    n_held_out: int
    n_samples: int
    n_skipped: int
    steps: int
    curve: tuple[tuple[int, float], ...]
    sample_ids: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Store it."""
        (folder / FIGURES).write_text(json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Trained | None":
        """What a folder holds, None if it holds none."""
        file = folder / FIGURES
        if not file.is_file():
            return None
        fields = json.loads(file.read_text())
        curve, names = ((step, loss) for step, loss in fields["curve"]), fields.get("sample_ids", ())
        return cls(**{**fields, "curve": tuple(curve), "sample_ids": tuple(names)})


def train(
    tokens: Tokens,
    folder: Path,
    options: SparseAutoencoderOptions,
    device: "torch.device",
    layer: int,
    identity: str,
    of_tokens: str,
    after_step: Callable[[int, int, float], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Trained:
    """Train an autoencoder; its weights, `cfg.json` and figures come to lie in `folder`.

    Args:
        tokens: Tokens on disk.
        folder: For the result and for checkpoints, `checkpoint.pt`; goes on from one of the same identity.
        options: Options of the recipe.
        device: Device that it is trained on.
        layer: Layer that the tokens are of.
        identity: Identity of the settings and the model, stored with the result.
        of_tokens: Identity of the tokens too, stored with checkpoints.
        after_step: Told each step, the number of steps, and the step's FVU.
        checkpoint_seconds: Between checkpoints.
    """
    import torch

    rows = tokens.rows()
    training = rows[tokens.n_held_out :]
    run = _Training.begin(options, training, device)
    steps = math.ceil(len(training) / BATCH_TOKENS) * options.epochs
    checkpoint = folder / "checkpoint.pt"
    run.resume(checkpoint, of_tokens)
    saved = time.monotonic()
    for chosen in _batches(options.seed, len(training), run.step, steps):
        loss = run.advance(torch.from_numpy(training[chosen]).to(device), options, steps)
        run.note(loss, steps)
        if time.monotonic() - saved >= checkpoint_seconds:
            run.save(checkpoint, of_tokens)
            saved = time.monotonic()
        after_step(run.step, steps, loss)
    explained, l0 = explained_variance(run.coder, rows[: tokens.n_held_out], device)
    run.coder.save_to_disk(folder)
    figures = Trained(
        identity=identity,
        layer=layer,
        n_latents=run.coder.num_latents,
        explained_variance=explained,
        dead_share=dead_share(run.coder, rows, device),
        l0=l0,
        n_tokens=tokens.n_training,
        n_held_out=tokens.n_held_out,
        n_samples=tokens.n_samples,
        n_skipped=tokens.n_skipped,
        steps=steps,
        curve=tuple(run.curve),
    )
    figures.write(folder)
    return figures


def _batches(seed: int, n_tokens: int, first: int, n_steps: int) -> Iterator[np.ndarray]:
    """Ascending indices of the tokens of each step from `first` on; each epoch has an order of its own."""
    steps_of_epoch = math.ceil(n_tokens / BATCH_TOKENS)
    order, of_epoch = np.zeros(0, np.int64), -1
    for step in range(first, n_steps):
        epoch, batch = divmod(step, steps_of_epoch)
        if epoch != of_epoch:
            order = np.random.default_rng([seed, epoch]).permutation(n_tokens)
            of_epoch = epoch
        # Ascending, as the tokens are read from disk.
        yield np.sort(order[batch * BATCH_TOKENS : (batch + 1) * BATCH_TOKENS])


@dataclass
class _Training:
    """A training at a step: what a checkpoint holds."""

    coder: Any
    optimizer: Any
    silent: "torch.Tensor"
    """Tokens since each latent fired."""
    dead_after: int
    step: int
    losses: list[float]
    curve: list[tuple[int, float]]

    @classmethod
    def begin(cls, options: SparseAutoencoderOptions, training: np.ndarray, device: "torch.device") -> "_Training":
        """First weights by the seed; the bias of the decoder is the mean token."""
        import torch

        coder = new_coder(training.shape[1], options).to(device)
        coder.b_dec.data = torch.from_numpy(_mean(training)).to(device)
        silent = torch.zeros(coder.num_latents, dtype=torch.long, device=device)
        optimizer = torch.optim.Adam(coder.parameters(), lr=options.learning_rate)
        return cls(coder, optimizer, silent, max(1, int(DEAD_SHARE * len(training))), 0, [], [])

    def advance(self, batch: "torch.Tensor", options: SparseAutoencoderOptions, steps: int) -> float:
        """One step; the FVU of `(n_tokens, width)`."""
        coder = self.coder
        coder.set_decoder_norm_to_unit_norm()
        variance = (batch - batch.mean(0)).pow(2).sum().clamp(min=1e-12)
        dead = self.silent > self.dead_after
        fired = self.silent.new_zeros(len(self.silent), dtype=dead.dtype)
        size = max(1, PRODUCT_NUMBERS // (coder.cfg.k * coder.d_in))
        total = 0.0
        for part in batch.split(size):
            out = coder(part, total_variance=variance)
            (out.fvu + AUXK_SHARE * auxk_loss(coder, part, out.sae_out, dead, variance)).backward()
            total += float(out.fvu.detach())
            fired[out.latent_indices[out.latent_acts > 0]] = True
        self.silent += len(batch)
        self.silent[fired] = 0
        coder.remove_gradient_parallel_to_decoder_directions()
        n_rising = int(WARMUP_RATIO * steps)
        for group in self.optimizer.param_groups:
            group["lr"] = scheduled(self.step, steps, options.learning_rate, n_rising, COOLDOWN_RATIO)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.step == steps:
            coder.set_decoder_norm_to_unit_norm()
        return total

    def note(self, loss: float, steps: int) -> None:
        """Add a step's loss to the curve, which has about forty points."""
        self.losses.append(loss)
        if self.step % max(1, steps // 40) == 0 or self.step == steps:
            self.curve.append((self.step, float(np.mean(self.losses))))
            self.losses.clear()

    def save(self, checkpoint: Path, identity: str) -> None:
        """Write a checkpoint, whole or not at all."""
        import torch

        state = {
            "identity": identity,
            "coder": self.coder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "silent": self.silent,
            "step": self.step,
            "losses": self.losses,
            "curve": self.curve,
        }
        with replacing(checkpoint) as temporary:
            torch.save(state, temporary)

    def resume(self, checkpoint: Path, identity: str) -> None:
        """Go on from a checkpoint, if there is one of this identity."""
        import torch

        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, map_location=self.silent.device, weights_only=True)
        if state["identity"] != identity:
            return
        self.coder.load_state_dict(state["coder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.silent, self.step = state["silent"], state["step"]
        self.losses, self.curve = list(state["losses"]), [(step, loss) for step, loss in state["curve"]]


def auxk_loss(
    coder: Any, x: "torch.Tensor", rebuilt: "torch.Tensor", dead: "torch.Tensor", variance: "torch.Tensor"
) -> "torch.Tensor":
    """Auxiliary loss: reconstruct the residual with the dead latents only (arXiv 2406.04093, appendix A.2).

    Args:
        coder: The autoencoder.
        x: `(n_tokens, width)`.
        rebuilt: By the autoencoder, the same shape.
        dead: `(n_latents,)`, which latents are dead.
        variance: Variance of the batch, that the loss is a share of.
    """
    import torch

    indices = dead.nonzero()[:, 0]
    k = min(coder.d_in // 2, len(indices))
    if not k:
        return x.new_zeros(())
    encoder = coder.encoder
    before = torch.nn.functional.linear(x - coder.b_dec, encoder.weight[indices], encoder.bias[indices])
    values, chosen = before.topk(k, dim=-1)
    mine = torch.zeros_like(before).scatter(1, chosen, values) @ coder.W_dec[indices]
    scale = min(len(indices) / (coder.d_in // 2), 1.0)  # as `sparsify`: few dead latents cannot rebuild much
    return scale * (mine - (x - rebuilt).detach()).pow(2).sum() / variance


def _mean(rows: np.ndarray, size: int = 65536) -> np.ndarray:
    """`(width,)` float32 mean, in bounded memory."""
    total = sum(rows[begin : begin + size].sum(axis=0, dtype=np.float64) for begin in range(0, len(rows), size))
    return (total / len(rows)).astype(np.float32)


def new_coder(width: int, options: SparseAutoencoderOptions) -> Any:
    """`sparsify`'s module with first weights by the seed, on the CPU.

    Raises:
        RecipeError: More latents are kept than there are.
    """
    import torch

    require_latents(options.k, width * options.expansion, f"{options.expansion} x {width}, `expansion` x width")
    from sparsify import SparseCoder, SparseCoderConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return SparseCoder(width, SparseCoderConfig(expansion_factor=options.expansion, k=options.k))


def explained_variance(coder: Any, rows: np.ndarray, device: "torch.device") -> tuple[float, float]:
    """1 - FVU over `(n_tokens, width)`, and the mean number of latents that fire on a token."""
    import torch

    mean = torch.from_numpy(_mean(rows)).to(device)
    error = variance = n_active = 0.0
    with torch.no_grad():
        for part in _parts(rows, device):
            values, indices, _ = coder.encode(part)
            error += float((part - coder.decode(values, indices)).double().pow(2).sum())
            variance += float((part - mean).double().pow(2).sum())
            n_active += float((values > 0).sum())
    return (1 - error / variance if variance else float(error == 0)), n_active / len(rows)


def dead_share(coder: Any, rows: np.ndarray, device: "torch.device") -> float:
    """Share of latents that fire on none of `(n_tokens, width)`, of which at most `JUDGED_TOKENS` are looked at."""
    import torch

    fired = torch.zeros(coder.num_latents, dtype=torch.bool, device=device)
    with torch.no_grad():
        for part in _parts(rows[:: math.ceil(len(rows) / JUDGED_TOKENS)], device):
            values, indices, _ = coder.encode(part)
            fired[indices[values > 0]] = True
    return 1 - float(fired.float().mean())


def _parts(rows: np.ndarray, device: "torch.device") -> "Iterator[torch.Tensor]":
    import torch

    for begin in range(0, len(rows), BATCH_TOKENS):
        yield torch.from_numpy(np.array(rows[begin : begin + BATCH_TOKENS])).to(device)


def finish(part: Path, folder: Path) -> None:
    """Move a finished training into its place, without what it was made from."""
    for name in ("tokens.f32", "tokens.json", "checkpoint.pt"):
        (part / name).unlink(missing_ok=True)
    put_in_place(part, folder)
