"""Where a candidate stands: for every strategy, in every place, it says what the subset says."""

from pathlib import Path

import polars as pl
import pytest

from nait_assets.recipe import Strategy
from nait_assets.selection.choice import chosen_rows
from nait_assets.selection.placing import last_chosen, placing, placings
from nait_assets.selection.strategies.similarity import ONE
from nait_assets.tables import CONTAMINATED_CANDIDATES
from nait_assets_tests.report.pages import home_with_subsets
from nait_assets_tests.selection.test_choice import EACH, NAMES, RATIOS, cosines, material, scores
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
