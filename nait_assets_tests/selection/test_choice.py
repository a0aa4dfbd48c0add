"""Strategies: each against a literal, slow choice, and what holds for every one of them."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import RecipeError
from nait_assets.recipe import Recipe, Strategy, StrategyName
from nait_assets.scoring.ranking import ranked
from nait_assets.selection import choice as choice_module
from nait_assets.selection.choice import (
    NOT_CONTAINED,
    Budget,
    Material,
    chosen_rows,
    columns_read,
    in_order,
    measurement_of,
    sentence,
)
from nait_assets.selection.strategies import coverage
from nait_assets.selection.strategies.coverage import facility_location
from nait_assets.selection.strategies.diversity import diverse
from nait_assets.selection.strategies.lengths import length_matched
from nait_assets.selection.strategies.similarity import Ground, measurement_vectors, text_vectors
from nait_assets.selection.turns import rows_by_turn
from nait_assets.tables import CANDIDATE_POOL

N = 60
NAMES = [f"s{number:02}" for number in range(N)]
MakeRecipe = Callable[..., Recipe]
RATIOS = ("0.05", "0.10", "0.35", "0.60", "1.00")
STRATEGIES: list[Strategy] = [
    Strategy(),
    Strategy(strategy="round_robin_examples"),
    Strategy(strategy="round_robin_targets"),
    Strategy(strategy="union"),
    Strategy(strategy="diverse", similarity_limit=0.5),
    Strategy(strategy="facility_location", pool_factor=2),
    Strategy(strategy="median"),
    Strategy(strategy="length_matched", n_bins=4),
]
EACH = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


def scores(seed: int = 0, reasons: dict[str, str] | None = None) -> pl.DataFrame:
    """Scores of sixty candidates with many ties, by example and by capability, in the order of their ids."""
    random = np.random.default_rng(seed)
    values, by_example, by_capability = (random.integers(0, 9, (N, n)).astype(float) for n in (1, 5, 3))
    frame = ranked(NAMES, values[:, 0], reasons, by_example, dict(zip("abc", by_capability.T, strict=True)))
    return frame.sort("sample_id")


def material(seed: int = 0) -> Material:
    """Lengths of which many are equal, and vectors of a few dimensions, so that some are alike."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(N, 3)).round(1)
    frame = pl.DataFrame({"sample_id": NAMES, "vector": vectors.tolist()})
    lengths = dict(zip(NAMES, random.integers(1, 30, N).tolist(), strict=True))
    return Material(lengths, measurement_vectors(frame, "vector"))


def cosines(names: list[str], given: Material) -> np.ndarray:
    """`(n, n)`, in float64, in whole millionths."""
    assert given.vectors is not None
    rows = np.array([given.vectors.rows[given.vectors.places[name]] for name in names], dtype=np.float64)
    return np.array([[round(1e6 * float(one @ other)) for other in rows] for one in rows])


def literal(strategy: Strategy, frame: pl.DataFrame, size: int, given: Material) -> list[str]:
    """The choice as a person would make it with lists, one row at a time."""
    rows = sorted((row for row in frame.iter_rows(named=True) if row["rank"]), key=lambda row: row["rank"])
    names = [row["sample_id"] for row in rows]
    size = min(size, len(names))
    if strategy.name == "median":
        middle = float(np.median([row["score"] for row in rows]))
        return sorted(names, key=lambda name: abs(rows[names.index(name)]["score"] - middle))[:size]
    if strategy.name in ("diverse", "facility_location"):
        by_hand = literal_diverse if strategy.name == "diverse" else literal_facility_location
        return by_hand(strategy, names, size, given)
    column = {"round_robin_examples": "turn", "round_robin_targets": "target_turn", "union": "best_rank"}
    key = column.get(strategy.name, "rank")
    return [row["sample_id"] for row in sorted(rows, key=lambda row: (row[key], row["rank"]))][:size]


def literal_diverse(strategy: Strategy, names: list[str], size: int, given: Material) -> list[str]:
    """Every row against every row taken."""
    assert strategy.similarity_limit is not None
    alike, taken = cosines(names, given), list[int]()
    for place in range(len(names)):
        if all(alike[place, other] <= 1e6 * strategy.similarity_limit for other in taken):
            taken.append(place)
    order = [*taken, *(place for place in range(len(names)) if place not in taken)]
    return [names[place] for place in order[:size]]


def literal_facility_location(strategy: Strategy, names: list[str], size: int, given: Material) -> list[str]:
    """The objective computed anew for each candidate in each step."""
    assert strategy.pool_factor is not None
    names = names[: strategy.pool_factor * size]
    alike, taken = cosines(names, given), list[int]()

    def covered(chosen: list[int]) -> int:
        return sum(max(0, *(alike[place, other] for other in chosen)) for place in range(len(names)))

    for _ in range(size):
        left = [place for place in range(len(names)) if place not in taken]
        taken.append(max(left, key=lambda place: (covered([*taken, place]), -place)))
    return [names[place] for place in taken]


@pytest.mark.parametrize(
    "strategy", [each for each in STRATEGIES if each.name != "length_matched"], ids=lambda each: each.name
)
@pytest.mark.parametrize("seed", range(3))
def test_a_strategy_takes_what_its_literal_form_takes(strategy: Strategy, seed: int) -> None:
    """Ties, equal vectors and rows without a score among them; the quick forms cut corners that must not show.

    Of `length_matched`, whose claim is the distribution, there is a test below.
    """
    given, frame = material(seed), scores(seed, {"s03": "not read", "s17": "not read"})
    for ratio in RATIOS:
        wanted = literal(strategy, frame, math.ceil(round(float(ratio) * N, 9)), given)
        assert set(chosen_rows(frame, ratio, (), strategy, given).rows["sample_id"]) == set(wanted)


@EACH
def test_a_subset_has_its_size_and_nobody_who_may_not_be_chosen(strategy: Strategy) -> None:
    """The contract of every strategy: ceil(ratio x N) rows, none twice, with the scores and ranks of the ranking."""
    dropped, reasons = ["s05", "s30", "s31"], {"s03": "not read", "s17": "not read"}
    frame = scores(0, reasons)
    for ratio in RATIOS:
        choice = chosen_rows(frame, ratio, dropped, strategy, material())
        names = choice.rows["sample_id"].to_list()
        assert choice.n_wanted == math.ceil(round(float(ratio) * (N - 3), 9))
        assert len(names) == len(set(names)) == min(choice.n_wanted, N - 5)
        assert not set(names) & {*dropped, *reasons}
        assert choice.rows["rank"].is_sorted()
        assert choice.rows.join(frame, on=["sample_id", "score", "rank"], how="semi").equals(choice.rows)


@EACH
def test_smaller_subsets_lie_in_larger_ones_where_it_is_claimed(strategy: Strategy) -> None:
    """And the one strategy of which it is not claimed has a case where it does not hold."""
    contained = []
    for seed in range(5):
        sizes = [f"{percent / 100:.2f}" for percent in range(1, 101, 3)]
        found = [
            set(chosen_rows(scores(seed), ratio, (), strategy, material(seed)).rows["sample_id"]) for ratio in sizes
        ]
        contained += [small <= large for small, large in itertools.pairwise(found)]
    assert all(contained) == (strategy.name not in NOT_CONTAINED)


@EACH
def test_the_order_of_the_table_decides_nothing(strategy: Strategy) -> None:
    """DuckDB promises none."""
    frame = scores()
    one, other = (chosen_rows(each, "0.35", (), strategy, material()).rows for each in (frame, frame.reverse()))
    assert one.equals(other)


def a_loud_and_a_quiet_one() -> pl.DataFrame:
    """Scores for `all` of a capability that is sure of its rows, and of one that is not: their mean is the first's."""
    order = np.arange(N)
    by_capability = {"loud": order / N, "quiet": 0.01 * (order[::-1] / N)}
    return ranked(NAMES, np.mean(list(by_capability.values()), axis=0), by_capability=by_capability)


def test_the_loud_capability_does_not_take_all_of_the_comprehensive_subset(make_recipe: MakeRecipe) -> None:
    """Once one capability had 68 % of it and another none. The mean is still there for who asks."""
    scores, n = a_loud_and_a_quiet_one(), 12
    own = {"loud": set(NAMES[-n:]), "quiet": set(NAMES[:n])}

    def shared(selection: dict[str, Any], method: str = "nait") -> dict[str, int]:
        strategy = make_recipe(methods=["nait", "length_long"], selection=selection).strategy_of(method, "all")
        chosen = set(chosen_rows(scores, "0.20", (), strategy).rows["sample_id"])
        return {name: len(rows & chosen) for name, rows in own.items()}

    in_turns, by_score = {"loud": 6, "quiet": 6}, {"loud": 12, "quiet": 0}
    assert shared({}) == in_turns
    assert shared({"of": "judged"}) == in_turns
    assert shared({"strategy": "diverse", "by_method": {"nait": {"all": "turns"}}}) == in_turns
    assert shared({"all": "top"}) == by_score
    assert shared({"strategy": "top"}) == by_score, "what a user sets for all targets is for this one too"
    assert shared({"by_method": {"nait": {"strategy": "top"}}}) == by_score
    assert shared({}, "length_long") == by_score, "a method that does not look at the target has no turns"
    chosen = chosen_rows(scores, "0.20", (), Strategy(strategy="round_robin_targets")).rows["sample_id"]
    assert rows_by_turn(scores, chosen, ["loud", "quiet"]) == in_turns
    assert rows_by_turn(scores, NAMES[:1], ["loud", "quiet"]) == {"loud": 0, "quiet": 1}


def test_a_capability_has_the_best_rows_whatever_is_chosen_for_all(make_recipe: MakeRecipe) -> None:
    """Turns are of targets together; and what is read for one target is of the others no business."""
    for selection in ({}, {"all": "turns"}, {"all": "top"}):
        recipe = make_recipe(methods=["nait"], selection=selection)
        assert recipe.strategy_of("nait", "math").settings == {"strategy": "top"}
    assert make_recipe(selection={"strategy": "union"}).strategy_of("nait", "all").name == "union"


def test_the_order_of_a_strategy_is_what_a_forecast_has_to_rank_by() -> None:
    """Rows that the mean puts last may be taken second."""
    frame = a_loud_and_a_quiet_one()
    ordered = in_order(frame, Strategy(strategy="round_robin_targets")).sort("rank")
    assert ordered["sample_id"].to_list()[:4] == [NAMES[-1], NAMES[0], NAMES[-2], NAMES[1]]
    assert ordered["rank"].to_list() == list(range(1, N + 1))
    assert in_order(frame, Strategy()).equals(frame)
    assert in_order(frame, Strategy(strategy="facility_location")).equals(frame)
    without = ranked(NAMES[:2], np.array([2.0, 1.0]), {"z": "not read"})
    assert in_order(without, Strategy(strategy="median"))["rank"].to_list() == [1, 2, None]


@EACH
def test_no_row_below_the_lowest_score_is_chosen_and_the_subset_says_that_it_is_smaller(strategy: Strategy) -> None:
    """By no strategy, also not to fill a subset up."""
    frame = scores(0, {"s03": "not read"})
    lowest = float(frame["score"].drop_nulls().sort()[-10])
    n_enough = int((frame["score"].drop_nulls() >= lowest).sum())
    bounded = strategy.model_copy(update={"min_score": lowest})
    choice = chosen_rows(frame, "0.35", (), bounded, material())
    assert (len(choice.rows), choice.n_wanted, choice.n_too_low) == (n_enough, 21, N - 1 - n_enough)
    assert choice.rows["score"].min() == lowest
    assert bounded.settings == {**strategy.settings, "min_score": lowest}
    said = sentence(bounded, "0.35", choice)
    assert f"21 rows were asked for, and only {n_enough} have a score of {lowest:g} or more" in said
    assert len(chosen_rows(frame, "0.10", (), bounded, material()).rows) == 6, "enough rows are above it"
    nobody = chosen_rows(frame, "0.35", (), strategy.model_copy(update={"min_score": 1e9}), material())
    assert len(nobody.rows) == 0


@EACH
def test_a_budget_takes_the_beginning_of_what_would_be_chosen(strategy: Strategy) -> None:
    """In the order of the strategy, to the last row that fits; rows whose tokens nobody counted are left out."""
    frame, of = scores(), {name: 10 + place % 7 for place, name in enumerate(NAMES[2:])}
    counted = frame.filter(pl.col("sample_id").is_in(list(of)))

    def chosen(tokens: int, ratio: str = "0.35") -> Any:
        return chosen_rows(frame, ratio, (), strategy, material(), Budget(tokens, of))

    whole = chosen(10**6)
    assert (whole.is_cut, len(whole.rows), whole.n_wanted) == (False, 21, 21)
    assert not set(whole.rows["sample_id"]) & set(NAMES[:2])
    assert whole.n_tokens == sum(of[name] for name in whole.rows["sample_id"])
    cut, smaller = chosen(150), chosen(80)
    assert cut.is_cut
    for choice, tokens in ((cut, 150), (smaller, 80)):
        assert choice.n_tokens == sum(of[name] for name in choice.rows["sample_id"])
        assert tokens - max(of.values()) < choice.n_tokens <= tokens
    assert set(smaller.rows["sample_id"]) <= set(cut.rows["sample_id"]) <= set(whole.rows["sample_id"])
    if strategy.name == "top":
        assert cut.rows["sample_id"].to_list() == counted.sort("rank")["sample_id"].to_list()[: len(cut.rows)]
    said = f"The budget of tokens ends it at {len(cut.rows)} of 21 rows, with {cut.n_tokens} tokens"
    assert said in sentence(strategy, "0.35", cut)
    assert (len(chosen(1).rows), chosen(1).n_tokens) == (0, 0)


@EACH
def test_a_ranking_without_a_single_score_gives_an_empty_subset(strategy: Strategy) -> None:
    """Rather than an error from the depths, or rows that nobody scored."""
    frame = ranked([], np.empty(0), dict.fromkeys(NAMES, "not read"))
    choice = chosen_rows(frame, "0.10", (), strategy, material())
    assert (len(choice.rows), choice.n_wanted, choice.n_filled_up) == (0, 6, 0)


def test_every_strategy_of_the_recipe_is_tried_here() -> None:
    """A strategy that a recipe can name and no test has run would be an unchecked promise."""
    assert {strategy.name for strategy in STRATEGIES} == set(StrategyName.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", ["round_robin_examples", "round_robin_targets", "union"])
def test_where_there_are_no_turns_the_ranks_decide(strategy: StrategyName) -> None:
    """Of a method without scores by example, and of one capability, the strategy is plain top-k, as documented."""
    frame = ranked(NAMES, np.random.default_rng(0).normal(size=N))
    assert chosen_rows(frame, "0.35", (), Strategy(strategy=strategy)).rows.equals(chosen_rows(frame, "0.35").rows)


def test_capabilities_take_turns_whatever_the_scale_of_their_scores() -> None:
    """Here the second capability's scores are ten times the first's, and the mean follows it alone."""
    by_capability = np.array([[0.9, 10.0], [0.8, 20.0], [0.1, 90.0], [0.2, 80.0], [0.3, 70.0], [0.7, 0.0]])
    frame = ranked(
        list("abcdef"), by_capability.mean(axis=1), by_capability=dict(zip("ab", by_capability.T, strict=True))
    )
    take = [chosen_rows(frame, "0.66", (), Strategy(strategy=name)).rows for name in ("top", "round_robin_targets")]
    assert [set(rows["sample_id"]) for rows in take] == [set("cdeb"), set("acbd")]


def test_a_union_is_the_tops_of_the_smallest_depth_that_has_enough_rows() -> None:
    """Against sets that are grown one depth at a time; the last depth is cut by the rank in `all`."""
    for seed in range(5):
        by_capability = np.random.default_rng(seed).normal(size=(N, 3))
        own = {str(place): column for place, column in enumerate(by_capability.T)}
        frame = ranked(NAMES, by_capability.mean(axis=1), by_capability=own)
        order = [[NAMES[place] for place in np.argsort(-column)] for column in by_capability.T]
        for ratio in RATIOS:
            rows = set(chosen_rows(frame, ratio, (), Strategy(strategy="union")).rows["sample_id"])
            tops = [{name for column in order for name in column[:depth]} for depth in range(N + 1)]
            depth = next(depth for depth, top in enumerate(tops) if len(top) >= len(rows))
            assert tops[depth - 1] <= rows <= tops[depth]


@pytest.mark.parametrize("n_bins", [2, 4, 7])
@pytest.mark.parametrize("seed", range(3))
def test_lengths_are_those_of_the_pool_within_one_row_a_bin(n_bins: int, seed: int) -> None:
    """At every size, with many equal lengths and so bins of unequal size; and each bin gives its best rows."""
    lengths = np.random.default_rng(seed).geometric(0.15, N)
    ends = sorted({sorted(lengths)[math.ceil(N * part / n_bins) - 1] for part in range(1, n_bins)})
    bins = [sum(length > end for end in ends) for length in lengths]
    of_pool = Counter(bins)
    order = length_matched(lengths, n_bins, N).tolist()
    assert sorted(order) == list(range(N))
    for size in range(1, N + 1):
        taken = order[:size]
        of_subset = Counter(bins[place] for place in taken)
        assert length_matched(lengths, n_bins, size).tolist() == taken
        for one in of_pool:
            assert abs(of_subset[one] - size * of_pool[one] / N) < 1
            best = [place for place in range(N) if bins[place] == one][: of_subset[one]]
            assert {place for place in taken if bins[place] == one} == set(best)


def test_lengths_that_are_all_equal_are_one_bin() -> None:
    """Then the strategy is top-k."""
    assert length_matched(np.full(9, 5), 4, 3).tolist() == [0, 1, 2]


def test_rows_that_are_alike_fill_up_what_is_left() -> None:
    """Two texts, ten times each: a diverse subset of five has one of each, and then the best of the rest."""
    vectors = np.repeat(np.eye(2), 10, axis=0).tolist()
    names = NAMES[:20]
    given = Material(vectors=measurement_vectors(pl.DataFrame({"sample_id": names, "vector": vectors}), "vector"))
    frame = ranked(names, -np.arange(20.0))
    choice = chosen_rows(frame, "0.25", (), Strategy(strategy="diverse"), given)
    assert choice.rows["sample_id"].to_list() == ["s00", "s01", "s02", "s03", "s10"]
    assert choice.n_filled_up == 3
    assert "3 rows of the best ranks fill it up" in sentence(Strategy(strategy="diverse"), "0.25", choice)


@pytest.mark.parametrize("strategy", ["diverse", "facility_location"])
def test_a_candidate_without_a_vector_is_only_taken_to_fill_up(strategy: StrategyName) -> None:
    """Nothing is known of what it is like, and nothing is invented."""
    given, frame = material(), ranked(NAMES, -np.arange(float(N)))
    assert given.vectors is not None
    places = {name: place for name, place in given.vectors.places.items() if name != "s00"}
    without = Material(vectors=type(given.vectors)(places, given.vectors.rows))
    assert "s00" not in chosen_rows(frame, "0.10", (), Strategy(strategy=strategy), without).rows["sample_id"]
    whole = chosen_rows(frame, "1.00", (), Strategy(strategy=strategy), without)
    assert (len(whole.rows), whole.n_filled_up >= 1) == (N, True)


def test_blocks_and_held_cosines_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of ten thousand rows goes through the same code in many blocks, and holds no table of all cosines."""
    vectors = material().vectors
    assert vectors is not None
    ground = vectors.of(NAMES)
    wanted = diverse(ground, 0.5, 20).tolist(), facility_location(ground, 20).tolist()
    for module in (choice_module.diverse.__globals__, coverage.__dict__):
        monkeypatch.setitem(module, "BLOCK", 7)
    monkeypatch.setitem(choice_module.diverse.__globals__, "PART", 3)
    monkeypatch.setattr(coverage, "MOST_HELD", 0)
    assert (diverse(ground, 0.5, 20).tolist(), facility_location(ground, 20).tolist()) == wanted


def pool_of(*texts: str) -> pl.DataFrame:
    """Candidates that say these texts, under the same system message."""
    rows = [
        {
            "sample_id": f"c{number}",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}],
            "source": "pool.jsonl",
            "source_row": number,
            "topic": None,
        }
        for number, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=CANDIDATE_POOL.columns)


def test_texts_are_alike_by_the_words_that_they_share_and_others_lack() -> None:
    """Against TF-IDF by dictionaries in float64, in a spaced and an unspaced script; the template's words are none."""
    texts = ["The cat sat, the cat!", "the CAT ran", "数学问题", "数学题目", "", "zebra"]
    words = [
        ["the", "cat", "sat", "the", "cat"],
        ["the", "cat", "ran"],
        list("数学问题"),
        list("数学题目"),
        [],
        ["zebra"],
    ]
    n_with = Counter(word for said in words for word in set(said))
    rows = []
    for said in words:
        row = {w: (1 + math.log(n)) * (1 + math.log(7 / (1 + n_with[w]))) for w, n in Counter(said).items()}
        length = math.sqrt(sum(value**2 for value in row.values())) or 1
        rows.append({word: value / length for word, value in row.items()})
    wanted = [[sum(value * other.get(word, 0) for word, value in row.items()) for other in rows] for row in rows]
    found = text_vectors(pool_of(*texts)).of([f"c{number}" for number in range(6)]).cosines(range(6))
    np.testing.assert_allclose(found / 1e6, wanted, atol=2e-6)
    assert found[4].tolist() == [0] * 6


def test_vectors_are_compared_by_direction_alone() -> None:
    """Measurements do not promise unit length; a zero vector is like nothing, not even itself."""
    frame = pl.DataFrame({"sample_id": ["a", "b", "c"], "vector": [[2.0, 0.0], [5.0, 5.0], [0.0, 0.0]]})
    found = measurement_vectors(frame, "vector").of(["b", "a", "c"]).cosines([0, 1, 2])
    assert found.tolist() == [[1_000_000, 707_107, 0], [707_107, 1_000_000, 0], [0, 0, 0]]


def test_a_candidate_that_is_like_none_covers_itself_alone() -> None:
    """Negative cosines count as none: a row must not be taken for being unlike others."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
    assert facility_location(Ground(rows), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({"min_score": float("nan")}, r"selection\.min_score: .*finite"),
        ({"by_method": {"nait": {"min_score": "high"}}}, r"selection\.by_method\.nait\.min_score: .*number"),
        ({"tokens": 0}, r"selection\.tokens: .*greater than or equal to 1"),
        ({"all": "union"}, r"selection\.all: Input should be 'turns' or 'top'"),
        ({"strategy": "best"}, r"selection\.strategy: Input should be 'top'"),
        ({"similarity_limit": 0.9}, "`similarity_limit` is a field of the strategy diverse, not of top; take it out"),
        ({"strategy": "median", "by": "text"}, "`by` is a field of the strategy diverse or facility_location, not of"),
        ({"strategy": "diverse", "n_bins": 4}, "`n_bins` is a field of the strategy length_matched, not of diverse"),
        ({"strategy": "diverse", "similarity_limit": 1.0}, r"selection\.similarity_limit: .*less than 1"),
        ({"strategy": "diverse", "by": "Text!"}, r"selection\.by: .*\(got 'Text!'\)"),
        ({"strategy": "facility_location", "pool_factor": 1}, r"selection\.pool_factor: .*greater than or equal to 2"),
        ({"strategy": "length_matched", "n_bins": 1}, r"selection\.n_bins: .*greater than or equal to 2"),
        ({"by_method": {"nait": {"n_bins": 3}}}, r"selection\.by_method\.nait: `n_bins` is a field of"),
        ({"by_method": {"less": {"strategy": "union"}}}, "'less' is not among the recipe's methods, nait, random"),
        ({"stratgy": "union"}, r"selection\.stratgy: unknown field; did you mean 'strategy'\?"),
    ],
)
def test_a_contradiction_is_refused_when_the_recipe_is_loaded(
    make_recipe: MakeRecipe, selection: dict[str, Any], said: str
) -> None:
    """A field that the strategy ignores would let a user believe that it had an effect."""
    with pytest.raises(RecipeError, match=said):
        make_recipe(methods=["nait", "random"], selection=selection)


def test_tokens_that_nothing_counts_are_refused(make_recipe: MakeRecipe) -> None:
    """Before anything is made, with what would count them."""
    with pytest.raises(RecipeError, match="no method of the recipe has it do so; add one, such as 'nait_st"):
        make_recipe(methods=["bm25"], selection={"tokens": 1000})


def test_the_lowest_score_is_also_of_the_target_all(make_recipe: MakeRecipe) -> None:
    """Of one method in place of the others' as a whole, as any field of a strategy."""
    own = {"nait": {"min_score": 0.5}}
    recipe = make_recipe(methods=["nait", "bm25"], selection={"min_score": 0.1, "by_method": own})
    found = {(m, t): recipe.strategy_of(m, t).settings for m in ("nait", "bm25") for t in ("math", "all")}
    assert {key: settings["min_score"] for key, settings in found.items()} == {
        ("nait", "math"): 0.5,
        ("nait", "all"): 0.5,
        ("bm25", "math"): 0.1,
        ("bm25", "all"): 0.1,
    }


def test_an_unknown_reading_is_refused_with_those_that_there_are() -> None:
    """Before anything is made: the definitions cannot be built."""
    with pytest.raises(RecipeError, match=r"by: 'nowhere' names no measurement with vectors; there are text"):
        measurement_of("nowhere")


def test_defaults_written_out_are_the_same_strategy(make_recipe: MakeRecipe) -> None:
    """Else whoever writes a default down makes every subset anew."""
    short, long = ({"strategy": "diverse"}, {"strategy": "diverse", "similarity_limit": 0.9, "by": "text"})
    one, other = (make_recipe(selection=fields).strategy_of("nait", "math").settings for fields in (short, long))
    assert one == other == {"strategy": "diverse", "similarity_limit": 0.9, "by": "text"}


def test_a_methods_own_strategy_takes_the_place_of_the_common_one(make_recipe: MakeRecipe) -> None:
    """Whole, so that it never depends on a field that stands elsewhere."""
    own = {"random": {"strategy": "length_matched"}}
    recipe = make_recipe(selection={"strategy": "diverse", "similarity_limit": 0.5, "by_method": own})
    assert recipe.strategy_of("random", "math").settings == {"strategy": "length_matched", "n_bins": 10}
    assert recipe.strategy_of("nait", "math").settings["similarity_limit"] == 0.5


@EACH
def test_a_strategy_needs_no_other_columns_than_are_read_for_it(strategy: Strategy) -> None:
    """Subsets read those alone; a column that an order came to need was there in every test but not in a home."""
    frame, given = scores(0, {"s03": "not read"}), material()
    alone = frame.select(columns_read(strategy))
    assert chosen_rows(alone, "0.35", (), strategy, given).rows.equals(
        chosen_rows(frame, "0.35", (), strategy, given).rows
    )
    assert in_order(alone, strategy)["sample_id"].to_list() == in_order(frame, strategy)["sample_id"].to_list()


def test_a_capability_whose_rows_may_not_be_chosen_takes_its_next_ones() -> None:
    """Of a pool with copies of one capability's examples, `all` had none of its rows: every turn was lost on a copy."""
    scores, strategy = a_loud_and_a_quiet_one(), Strategy(strategy="round_robin_targets")
    copies = NAMES[-9:]
    for chosen in (
        chosen_rows(scores, "0.20", copies, strategy),
        chosen_rows(scores.filter(~pl.col("sample_id").is_in(copies)), "0.20", (), strategy),
    ):
        names = chosen.rows["sample_id"].to_list()
        turns = rows_by_turn(scores, names, ["loud", "quiet"])
        assert max(turns.values()) - min(turns.values()) <= 1
        assert set(names) >= set(NAMES[-12:-9]), "the best of those that are left"
    order = [chosen_rows(scores, ratio, copies, strategy).rows["sample_id"].to_list() for ratio in RATIOS]
    assert all(set(small) <= set(large) for small, large in itertools.pairwise(order))
