"""Tasks that lm-eval scores: its own by name, and those over the recipe's examples, whose prompts are written here.

Its index of tasks takes seconds to build and its report of the machine runs a dozen programs, so tasks over examples
are given to it as they are, and `evaluate` is called instead of `simple_evaluate`. It cuts long prompts at the left,
where the first example of a few stands.
"""

import importlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.corpora.contamination import words_of
from nait_assets.errors import DataError
from nait_assets.evaluation.given import GivenTask
from nait_assets.evaluation.isolation import PASSED, outcomes
from nait_assets.evaluation.programs import pass_at_k, program_of
from nait_assets.evaluation.prompts import Question, questions
from nait_assets.evaluation.scorers import leaves, loaded_tasks
from nait_assets.evaluation.tables import EXAMPLES
from nait_assets.recipe import AnswerTask, ChoiceTask, CodeTask, NamedTask
from nait_assets.resources.language_model import LoadedModel
from nait_assets.training.models import Model

BATCH_ROWS = 8
NAME = "task"


def harness_examples(given: GivenTask, model: LoadedModel | Model, tokenizer: Any) -> pl.DataFrame:
    """Rows of `tables.EXAMPLES` of a task but the key; every weight is 1.

    Args:
        given: Task of another kind than `loss`.
        model: Model in memory, or one that vLLM loads.
        tokenizer: Its tokenizer.

    Raises:
        DataError: An answer is not among the choices, or no example is asked.
        SourceError: The data of one of lm-eval's own tasks cannot be reached.
    """
    if isinstance(given.task, NamedTask):
        return _of_named(given.task, model, tokenizer, given.extraction.max_tokens)
    if isinstance(given.task, CodeTask):
        return _of_code(given, given.task, model, tokenizer)
    assert isinstance(given.task, ChoiceTask | AnswerTask)
    asked = questions(given.conversations, tokenizer, given.extraction, given.task.shots)
    task = (
        _choice_task(given, asked) if isinstance(given.task, ChoiceTask) else _answer_task(given.task, asked, tokenizer)
    )
    samples = _evaluated([task], model, tokenizer, given.extraction.max_tokens, include_defaults=False)[NAME]
    rows = _rows([(asked[sample["doc_id"]].sample_id, sample) for sample in samples])
    if isinstance(given.task, AnswerTask) and given.task.comet:
        rows = pl.concat([rows, _comet(given.task.comet, asked, samples)]).sort("sample_id", "metric")
    return rows


def _comet(name: str, asked: Sequence[Question], samples: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The scores of a model of COMET (arXiv 2009.09025) for each sentence, by source, translation and reference."""
    import torch

    comet = importlib.import_module("comet")  # by its name: it is declared nowhere, as it asks for other libraries
    file = Path(os.path.expandvars(name)).expanduser()
    judge = comet.load_from_checkpoint(str(file) if file.is_file() else comet.download_model(name))
    questions_asked = [asked[sample["doc_id"]] for sample in samples]
    data = [
        {"src": one.source, "mt": str(sample["filtered_resps"][0]).strip(), "ref": one.answer}
        for one, sample in zip(questions_asked, samples, strict=True)
    ]
    scores = judge.predict(data, batch_size=BATCH_ROWS, gpus=int(torch.cuda.is_available()), progress_bar=False).scores
    rows = [(one.sample_id, "comet", float(score), 1.0) for one, score in zip(questions_asked, scores, strict=True)]
    return pl.DataFrame(rows, schema=EXAMPLES.written_columns, orient="row")


def _choice_task(given: GivenTask, asked: Sequence[Question]) -> dict[str, Any]:
    assert isinstance(given.task, ChoiceTask)
    choices = list(given.task.choices)
    for question in asked:
        if question.answer.strip() not in choices:
            raise DataError(
                f"evaluation.tasks.{given.name}: the answer of {question.sample_id}, {question.answer[:40]!r}, is not "
                f"among the choices {choices}."
            )
    documents = [{"prompt": one.prompt, "choices": choices, "gold": choices.index(one.answer.strip())} for one in asked]
    own = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "gold"}
    return {**_common(documents), **own, "metric_list": [_metric("acc"), _metric("acc_norm")]}


def _answer_task(task: AnswerTask, asked: Sequence[Question], tokenizer: Any) -> dict[str, Any]:
    documents = [{"prompt": one.prompt, "answer": one.answer, "source": one.source} for one in asked]
    generation = {"until": _ends(task.stop, tokenizer), "do_sample": False, "max_gen_toks": task.max_new_tokens}
    scored = {"exact_match": _exact_match, "f1": _f1, "translation": _translation}[task.kind]

    def process(document: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
        return scored(task, results[0].strip(), document)

    metrics = {"translation": ["bleu_of_sentences", "chrf_of_sentences"]}.get(task.kind, [task.kind])
    return {
        **_common(documents),
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": generation,
        "process_results": process,
        "metric_list": [_metric(name) for name in metrics],
    }


def _of_code(given: GivenTask, task: CodeTask, model: LoadedModel | Model, tokenizer: Any) -> pl.DataFrame:
    import torch

    asked = questions(given.conversations, tokenizer, given.extraction, shots=0)
    torch.manual_seed(task.seed)
    maker = code_task(task, asked, tokenizer)
    samples = _evaluated([maker], model, tokenizer, given.extraction.max_tokens, include_defaults=False)[NAME]
    return _rows([(asked[sample["doc_id"]].sample_id, sample) for sample in samples])


def code_task(task: CodeTask, asked: Sequence[Question], tokenizer: Any) -> dict[str, Any]:
    """A task of lm-eval whose answers are programs that are run with the tests.

    Args:
        task: What the recipe says of it.
        asked: Problems, whose answers are the tests.
        tokenizer: Tokenizer of the model.
    """
    first = tokenizer.bos_token or tokenizer.eos_token or ""
    documents = [
        {
            "prompt": f"{first}{one.source}\n" if task.continues else one.prompt,
            "answer": one.answer,
            "source": one.source if task.continues else "",
        }
        for one in asked
    ]
    sampling = {"temperature": task.temperature, "top_p": task.top_p} if task.temperature else {}

    def process(document: Mapping[str, str], results: Sequence[Sequence[str]]) -> dict[str, float]:
        programs = [program_of(said, document["source"]) for said in results[0]]
        n_passed = outcomes(programs, document["answer"], task.timeout).count(PASSED)
        return {f"pass@{k}": pass_at_k(len(programs), n_passed, k) for k in task.k}

    return {
        **_common(documents),
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {
            "until": _ends(task.stop, tokenizer),
            "do_sample": bool(sampling),
            "max_gen_toks": task.max_new_tokens,
            **sampling,
        },
        "repeats": task.samples,
        "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": task.samples}]}],
        "process_results": process,
        "metric_list": [_metric(f"pass@{k}") for k in task.k],
    }


def _ends(stop: Sequence[str], tokenizer: Any) -> list[str]:
    return [*stop, *([tokenizer.eos_token] if tokenizer.eos_token else [])]


def _common(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset

    data = {"test": Dataset.from_list([dict(one) for one in documents])}
    return {
        "task": NAME,
        "custom_dataset": lambda **_: data,
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
        "num_fewshot": 0,
    }


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}


def answer_in(text: str, pattern: str | None) -> str:
    """The answer in a text: the last match of a pattern, or its first group; the whole text without a pattern."""
    if pattern is None:
        return text.strip()
    found = list(re.finditer(pattern, text))
    if not found:
        return ""
    return str(found[-1].group(1) if found[-1].re.groups else found[-1].group()).strip()


def _exact_match(task: AnswerTask, said: str, document: Mapping[str, str]) -> dict[str, float]:
    wanted = answer_in(document["answer"], task.pattern)
    return {"exact_match": float(wanted != "" and answer_in(said, task.pattern) == wanted)}


def _f1(_task: AnswerTask, said: str, document: Mapping[str, str]) -> dict[str, float]:
    """Harmonic mean of precision and recall of words, without case and punctuation (SQuAD, arXiv 1606.05250)."""
    own, wanted = Counter(words_of(said)), Counter(words_of(document["answer"]))
    shared = sum((own & wanted).values())
    return {"f1": 2 * shared / (own.total() + wanted.total()) if shared else float(not own and not wanted)}


def _translation(_task: AnswerTask, said: str, document: Mapping[str, str]) -> dict[str, float]:
    """BLEU and chrF of a sentence, from 0 to 100: means over sentences, which can be compared sentence by sentence."""
    from sacrebleu.metrics import BLEU, CHRF

    wanted = [document["answer"]]
    bleu = BLEU(effective_order=True).sentence_score(said, wanted).score
    return {"bleu_of_sentences": bleu, "chrf_of_sentences": CHRF().sentence_score(said, wanted).score}


def _of_named(task: NamedTask, model: LoadedModel | Model, tokenizer: Any, max_tokens: int) -> pl.DataFrame:
    wanted = task.task if task.shots is None else {"task": task.task, "num_fewshot": task.shots}
    found = _evaluated(
        [wanted], model, tokenizer, max_tokens, limit=task.limit, apply_chat_template=task.chat, seed=task.seed
    )
    several = len(found) > 1
    return _rows(
        [
            (f"{name}:{sample['doc_id']}" if several else str(sample["doc_id"]), sample)
            for name, samples in found.items()
            for sample in samples
        ]
    )


def _evaluated(
    tasks: Sequence[Any],
    model: LoadedModel | Model,
    tokenizer: Any,
    max_tokens: int,
    include_defaults: bool = True,
    seed: int = 0,
    **options: Any,
) -> dict[str, list[dict[str, Any]]]:
    """Samples by task."""
    loaded = loaded_tasks(tasks, include_defaults)  # sets what must be set before lm-eval is imported
    import lm_eval

    harness = _runner_of(model, tokenizer, max_tokens)
    for one in leaves(loaded):
        if hasattr(one, "set_fewshot_seed"):  # by which examples in front of questions are drawn
            one.set_fewshot_seed(seed=seed)
    found = lm_eval.evaluate(lm=harness, task_dict=loaded, bootstrap_iters=0, log_samples=True, **options)
    return {name: list(samples) for name, samples in found["samples"].items()}


def _runner_of(model: LoadedModel | Model, tokenizer: Any, max_tokens: int) -> Any:
    """What lm-eval runs a model by."""
    if isinstance(model, LoadedModel):
        from lm_eval.models.huggingface import HFLM

        return HFLM(
            pretrained=model.network,
            tokenizer=tokenizer,
            batch_size=BATCH_ROWS,
            max_length=max_tokens,
            device=str(model.device),
        )
    from lm_eval.models.vllm_causallms import VLLM

    base = model.base.pretrained()
    named = {"pretrained": base["pretrained_model_name_or_path"], "revision": base.get("revision")}
    own = {"pretrained": str(model.folder), "revision": None} if model.folder and not model.is_adapter else named
    if model.folder and model.is_adapter:
        rank = json.loads((model.folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        own = {**own, "lora_local_path": str(model.folder), "max_lora_rank": rank}
    tokens = {"tokenizer": named["pretrained"], "tokenizer_revision": named["revision"], "add_bos_token": False}
    return VLLM(**own, **tokens, dtype=model.base.dtype_name(), max_model_len=max_tokens, batch_size="auto")


def _rows(samples: Sequence[tuple[str, Mapping[str, Any]]]) -> pl.DataFrame:
    """A row an example and metric; a task with several filters has a metric for each."""
    several = len({sample["filter"] for _, sample in samples}) > 1
    rows = [
        (name, f"{metric},{sample['filter']}" if several else metric, float(sample[metric]), 1.0)
        for name, sample in samples
        for metric in sample["metrics"]
    ]
    return pl.DataFrame(rows, schema=EXAMPLES.written_columns, orient="row").sort("sample_id", "metric")
