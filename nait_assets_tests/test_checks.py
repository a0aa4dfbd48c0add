"""The checks of every room: all hold on what the project makes, and each fails on what it is there to find.

Every check is broken by tampering with a finished home, as a bug or a person would.
"""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import duckdb
import polars as pl
import pytest

from nait_assets.checks import Check, CheckResult
from nait_assets.corpora import checks as corpora
from nait_assets.extraction import checks as extraction
from nait_assets.features import checks as features
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, Selection
from nait_assets.report import checks as report
from nait_assets.resources import Warehouse
from nait_assets.scoring import checks as scoring
from nait_assets.selection import checks as selection
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import conversation, in_domain_rows, pool_rows, write_jsonl

ROOMS = (corpora, extraction, features, scoring, selection, report)
TABLES, ACTIVATIONS = "warehouse.duckdb", "activations/candidates.duckdb"
MakeRecipe = Callable[..., Recipe]


def results(recipe: Recipe, home: Path, asset: str, partition: str) -> dict[str, tuple[Check, CheckResult]]:
    """What the checks of an asset's partition say of a home as it is, nothing being made."""
    partitions = Partitions.of(recipe)
    built = [checks for room in ROOMS for checks in room.build_checks(recipe, partitions)]
    (checks,) = (checks for checks in built if checks.asset == asset)
    found = checks.execute(Warehouse(home=str(home)), partition)
    return {check.name: (check, found[check.name]) for check in checks.checks}


def edit(home: Path, file: str, statement: str) -> None:
    """One statement in a DuckDB file of a home."""
    with duckdb.connect(str(home / file)) as connection:
        assert connection.execute(statement).fetchall() != [(0,)], "nothing was tampered with"


BROKEN = [
    (
        "corpora/candidate_pool",
        "",
        "ids_are_their_own",
        TABLES,
        "UPDATE corpora.candidate_pool SET sample_id = 'feedbeef' WHERE source_row = 1",
        "1 of 20 ids are not the hash of their content, such as feedbeef; 0 occur twice",
    ),
    (
        "corpora/in_domain_set",
        "math",
        "rows_are_accounted_for",
        TABLES,
        "DELETE FROM corpora.in_domain_set WHERE capability = 'math' AND source_row = 1",
        "n_rows 4, n_examples 3, n_rejected 0, n_duplicates 0, n_unsampled 0, n_excluded 0",
    ),
    (
        "extraction/candidate_activations",
        "",
        "samples_are_accounted_for",
        ACTIVATIONS,
        "DELETE FROM extraction.sample WHERE sample_id = (SELECT min(sample_id) FROM extraction.sample)",
        "1 examples were neither read nor rejected",
    ),
    (
        "extraction/candidate_activations",
        "",
        "every_layer_is_there",
        ACTIVATIONS,
        "DELETE FROM extraction.activation WHERE layer = 1 "
        "AND sample_id = (SELECT min(sample_id) FROM extraction.sample)",
        "lack a row of a layer",
    ),
    (
        "extraction/candidate_activations",
        "",
        "activations_are_finite",
        ACTIVATIONS,
        "UPDATE extraction.activation SET activation = list_concat(['nan'::FLOAT], activation[2:])::FLOAT[48] "
        "WHERE layer = 1 AND sample_id = (SELECT min(sample_id) FROM extraction.sample)",
        "hold NaN or infinity",
    ),
    (
        "extraction/in_domain_activations",
        "math",
        "activations_are_as_written",
        "activations/in_domain/math.duckdb",
        "UPDATE extraction.activation SET last_token_activation = first_token_activation WHERE layer = 0",
        "have changed since they were written",
    ),
    (
        "features/neuron_statistics",
        "",
        "statistics_are_finite",
        TABLES,
        "UPDATE features.neuron_statistics SET standard_deviation = list_transform(standard_deviation, lambda x: -x) "
        "WHERE layer = 1",
        "broken layers: [1]",
    ),
    (
        "features/nait_directions",
        "math",
        "directions_have_unit_norm",
        TABLES,
        "UPDATE features.nait_directions SET direction = list_transform(direction, lambda x: x * 2) "
        "WHERE capability = 'math'",
        "the norms differ from 1 by at most 1.0e+00",
    ),
    (
        "features/nait_directions",
        "math",
        "directions_follow_the_mean_change",
        TABLES,
        "UPDATE features.nait_directions SET direction = list_transform(direction, lambda x: -x) "
        "WHERE capability = 'math' AND layer = 1",
        "layers that point the other way: [1]",
    ),
    (
        "features/standardized_centroids",
        "math",
        "centroids_are_finite",
        TABLES,
        "UPDATE features.standardized_centroids SET centroid = list_transform(centroid, lambda x: 'inf'::FLOAT) "
        "WHERE capability = 'math'",
        "the norm is inf",
    ),
    (
        "scoring/nait_scores",
        "math",
        "ids_are_the_candidates",
        TABLES,
        "UPDATE scoring.nait_scores SET sample_id = 'feedbeef' WHERE target = 'math' AND rank = 2",
        "1 candidates have no score, 1 scores belong to no candidate, 0 occur twice",
    ),
    (
        "scoring/nait_scores",
        "math",
        "ranks_follow_the_scores",
        TABLES,
        "UPDATE scoring.nait_scores SET rank = 3 - rank WHERE target = 'math' AND rank < 3",
        "out of order",
    ),
    (
        "scoring/nait_scores",
        "math",
        "ranks_follow_the_scores",
        TABLES,
        "UPDATE scoring.nait_scores SET score = 'nan' WHERE target = 'math' AND rank = 20",
        "a score is NaN or infinite",
    ),
    (
        "scoring/nait_scores",
        "math",
        "scores_differ",
        TABLES,
        "UPDATE scoring.nait_scores SET score = 0 WHERE target = 'math'",
        "1 different scores of 20",
    ),
    (
        "selection/nait_subset",
        "math|0.30",
        "rows_are_those_chosen",
        TABLES,
        "DELETE FROM selection.subsets WHERE method = 'nait' AND target = 'math' AND rank = 6",
        "5 rows, of which 5 are among the 6 that `top` chooses from 20 candidates",
    ),
    (
        "selection/nait_subset",
        "math|0.30",
        "files_match_the_manifest",
        TABLES,
        "UPDATE selection.subsets SET score = 0 WHERE method = 'nait' AND target = 'math' AND rank = 6",
        "the rows in selection.subsets are not those of",
    ),
]


@pytest.mark.parametrize(("asset", "partition"), dict.fromkeys(row[:2] for row in BROKEN))
def test_what_the_project_makes_passes(recipe: Recipe, home: Path, asset: str, partition: str) -> None:
    """Blocking checks that fail on good data stop everybody's work. A warning may well be right here: it is noise."""
    found = results(recipe, home, asset, partition)
    assert [name for name, (check_, verdict) in found.items() if not verdict.passed and check_.blocking] == []


@pytest.mark.parametrize(
    ("asset", "partition", "check", "file", "statement", "says"), BROKEN, ids=[f"{row[0]} {row[2]}" for row in BROKEN]
)
def test_a_claim_that_does_not_hold_fails_its_check(
    recipe: Recipe, home: Path, asset: str, partition: str, check: str, file: str, statement: str, says: str
) -> None:
    """And says what it found. A check that cannot fail is worse than none."""
    edit(home, file, statement)
    check_, verdict = results(recipe, home, asset, partition)[check]
    assert (check_.blocking, verdict.passed) == (True, False)
    assert says in verdict.description


def test_a_changed_file_fails_the_check_of_the_subset(recipe: Recipe, home: Path) -> None:
    """Somebody edits a training file in place."""
    file = home / "subsets" / "nait" / "math" / "0.30" / "train.jsonl"
    file.write_text(file.read_text() + "\n")
    _, verdict = results(recipe, home, "selection/nait_subset", "math|0.30")["files_match_the_manifest"]
    assert (verdict.passed, "train.jsonl" in verdict.description) == (False, True)


def test_a_smaller_subset_that_is_not_contained_fails_its_check(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Whoever trains on 10 % and then on 30 % expects to add rows, not to exchange them."""
    recipe, home = make_recipe(methods=["random"], ratios=[0.1, 0.3]), quick_home(tmp_path / "home")
    run(recipe, home)
    worst = "(SELECT sample_id FROM scoring.random_scores WHERE target = 'math' AND rank = 20)"
    edit(
        home,
        TABLES,
        f"UPDATE selection.subsets SET sample_id = {worst} WHERE ratio = '0.10' AND target = 'math' AND rank = 1",
    )
    _, verdict = results(recipe, home, "selection/random_subset", "math|0.30")["smaller_ratios_are_contained"]
    assert (verdict.passed, verdict.description) == (False, "compared 0.10, 0.30; not contained: 0.10 in 0.30")


def test_capabilities_that_choose_the_same_rows_are_a_warning(recipe: Recipe, home: Path) -> None:
    """The sign of a method that is governed by something else than the capability."""
    edit(home, TABLES, "DELETE FROM selection.subsets WHERE method = 'nait' AND target = 'code'")
    edit(
        home,
        TABLES,
        "INSERT INTO selection.subsets SELECT method, 'code', ratio, sample_id, score, rank FROM selection.subsets "
        "WHERE method = 'nait' AND target = 'math'",
    )
    check_, verdict = results(recipe, home, "report/method_comparison", "")["targets_differ"]
    assert (check_.blocking, verdict.passed) == (False, False)
    said = "code and math of nait at 0.30 are closest: 100% of the rows are the same, +1.00 beyond chance"
    assert verdict.description == said


@pytest.mark.parametrize(
    ("scores", "lengths", "correlation"),
    [
        ([1.0, 2.0, 3.0, 4.0], [10, 20, 30, 4000], 1.0),
        ([1.0, 2.0, 3.0, 4.0], [4, 3, 2, 1], -1.0),
        ([1.0, 2.0, 3.0, 4.0], [2, 1, 4, 3], 0.6),
        ([1.0, 1.0, 1.0], [1, 2, 3], 0.0),
        ([1.0], [1], 0.0),
    ],
)
def test_the_correlation_with_length_is_one_of_ranks(
    scores: list[float], lengths: list[int], correlation: float
) -> None:
    """One example of four thousand tokens must not decide it."""
    assert scoring.rank_correlation(pl.DataFrame({"score": scores, "length": lengths})) == pytest.approx(correlation)


def test_scores_that_are_lengths_are_a_warning(recipe: Recipe, home: Path) -> None:
    """The commonest artefact of such methods; a person decides, so nothing is blocked."""
    edit(
        home,
        TABLES,
        f"ATTACH '{home / ACTIVATIONS}' AS other (READ_ONLY); UPDATE scoring.nait_scores SET score = -n_tokens "
        "FROM other.extraction.sample AS s WHERE s.sample_id = nait_scores.sample_id",
    )
    check_, verdict = results(recipe, home, "scoring/nait_scores", "math")["length_is_not_the_score"]
    assert (check_.blocking, verdict.passed) == (False, False)
    assert verdict.description == "rank correlation with the number of tokens: -1.000"


@pytest.mark.parametrize(("by_chance", "passed"), [(9.0, False), (-9.0, True)])
def test_rows_that_score_no_more_than_chance_are_a_warning(
    recipe: Recipe, home: Path, by_chance: float, passed: bool
) -> None:
    """A subset of 30 % has 30 % of the pool, however few rows fit. Not of methods for which chance is not defined."""
    edit(home, TABLES, f"UPDATE scoring.thresholds SET by_chance = {by_chance} WHERE target = 'math'")
    check_, verdict = results(recipe, home, "selection/nait_standardized_subset", "math|0.30")[
        "scores_are_above_chance"
    ]
    assert (check_.blocking, verdict.passed) == (False, passed)
    n_below = 0 if passed else 6
    assert verdict.description.startswith(f"{n_below} of 6 rows score below {by_chance:g}, which 5 % of candidates")
    assert verdict.metadata["n_below_chance"] == n_below
    for method in ("nait", "random"):
        assert "scores_are_above_chance" not in results(recipe, home, f"selection/{method}_subset", "math|0.30")


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(tokens=1), "no rows of 6: the first one has more tokens than `selection.tokens`"),
        (Selection(min_score=9), "no rows of 6: no candidate that may be chosen has a score, as 20 are below"),
    ],
)
def test_a_subset_without_rows_is_a_warning_that_says_what_left_none(
    recipe: Recipe, home: Path, selection: Selection, said: str
) -> None:
    """A budget smaller than the first row made every subset empty, and the run ended as if all were well."""
    edit(home, TABLES, "DELETE FROM selection.subsets WHERE method = 'nait_standardized' AND target = 'math'")
    frugal = recipe.model_copy(update={"selection": selection})
    found = results(frugal, home, "selection/nait_standardized_subset", "math|0.30")
    check_, verdict = found["has_rows"]
    assert (check_.blocking, verdict.passed) == (False, False)
    assert verdict.description.startswith(said)
    assert found["rows_are_those_chosen"][1].passed
    assert results(recipe, home, "selection/nait_standardized_subset", "code|0.30")["has_rows"][1].passed


def test_a_failed_blocking_check_stops_the_run_and_is_remembered(
    recipe: Recipe, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing may rest on it: not in the same run, and not in the next."""
    from nait_assets.conversation import Conversation, conversations_of

    write_jsonl(tmp_path / "pool.jsonl", pool_rows(21))
    empty = Conversation(())
    monkeypatch.setattr(corpora, "conversations_of", lambda rows: [(name, empty) for name in rows["sample_id"]])
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 1
    assert (
        "check failed: corpora/candidate_pool, ids_are_their_own: 21 of 21 ids are not the hash of their content"
        in answer.out
    )
    assert "candidate_activations" not in answer.out
    assert "corpora/candidate_pool: a blocking check failed" in answer.err
    answer = nait("status", "--recipe", recipe.path, "--home", home)
    assert answer.code == 3
    assert "its check ids_are_their_own failed" in answer.out
    monkeypatch.setattr(corpora, "conversations_of", conversations_of)
    assert "extraction/candidate_activations" in run(recipe, home)
    assert nait("status", "--recipe", recipe.path, "--home", home).code == 0


@pytest.mark.parametrize("place", ["nait_assets.corpora.checks.conversations_of", "nait_assets.lineage.result"])
def test_an_output_whose_checks_did_not_end_is_made_again(
    recipe: Recipe, home: Path, tmp_path: Path, place: str
) -> None:
    """The process ended behind the output: in its checks, or before Dagster was told of it."""
    write_jsonl(tmp_path / "pool.jsonl", pool_rows(21))
    write_jsonl(tmp_path / "math.jsonl", in_domain_rows("math")[:-1])
    changed = {"corpora/candidate_pool", "corpora/in_domain_set[math]"}
    before = {name: Warehouse(home=str(home)).records()[name].data_version for name in changed}
    with mock.patch(place, side_effect=RuntimeError("the process ends")):
        assert nait("run", "--recipe", recipe.path, "--home", home).code == 1
    answer = nait("status", "--recipe", recipe.path, "--home", home)
    assert answer.code == 3
    assert "its check ids_are_their_own did not end" in answer.out
    after = Warehouse(home=str(home)).records()
    assert all(after[name].data_version != before[name] for name in changed), "nothing was stored"
    assert changed <= run(recipe, home)
    assert nait("status", "--recipe", recipe.path, "--home", home).code == 0


HELD_OUT = "the cat sat on a mat while two dogs add three numbers and print sum of list"


def contaminated_recipe(make_recipe: MakeRecipe, folder: Path, action: str) -> Recipe:
    """A pool in which one row quotes a held-out example, and one equals an in-domain example's question."""
    rows = [
        *pool_rows(18),
        conversation("tell me a story", f"well: {HELD_OUT.upper()}, and so on"),
        conversation("  Math EXAMPLE 2 ", "another answer"),
    ]
    write_jsonl(folder / "pool.jsonl", rows)
    write_jsonl(folder / "math.jsonl", in_domain_rows("math"))
    write_jsonl(folder / "exam.jsonl", [conversation("what happened?", HELD_OUT)])
    return make_recipe(
        methods=["random"],
        ratios=[0.9, 1.0],
        candidates={"source": "pool.jsonl"},
        evaluation={"held_out": {"exam": {"source": "exam.jsonl"}}},
        decontamination={"action": action},
    )


def test_rows_that_give_examples_away_are_listed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A benchmark result after training on its questions is worth nothing, so the rows are named."""
    recipe, home = contaminated_recipe(make_recipe, tmp_path, "report"), quick_home(tmp_path / "home")
    run(recipe, home)
    check_, verdict = results(recipe, home, "selection/random_subset", "math|1.00")["leaks_no_example"]
    assert (check_.blocking, verdict.passed) == (False, False)
    assert verdict.description == "2 of 20 rows leak an example of evaluation/exam, math"
    rows = {record.data["corpus"]: record.data for record in verdict.metadata["offending_rows"].records}
    assert rows["evaluation/exam"]["match"] == "13-gram"
    assert rows["math"]["match"] == "equal"
    assert rows["evaluation/exam"]["shared_text"] == " ".join(HELD_OUT.split()[:13])


def test_rows_that_give_examples_away_are_dropped_if_the_recipe_says_so(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """The size is a share of what may be taken, and the check, now blocking, holds."""
    recipe, home = contaminated_recipe(make_recipe, tmp_path, "drop"), quick_home(tmp_path / "home")
    run(recipe, home)
    for partition, size in (("math|1.00", 18), ("math|0.90", 17)):
        found = results(recipe, home, "selection/random_subset", partition)
        assert all(verdict.passed for _, verdict in found.values())
        assert found["rows_are_those_chosen"][1].metadata["n_rows"] == size
        assert found["leaks_no_example"][0].blocking
