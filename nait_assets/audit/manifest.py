"""The manifest of a home's outputs, which is kept elsewhere or signed, and what differs from it later.

Whoever can write to a home can make an output and its record agree; against that helps only what lies out of reach.
The root is the hash of a Merkle tree as in RFC 6962, section 2.1 (https://www.rfc-editor.org/rfc/rfc6962): a leaf is
SHA-256 of a zero byte and the canonical JSON of an output, a node SHA-256 of a one byte and its two children.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nait_assets.audit.chain import UNREADABLE, Auditor, told
from nait_assets.errors import DamagedError, SourceError
from nait_assets.lineage import Record, canonical
from nait_assets.resources.files import hashes_from_bytes, replacing

FORMAT = "nait-audit-1"


@dataclass(frozen=True)
class Stated:
    """An output as the manifest states it.

    Attributes:
        output: its reference.
        data_version: as its record states it.
        content: SHA-256, hex, of the canonical JSON of the SHA-256 of each of its tables and files, taken from them.
        record: SHA-256 of its version record, hex.
    """

    output: str
    data_version: str
    content: str
    record: str


def stated_outputs(auditor: Auditor) -> list[Stated]:
    """Every output that has a record, by reference in alphabetical order; content that cannot be read says why."""
    return [_stated(auditor, auditor.records[name]) for name in sorted(auditor.records)]


def _stated(auditor: Auditor, record: Record) -> Stated:
    output, parts = auditor.output_of(record.asset), dict[str, str]()
    if output is not None:
        try:
            with (
                hashes_from_bytes(auditor.taken),
                output.store(auditor.warehouse, record.partition).snapshot() as stored,
            ):
                parts = output.content(auditor.warehouse, stored, record.partition)
                parts |= output.beside(auditor.warehouse, stored, record.partition)
        except UNREADABLE as error:
            parts = {"": told(error)}
    content = hashlib.sha256(canonical(parts)).hexdigest()
    return Stated(record.reference, record.data_version, content, record.digest)


def root_of(outputs: Sequence[Stated]) -> str:
    """The Merkle tree hash of outputs in their order, hex."""
    return _tree([canonical(asdict(output)) for output in outputs]).hex()


def _tree(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    middle = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below the number of leaves
    return hashlib.sha256(b"\1" + _tree(leaves[:middle]) + _tree(leaves[middle:])).digest()


def write(path: Path, recipe: str, outputs: Sequence[Stated]) -> str:
    """Write the manifest, which is the same bytes for the same home, and return its root.

    Args:
        path: where it is written.
        recipe: name of the recipe.
        outputs: outputs of its home.
    """
    root = root_of(outputs)
    manifest = {"format": FORMAT, "recipe": recipe, "root": root, "outputs": [asdict(output) for output in outputs]}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="ascii")
    return root


def read(path: Path) -> list[Stated]:
    """The outputs that a manifest states.

    Raises:
        SourceError: The file cannot be read, or is no such manifest.
        DamagedError: Its root is not that of its outputs.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}, not {FORMAT!r}")
        outputs, root = [_of_json(stated) for stated in manifest["outputs"]], manifest["root"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(
            f"{path} is no manifest that `nait audit --sign` wrote: {type(error).__name__}: {error}."
        ) from error
    if root != root_of(outputs):
        raise DamagedError(f"{path} was altered: its root is not that of the outputs that it lists. Take another copy.")
    return outputs


def _of_json(stated: Mapping[str, Any]) -> Stated:
    if not all(isinstance(value, str) for value in stated.values()):
        raise ValueError("an output is stated by strings")
    return Stated(**stated)


def differences(before: Sequence[Stated], now: Sequence[Stated]) -> list[str]:
    """What differs, a line for each output that changed, appeared or went, in alphabetical order."""
    old, new = ({stated.output: stated for stated in outputs} for outputs in (before, now))
    lines = []
    for name in sorted({*old, *new}):
        if name not in new:
            lines.append(f"gone     {name}")
        elif name not in old:
            lines.append(f"new      {name}")
        elif old[name] != new[name]:
            fields = asdict(old[name])
            changed = [field for field, value in fields.items() if getattr(new[name], field) != value]
            lines.append(f"changed  {name}: {', '.join(changed)}")
    return lines
