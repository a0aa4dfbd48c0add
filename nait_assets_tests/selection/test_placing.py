"""Where a candidate stands: for every strategy, in every place, it says what the subset says."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.recipe import Selection, Strategy
from nait_assets.scoring.ranking import ranked
from nait_assets.selection.choice import Budget, Material, chosen_rows
from nait_assets.selection.placing import FILLED_UP, OUTDATED, last_chosen, placing, placings
from nait_assets.selection.strategies.similarity import ONE
from nait_assets.tables import CONTAMINATED_CANDIDATES, SUBSETS
from nait_assets_tests.report.pages import home_with_subsets
from nait_assets_tests.selection.test_choice import EACH, NAMES, RATIOS, N, cosines, material, scores
from nait_assets_tests.small_home import UNREAD, small_recipe


@EACH
@pytest.mark.parametrize("ratio", RATIOS)
def test_it_says_of_every_candidate_whether_the_subset_has_it(strategy: Strategy, ratio: str) -> None:
    """And names a row of the subset that it is compared with, with the difference of their scores."""
    for seed in range(3):
        given, frame = material(seed), scores(seed)
        ranking = frame.sort("rank")
        chosen = chosen_rows(frame, ratio, strategy=strategy, material=given).rows["sample_id"].to_list()
        score_of = dict(zip(ranking["sample_id"], ranking["score"], strict=True))
        for name in NAMES:
            found = placing(ranking, ratio, chosen, strategy, given, name)
            assert found.chosen == (name in chosen), found
            assert found.n_chosen == len(chosen)
            assert found.sentence.startswith("chosen: " if found.chosen else "not chosen: ")
            assert "older" not in found.says
            if found.last is not None:
                assert found.last in chosen
                assert found.last != name
                assert found.margin == pytest.approx(score_of[name] - score_of[found.last])
            elif strategy.name == "top":
                assert name == chosen[-1]


def test_by_rank_the_last_row_is_the_one_that_came_in_its_place() -> None:
    """The best 6 of 60: number 7 missed by one, and the sentence has both ranks and the difference."""
    frame = scores()
    ranking = frame.sort("rank")
    chosen = chosen_rows(frame, "0.10").rows["sample_id"].to_list()
    for place in (0, 6):
        row = ranking.row(place, named=True)
        found = placing(ranking, "0.10", chosen, Strategy(), material(), row["sample_id"])
        assert found.last == chosen[5]
        assert f"rank {place + 1}; the last of 6 that are taken has rank 6" in found.sentence
    own = placing(ranking, "0.10", chosen, Strategy(), material(), chosen[5])
    assert (own.says, own.last) == ("rank 6, the last of 6 that are taken", None)


def test_a_row_too_like_a_better_one_is_told_which() -> None:
    """With `diverse` a rank explains nothing: the row that it resembles does."""
    strategy, given, frame = Strategy(strategy="diverse", similarity_limit=0.5), material(), scores()
    ranking = frame.sort("rank")
    order = ranking["sample_id"].to_list()
    chosen = chosen_rows(frame, "0.35", strategy=strategy, material=given).rows["sample_id"].to_list()
    told = 0
    for place, name in enumerate(order):
        found = placing(ranking, "0.35", chosen, strategy, given, name)
        if found.says.startswith("too like"):
            assert found.last is not None
            assert order.index(found.last) < place
            like = cosines([name, found.last], given)[0, 1]
            assert like > 0.5 * ONE
            assert f"cosine {like / ONE:.3f}, over 0.5" in found.says
            told += 1
    assert told > 5


def test_of_every_length_the_best_are_taken() -> None:
    """The bin is said in characters, with the row's number in it: within a bin only better ranks are taken."""
    strategy, given, frame = Strategy(strategy="length_matched", n_bins=4), material(), scores()
    ranking = frame.sort("rank")
    chosen = chosen_rows(frame, "0.35", strategy=strategy, material=given).rows["sample_id"].to_list()
    assert given.lengths is not None
    for name in NAMES:
        found = placing(ranking, "0.35", chosen, strategy, given, name)
        words = found.says.replace(",", "").split()
        number, taken = int(words[words.index("number") + 1]), int(words[words.index("and") + 1])
        assert (number <= taken) == found.chosen
        lower, upper = int(words[words.index("to") - 1]), int(words[words.index("to") + 1])
        assert lower <= given.lengths[name] <= upper


def test_a_subset_of_other_scores_is_said_to_be_old() -> None:
    """Between an edit and the run: a margin against rows that this ranking would not take would be wrong."""
    frame, given = scores(), material()
    ranking = frame.sort("rank")
    order = ranking["sample_id"].to_list()
    for chosen in (["gone"], [order[5]]):
        found = placing(ranking, "0.10", chosen, Strategy(), given, order[0])
        assert "older than these scores" in found.says
        assert (found.last, found.margin) == (None, None)


def test_who_cannot_be_chosen_is_told_why(tmp_path: Path) -> None:
    """No score, or an example that it leaks; a leak is no bar where the recipe keeps such rows."""
    recipe = small_recipe(tmp_path)
    warehouse = home_with_subsets(recipe, tmp_path / "home")
    (unread, *_), method = placings(recipe, warehouse, "nait_standardized", "math", UNREAD), "nait_standardized"
    assert unread.sentence == "not chosen: no score: no token"
    leak = {"sample_id": "c4", "corpus": "math", "example_id": "e1", "match": "text", "shared_text": "question"}
    with warehouse.tables.transaction() as tables:
        tables.replace(CONTAMINATED_CANDIDATES, pl.DataFrame([leak], schema=CONTAMINATED_CANDIDATES.columns))
    kept = placings(recipe, warehouse, method, "math", "c4")
    assert not any("leaks" in one.says for one in kept)
    dropping = recipe.model_copy(
        update={"decontamination": recipe.decontamination.model_copy(update={"action": "drop"})}
    )
    (barred, *_) = placings(dropping, warehouse, method, "math", "c4")
    assert barred.sentence == "not chosen: leaks e1 of math (text)"


def test_thresholds_are_of_the_worst_chosen_rank() -> None:
    """What the page subtracts from: by some strategies that is not the row at the subset's size."""
    frame = scores().sort("rank")
    order = frame["sample_id"].to_list()
    found = last_chosen(frame, {"0.10": [order[7], order[2]], "0.30": []})
    assert found == {"0.10": (8, frame["score"][7])}


DIVERSE = Strategy(strategy="diverse", similarity_limit=0.05)


@EACH
@pytest.mark.parametrize("tokens", [0, 3, 12])
def test_what_a_budget_of_tokens_ends_is_said_with_the_budget(strategy: Strategy, tokens: int) -> None:
    """A row behind the last one that there was room for did not miss by its rank alone; there may be room for none."""
    given, frame = material(), scores()
    ranking = frame.sort("rank")
    choice = chosen_rows(frame, "0.35", (), strategy, given, Budget(tokens, dict.fromkeys(NAMES, 1)))
    chosen = choice.rows["sample_id"].to_list()
    assert len(chosen) == tokens
    for name in NAMES:
        found = placing(ranking, "0.35", chosen, strategy, given, name, 21)
        assert found.chosen == (name in chosen)
        assert f"`selection.tokens` ends it at {tokens} of 21 rows" in found.sentence
        assert "older" not in found.says
        if strategy.name == "facility_location" and "only the best" in found.says:
            assert "only the best 42 are considered" in found.says, "twice what was wanted, not what was taken"


@pytest.mark.parametrize("strategy", [DIVERSE, Strategy(strategy="facility_location", pool_factor=2)])
def test_rows_that_fill_a_subset_up_are_not_said_to_be_the_strategys(strategy: Strategy) -> None:
    """`diverse` took few, and the best of those that it skipped were added: they are too like a better row."""
    given, frame = material(), scores()
    chosen = chosen_rows(frame, "0.35", (), strategy, given).rows["sample_id"].to_list()
    told = [placing(frame.sort("rank"), "0.35", chosen, strategy, given, name, 21).says for name in chosen]
    n_filled_up = chosen_rows(frame, "0.35", (), strategy, given).n_filled_up
    assert sum(FILLED_UP in says for says in told) == n_filled_up
    assert n_filled_up > 5 or strategy is not DIVERSE


def test_an_empty_subset_is_one_that_was_made(tmp_path: Path) -> None:
    """People were told that no subset has been made, and sent to `nait run`, which had made it, of no rows."""
    recipe = small_recipe(tmp_path)
    warehouse = home_with_subsets(recipe, tmp_path / "home")
    with warehouse.tables.transaction() as tables:
        tables.delete(SUBSETS, method="nait_standardized", target="math")
    dear = recipe.model_copy(update={"selection": Selection(tokens=1)})
    found = placings(dear, warehouse, "nait_standardized", "math", "c4")
    assert [one.says for one in found] == [f"`selection.tokens` ends it at 0 of {n} rows" for n in (1, 3)]
    high = recipe.model_copy(update={"selection": Selection(min_score=2)})
    (low,) = {one.says for one in placings(high, warehouse, "nait_standardized", "math", "c4")}
    assert re.fullmatch(r"its score -0\.\d+ for math is below `min_score` 2", low)
    assert {one.says for one in placings(recipe, warehouse, "nait_standardized", "math", "c4")} == {OUTDATED}


def test_for_all_a_row_is_compared_with_those_of_the_capability_in_whose_turn_it_is() -> None:
    """The one score for all had no say: a row that came later was said to have missed though its score was higher."""
    random = np.random.default_rng(0)
    own = {name: random.permutation(N).astype(float) for name in ("code", "math")}
    frame = ranked(NAMES, -own["code"], by_capability=own)  # the score for all knows nothing of either
    by_capability = {name: ranked(NAMES, values) for name, values in own.items()}
    strategy, ranking = Strategy(strategy="round_robin_targets"), frame.sort("rank")
    chosen = chosen_rows(frame, "0.20", (), strategy).rows["sample_id"].to_list()
    for name in NAMES:
        found = placing(ranking, "0.20", chosen, strategy, Material(), name, 12, by_capability)
        (whose,) = frame.filter(sample_id=name)["whose_turn"]
        assert f"in the turns of {whose}" in found.says
        if found.last is not None:
            place, other = NAMES.index(name), NAMES.index(found.last)
            assert (found.scored_for, found.margin) == (whose, own[whose][place] - own[whose][other])
            assert (found.margin > 0) == found.chosen, "what decided is what is compared"
            assert f"a score for {whose} " in found.sentence
