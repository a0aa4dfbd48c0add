"""Models that can be evaluated: the base, and those that were trained from it; where they lie and how they are loaded.

Belongs here: what a later room needs of a trained model. Does not belong here: training one (`making`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nait_assets.catalogue import Output
from nait_assets.errors import WarehouseError
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import replacing, sha256
from nait_assets.resources.language_model import LoadedModel
from nait_assets.resources.warehouse import Snapshot
from nait_assets.training.runs import MANIFEST, model_folder
from nait_assets.training.tables import TRAINED_MODELS

WEIGHT_SUFFIXES = (".safetensors", ".bin")
REMOVED = "removed.txt"
"""In a model's folder: names of the weights that were removed after its evaluation."""


@dataclass(frozen=True)
class Model:
    """A model that can be evaluated.

    Attributes:
        base: The model that was trained; device and dtype of an evaluation are its own.
        key: Hash of its content: equal keys are equal models. Of the base, its identity.
        number: Seed, draw or probe by which its output tells models apart; None for the base.
        folder: Where it lies; None for the base.
    """

    base: LanguageModel
    key: str
    number: int | None = None
    folder: Path | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter for the base, instead of all weights."""
        return self.folder is not None and (self.folder / "adapter_config.json").is_file()

    @property
    def is_present(self) -> bool:
        """Whether its weights are on disk: they are not once `training.keep: none` removed them."""
        return self.folder is None or has_weights(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """What it was trained on and how, and what it cost; empty for the base.

        Raises:
            WarehouseError: The folder is gone or damaged.
        """
        return read_manifest(self.folder) if self.folder else {}

    def load(self) -> LoadedModel:
        """The model with its head in memory, in evaluation mode, a copy of one's own.

        Raises:
            WarehouseError: Its weights are not there.
            ModelError: The base cannot be loaded.
        """
        if self.folder is None:
            return self.base.fresh_causal()
        if not self.is_present:
            raise WarehouseError(
                f"the weights of {self.folder} were removed after their evaluation, as `training.keep` says, or by "
                "hand; `training.storing.restore` trains them again."
            )
        if self.is_adapter:
            from peft import PeftModel

            loaded = self.base.fresh_causal()
            adapted = PeftModel.from_pretrained(loaded.network, str(self.folder))
            network = adapted.merge_and_unload()
        else:
            from transformers import AutoModelForCausalLM

            network = AutoModelForCausalLM.from_pretrained(
                str(self.folder), dtype=self.base.resolved_dtype(), trust_remote_code=False
            )
        device = self.base.resolved_device()
        return LoadedModel(network.to(device).eval().requires_grad_(False), device, self.base.resolved_dtype())

    def tokenizer(self) -> Any:
        """Its tokenizer, which is that of the base: training adds no token."""
        return self.base.tokenizer()


def has_weights(folder: Path) -> bool:
    """Whether a model's folder holds weights, and not only what `training.keep` left of it."""
    return any(file.suffix in WEIGHT_SUFFIXES for file in folder.glob("*"))


def base_model(base: LanguageModel) -> Model:
    """The base without training."""
    return Model(base, base.identity())


def trained_models(
    warehouse: Warehouse, tables: Snapshot, output: Output, partition: str, base: LanguageModel
) -> list[Model]:
    """The models of an output's partition, by number; its version is noted as read.

    Args:
        warehouse: Warehouse of the home.
        tables: Snapshot of the warehouse's own tables.
        output: Output that they are of, such as `catalogue.models_output("nait")`.
        partition: Partition key, or "".
        base: The model that was trained, as `runs.base_of` gives it.

    Raises:
        WarehouseError: It has not been made.
    """
    tables.note(output.key, partition)
    rows = tables.rows(TRAINED_MODELS, asset=output.key, partition=partition).sort("number")
    return [
        Model(base, key, number, model_folder(warehouse.folder, key))
        for number, key in rows.select("number", "key").rows()
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a trained model.

    Raises:
        WarehouseError: It is gone or damaged.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise WarehouseError(
            f"{folder / MANIFEST} cannot be read ({error}); `nait run` trains the model again."
        ) from error
    return found


def faults_of(folder: Path) -> list[str]:
    """What of a model's folder is not as its manifest says, a sentence each; what `release` removed may be gone."""
    try:
        manifest = read_manifest(folder)
    except WarehouseError as error:
        return [str(error)]
    files: Mapping[str, str] = manifest["files"]
    note = folder / REMOVED
    removed = set(note.read_text(encoding="utf-8").split("\n")) if note.is_file() else set()
    known = {*files, MANIFEST, REMOVED}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    missing = [name for name in files if name not in removed and not (folder / name).is_file()]
    changed = [name for name in files if (folder / name).is_file() and sha256(folder / name) != files[name]]
    said = {
        f"{folder} lacks {', '.join(missing)}": missing,
        f"{folder}: {', '.join(changed)} changed": changed,
        f"{folder} also holds {', '.join(others)}": others,
    }
    return [sentence for sentence, names in said.items() if names]


def release(folder: Path) -> None:
    """Remove the weights of a model that was evaluated; manifest, card and tokenizer stay, and a note of what went."""
    weights = [name for name in read_manifest(folder)["files"] if Path(name).suffix in WEIGHT_SUFFIXES]
    with replacing(folder / REMOVED) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in weights), encoding="utf-8")
    for name in weights:
        (folder / name).unlink(missing_ok=True)
