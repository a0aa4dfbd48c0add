"""What was lost is said: behind each output, in the summary, on the card; and a check warns where it is much."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nait_assets.losses import Losses, kinds_of_reasons
from nait_assets.recipe import Recipe
from nait_assets_tests.command import nait, quick_home
from nait_assets_tests.conftest import half_with_system, pool_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]


def test_reasons_of_one_kind_are_counted_together() -> None:
    """A name or a number in a reason is not another reason."""
    reasons = {"role 'a' is unknown": 2, "role 'b' is unknown": 1, "no response": 2, "cut at 12": 1, "cut at 3.5": 1}
    assert kinds_of_reasons(reasons) == (("role 'a' is unknown", 3), ("cut at 12", 2), ("no response", 2))


@given(st.dictionaries(st.text(max_size=12), st.integers(1, 99), max_size=12), st.integers(0, 99), st.integers(0, 99))
def test_counts_of_reasons_add_up(reasons: dict[str, int], n_used: int, n_left_out: int) -> None:
    """Whatever reasons say, no row is in no kind, and the share is one."""
    n_rejected = sum(reasons.values())
    losses = Losses(n_used + n_left_out + n_rejected, n_used, kinds_of_reasons(reasons), n_left_out=n_left_out)
    assert losses.n_rejected == n_rejected
    assert 0 <= losses.share_rejected <= 1
    assert f"{n_rejected:,} rejected" in losses.sentence
    assert "\n" not in losses.sentence


def test_what_was_lost_is_said_after_each_output_and_on_the_card(
    make_recipe: MakeRecipe, tmp_path: Path, strict_model: Path
) -> None:
    """Whoever does not read metadata would train on half of the pool without knowing it."""
    rows = half_with_system()
    write_jsonl(tmp_path / "pool.jsonl", [*rows, {"text": "neither"}, rows[0]])
    recipe, home = make_recipe(model={"source": str(strict_model)}, ratios=[0.2]), quick_home(tmp_path / "home")

    answer = nait("run", "--recipe", recipe.path, "--home", home)

    assert answer.code == 0, answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    read = [line for line in lines if line.startswith("22 rows read: 20 used, 1 duplicates, 1 rejected (1 x ")]
    assert len(read) == 1
    (seen,) = [line for line in lines if line.startswith("20 rows read: 10 used, 10 rejected (10 x ")]
    assert "No system role" in seen
    (warning,) = [line for line in lines if "few_rows_are_rejected" in line]
    assert warning.startswith("warning: extraction/candidate_activations, few_rows_are_rejected: 50.0% are rejected")
    said = nait("summary", "--recipe", recipe.path, "--home", home).out
    assert f"extraction/candidate_activations: {seen}" in said
    card = (home / "subsets/nait_standardized/all/0.20/README.md").read_text(encoding="utf-8")
    assert f"- `extraction/candidate_activations`: {seen}." in card
    assert f"- `corpora/candidate_pool`: {read[0]}." in card
    card = (home / "subsets/random/all/0.20/README.md").read_text(encoding="utf-8")
    assert "No system role" not in card


def test_many_rejected_rows_block_where_the_recipe_says_so(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Nothing is made from a pool of which too little is left; raised, the limit lets it pass."""
    write_jsonl(tmp_path / "pool.jsonl", [*pool_rows(6), {"text": "neither"}, {"text": "nor"}])
    recipe, home = make_recipe(methods=["random"], refuse_above=0.2), quick_home(tmp_path / "home")

    answer = nait("run", "--recipe", recipe.path, "--home", home)

    assert answer.code == 1
    assert "check failed: corpora/candidate_pool, enough_rows_are_left: 25.0% are rejected" in answer.out
    assert "scoring/random_scores" not in answer.out
    recipe = make_recipe(methods=["random"], refuse_above=0.5, max_rejected=0.3)
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    assert "are rejected" not in answer.out


def test_warnings_of_one_kind_are_one_line(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """On real data every subset leaks something; hundreds of equal lines hide the one that is new."""
    rows = pool_rows()
    write_jsonl(tmp_path / "math.jsonl", [{"messages": row["messages"]} for row in rows[:10]])
    recipe, home = make_recipe(methods=["random"], ratios=[0.5, 0.9]), quick_home(tmp_path / "home")

    answer = nait("run", "--recipe", recipe.path, "--home", home)

    (line,) = [line.strip() for line in answer.out.splitlines() if "leaks_no_example" in line]
    assert line.startswith("warning: leaks_no_example of 6 outputs, such as selection/random_subset [")
