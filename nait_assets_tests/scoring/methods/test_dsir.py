"""DSIR against the package of its authors, run on the same texts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nait_assets.scoring.methods.dsir import METHOD, N_BUCKETS, DsirOptions, bucket, buckets_of, counts_of, gumbel
from nait_assets_tests.scoring.methods.small_texts import EXAMPLES, POOL, TARGETS, inputs


def texts(rows: list[tuple[str, str]]) -> list[str]:
    return [f"{question}\n{answer}" for question, answer in rows]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Log importance weights by `data-selection`, by target."""
    from data_selection import HashedNgramDSIR

    found = {}
    for target, names in TARGETS.items():
        folder = tmp_path_factory.mktemp(target)
        files = {"pool": texts(POOL)} | {name: texts(EXAMPLES[name]) for name in names}
        for name, lines in files.items():
            (folder / name).write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        raw, targets = [str(folder / "pool")], [str(folder / name) for name in names]
        dsir = HashedNgramDSIR(raw, targets, cache_dir=str(folder / "cache"), num_proc=1)
        dsir.fit_importance_estimator(num_tokens_to_fit="auto")
        dsir.compute_importance_weights()
        found[target] = np.load(Path(folder, "cache", "log_importance_weights", "0.npy"))
    return found


def test_log_weights_are_those_of_the_published_code(published: dict[str, np.ndarray]) -> None:
    """Its hashing, words, smoothing and several target data sets; a baseline that differs is another method."""
    found = METHOD.scores(inputs(DsirOptions())).values
    np.testing.assert_allclose(found, np.stack([published[target] for target in TARGETS], axis=1), rtol=1e-11)
    assert np.ptp(found, axis=0).min() > 1


def test_words_and_buckets_are_those_of_the_published_code() -> None:
    """On signs, digits, underscores, other scripts and a text of one word."""
    from data_selection.hashed_ngram_dsir import get_ngram_counts

    for text in [
        "Don't x_1 = 3.14!!",
        "Größe, naïve—ÇA",
        "写一首关于猫的诗。 ok",
        "İstanbul",
        "ส้มตำ",
        "one",
        "a\n\na\ta",
    ]:
        assert np.bincount(buckets_of(text), minlength=N_BUCKETS).tolist() == get_ngram_counts(text).tolist()
    assert bucket("def") == 8372


def test_short_rows_have_a_score() -> None:
    """The package drops rows below 100 words in silence: of instructions, most."""
    assert max(map(len, map(str.split, texts(POOL)))) < 100
    assert np.isfinite(METHOD.scores(inputs(DsirOptions())).values).all()


def test_divided_by_its_n_grams_a_weight_does_not_grow_with_the_text() -> None:
    """A text that is said twice is no more like the target; the published weight says that it is twice as unlike."""
    rows = [("Sing a song.", "La la."), ("Sing a song. Sing a song.", "La la. La la."), ("x", "y")]
    from nait_assets_tests.scoring.methods.small_texts import frame

    plain, divided = (
        METHOD.scores(inputs(DsirOptions(per_ngram=per_ngram), pool=frame(rows, "s"))).values[:, 0]
        for per_ngram in (False, True)
    )
    n_ngrams = counts_of(texts(rows)).sum(axis=1)
    np.testing.assert_allclose(divided, plain / n_ngrams, rtol=1e-12)
    assert plain[1] < 1.8 * plain[0] < 0
    assert abs(divided[1] - divided[0]) < 0.15 * abs(divided[0])


def test_noise_is_gumbels_and_repeats_with_its_seed() -> None:
    """Mean 0.5772 and variance pi^2 / 6; the best k by a weight with it are a draw without replacement."""
    names = [f"{number:016x}" for number in range(20_000)]
    noise = gumbel(names, "0:math")
    assert noise.mean() == pytest.approx(0.5772, abs=0.03)
    assert noise.var() == pytest.approx(math.pi**2 / 6, rel=0.05)
    np.testing.assert_array_equal(noise[:100], gumbel(names[:100], "0:math"))
    plain, one, again, other = (METHOD.scores(inputs(DsirOptions(noise_seed=seed))).values for seed in (None, 1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    ids = inputs().sample_ids
    wanted = np.stack([gumbel(ids, f"1:{target}") for target in TARGETS], axis=1)
    np.testing.assert_allclose(one - plain, wanted, atol=1e-10)


def test_noise_draws_by_weight() -> None:
    """A row of twice the weight is the first of the draw twice as often, over seeds."""
    log_weights = np.log([1.0, 2.0, 5.0])
    firsts = [np.argmax(log_weights + gumbel(["a", "b", "c"], f"{seed}:math")) for seed in range(4000)]
    np.testing.assert_allclose(np.bincount(firsts) / 4000, [1 / 8, 2 / 8, 5 / 8], atol=0.03)


@pytest.mark.parametrize("options", [{}, {"noise_seed": 3}, {"per_ngram": True}], ids=str)
def test_scores_of_a_target_do_not_depend_on_the_other_targets(options: dict[str, object]) -> None:
    """To the last bit: a target that is made again alone must not find a change where there is none."""
    together = METHOD.scores(inputs(DsirOptions(**options))).values  # type: ignore[arg-type]
    for place, (target, names) in enumerate(TARGETS.items()):
        alone = METHOD.scores(inputs(DsirOptions(**options), {target: names})).values  # type: ignore[arg-type]
        np.testing.assert_array_equal(alone[:, 0], together[:, place])
