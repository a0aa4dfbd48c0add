"""What a process that trains is told, and what it leaves: a folder with a job, its rows, its log and its model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JOB, ROWS, LOG, FIGURES, ERROR, OUTPUT = (
    "job.json",
    "rows.parquet",
    "log.jsonl",
    "figures.json",
    "error.json",
    "output.txt",
)
"""Files of the folder: the job, its rows, a line a step, what it cost, what a user did wrong, what was printed."""


@dataclass(frozen=True)
class Job:
    """A model to be trained.

    Attributes:
        folder: Folder of all its files.
        label: How messages name it.
        pretrained: Arguments by which transformers reads the base.
        settings: All that the recipe sets, as `runs.settings_of` gives it.
        seed: Seed of the order and of an adapter's beginning.
        batch_size: Rows of a step over all processes; at most as many as there are.
        rows_at_once: Rows that a process reads at once.
        bf16: Whether products are in bfloat16.
        on_cpu: Whether accelerators are left alone.
        n_processes: Processes on all machines.
        fsdp: Whether they share the weights out.
        gradient_checkpointing: Whether activations are computed again.
        report_to: Trackers.
        checkpoint_seconds: Seconds between checkpoints.
        libraries: Versions of what trains: another one does not go on from this one's checkpoints.
    """

    folder: Path
    label: str
    pretrained: Mapping[str, str]
    settings: Mapping[str, Any]
    seed: int
    batch_size: int
    rows_at_once: int
    bf16: bool
    on_cpu: bool
    n_processes: int
    fsdp: bool
    gradient_checkpointing: bool
    report_to: tuple[str, ...]
    checkpoint_seconds: float
    libraries: Mapping[str, str]

    def write(self) -> None:
        """Write it into its folder."""
        entries = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / JOB).write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """The job in a folder."""
        return cls(folder, **json.loads((folder / JOB).read_text(encoding="utf-8")))

    def goes_on_as(self, other: "Job") -> bool:
        """Whether the checkpoints of this job are the other's: its rows and settings are those of the folder's name."""
        own = (self.batch_size, self.rows_at_once, self.n_processes, self.fsdp, dict(self.libraries))
        return own == (other.batch_size, other.rows_at_once, other.n_processes, other.fsdp, dict(other.libraries))

    def log(self) -> list[dict[str, Any]]:
        """Lines of the log so far; one that is being written is left out."""
        file = self.folder / LOG
        if not file.exists():
            return []
        entries = []
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                entries.append(json.loads(line))
        return entries
