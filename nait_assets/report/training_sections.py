"""Sections of the page on what learning took: the losses of every training, and what choosing and training cost."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from nait_assets.report import result_charts
from nait_assets.report.comparison import Comparison
from nait_assets.report.page_data import PageData
from nait_assets.report.sections import Charts, Section
from nait_assets.report.trainings import Trainings


def training_sections(page_data: PageData, drawn: Charts) -> list[Section]:
    """The sections, in order; nothing of trainings where there are none."""
    losses = [_losses(page_data.trainings, page_data.recipe.targets, drawn)] if page_data.trainings else []
    return [*losses, *_cost(page_data)]


def _losses(trainings: Trainings, targets: Sequence[str], drawn: Charts) -> Section:
    runs = runs_of(trainings.models)
    curves = trainings.curves.join(runs, on="key", maintain_order="left")
    colours = result_charts.target_colours([name for name in targets if name in set(runs["target"])])
    low, high = (float(bound or 0) for bound in (curves["loss"].min(), curves["loss"].max()))  # type: ignore[arg-type]
    section = Section(
        "losses",
        "Loss curves",
        "Loss curves",
        "Did every training go down, and did any go another way than the others?",
        [
            "A line is one model: the loss on the answers of its own rows, by epoch, on one scale for all charts; "
            "neighbouring steps are averaged. Losses on held-out examples are in the tables above. What was trained "
            "for several targets, as their rows were the same, or for none, is grey."
        ],
        legend=[(name, colours[name]) for name in colours if name],
    )
    figures = [
        drawn.figure(
            f"{model}, {_counted(runs.filter(model=model).height, 'model')}",
            result_charts.loss_curves(curves.filter(model=model), colours, (low, high)),
        )
        for model in runs["model"].unique(maintain_order=True)
    ]
    section.groups.append({"title": "", "figures": figures})
    return section


def runs_of(models: pl.DataFrame) -> pl.DataFrame:
    """Each model of an output once: columns `model`, `key`, `target`, `run`, in the order of `Trainings.models`."""
    target = pl.when(pl.col("target").n_unique() == 1).then(pl.col("target").first()).otherwise(pl.lit(""))
    cells = pl.concat_str("target", "ratio", separator=" ").str.strip_chars().unique(maintain_order=True).str.join(", ")
    numbers = pl.col("number").unique(maintain_order=True).cast(pl.String).str.join(", ")
    grouped = models.with_columns(model=pl.col("asset").str.strip_prefix("training/")).group_by(
        "model", "key", maintain_order=True
    )
    return grouped.agg(target=target, run=pl.format("{} no. {}", cells, numbers).str.strip_chars())


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def _cost(page_data: PageData) -> list[Section]:
    tables = []
    if page_data.comparison is not None:
        tables.append(_choosing(page_data.comparison, page_data.prices))
    if page_data.trainings is not None:
        prices = page_data.recipe.prices
        tables.append(_training(page_data.trainings, prices.gpu_hour if prices else None))
    if not tables:
        return []
    done = "choose and to train" if page_data.trainings is not None else "choose"
    question = f"What does it take to {done}, and what of it do several methods share?"
    return [Section("cost", "Cost", "What it costs", question, tables=tables)]


def _choosing(comparison: Comparison, prices: pl.DataFrame | None) -> dict[str, Any]:
    """Table 4 of arXiv 2603.13201."""
    header = ["method", "forward passes", "backward passes", "tokens", "API calls", "seconds", "shared seconds"]
    notes = [
        "Measured: what the scores of all targets and everything that they depend on have cost so far on this machine, "
        "over all their materializations. What several methods share is counted for each of them; `shared seconds` "
        "says how much of the time that is."
    ]
    of_method: dict[str, list[str]] = {}
    if prices is not None and len(prices):
        n_pool, wanted = prices.row(0, named=True)["pool_size"], prices.row(0, named=True)["scaled_to"]
        header += ["money", *([f"scaled: {name}" for name in ("seconds", "money")] if wanted != n_pool else [])]
        notes.append("Money is by the recipe's `prices`: tokens where an API was called, else time.")
        if wanted != n_pool:
            notes.append(
                f"Scaled: not measured, but what was measured on {n_pool:,} candidates times {wanted / n_pool:,.1f}, "
                f"in proportion to {wanted:,} candidates."
            )
        for row in prices.iter_rows(named=True):
            scaled = [f"{row['scaled_seconds']:,.0f}", f"{row['scaled_money']:,.2f}"] if wanted != n_pool else []
            of_method[row["method"]] = [f"{row['money']:,.4f}", *scaled]
    rows = [
        [
            row["method"],
            *(f"{row[name]:,}" for name in ("n_forward", "n_backward", "n_tokens", "n_calls")),
            *(f"{row[name]:,.1f}" for name in ("seconds", "shared_seconds")),
            *of_method.get(row["method"], [""] * (len(header) - 7)),
        ]
        for row in comparison.costs.sort("seconds", "method").iter_rows(named=True)
    ]
    return {"title": "Choosing", "notes": notes, "header": header, "rows": rows}


def _training(trainings: Trainings, gpu_hour: float | None) -> dict[str, Any]:
    once = trainings.models.unique("key", keep="first", maintain_order=True)
    rows = [
        _of_models(str(asset).removeprefix("training/"), str(ratio), of_output.unique("key"), gpu_hour)
        for (asset, ratio), of_output in trainings.models.group_by("asset", "ratio", maintain_order=True)
    ]
    note = (
        "Measured where it ran. A model that several rows of the table share is counted in each of them, and once in "
        "the last; tokens are those of all epochs, memory is the most that one training's process had."
    )
    header = ["trained", "ratio", "models", "rows each", "steps each", "tokens", "seconds", "tokens/s", "peak memory"]
    header += ["money"] if gpu_hour else []
    total = _of_models("all together", "", once, gpu_hour)
    return {"title": "Training", "notes": [note], "header": header, "rows": [*rows, total]}


def _of_models(name: str, ratio: str, models: pl.DataFrame, gpu_hour: float | None) -> list[str]:
    seconds, n_tokens = float(models["seconds"].sum()), int(models["n_tokens_read"].sum())
    peak = max(int(value or 0) for value in models["peak_bytes"])
    return [
        name,
        ratio,
        f"{len(models):,}",
        *(_range(models[column].to_list()) for column in ("n_rows", "n_steps")),
        f"{n_tokens:,}",
        f"{seconds:,.1f}",
        f"{n_tokens / seconds:,.0f}" if seconds else "–",
        f"{peak / 1e9:,.2f} GB",
        *([f"{seconds / 3600 * gpu_hour:,.4f}"] if gpu_hour else []),
    ]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
