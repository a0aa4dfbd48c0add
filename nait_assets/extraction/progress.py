"""Progress of an extraction: a bar on a terminal, else a line every so often for the run's log."""

import logging
import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

log = logging.getLogger(__name__)
LINE_SECONDS = 15.0


class Progress:
    """Counts what the model has read, and shows it.

    Args:
        name: Of the corpus.
        shard_sizes: Samples of each shard to read.
        say: Receives a line every 15 seconds where standard error is no terminal.
    """

    def __init__(self, name: str, shard_sizes: Sequence[int], say: Callable[[str], None]):
        self.name = name
        self.n_samples = sum(shard_sizes)
        self.n_done = self.n_tokens = self.n_padding = 0
        self.seconds = 0.0
        self._say = say
        self._next_line = time.monotonic() + LINE_SECONDS
        interactive = sys.stderr.isatty() and self.n_samples > 0
        self._bar = tqdm(total=self.n_samples, desc=f"  {name}", unit="sample", leave=False) if interactive else None

    @property
    def tokens_per_second(self) -> float:
        """Tokens read in a second of forward passes, padding excluded."""
        return self.n_tokens / self.seconds if self.seconds else 0.0

    def skip(self, n_samples: int) -> None:
        """Note samples that an earlier run has read."""
        self.n_done += n_samples
        if self._bar is not None:
            self._bar.update(n_samples)

    def advance(self, n_samples: int, n_tokens: int, n_padding: int, seconds: float) -> None:
        """Note a batch."""
        self.n_done += n_samples
        self.n_tokens += n_tokens
        self.n_padding += n_padding
        self.seconds += seconds
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.tokens_per_second:,.0f} tokens/s", refresh=False)
            self._bar.update(n_samples)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            progress = f"{self.n_done:,} of {self.n_samples:,} samples"
            line = f"{self.name}: {progress} read, {self.tokens_per_second:,.0f} tokens/s"
            self._say(line)
            log.info(line)

    def close(self) -> float:
        """End the bar.

        Returns:
            Seconds spent in forward passes.
        """
        if self._bar is not None:
            self._bar.close()
        return self.seconds
