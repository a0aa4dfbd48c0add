"""The pre-experienced model of IFD: the recipe's model, trained for a moment on a few varied candidates.

Cherry (arXiv 2308.12032, section 2.1, "learning from brief experience"): k-means over the instructions' embeddings,
each the mean of the last hidden state over its tokens; some rows of each of 100 clusters, 10 here; one epoch on their
responses. So the model that judges has seen what an instruction is, and the difficulty that it finds is not that of
the format.

What differs: LoRA on every linear layer and a constant learning rate instead of full training, so that it fits where
the model fits; rows of a cluster by a hash, where the published code takes every n-th one without the 1% least and most
perplexing; and at most a tenth of the pool, or a small one would be learnt by heart.
Cost: a forward pass over every instruction, and of each chosen row a pass forwards and back an epoch.
"""

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nait_assets.measurements.outputs import OutputReader, shards_of
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.cost import Cost
from nait_assets.models.encoding import EncodedSample, encode
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction, IfdPreExperiencedOptions, Recipe, RecipeError
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel

ALGORITHM = "1"
LARGEST_SHARE = 10
"""At most one row in as many is learnt from."""
BATCH_ROWS = 16


@dataclass(frozen=True)
class Experience:
    """What a brief training did.

    Attributes:
        sample_ids: Rows that were learnt from.
        n_clusters: Groups that they were taken from.
        losses: Mean loss of the responses, by epoch, each row's as it was just before it was learnt from.
        n_refused: Candidates that could not be learnt from.
        cost: Of all of it but the time.
    """

    sample_ids: tuple[str, ...]
    n_clusters: int
    losses: tuple[float, ...]
    n_refused: int
    cost: Cost


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that the training reads."""
    own = recipe.options.ifd_pre_experienced.model_dump(exclude={"ratio"})
    return [recipe.model, recipe.extraction.max_tokens, recipe.extraction.template, own]


def gain_experience(
    pool: pl.DataFrame,
    model: LanguageModel,
    extraction: Extraction,
    options: IfdPreExperiencedOptions,
    run_options: RunOptions,
    folder: Path,
    say: Callable[[str], None],
) -> Experience:
    """Train the model for a moment and save it, whole, with its tokenizer.

    Args:
        pool: Columns `sample_id`, `messages`.
        model: Of the recipe.
        extraction: Of the recipe; tokens and template are read.
        options: How many rows, and how they are learnt.
        run_options: How the model is run.
        folder: Where it is saved; what is there is replaced once it is whole.
        say: Where lines for people go.

    Raises:
        RecipeError: No candidate can be learnt from.
    """
    tokenizer = model.tokenizer()
    pairs = list(zip(pool["sample_id"].to_list(), pool["messages"].to_list(), strict=True))
    samples, refused = encode_with_answers(pairs, tokenizer, extraction.template, extraction.max_tokens)
    usable = {sample.sample_id: sample for sample in samples if not sample.unanswered}
    instructions, _ = encode(
        ((name, messages_before_response(messages)) for name, messages in pairs if name in usable),
        tokenizer,
        extraction.template,
        extraction.max_tokens,
    )
    if not instructions:
        unanswered = [(sample.sample_id, sample.unanswered) for sample in samples if sample.unanswered]
        first = next(iter([*refused, *unanswered]), ("", "there is none"))[1]
        raise RecipeError(f"pre-experienced model: not one candidate can be learnt from; the first: {first}")
    loaded = model.fresh_causal()
    say(f"embedding {len(instructions)} instructions")
    names, embeddings = embedded(loaded, instructions, run_options)
    clusters, each = scaled(options.clusters, options.per_cluster, len(names))
    chosen = varied_rows(names, embeddings, clusters, each, options.seed)
    say(f"training on {len(chosen)} rows of {clusters} clusters, {options.epochs} epoch(s)")
    rows = [usable[name] for name in chosen]
    network, losses = trained(loaded, rows, options)
    _save(network, tokenizer, folder)
    n_trained = len(rows) * options.epochs
    n_tokens = sum(len(one.token_ids) for one in instructions)
    n_tokens += options.epochs * sum(len(row.token_ids) for row in rows)
    cost = Cost(n_forward=len(names) + n_trained, n_backward=n_trained, n_tokens=n_tokens)
    return Experience(tuple(chosen), clusters, tuple(losses), len(pool) - len(usable), cost)


def messages_before_response(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """What stands before the first response; a conversation that begins with one has the rest instead."""
    roles = [message["role"] for message in messages]
    first = roles.index("assistant")
    return list(messages[:first]) or [message for message in messages if message["role"] != "assistant"]


def embedded(model: LoadedModel, samples: Sequence[EncodedSample], options: RunOptions) -> tuple[list[str], np.ndarray]:
    """Names in ascending order, and `(n_samples, width)` means of the last hidden state over all tokens."""
    reader = OutputReader(model, losses=False)
    names: list[str] = []
    parts: list[np.ndarray] = []
    for shard in shards_of(samples, options, model.device.type, set()):
        for reading in reader.read(shard.batches):
            if reading.pooled is not None:
                names += [sample.sample_id for sample in reading.samples]
                parts.append(reading.pooled.columns["vector"])
    order = np.argsort(np.asarray(names))
    return [names[place] for place in order], np.concatenate(parts)[order]


def scaled(clusters: int, per_cluster: int, n_samples: int) -> tuple[int, int]:
    """Clusters and rows of each that keep to a tenth of the pool; at least one."""
    most = max(1, n_samples // LARGEST_SHARE)
    each = min(per_cluster, most)
    return max(1, min(clusters, most // each)), each


def varied_rows(names: Sequence[str], embeddings: np.ndarray, clusters: int, each: int, seed: int) -> list[str]:
    """Names of at most `each` rows of each k-means cluster, in the order in which they are learnt from.

    Args:
        names: In ascending order, so that a pool in another order gives the same clusters.
        embeddings: `(n_samples, width)`.
        clusters: At most the number of samples.
        each: Rows of a cluster, drawn by a hash of the seed and the name.
        seed: Of k-means and of the draw.
    """
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=1, random_state=seed).fit_predict(embeddings.astype(np.float64))

    def drawn(name: str) -> str:
        return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    chosen = []
    for cluster in range(clusters):
        chosen += sorted((names[place] for place in np.flatnonzero(found == cluster).tolist()), key=drawn)[:each]
    return sorted(chosen, key=drawn)


def trained(
    model: LoadedModel, rows: Sequence[AnsweredSample], options: IfdPreExperiencedOptions
) -> tuple[Any, list[float]]:
    """The network with what LoRA learnt merged into its weights, and the mean loss by epoch.

    AdamW at a constant learning rate; a step is the mean over 16 rows of each row's mean loss over its response tokens.

    Args:
        model: Of one's own: it is changed.
        rows: In the order of the first epoch; the others have the seed's.
        options: How they are learnt.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(), torch.enable_grad():  # the adapters begin at random
        torch.manual_seed(options.seed)
        config = LoraConfig(
            r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        network = get_peft_model(model.network, config).train()
        learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=options.learning_rate, weight_decay=0.0)
        losses = []
        for epoch in range(options.epochs):
            order = np.random.default_rng([options.seed, epoch]).permutation(len(rows)) if epoch else range(len(rows))
            ordered = [rows[place] for place in order]
            total = 0.0
            for begin in range(0, len(ordered), BATCH_ROWS):
                total += _step(network, optimizer, ordered[begin : begin + BATCH_ROWS], model.device)
            losses.append(total / len(rows))
    return network.merge_and_unload().eval(), losses


def _step(network: Any, optimizer: Any, rows: Sequence[AnsweredSample], device: Any) -> float:
    """One step of the optimiser; the sum of the rows' losses before it."""
    total = 0.0
    for row in rows:
        loss = _response_loss(network, row, device)
        if not math.isfinite(loss.item()):
            raise RuntimeError(
                f"pre-experienced model: the loss of sample {row.sample_id} is {loss.item()}. Nothing was stored. Try "
                "`model.dtype: float32`, or a lower `options.ifd_pre_experienced.learning_rate`."
            )
        (loss / len(rows)).backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    return total


def _response_loss(network: Any, row: AnsweredSample, device: Any) -> Any:
    import torch

    token_ids = torch.from_numpy(row.token_ids.astype(np.int64)).to(device)
    places = torch.from_numpy(np.flatnonzero(row.answers)).to(device)
    logits = network(input_ids=token_ids[None], use_cache=False).logits[0, places - 1]
    return torch.nn.functional.cross_entropy(logits.float(), token_ids[places])


def _save(network: Any, tokenizer: Any, folder: Path) -> None:
    """A model folder, which takes the place of what was there once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        temporary.chmod(0o755)  # what `mkdtemp` makes, only its owner may read
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
