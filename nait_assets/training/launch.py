"""How the processes of a training are started: one by itself, or several by `accelerate launch` and a file.

Belongs here: reading the file that a recipe names, and what is wrong with it. Does not belong here: what the processes
do (`worker`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nait_assets.errors import RecipeError, SetupError
from nait_assets.recipe import Recipe, fingerprint

PLACES = ("main_process_ip", "main_process_port", "machine_rank", "same_network", "rdzv_backend", "debug")
"""Entries of the file that say where processes are, and change no weight."""


@dataclass(frozen=True)
class Launch:
    """How processes are started.

    Attributes:
        file: File of `accelerate config`; None for one process.
        entries: What it holds.
    """

    file: Path | None = None
    entries: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_processes(self) -> int:
        """Processes on all machines."""
        return int(self.entries.get("num_processes", 1))

    @property
    def on_cpu(self) -> bool:
        """Whether the file keeps off accelerators; one process uses what there is."""
        return bool(self.entries.get("use_cpu", False)) or self.kind == "MULTI_CPU"

    @property
    def kind(self) -> str:
        """`distributed_type` of the file, such as FSDP."""
        return str(self.entries.get("distributed_type", "NO"))

    @property
    def settings(self) -> list[Any]:
        """What of the file can change the weights; nothing where there is no file."""
        return [{name: value for name, value in self.entries.items() if name not in PLACES}] if self.file else []

    @property
    def versions(self) -> dict[str, str]:
        """The version of the file, by the name that records give it."""
        return {"source:training.accelerate": fingerprint(*self.settings)} if self.file else {}

    def require_devices(self) -> None:
        """Whether this machine can start as many processes.

        Raises:
            SetupError: It has fewer devices.
            RecipeError: The file asks for what would silently be something else.
        """
        if self.file is None:
            return
        if self.kind == "MULTI_CPU" and self.n_processes > 1:
            raise RecipeError(
                f"training.accelerate: {self.file} has `distributed_type: MULTI_CPU`, with which accelerate starts one "
                "process on one machine; write `distributed_type: MULTI_GPU` and `use_cpu: true`."
            )
        if self.kind == "FSDP" and self.on_cpu:
            raise RecipeError(
                f"training.accelerate: {self.file} asks for FSDP on a CPU, where accelerate does plain data "
                "parallelism instead; write `distributed_type: MULTI_GPU`, or leave `use_cpu` out."
            )
        wanted = -(-self.n_processes // int(self.entries.get("num_machines", 1)))
        have, what = _devices(self.on_cpu)
        if wanted > have:
            raise SetupError(
                f"training.accelerate: {self.file} asks for {wanted} processes on a machine, and this one has "
                f"{have} {what}: set `num_processes` to {max(1, have)} or less"
                + ("." if self.on_cpu or have else ", with `use_cpu: true`.")
            )


def launch_of(recipe: Recipe) -> Launch:
    """How the recipe's trainings are started.

    Raises:
        RecipeError: The file that it names cannot be read.
    """
    if recipe.training is None or recipe.training.accelerate is None:
        return Launch()
    file = recipe.resolve(recipe.training.accelerate)
    advice = "`accelerate config --config_file FILE` writes one."
    if not file.is_file():
        raise RecipeError(f"training.accelerate: {file} does not exist; {advice}")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"training.accelerate: {file} is not readable as YAML ({error}); {advice}") from error
    if not isinstance(entries, dict) or not isinstance(entries.get("num_processes", 1), int):
        raise RecipeError(f"training.accelerate: {file} does not hold the settings of accelerate; {advice}")
    return Launch(file, entries)


def _devices(on_cpu: bool) -> tuple[int, str]:
    import torch

    return (os.cpu_count() or 1, "CPU cores") if on_cpu else (torch.cuda.device_count(), "GPUs")
