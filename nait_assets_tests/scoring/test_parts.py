"""Scores taken apart: whatever a method calls the parts of a score, they add up to the score."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import ACTIVATIONS
from nait_assets.scoring.method import ExampleActivations, Explanation, Method, Parts, ScoringInputs
from nait_assets.scoring.methods import bm25, declared, dsir, gate_overlap, mona, nait, nait_neighbours
from nait_assets.scoring.methods import nait_standardized as standardized
from nait_assets.scoring.methods import neuron_diversity as diversity
from nait_assets.scoring.methods.nait_whitened import NaitWhitenedOptions
from nait_assets_tests.scoring.given import for_capabilities, without_capabilities
from nait_assets_tests.scoring.methods import small_texts, test_instruction_mining, test_less, test_mona

NO_SUMS = {
    "alpagasus",
    "balanced_random",
    "ifd",
    "ifd_pre_experienced",
    "length_long",
    "length_short",
    "perplexity_high",
    "perplexity_low",
    "random",
    "rds_plus",
    "selectit",
    "sentence_embedding",
}
"""Methods whose score is one number, a largest one, a quotient or chance."""
LAYERS, N_SAMPLES, WIDTH = (0, 5), 9, 6
CAPABILITIES = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}
SAMPLE_IDS = [f"s{number}" for number in range(N_SAMPLES)]
RANDOM = np.random.default_rng(0)
POOL = {layer: RANDOM.normal(3, 2, (N_SAMPLES, WIDTH)).astype(np.float32) for layer in LAYERS}
STATISTICS = {layer: NeuronStatistics(POOL[layer].mean(axis=0), POOL[layer].std(axis=0)) for layer in LAYERS}
EXAMPLES = {
    name: ExampleActivations(
        [f"{name}{number}" for number in range(n)],
        {layer: RANDOM.normal(mean, 2, (n, WIDTH)).astype(np.float32) for layer in LAYERS},
    )
    for name, mean, n in (("code", 4, 3), ("math", 2, 4))
}
VECTORS = {
    name: {layer: RANDOM.normal(0, scale, WIDTH).astype(np.float32) for layer in LAYERS}
    for name, scale in (("code", 0.1), ("math", 10.0))
}


def activated(key: str, column: str, **rest: object) -> ScoringInputs:
    """Inputs of a method that reads activations and one vector a capability and layer."""
    frames = {
        name: pl.DataFrame({"layer": LAYERS, column: [of_layer[layer].tolist() for layer in LAYERS]})
        for name, of_layer in VECTORS.items()
    }
    rows = {target: {name: frames[name] for name in names} for target, names in CAPABILITIES.items()}
    blocks = [(layer, np.arange(N_SAMPLES), POOL[layer]) for layer in LAYERS]
    return for_capabilities(SAMPLE_IDS, key, rows, blocks=blocks, statistics=STATISTICS, examples=EXAMPLES, **rest)


def by_neighbours(**options: float) -> ScoringInputs:
    """Inputs of the method that compares with single examples."""
    rows = {
        name: pl.DataFrame(
            [
                {"sample_id": sample_id, "layer": layer, "activation": vector.tolist()}
                for layer in LAYERS
                for sample_id, vector in zip(examples.sample_ids, examples.by_layer[layer], strict=True)
            ],
            schema={"sample_id": pl.String, "layer": pl.Int16, "activation": pl.List(pl.Float32)},
        )
        for name, examples in EXAMPLES.items()
    }
    given = activated(standardized.CENTROIDS, "centroid", options=nait_neighbours.NaitNeighboursOptions(**options))
    return replace(given, by_capability={nait_neighbours.EXAMPLES: rows})


def test_no_more_neighbours_are_told_than_there_are() -> None:
    """The nearest 50 of four examples were told of."""
    given = by_neighbours(best=50, neighbours=2000)
    method = nait_neighbours.METHOD
    found = nait_neighbours.explain(method.prepared(given), SAMPLE_IDS[0], "all", 3)
    told = [name.split() for name in found.parts[0].values]
    sizes = {name: len(examples.sample_ids) for name, examples in EXAMPLES.items()}
    assert int(told[0][1]) == sizes[told[0][-1]]
    assert told[1] == ["nearest", str(N_SAMPLES - 1), "rows", "of", "the", "pool"]


def cases() -> Iterator[tuple[str, ScoringInputs]]:
    """Methods whose score is a sum, with inputs of each."""
    yield "nait", activated(nait.DIRECTIONS, "direction")
    for similarity in ("cosine", "dot"):
        options = standardized.NaitStandardizedOptions(similarity=similarity)
        yield "nait_standardized", activated(standardized.CENTROIDS, "centroid", options=options)
        whitened = NaitWhitenedOptions(components=4, similarity=similarity)
        yield "nait_whitened", activated(standardized.CENTROIDS, "centroid", options=whitened)
    yield "nait_neighbours", by_neighbours(neighbours=3)
    yield "nait_neighbours", by_neighbours(best=9, neighbours=2, reference=4, hubness=1)
    yield "nait_neighbours", by_neighbours(hubness=0)
    blocks = [(layer, np.arange(N_SAMPLES), POOL[layer]) for layer in LAYERS]
    options_ = diversity.NeuronDiversityOptions(threshold=0.5)
    given = without_capabilities(SAMPLE_IDS, CAPABILITIES, blocks=blocks, statistics=STATISTICS, options=options_)
    yield "neuron_diversity", given
    for over in ("mean", "max"):
        yield "bm25", small_texts.inputs(bm25.Bm25Options(over=over))
    for per_ngram, seed in ((False, None), (True, None), (True, 3)):
        yield "dsir", small_texts.inputs(dsir.DsirOptions(per_ngram=per_ngram, noise_seed=seed))
    sparse = test_mona.inputs("code", "math", "all")
    yield "mona", sparse
    keys = {mona.CODES: gate_overlap.GATES, mona.EXAMPLES: gate_overlap.EXAMPLES}
    renamed = [{keys[key]: value for key, value in rows.items()} for rows in (sparse.frames, sparse.by_capability)]
    yield "gate_overlap", replace(sparse, frames=renamed[0], by_capability=renamed[1])
    yield "less", test_less.inputs(test_less.ALL)
    yield "instruction_mining", test_instruction_mining.inputs_of(test_instruction_mining.N, "code", "all")


CASES = list(cases())


def explain(method: Method, inputs: ScoringInputs, sample_id: str, target: str) -> Explanation:
    """The method's explanation, as the warehouse's readers ask for it."""
    assert method.explain is not None
    fitted = method.fit(inputs) if method.fit else None
    return method.explain(replace(inputs, fitted=fitted), sample_id, target, 3)


@pytest.mark.parametrize(("name", "inputs"), CASES, ids=[f"{number} {name}" for number, (name, _) in enumerate(CASES)])
def test_parts_add_up_to_the_score(name: str, inputs: ScoringInputs) -> None:
    """Of every candidate and target, in every way that it is taken apart: else something else is explained."""
    method = declared()[name]
    scores = method.scores(inputs).values
    for column, target in enumerate(inputs.targets):
        for place, sample_id in enumerate(inputs.sample_ids):
            explanation = explain(method, inputs, sample_id, target)
            assert explanation.parts
            for parts in explanation.parts:
                size = max(1.0, parts.size)
                assert parts.total == pytest.approx(scores[place, column], abs=1e-5 * size), (sample_id, target, parts)


@pytest.mark.parametrize(("name", "inputs"), CASES, ids=[f"{number} {name}" for number, (name, _) in enumerate(CASES)])
def test_reasons_with_a_share_come_by_size_and_are_no_more_than_was_asked(name: str, inputs: ScoringInputs) -> None:
    """A reader adds them up: so many of so many are so much of the score."""
    for target in inputs.targets:
        explanation = explain(declared()[name], inputs, inputs.sample_ids[0], target)
        assert len(explanation.reasons) <= 3
        assert len(explanation.near) <= 3
        shares = [reason.share for reason in explanation.reasons if reason.share is not None]
        if name != "instruction_mining":  # its terms have an order of their own
            against = explanation.parts[0].total < 0 and name.startswith("nait")
            assert shares == sorted(shares, reverse=not against)


@pytest.mark.parametrize("name", sorted(name for name, method in declared().items() if ACTIVATIONS in method.reads))
def test_a_candidate_equal_to_the_pools_mean_is_explained(name: str) -> None:
    """It has no direction: its parts are noughts or numbers, and nothing is divided by nought."""
    inputs = next(inputs for other, inputs in CASES if other == name)
    blocks = [(layer, places, np.vstack([STATISTICS[layer].mean, rows[1:]])) for layer, places, rows in inputs.blocks]
    explanation = explain(declared()[name], replace(inputs, blocks=blocks), "s0", "all")
    assert np.isfinite([value for parts in explanation.parts for value in parts.values.values()]).all()


def test_every_method_says_whether_its_score_is_a_sum() -> None:
    """A new method is taken apart here, or has a reason why it cannot be."""
    taken_apart = {name for name, _ in CASES}
    assert not taken_apart & NO_SUMS
    assert {name for name in declared() if name not in NO_SUMS} == taken_apart
    assert all(declared()[name].explain for name in declared() if name != "alpagasus")


def test_the_largest_parts_and_the_others_are_all_of_them() -> None:
    """A list that is cut says what it leaves out; one part is never left out alone."""
    parts = Parts("word", {"a": 1.0, "b": -3.0, "c": 2.0, "d": 0.5})
    assert parts.largest(2) == [("b", -3.0), ("c", 2.0), ("2 others", 1.5)]
    assert parts.largest(3) == [("b", -3.0), ("c", 2.0), ("a", 1.0), ("d", 0.5)]
    assert Parts("word", {}).largest(3) == []


@pytest.mark.parametrize(("values", "said"), [((3.0, 1.0), "75.0%"), ((3.0, -2.9), ""), ((0.0, 0.0), "")])
def test_parts_that_cancel_each_other_out_have_no_percentages(values: tuple[float, float], said: str) -> None:
    """Thousands of per cent of next to nothing mislead."""
    assert Parts("layer", dict(zip("ab", values, strict=True))).percent(values[0]) == said
