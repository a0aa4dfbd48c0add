"""Progress of reading a source: a line every few seconds for the run's log; nothing for what is short.

The share of the source is the share of its files' bytes, as they are stored, or of the rows where a file states them.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nait_assets.resources.source_files import SourceFile

log = logging.getLogger(__name__)
LINE_SECONDS = 5.0


class ReadingProgress:
    """Counts the rows of a source as they are read, and says from time to time how far it is.

    Args:
        name: Name of the source.
        log_line: Function that takes each line, beside this module's logger.
    """

    def __init__(self, name: str, log_line: Callable[[str], None] | None = None):
        self._name, self._log_line = name, log_line
        self._n_rows = self._n_bytes_done = self._n_bytes = 0
        self._file: SourceFile | None = None
        self._begun = time.monotonic()
        self._next_line = self._begun + LINE_SECONDS

    def begin(self, files: Iterable[SourceFile]) -> None:
        """Note which files will be read; those at a URL are of unknown size, and so is then the whole."""
        sizes = [0 if file.is_remote else Path(file.path).stat().st_size for file in files]
        self._n_bytes = sum(sizes) if all(sizes) else 0

    def enter(self, file: SourceFile) -> None:
        """Note that the rows of a file follow."""
        if self._file is not None and not self._file.is_remote:
            self._n_bytes_done += Path(self._file.path).stat().st_size
        self._file = file

    def row(self, number: int) -> None:
        """Note a row.

        Args:
            number: Its number in its file.
        """
        self._n_rows += 1
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + LINE_SECONDS
        parts = [f"{self._name}: {self._n_rows:,} rows read in {now - self._begun:.0f} s"]
        if self._n_bytes and self._file is not None:
            size = Path(self._file.path).stat().st_size
            n_bytes = self._n_bytes_done + round(size * self._file.share_read(number))
            parts.append(f"{n_bytes / 1e6:,.1f} of {self._n_bytes / 1e6:,.1f} MB, {n_bytes / self._n_bytes:.0%}")
        line = ", ".join(parts)
        log.info(line)
        if self._log_line is not None:
            self._log_line(line)
