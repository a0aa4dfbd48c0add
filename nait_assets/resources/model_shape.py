"""What a model's configuration says of its size, looked at before anything of that size is built."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nait_assets.errors import ModelError

MOST_LAYERS, MOST_EXPERTS = 2_000, 100_000
"""Of a model, in all: each is built as objects of Python. The largest models have some 130 layers, 20,000 experts."""
REPEATED = re.compile(r"(num|n)_.*(layer|expert|block)s?|n_layer|depth|(block|expert)_count")


def skeleton(kind: Any, pretrained: Mapping[str, Any]) -> Any:
    """A model's modules without weights.

    Args:
        kind: The class of transformers that builds it, such as `AutoModel`.
        pretrained: Where its files are, as `from_pretrained` takes it.

    Raises:
        ModelError: Its configuration is of a size that cannot be, or that its files do not have.
    """
    import torch
    from transformers import AutoConfig

    name = str(pretrained["pretrained_model_name_or_path"])
    config = AutoConfig.from_pretrained(**pretrained, trust_remote_code=False)
    _require_buildable(config.to_dict(), name)
    with torch.device("meta"):
        network = kind.from_config(config, trust_remote_code=False)
    _require_bytes(network, Path(name))
    return network


def require_buildable(folder: Path) -> None:
    """Whether what a folder's `config.json` describes, and those of its modules, can be built.

    Raises:
        ModelError: It cannot.
    """
    for file in sorted(folder.rglob("config.json")):
        try:
            settings = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{file} is not readable as JSON: {error}. Download it again.") from error
        if isinstance(settings, Mapping):
            _require_buildable(settings, str(file))


def require_buildable_gguf(file: Path) -> None:
    """Whether what a GGUF file's header describes can be built.

    Raises:
        ModelError: It cannot.
    """
    import gguf

    fields = gguf.GGUFReader(file).fields
    counts = {name.rpartition(".")[2]: name for name in fields if REPEATED.fullmatch(name.rpartition(".")[2])}
    _require_buildable({short: fields[name].contents() for short, name in counts.items()}, str(file))


def _require_buildable(settings: Mapping[str, Any], where: str) -> None:
    counts = dict(_counts(settings))
    layers = max((count for name, count in counts.items() if "expert" not in name), default=1)
    experts = max((count for name, count in counts.items() if "expert" in name), default=1)
    if layers > MOST_LAYERS or layers * experts > MOST_EXPERTS:
        said = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
        raise ModelError(
            f"{where} describes a model that cannot be built ({said}): {MOST_LAYERS:,} layers and {MOST_EXPERTS:,} "
            "experts are the most. Download it again, or use another model."
        )


def _counts(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Names and numbers of what a configuration repeats, in its sections too."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _counts(value)
        elif isinstance(value, int) and value > 0 and REPEATED.fullmatch(str(name)):
            yield str(name), value


def _require_bytes(network: Any, folder: Path) -> None:
    """Whether the weights' files can hold the model: transformers makes up what they lack, at its full size."""
    files = [file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)] if folder.is_dir() else []
    n_bytes = sum(file.stat().st_size for file in files)
    n_weights = sum(weight.numel() for weight in network.parameters())
    if files and n_weights > 8 * n_bytes:  # a weight takes a bit at least, however it is quantised
        raise ModelError(
            f"{folder / 'config.json'} describes {n_weights:,} weights, and the model's files hold {n_bytes:,} bytes. "
            "Download them again, or use another model."
        )
