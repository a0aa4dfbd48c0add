"""The control: uniform, repeatable, another order for each target, and stable when the pool changes."""

import numpy as np

from nait_assets.scoring.methods import random
from nait_assets_tests.scoring.given import without_capabilities

SAMPLE_IDS = [f"{number:016x}" for number in range(2000)]


def score(sample_ids: list[str] = SAMPLE_IDS, target: str = "math", seed: int = 0) -> np.ndarray:
    """Scores through the method's own door."""
    return random.METHOD.score(without_capabilities(sample_ids, [target], seed=seed))[:, 0]


def test_scores_are_uniform() -> None:
    """Against the uniform distribution function, Kolmogorov-Smirnov at 5 %: a control must not prefer anything."""
    scores = np.sort(score())
    n = len(scores)
    assert scores[0] >= 0
    assert scores[-1] < 1
    above, below = np.arange(1, n + 1) / n - scores, scores - np.arange(n) / n
    assert max(above.max(), below.max()) < 1.36 / np.sqrt(n)


def test_scores_repeat_with_the_seed_and_differ_with_another() -> None:
    """A published control can be drawn again, and drawn anew."""
    np.testing.assert_array_equal(score(seed=1), score(seed=1))
    assert abs(np.corrcoef(score(seed=1), score(seed=2))[0, 1]) < 0.1


def test_another_target_is_another_draw() -> None:
    """Else the control of every capability would be the same subset, one draw passing for five."""
    assert abs(np.corrcoef(score(target="math"), score(target="code"))[0, 1]) < 0.1


def test_a_row_more_in_the_pool_does_not_move_the_others() -> None:
    """A generator that is read row by row would shuffle everything behind the new row."""
    without = score(SAMPLE_IDS[:500] + SAMPLE_IDS[501:])
    np.testing.assert_array_equal(without, np.delete(score(), 500))
