"""The trainer of a job: TRL's, with settings that its defaults would not give, and without work that is thrown away.

Belongs here: what TRL is told. Does not belong here: when checkpoints are written and what is noted (`worker`).
"""

import inspect
import math
from typing import Any

from nait_assets.training.encoding import IGNORED
from nait_assets.training.job import ROWS, Job

PROBE_TOKENS = (7, 5)
TOLERANCE = 1e-2


def trainer_of(job: Job, tokenizer: Any) -> Any:
    """The trainer of a job; its collator is `Numbered`.

    Args:
        job: Job in its folder.
        tokenizer: Tokenizer of the base, with a token to pad with.
    """
    import polars as pl
    import torch
    import transformers
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig

    disable_progress_bars()
    # float32 weights, whatever the products are in: Adam's small steps vanish in bfloat16
    network = transformers.AutoModelForCausalLM.from_pretrained(
        **job.pretrained, dtype=torch.float32, trust_remote_code=False
    )
    rows = pl.read_parquet(job.folder / ROWS, glob=False)
    alone = job.rows_at_once == 1 or not can_be_flattened(network)
    at_once = 1 if alone else job.rows_at_once
    config = SFTConfig(
        output_dir=str(job.folder / "checkpoints"),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=math.ceil(job.batch_size / (at_once * job.n_processes)),
        padding_free=not alone,
        max_length=None,  # rows are cut already, where the project's encoding cuts
        remove_unused_columns=False,  # the collator takes the numbers of the rows out
        **_of_settings(job, len(rows)),
    )
    columns = {"input_ids": rows["token_ids"].to_list(), "labels": rows["labels"].to_list()}
    data = Dataset.from_dict({**columns, "row": list(range(len(rows)))})
    trainer = _class_of(job, network)(
        model=network,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=_adapter(job),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.data_collator = Numbered(trainer.data_collator)
    return trainer


def _class_of(job: Job, network: Any) -> type:
    """TRL's trainer; on a CPU, where the model can, with a loss that makes logits only where there is a label.

    TRL's own saves memory: it makes the logits of all tokens in pieces, and again when it goes backwards. On a CPU that
    is two fifths of the time, and logits of the answers alone, a few hundred tokens at once, are small.
    """
    from trl import SFTTrainer

    class OfLabelsAlone(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            assert not return_outputs
            assert num_items_in_batch is not None
            given = {name: value for name, value in inputs.items() if name != "labels"}
            total = loss_of_labels(model, given, inputs["labels"])
            return total / num_items_in_batch * self.accelerator.num_processes  # which the processes' mean takes back

    chooses = "logits_to_keep" in inspect.signature(network.forward).parameters
    mixes = getattr(network.config, "output_router_logits", False)  # has a further loss, of experts, which TRL adds
    return OfLabelsAlone if job.on_cpu and chooses and not mixes else SFTTrainer


def loss_of_labels(network: Any, inputs: dict[str, Any], labels: Any) -> Any:
    """The sum of the negative log-likelihoods of the tokens that have a label.

    Args:
        network: A causal language model.
        inputs: Its inputs, `(1, n_tokens)`.
        labels: `(1, n_tokens)`, -100 where there is none.
    """
    import torch

    places = (labels[0, 1:] != IGNORED).nonzero()[:, 0]  # of the tokens in front of those with a label
    logits = network(**inputs, use_cache=False, logits_to_keep=places).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), labels[0, 1:][places], reduction="sum")


def _of_settings(job: Job, n_rows: int) -> dict[str, Any]:
    """Arguments of `SFTConfig` that the recipe sets, and those whose defaults would not do."""
    given = job.settings
    n_steps = math.ceil(n_rows / job.batch_size) * given["epochs"]
    return {
        "learning_rate": given["learning_rate"],
        "lr_scheduler_type": given["schedule"],
        "warmup_steps": int(given["warmup_ratio"] * n_steps),  # a share would be rounded up, and its first step wasted
        "weight_decay": given["weight_decay"],
        "adam_beta1": given["betas"][0],
        "adam_beta2": given["betas"][1],
        "max_grad_norm": given["max_grad_norm"],
        "num_train_epochs": given["epochs"],
        "seed": job.seed,
        "bf16": job.bf16,
        "use_cpu": job.on_cpu,
        "gradient_checkpointing": job.gradient_checkpointing,
        "report_to": list(job.report_to) or "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # `Notes` says when, and removes earlier ones once a new one is whole
        "dataloader_pin_memory": not job.on_cpu,
    }


def _adapter(job: Job) -> Any:
    if job.settings["adapter"] is None:
        return None
    from peft import LoraConfig

    given = job.settings["adapter"]
    return LoraConfig(
        r=given["rank"],
        lora_alpha=given["alpha"],
        lora_dropout=given["dropout"],
        target_modules=given["targets"],
        task_type="CAUSAL_LM",
    )


def can_be_flattened(network: Any) -> bool:
    """Whether rows behind one another, told apart by their positions, come out as each does alone.

    They do not in models whose layers carry a state over, or whose attention does not look at positions.
    """
    import torch

    vocabulary = min(int(network.config.get_text_config().vocab_size), 1000)
    rows = [torch.arange(length)[None] * 37 % vocabulary for length in PROBE_TOKENS]
    positions = torch.cat([torch.arange(length) for length in PROBE_TOKENS])[None]
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        together = network(input_ids=torch.cat(rows, 1), position_ids=positions, use_cache=False).logits
        apart = torch.cat([network(input_ids=row, use_cache=False).logits for row in rows], 1)
    network.train(was_training)
    return bool((together - apart).norm() <= TOLERANCE * apart.norm())


class Numbered:
    """A collator that remembers which rows each batch holds, so that a step's rows can be named.

    Args:
        collate: The trainer's own collator.
    """

    def __init__(self, collate: Any):
        self.collate = collate
        self.batches: list[list[int]] = []

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, without the rows' numbers."""
        self.batches.append([example["row"] for example in examples])
        batch: dict[str, Any] = self.collate([{k: v for k, v in each.items() if k != "row"} for each in examples])
        return batch
