"""Token activations on disk: what an autoencoder is trained on, written once, and drawn from in any order.

The candidates come in a seeded order. A killed run continues after the last shard that it finished.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nait_assets.errors import DataError
from nait_assets.extraction.neurons import Reader
from nait_assets.models.encoding import EncodedSample, plan
from nait_assets.recipe import seeded_order
from nait_assets.resources.files import replacing

HELD_OUT_SHARE = 0.05
"""Of the tokens that are read, those that judge; they are of other candidates than those that train."""


@dataclass(frozen=True)
class Tokens:
    """Token activations on disk.

    Attributes:
        path: Path of the numbers, float32, row by row.
        width: Width of a row.
        n_held_out: Rows at the beginning that judge.
        n_training: Rows behind them that train.
        n_samples: Candidates that they are of.
        n_skipped: Candidates on which the model failed.
        n_forward: Candidates that went through the model in this run.
        n_read: Tokens of those.
    """

    path: Path
    width: int
    n_held_out: int
    n_training: int
    n_samples: int
    n_skipped: int
    n_forward: int = 0
    n_read: int = 0

    def rows(self) -> np.ndarray:
        """`(n_held_out + n_training, width)` float32, read from disk as it is looked at."""
        return np.memmap(self.path, np.float32, "r", shape=(self.n_held_out + self.n_training, self.width))


def seeded(pool: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The candidates in the order in which they are read: by a hash of the seed and their `sample_id`."""
    return pool[seeded_order(pool["sample_id"].to_list(), f"autoencoder:{seed}")]


def budget(samples: list[EncodedSample], training_tokens: int) -> tuple[list[EncodedSample], list[EncodedSample]]:
    """The samples whose tokens judge, and those whose tokens train, from the front of the order.

    Raises:
        DataError: There are fewer than two samples.
    """
    if len(samples) < 2:
        raise DataError(
            f"the pool has {len(samples)} readable candidates, and an autoencoder needs at least two: one to train on, "
            "one to judge by. Name a larger pool, or a trained autoencoder in measurements.sparse_autoencoder.source."
        )
    lengths = np.asarray([len(sample.token_ids) - 1 for sample in samples])
    wanted = min(int(lengths.sum()), math.ceil(training_tokens * (1 + HELD_OUT_SHARE)))
    ends = np.cumsum(lengths)
    held = min(len(samples) - 1, int(np.searchsorted(ends, wanted * HELD_OUT_SHARE)) + 1)
    rest = np.cumsum(lengths[held:])
    return samples[:held], samples[held : held + int(np.searchsorted(rest, training_tokens)) + 1]


def spool(
    folder: Path,
    identity: str,
    samples: tuple[list[EncodedSample], list[EncodedSample]],
    reader_of: Callable[[], Reader],
    batch_tokens: int,
    shard_tokens: int,
    log_line: Callable[[str], None],
) -> Tokens:
    """The samples' token activations on disk, in bounded memory; continues where an earlier run stopped.

    Args:
        folder: Folder of the tokens.
        identity: Identity of the samples and of how they are read; another's tokens are thrown away.
        samples: Those that judge, and those that train.
        reader_of: Loads the model; not asked for where all has been read.
        batch_tokens: Most tokens in a batch.
        shard_tokens: Tokens after which the progress is noted.
        log_line: Function that takes lines for the run's log.

    Raises:
        DataError: Not one sample can be read of those that judge, or of those that train.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers, progress = folder / "tokens.f32", folder / "tokens.json"
    state = _state(progress, identity)
    shards = [(part, shard) for part in (0, 1) for shard in plan(samples[part], batch_tokens, shard_tokens)]
    n_forward, n_read, reader = 0, 0, None
    with numbers.open("r+b" if numbers.exists() else "w+b") as file:
        file.truncate(state["n_bytes"])
        file.seek(0, 2)
        for number, (part, shard) in enumerate(shards):
            if number < state["n_shards"]:
                continue
            reader = reader or reader_of()
            for batch in shard.batches:
                for tokens, n_samples in _readable(reader, batch):
                    file.write(tokens.tobytes())
                    state["n_tokens"][part] += len(tokens)
                    state["n_samples"] += n_samples
                    state["n_skipped"] += 1 - min(1, n_samples)
            file.flush()
            n_forward, n_read = n_forward + len(shard.samples), n_read + shard.n_tokens
            state |= {"n_shards": number + 1, "n_bytes": file.tell(), "width": reader.site.width}
            with replacing(progress) as temporary:
                temporary.write_text(json.dumps(state))
            log_line(f"token activations: {sum(state['n_tokens']):,} tokens, {number + 1} of {len(shards)} shards")
    if not all(state["n_tokens"]):
        raise DataError(
            f"the model reads only {state['n_samples']} of the pool's candidates, and an autoencoder needs one to "
            "train on and one to judge by. Look at the rows that extraction rejects, or name a larger pool."
        )
    held, training = state["n_tokens"]
    of_state = state["n_samples"], state["n_skipped"]
    return Tokens(numbers, state["width"], held, training, *of_state, n_forward, n_read)


def _state(progress: Path, identity: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        state = json.loads(progress.read_text())
        if state["identity"] == identity:
            return state
    return {"identity": identity, "n_shards": 0, "n_bytes": 0, "n_tokens": [0, 0], "n_samples": 0, "n_skipped": 0}


def _readable(reader: Reader, batch: tuple[EncodedSample, ...]) -> Iterator[tuple[np.ndarray, int]]:
    """Tokens and number of samples of a batch, or of its samples one by one where it fails; (nothing, 0) for one."""
    try:
        yield reader.tokens(batch), len(batch)
    except (RuntimeError, MemoryError, IndexError):
        if len(batch) == 1:  # the measurement of codes gives the reason, where it rejects it too
            yield np.zeros((0, reader.site.width), np.float32), 0
            return
        for sample in batch:
            yield from _readable(reader, (sample,))
