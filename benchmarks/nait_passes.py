"""What `nait_variants.py` keeps of each sample: the activations that any reading of NAIT's rule needs, from one pass.

A pass is one model and one template over all samples. For each sample, site and layer it keeps six vectors: the first
token, the last token and the mean over the tokens, of the whole sample and of its answer. Files of a pass that is there
are not made again.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from nait_assets.conversation import conversations_of
from nait_assets.extraction.neurons import Reader
from nait_assets.models import attention
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.attention import Packing
from nait_assets.models.batches import can_be_packed
from nait_assets.models.encoding import EncodedSample, plan
from nait_assets.models.rendering import Renderer
from nait_assets.models.sites import Site, resolve_site
from nait_assets.models.spans import prompt_spans
from nait_assets.recipe import Extraction, fingerprint
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch

Template = Literal["chat", "plain", "answer"]
TEMPLATES: tuple[Template, ...] = get_args(Template)
"""The model's chat template; plain headings; the answer alone behind the token that begins a sequence."""
SITES: tuple[Literal["mlp", "residual"], ...] = ("mlp", "residual")
KINDS = ("first", "last", "mean", "answer_first", "answer_last", "answer_mean")
"""`first` is the first token of what the user says (of the answer, where it stands alone), not the sample's."""
BATCH_TOKENS, SHARD_TOKENS, WHOLE_TOKENS = 1024, 8192, 8192


@dataclass(frozen=True, eq=False)
class MarkedSample(EncodedSample):
    """A sample, and where its words stand.

    Attributes:
        first: Index of the first token of what the user says.
        answers: `(n_tokens,)` bool: tokens of the answer, at least one.
    """

    first: int = field(kw_only=True)
    answers: np.ndarray = field(kw_only=True)

    @property
    def ends(self) -> tuple[int, int, int, int]:
        """First and last token of the sample's words and of its answer."""
        answer = np.flatnonzero(self.answers)
        return self.first, len(self.token_ids) - 1, int(answer[0]), int(answer[-1])


@dataclass(frozen=True)
class Pass:
    """What was read by one model under one template.

    Attributes:
        model: Name of the model.
        template: How samples were written out.
        samples: One row a sample, in the arrays' order: `sample_id`, `corpus`, `topic`, `n_tokens`, `is_cut`.
        arrays: By site, `(n_kinds, n_samples, n_layers, width)` float32.
        begins: By site, `(n_layers, width)`: activations of the sample's first token, which is the same of all samples.
        facts: What is told of the pass.
        folder: Where its files are.
    """

    model: str
    template: Template
    samples: pl.DataFrame
    arrays: dict[str, np.ndarray]
    begins: dict[str, np.ndarray]
    facts: dict[str, Any]
    folder: Path = Path()


def read_pass(
    name: str,
    model: LanguageModel,
    template: Template,
    corpora: pl.DataFrame,
    max_tokens: int,
    layers: Any,
    work: Path,
    deadline: float = math.inf,
) -> Pass | None:
    """The pass of a model and template, from its files where they are there; None where there is no chat template.

    Args:
        name: Name of the model.
        model: Loaded only if something is to be read.
        template: How samples are written out.
        corpora: Columns `sample_id`, `messages`, `corpus`, `topic`.
        max_tokens: Tokens of a sample that are read; of a longer one the prompt's middle gives way, then the end.
        layers: Layers to read, or "all".
        work: Folder for the files.
        deadline: Value of `time.perf_counter` after which reading stops, to be gone on with by another run.
    """
    tokenizer = model.tokenizer()
    if template == "chat" and not tokenizer.chat_template:
        print(f"{name} has no chat template: it is read under the others alone")
        return None
    key = fingerprint(
        "1", model.identity(), model.dtype_name(), template, corpora["sample_id"].to_list(), max_tokens, layers
    )
    folder = work / f"{name}_{template}_{key[:12]}"
    if not (folder / "facts.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        samples = marked_samples(corpora, tokenizer, template, max_tokens)
        facts = _read(model.load(), samples, layers, folder, deadline)
        rows = [(one.sample_id, len(one.token_ids), one.cut != "") for one in samples]
        found = pl.DataFrame(rows, schema=["sample_id", "n_tokens", "is_cut"], orient="row")
        # two corpora may share a sample: rows are of corpora, and the arrays are read by `row`
        found = corpora.drop("messages").join(found.with_row_index("row"), on="sample_id", maintain_order="left")
        found.write_parquet(folder / "samples.parquet")
        (folder / "facts.json").write_text(json.dumps({"dtype": model.dtype_name(), **facts}))
        print(f"read {name}, {template}: {facts}", flush=True)
    arrays = {site: np.load(folder / f"{site}.npy", mmap_mode="r") for site in SITES}
    begins = {site: np.load(folder / f"{site}_begin.npy") for site in SITES}
    samples_frame = pl.read_parquet(folder / "samples.parquet")
    facts = json.loads((folder / "facts.json").read_text())
    return Pass(name, template, samples_frame, arrays, begins, facts, folder)


def marked_samples(corpora: pl.DataFrame, tokenizer: Any, template: Template, max_tokens: int) -> list[MarkedSample]:
    """The distinct samples of corpora as they are read; those without an answer are left out, and counted."""
    answer_alone = template == "answer"
    settings = Extraction(
        template="chat" if template == "chat" else "plain", max_tokens=WHOLE_TOKENS if answer_alone else max_tokens
    )
    conversations = dict(conversations_of(corpora.unique("sample_id", maintain_order=True)))
    samples, refused = encode_with_answers(conversations.items(), tokenizer, settings)
    answered = [sample for sample in samples if not sample.unanswered]
    n_lost = len(refused) + len(samples) - len(answered)
    if n_lost:
        print(f"{n_lost} sample(s) have no answer that can be read, and are left out")
    if answer_alone:
        return [_answer_alone(sample, max_tokens) for sample in answered]
    renderer = Renderer.of(tokenizer, settings)
    marked = []
    for sample in answered:
        first = _first_of_prompt(conversations[sample.sample_id], renderer, sample)
        marked.append(MarkedSample(sample.sample_id, sample.token_ids, sample.cut, first=first, answers=sample.answers))
    return marked


def _answer_alone(sample: AnsweredSample, max_tokens: int) -> MarkedSample:
    ids = sample.alone().token_ids
    kept, cut = ids[:max_tokens], "answer" if len(ids) > max_tokens else ""
    return MarkedSample(sample.sample_id, kept, cut, first=1, answers=np.arange(len(kept)) > 0)  # type: ignore[arg-type]


def _first_of_prompt(conversation: Any, renderer: Renderer, sample: AnsweredSample) -> int:
    """Index of the first token of what the user says; of a cut sample too, as a prompt keeps its head."""
    text = renderer.text(conversation)
    spans = prompt_spans(conversation, renderer, text)
    assert spans, f"the prompt of {sample.sample_id} is not found in its text"
    found = renderer.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    put_in_front = int(found["input_ids"][0] != sample.token_ids[0])
    ends = [end for _, end in found["offset_mapping"]]
    return put_in_front + next(place for place, end in enumerate(ends) if end > spans[0][0])


def _read(
    model: LoadedModel, samples: Sequence[MarkedSample], layers: Any, folder: Path, deadline: float
) -> dict[str, Any]:
    """Write the arrays of a pass, from where an earlier run stopped, and say what is to be told of it."""
    sites = {kind: resolve_site(model.network, kind, layers) for kind in SITES}
    packs = can_be_packed(model, lambda packs: Reader(model, sites["mlp"], False, packs=packs), "activation")
    progress = folder / "progress.json"
    told = json.loads(progress.read_text()) if progress.exists() else {"shards": 0, "seconds": 0.0, "spread": 0.0}
    arrays, begins = {}, {}
    for kind, site in sites.items():
        shapes = (len(KINDS), len(samples), len(site.layers), site.width), (len(site.layers), site.width)
        mode: Any = "r+" if told["shards"] else "w+"
        arrays[kind], begins[kind] = (
            np.lib.format.open_memmap(folder / f"{kind}{end}.npy", mode, np.float32, None if mode == "r+" else shape)
            for end, shape in zip(("", "_begin"), shapes, strict=True)
        )
    by_name = {sample.sample_id: (place, sample) for place, sample in enumerate(samples)}
    for shard in plan(samples, BATCH_TOKENS if packs else 1, SHARD_TOKENS)[told["shards"] :]:
        begun = time.perf_counter()
        if begun > deadline:
            raise SystemExit(f"{folder.name}: stopped after {told['shards']} shard(s); the next run goes on from there")
        for batch in shard.batches:
            places, marked = zip(*(by_name[sample.sample_id] for sample in batch), strict=True)
            for kind, layer, kept, first in _activations(model, sites, marked, packs):
                arrays[kind][:, list(places), layer] = kept
                begin = begins[kind][layer]
                if not begin.any():
                    begin[:] = first[0]
                away = np.linalg.norm(first - begin, axis=1).max() / max(float(np.linalg.norm(begin)), 1e-12)
                told["spread"] = max(told["spread"], float(away))
        for array in (*arrays.values(), *begins.values()):
            array.flush()
        told = {**told, "shards": told["shards"] + 1, "seconds": told["seconds"] + time.perf_counter() - begun}
        progress.write_text(json.dumps(told))
    n_tokens = sum(len(sample.token_ids) for sample in samples)
    return {"n_samples": len(samples), "n_tokens": n_tokens, "packed": packs, **told}


def _activations(
    model: LoadedModel, sites: dict[str, Site], batch: Sequence[MarkedSample], packs: bool
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Site, place of the layer, `(n_kinds, n_samples, width)` kept, `(n_samples, width)` of the first tokens."""
    import torch

    packing = Packing(tuple(len(sample.token_ids) for sample in batch), model.device)
    begins = np.asarray([begin for begin, _ in packing.bounds])
    ends = begins[:, None] + np.asarray([sample.ends for sample in batch])
    members = np.zeros((2, len(batch), sum(packing.lengths)), np.float32)
    for place, (sample, (begin, end)) in enumerate(zip(batch, packing.bounds, strict=True)):
        members[0, place, begin + 1 : end] = 1
        members[1, place, begin:end] = sample.answers
    weights = torch.from_numpy(members / members.sum(axis=2, keepdims=True)).to(model.device)
    found: list[tuple[str, int, np.ndarray, np.ndarray]] = []

    def reduce(kind: str, layer: int, activations: "torch.Tensor") -> None:
        values = activations[0].float()
        first, last, answer_first, answer_last = (values[torch.from_numpy(ends[:, place])] for place in range(4))
        mean, answer_mean = weights[0] @ values, weights[1] @ values
        kept = torch.stack([first, last, mean, answer_first, answer_last, answer_mean])
        found.append((kind, layer, kept.cpu().numpy(), values[torch.from_numpy(begins)].cpu().numpy()))

    _run(model, sites, batch, packing, packs, reduce)
    return iter(found)


def _run(
    model: LoadedModel,
    sites: dict[str, Site],
    batch: Sequence[MarkedSample],
    packing: Packing,
    packs: bool,
    reduce: Any,
) -> None:
    """One forward pass of a batch, with a hook on every module of both sites."""
    import torch

    def hook(kind: str, layer: int) -> Any:
        def read(_module: Any, inputs: Any, output: Any = None) -> None:
            value = inputs[0] if kind == "mlp" else output
            reduce(kind, layer, value[0] if isinstance(value, tuple) else value)

        return read

    handles = []
    for kind, site in sites.items():
        for place, module in enumerate(site.modules.values()):
            register = module.register_forward_pre_hook if kind == "mlp" else module.register_forward_hook
            handles.append(register(hook(kind, place)))
    token_ids = torch.from_numpy(np.concatenate([sample.token_ids for sample in batch]).astype(np.int64))[None]
    arguments: dict[str, Any] = {}
    if packs:
        positions = np.concatenate([np.arange(length) for length in packing.lengths])[None]
        arguments = {"position_ids": torch.from_numpy(positions).to(model.device), "packing": packing}
    config = model.network.config
    own, config._attn_implementation = (
        config._attn_implementation,
        attention.NAME if packs else config._attn_implementation,
    )
    try:
        with torch.inference_mode():
            model.network(input_ids=token_ids.to(model.device), use_cache=False, **arguments)
    finally:
        config._attn_implementation = own
        for handle in handles:
            handle.remove()
