"""The model card of a trained model: what it is, what it was trained on, and how."""

from collections.abc import Mapping
from typing import Any


def model_card(manifest: Mapping[str, Any]) -> str:
    """README.md of a model's folder, with the front matter that the hub reads.

    Args:
        manifest: What the folder's `training.json` says.
    """
    settings, base = manifest["settings"], manifest["base"]
    adapter = settings["adapter"]
    source = base["source"].removeprefix("hub:")
    on_hub = base["source"].startswith("hub:")
    front = [
        "---",
        *([f"base_model: {source}"] if on_hub else []),
        "library_name: " + ("peft" if adapter else "transformers"),
    ]
    front += ["tags:", "- instruction-tuning", "- data-selection", "- nait", "---"]
    shown = {name: value for name, value in settings.items() if name not in ("adapter", "reading")}
    shown |= {f"lora.{name}": value for name, value in (adapter or {}).items()}
    loads = (
        "`AutoModelForCausalLM.from_pretrained(FOLDER)` or `PeftModel.from_pretrained(base, FOLDER)` loads it."
        if adapter
        else "`AutoModelForCausalLM.from_pretrained(FOLDER)` loads it."
    )
    rows = [f"| {name} | {value} |" for name, value in {**shown, "seed": manifest["seed"]}.items()]
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(manifest["libraries"].items()))
    notes = [f"- {note}." for note in manifest["notes"]]
    return "\n".join(
        [
            *front,
            f"# {source}, tuned on {manifest['n_rows']} rows",
            "",
            f"{'An adapter for' if adapter else 'All weights of'} `{base['source']}` (`{base['identity']}`), "
            f"trained for `{manifest['label']}`: {manifest['n_rows']:,} rows of {manifest['n_tokens']:,} tokens, "
            f"{manifest['n_answer_tokens']:,} of which are learnt. {loads}",
            "",
            "The rows are named in `training.json` (`sample_ids`), and lie in the subset's folder.",
            "",
            *([*notes, ""] if notes else []),
            "| setting | value |",
            "|---|---|",
            *rows,
            "",
            f"{manifest['n_steps']} steps, {manifest['seconds']:.0f} s on {manifest['device']}, mean loss "
            f"of the last epoch {manifest['loss']:.4f}. Trained with {libraries}.",
            "",
        ]
    )
