"""Progress of an extraction or a measurement: a bar on a terminal, else a line every so often for the run's log."""

import logging
import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

log = logging.getLogger(__name__)
LINE_SECONDS = 15.0


class Progress:
    """Counts what the model has read, and shows it with the time that is left, reckoned by tokens.

    Args:
        name: Name of the corpus.
        shard_sizes: Samples and tokens of each shard.
        log_line: Receives a line every 15 seconds where standard error is no terminal.
        unit: What the sizes count beside samples.
    """

    def __init__(
        self, name: str, shard_sizes: Sequence[tuple[int, int]], log_line: Callable[[str], None], unit: str = "token"
    ):
        self.name, self.unit = name, unit
        self.n_samples = sum(n_samples for n_samples, _ in shard_sizes)
        self.n_done = self.n_tokens = 0
        self._n_tokens_left = sum(n_tokens for _, n_tokens in shard_sizes)
        self._log_line = log_line
        self._begun: float | None = None
        self._latest = 0.0
        self._next_line = time.monotonic() + LINE_SECONDS
        interactive = sys.stderr.isatty() and self.n_samples > 0
        self._bar = (
            tqdm(total=self._n_tokens_left, desc=f"  {name}", unit=unit, unit_scale=True, leave=False)
            if interactive
            else None
        )

    @property
    def seconds(self) -> float:
        """Wall time since the model was ready, until the latest batch."""
        return self._latest - self._begun if self._begun is not None else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens read in a second."""
        return self.n_tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """What the rest takes at the rate so far."""
        return self._n_tokens_left / self.tokens_per_second if self.tokens_per_second else float("inf")

    def begin(self) -> None:
        """The model is ready; the first batch goes in."""
        self._begun = self._latest = time.monotonic()
        if self._bar is not None:
            self._bar.unpause()

    def skip(self, n_samples: int, n_tokens: int) -> None:
        """Note samples that an earlier run has read."""
        self.n_done += n_samples
        self._n_tokens_left -= n_tokens
        if self._bar is not None:  # they are done, but say nothing of the speed
            self._bar.n += n_tokens
            self._bar.initial += n_tokens
            self._bar.last_print_n += n_tokens

    def advance(self, n_samples: int, n_tokens: int) -> None:
        """Note a batch."""
        self._latest = time.monotonic()
        self.n_done += n_samples
        self.n_tokens += n_tokens
        self._n_tokens_left -= n_tokens
        done = f"{self.n_done:,} of {self.n_samples:,} samples"
        if self._bar is not None:
            self._bar.set_postfix_str(done, refresh=False)
            self._bar.update(n_tokens)
        elif self._latest >= self._next_line:
            self._next_line = self._latest + LINE_SECONDS
            left = f"{_duration(self.seconds_left)} left"
            rate = f"{self.tokens_per_second:,.{0 if self.unit == 'token' else 1}f} {self.unit}s/s"
            line = f"{self.name}: {done} read, {rate}, {left}"
            self._log_line(line)
            log.info(line)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
