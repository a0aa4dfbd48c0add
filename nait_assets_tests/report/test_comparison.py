"""The methods side by side: each figure against its definition."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.lineage import Record
from nait_assets.models.cost import Cost, add_cost, all_costs, cost_of
from nait_assets.recipe import Prices
from nait_assets.report.comparison import costs, lengths, overlaps, priced, reproductions, retrieval, retrievals
from nait_assets.resources import Warehouse
from nait_assets.tables import METHOD_COSTS


def scores_of(names: list[str], without: tuple[str, ...] = ()) -> pl.DataFrame:
    """Scores in this order, the best first; some candidates without one."""
    rows = [(name, float(-place), place + 1) for place, name in enumerate(names)] + [
        (one, None, None) for one in without
    ]
    return pl.DataFrame(rows, {"sample_id": pl.String, "score": pl.Float64, "rank": pl.Int64}, orient="row")


def test_what_serves_several_methods_is_counted_for_each_and_named_as_shared() -> None:
    """A method that comes free because another has paid is only free for those who run the other."""
    records = {
        "pool": Record("pool", "", "1", "p"),
        "outputs": Record("outputs", "", "1", "o", {"pool": "p"}),
        "answers": Record("answers", "", "1", "a", {"pool": "p"}),
        "ifd": Record("ifd", "", "1", "i", {"outputs": "o", "answers": "a"}),
        "rds": Record("rds", "", "1", "r", {"outputs": "o"}),
    }
    spent = {
        "outputs": Cost(10, 0, 1000, 0, 5.0),
        "answers": Cost(10, 0, 400, 0, 2.0),
        "ifd": Cost(seconds=0.5),
        "rds": Cost(seconds=0.25),
        "another recipe's": Cost(99, 99, 99, 99, 99.0),
    }
    found = costs(spent, records, {"ifd": ["ifd"], "rds": ["rds"]})
    assert found.rows() == [("ifd", 20, 0, 1400, 0, 7.5, 5.0), ("rds", 10, 0, 1000, 0, 5.25, 5.0)]


def test_costs_of_materializations_add_up(tmp_path: Path) -> None:
    """The second run of an incremental output reads one row; what the output has cost is both."""
    tables = Warehouse(home=str(tmp_path)).tables
    for cost in (Cost(3, 1, 30, 2, 1.5), Cost(1, 0, 10, 0, 0.5)):
        with tables.transaction() as transaction:
            add_cost(transaction, "room/asset", "math", cost)
            add_cost(transaction, "room/asset", "", Cost(1))
    with tables.snapshot() as snapshot:
        assert cost_of(snapshot, "room/asset", "math") == Cost(4, 1, 40, 2, 2.0)
        assert cost_of(snapshot, "room/asset", "code") == Cost()
        assert all_costs(snapshot) == {"room/asset": Cost(2), "room/asset[math]": Cost(4, 1, 40, 2, 2.0)}


def test_overlap_is_of_the_smaller_subset_and_stands_beside_what_chance_gives() -> None:
    """Two random halves share half of their rows: 50 % is nothing to wonder at."""
    subsets = {("a", "math", "0.50"): ["1", "2", "3", "4"], ("b", "math", "0.50"): ["3", "4"]}
    found = overlaps({**subsets, ("a", "code", "0.50"): ["1"], ("b", "code", "0.50"): ["2"]}, 8)
    assert found.rows() == [("code", "0.50", "a", "b", 0.0, 0.125), ("math", "0.50", "a", "b", 1.0, 0.5)]


def test_chance_is_what_random_subsets_share() -> None:
    """The figure beside the overlap, tried out."""
    random = np.random.default_rng(0)
    shared = [len(set(random.choice(40, 10, False)) & set(random.choice(40, 20, False))) / 10 for _ in range(2000)]
    names = [str(number) for number in range(40)]
    subsets = {("a", "t", "r"): names[:10], ("b", "t", "r"): names[:20]}
    assert overlaps(subsets, 40)["by_chance"][0] == pytest.approx(np.mean(shared), abs=0.01)


def test_a_method_that_is_length_has_a_correlation_of_one() -> None:
    """What has no score has no length either, as far as the method is concerned."""
    characters = pl.DataFrame({"sample_id": ["a", "b", "c", "d"], "length": [40, 30, 20, 10]})
    scores = {("long", "math"): scores_of(["a", "b", "c"], ("d",)), ("short", "math"): scores_of(["d", "c", "b", "a"])}
    subsets = {("long", "math", "0.50"): ["a", "b"], ("short", "math", "0.50"): ["d", "c"]}
    assert lengths(scores, subsets, characters).rows() == [
        ("long", "math", "0.50", pytest.approx(1.0), 35.0, 25.0),
        ("short", "math", "0.50", pytest.approx(-1.0), 15.0, 25.0),
    ]


def test_retrieval_is_the_share_of_pairs_in_the_right_order() -> None:
    """The area under the ROC curve by its meaning: a planted row stands before another, ties count half."""
    random = np.random.default_rng(1)
    names = [f"s{number:02}" for number in range(30)]
    topics = {name: "math" if random.random() < 0.3 else "code" for name in names}
    order, without = list(random.permutation(names)[:24]), ()
    without = tuple(sorted(set(names) - set(order)))
    place = {name: order.index(name) if name in order else 99 for name in names}
    wanted = [name for name in names if topics[name] == "math"]
    others = [name for name in names if topics[name] != "math"]
    pairs = [(place[one] < place[two]) + 0.5 * (place[one] == place[two]) for one, two in product(wanted, others)]
    best = [name for name in order[: len(wanted)] if name in wanted]
    found = retrieval(scores_of(order, without), pl.Series(wanted))
    assert found == (pytest.approx(np.mean(pairs)), pytest.approx(len(best) / len(wanted)), len(wanted))


def test_retrieval_is_told_of_capabilities_whose_name_is_a_topic() -> None:
    """Without labels there is nothing to be found, and a table of zeros would say the method is bad."""
    scores = {
        ("m", "math"): scores_of(["a", "b"]),
        ("m", "code"): scores_of(["a", "b"]),
        ("m", "all"): scores_of(["a"]),
    }
    found = retrievals(scores, pl.DataFrame({"sample_id": ["a", "b"], "topic": ["math", None]}), ["math", "code"])
    assert found.rows() == [("m", "math", 1.0, 1.0, 1)]


def test_a_published_choice_is_held_against_chance() -> None:
    """The probability by its definition, as a sum of products of binomial coefficients."""
    names = [f"s{number}" for number in range(12)]
    listed, best = names[:4], [*names[2:6], *names[:2], *names[6:]]
    scores = {
        ("list", "all"): scores_of(listed, tuple(names[4:])),
        ("m", "all"): scores_of(best),
        ("m", "math"): scores_of(names),
    }
    tail = sum(math.comb(4, k) * math.comb(8, 4 - k) for k in (2, 3, 4)) / math.comb(12, 4)
    assert reproductions(scores, ["list"], "all").rows() == [
        ("list", "m", 4, 4, 2, pytest.approx(16 / 12), pytest.approx(tail))
    ]


def test_money_is_time_or_calls_and_scaled_to_a_pool() -> None:
    """A judge is paid by its tokens, everything else by the hour of the machine."""
    rows = [("nait", 10, 0, 5000, 0, 360.0, 0.0), ("judged", 0, 0, 2_000_000, 20, 7200.0, 0.0)]
    costs = pl.DataFrame(rows, schema=METHOD_COSTS.columns, orient="row")
    found = priced(costs, Prices(gpu_hour=2.0, million_tokens=3.0, pool_size=400), 100)
    money = {row["method"]: (row["money"], row["scaled_money"], row["scaled_seconds"]) for row in found.to_dicts()}
    assert money == {"nait": (0.2, 0.8, 1440.0), "judged": (6.0, 24.0, 28800.0)}
    assert set(found["scaled_to"]) == {400}
    assert set(priced(costs, Prices(), 100)["money"]) == {0.0}
