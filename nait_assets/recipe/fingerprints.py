"""Hashes that results depend on: fingerprints of what can change a result, and the order in which samples are drawn."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any


def fingerprint(*values: Any) -> str:
    """Twelve hex digits of the SHA-256 of the values' canonical JSON."""
    canonical = json.dumps(
        values, sort_keys=True, ensure_ascii=False, default=lambda value: value.model_dump(mode="json")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def seeded_order(sample_ids: Sequence[str], prefix: str) -> list[int]:
    """Indices of samples in the order of the SHA-256 of `<prefix>:<sample_id>`: a random order that a seed repeats.

    A sample's hash is its own, so that a row more in the pool leaves the others in the order that they had.

    Args:
        sample_ids: In any order.
        prefix: A seed, and what is drawn, so that two draws by one seed are not of the same samples.
    """
    digests = [hashlib.sha256(f"{prefix}:{sample_id}".encode()).digest() for sample_id in sample_ids]
    return sorted(range(len(digests)), key=digests.__getitem__)
