"""Fingerprints: short hashes of what can change a result."""

import hashlib
import json
from typing import Any


def fingerprint(*values: Any) -> str:
    """Twelve hex digits of the SHA-256 of the values' canonical JSON."""
    canonical = json.dumps(
        values, sort_keys=True, ensure_ascii=False, default=lambda value: value.model_dump(mode="json")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
