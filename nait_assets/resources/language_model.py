"""The frozen language model: where its weights are, what identifies them, and how they come into memory.

GGUF weights are de-quantised once into the home folder, since reading them takes a minute and the result seconds.
torch and transformers are imported where they are used: every Dagster process imports this module.
"""

import functools
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from nait_assets.errors import ModelError, SetupError
from nait_assets.recipe import ModelSpec, Recipe
from nait_assets.resources.files import HashCache
from nait_assets.resources.model_shape import require_buildable_gguf, skeleton
from nait_assets.resources.model_source import ModelSource, resolved
from nait_assets.resources.verified_folder import verified_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
REPORTING = {"output_loading_info": True}


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        network: Network in evaluation mode: the base model, or by `load_causal` the same under its language-model head.
        device: Device that its weights are on.
        dtype: Type of weights and activations.
    """

    network: Any
    device: "torch.device"
    dtype: "torch.dtype"

    @property
    def base(self) -> Any:
        """The network without its head, if it has one."""
        return self.network if self.network.get_output_embeddings() is None else self.network.base_model


class LanguageModel(dg.ConfigurableResource):
    """The recipe's language model.

    `source`, `revision`, `gguf_file` and `dtype` are the recipe's, and `field` is the field that names the source;
    `home` is where converted weights are kept; `device` is auto, cpu, cuda, cuda:1, mps: it does not change what is
    computed, save for rounding.
    """

    source: str
    revision: str | None = None
    gguf_file: str | None = None
    dtype: str = "auto"
    home: str
    device: str = "auto"
    field: str = "model.source"

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        home: Path,
        device: str = "auto",
        spec: ModelSpec | None = None,
        field: str = "model.source",
    ) -> "LanguageModel":
        """The model that a recipe names.

        Args:
            recipe: A relative folder is relative to its file.
            home: Folder in which converted weights and hashes are kept.
            device: Device that it runs on.
            spec: One of the recipe's models; its `model` by default.
            field: Field of the recipe that names it.
        """
        spec = spec or recipe.model
        return cls(
            source=resolved(recipe, spec.source),
            revision=spec.revision,
            gguf_file=spec.gguf_file,
            dtype=spec.dtype,
            home=str(home),
            device=device,
            field=field,
        )

    @property
    def files(self) -> ModelSource:
        """Where the model's files are."""
        return ModelSource(self.source, self.revision, Path(self.home), self.field)

    def identity(self) -> str:
        """What identifies weights, tokenizer and chat template: a commit of the hub, or the SHA-256 of the files.

        Raises:
            ModelError: The package, folder or hub repository does not exist or holds no model.
        """
        gguf = self._gguf()
        if gguf is not None:
            return f"gguf:{HashCache(Path(self.home) / 'hashes.json').sha256(gguf)}"
        return self.files.identity()

    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        from transformers import AutoTokenizer

        with self.files.reading():
            return AutoTokenizer.from_pretrained(**self.pretrained(), trust_remote_code=False)

    def skeleton(self) -> Any:
        """The base model's modules without weights: enough to resolve sites and layers, in about a second."""
        from transformers import AutoModel

        with self.files.reading():
            return skeleton(AutoModel, self.pretrained())

    def resolved_device(self) -> "torch.device":
        """The device that `device` means on this machine.

        Raises:
            SetupError: The device is not there.
        """
        import torch

        if self.device != "auto":
            available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
            if not available.get(self.device.split(":")[0], False):
                have = ", ".join(name for name, there in available.items() if there)
                raise SetupError(f"device {self.device!r} is not available on this machine; it has {have}.")
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def resolved_dtype(self) -> "torch.dtype":
        """The dtype of the forward pass: bfloat16 for `auto` where the hardware multiplies it, else float32."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype_name())
        return dtype

    def dtype_name(self) -> str:
        """Name of the dtype of the forward pass, `float32`, found without importing torch where that can be."""
        if self.dtype != "auto":
            return self.dtype
        if self.device == "cpu" or (self.device == "auto" and _has_no_accelerator()):
            if not _cpu_multiplies_bfloat16():
                return "float32"
            torch_build = importlib.util.find_spec("torch")
            if torch_build is not None and torch_build.origin is not None:
                version = Path(torch_build.origin).with_name("version.py")  # changes with the build
                mkldnn = HashCache(Path(self.home) / "hashes.json").remembered(version, "mkldnn", _has_mkldnn)
                return "bfloat16" if mkldnn == "True" else "float32"
        return self._dtype_by_torch()

    def _dtype_by_torch(self) -> str:
        import torch

        device = self.resolved_device().type
        if device == "cuda":
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        fast = device == "cpu" and torch.backends.mkldnn.is_available() and _cpu_multiplies_bfloat16()
        return "bfloat16" if fast else "float32"

    def with_dtype(self, dtype: "torch.dtype") -> "LanguageModel":
        """The same model in a dtype, which `auto` then no longer leaves to the machine that loads it."""
        return LanguageModel(**{**self._fields(), "dtype": str(dtype).removeprefix("torch.")})

    def __reduce__(self) -> tuple[Any, ...]:
        """To other processes travel the fields alone: Dagster's own state cannot be pickled."""
        return _restored, (self._fields(),)

    def _fields(self) -> dict[str, Any]:
        names = ("source", "revision", "gguf_file", "dtype", "home", "device", "field")
        return {name: getattr(self, name) for name in names}

    def load(self) -> LoadedModel:
        """The model in memory; the same process loads it once.

        Raises:
            ModelError: The hub cannot be reached, or weights are missing or broken.
        """
        return self._loaded(_load, head=False)

    def load_causal(self) -> LoadedModel:
        """The model with its language-model head, in memory; the same process loads it once.

        Raises:
            ModelError: As `load`, or the model has no such head.
        """
        return self._loaded(_load, head=True)

    def fresh_causal(self) -> LoadedModel:
        """As `load_causal`, a copy of one's own, which may be trained.

        Raises:
            ModelError: As `load_causal`.
        """
        return self._loaded(_load.__wrapped__, head=True)

    def require_head(self) -> None:
        """Find out in about a second whether the model has a language-model head; of a hub's, loading it tells.

        Raises:
            ModelError: It has none.
        """
        from safetensors import safe_open
        from transformers import AutoModelForCausalLM

        with self.files.reading():
            named = self.pretrained()
            folder = Path(named["pretrained_model_name_or_path"])
            files = [] if "revision" in named else sorted(folder.glob("*.safetensors"))
            network = skeleton(AutoModelForCausalLM, named)
            stored: set[str] = set()
            for file in files:
                with safe_open(file, framework="pt") as weights:
                    stored |= set(weights.keys())
            head = _head_weight(network)
            if stored and head and not any(name.endswith(head) for name in stored):
                raise _no_head(network, head)

    def _loaded(self, load: Callable[..., LoadedModel], head: bool) -> LoadedModel:
        with self.files.reading():
            named = self.pretrained()
            name, revision = named["pretrained_model_name_or_path"], named.get("revision")
            return load(self.identity(), name, revision, self.resolved_device(), self.resolved_dtype(), head)

    def pretrained(self) -> dict[str, str]:
        """Arguments that make transformers read this model."""
        gguf = self._gguf()
        return {"pretrained_model_name_or_path": str(self._converted(gguf))} if gguf else self.files.pretrained()

    def _gguf(self) -> Path | None:
        """The GGUF file to read, or None where the files are in transformers' own format, as on the hub."""
        if self.files.hub_id:
            return None
        folder = self.files.folder
        if self.gguf_file is None and (folder / "config.json").exists():
            return None
        files = sorted(folder.glob(self.gguf_file or "*.gguf"))
        if len(files) != 1:
            found = ", ".join(file.name for file in sorted(folder.glob("*.gguf"))) or "none"
            raise ModelError(
                f"{self.field}: {folder} must hold config.json or one GGUF file "
                f"(GGUF files there: {found}); name it in `gguf_file`."
            )
        return files[0]

    def _converted(self, gguf: Path) -> Path:
        """The folder with the GGUF file's weights and tokenizer in transformers' format, made where it is not whole."""
        digest = HashCache(Path(self.home) / "hashes.json").sha256(gguf)
        folder = Path(self.home) / "models" / f"{digest[:16]}-causal"
        made_by = {library: importlib.metadata.version(library) for library in ("transformers", "gguf")}
        return verified_folder(folder, made_by, lambda temporary: _convert_gguf(gguf, temporary))


def _restored(fields: dict[str, Any]) -> LanguageModel:
    return LanguageModel(**fields)


def _convert_gguf(gguf: Path, folder: Path) -> None:
    log.info("converting %s once; this takes about a minute", gguf.name)
    import gguf as package
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # transformers parses the file three times, and rebuilds the table of tensor names for every module: once is enough.
    originals = package.GGUFReader, package.get_tensor_name_map
    package.GGUFReader, package.get_tensor_name_map = map(functools.cache, originals)
    try:
        require_buildable_gguf(gguf)
        _dequantize(gguf, folder)
    finally:
        package.GGUFReader, package.get_tensor_name_map = originals


def _dequantize(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, settings = str(gguf.parent), {"dtype": torch.float32, **REPORTING}
    tokenizer = AutoTokenizer.from_pretrained(name, gguf_file=gguf.name, trust_remote_code=False)
    tokenizer.save_pretrained(folder)
    network = _whole(
        *AutoModelForCausalLM.from_pretrained(name, gguf_file=gguf.name, trust_remote_code=False, **settings)
    )
    # The weights are plain float32 now; transformers refuses to save what it still takes for quantised.
    network.hf_quantizer = None
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.save_pretrained(folder)


def _whole(network: Any, report: dict[str, Any]) -> Any:
    """The network, unless the file lacks some of its weights, which transformers makes up at random.

    Raises:
        ModelError: It lacks some.
    """
    missing = sorted(report["missing_keys"])
    if missing and missing == [_head_weight(network)]:
        raise _no_head(network, missing[0])
    if missing:
        raise ModelError(
            f"{type(network).__name__}: the model's files lack {len(missing)} of its weights, such as {missing[0]}. "
            "Download them again, or use a model that transformers can read."
        )
    return network


def _head_weight(network: Any) -> str:
    """Name of the weights of a network's language-model head; "" where it has none of its own."""
    head = network.get_output_embeddings()
    if head is None or head.weight is network.get_input_embeddings().weight:
        return ""
    return next(f"{name}.weight" for name, module in network.named_modules() if module is head)


def _no_head(network: Any, head: str) -> ModelError:
    return ModelError(
        f"{type(network).__name__}: the model's files have no language-model head ({head}): they are of a base model, "
        "which cannot say how likely a token is. Use the files of the whole model as the model's `source`, or leave "
        "methods that read its outputs out of `methods`."
    )


@functools.lru_cache(maxsize=1)
def _load(
    identity: str, name: str, revision: str | None, device: "torch.device", dtype: "torch.dtype", head: bool = False
) -> LoadedModel:
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    log.info("loading the model, %.20s", identity)  # a key of the cache, too: a folder's weights may change
    kind = transformers.AutoModelForCausalLM if head else transformers.AutoModel
    skeleton(kind, {"pretrained_model_name_or_path": name, "revision": revision})  # is its size one that can be?
    network = _whole(*kind.from_pretrained(name, dtype=dtype, revision=revision, trust_remote_code=False, **REPORTING))
    return LoadedModel(network.to(device).eval().requires_grad_(False), device, dtype)


def _has_no_accelerator() -> bool:
    """Whether this is Linux without a device of a driver that torch calls CUDA: Nvidia's, AMD's, or Windows' below."""
    shown = ("nvidiactl", "nvidia0", "nvhost-ctrl", "nvmap", "kfd", "dxg")
    return sys.platform == "linux" and not any(Path("/dev", name).exists() for name in shown)


def _has_mkldnn(_version: Path) -> str:
    import torch

    return str(torch.backends.mkldnn.is_available())


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions (avx512_bf16, AMX, or Arm's bf16); without them float32 is faster."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpuinfo.read_text().split())
