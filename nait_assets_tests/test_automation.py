"""The automation condition, by real ticks on an instance in memory; versions are reported instead of computed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.events import DagsterEvent, DagsterEventType

from nait_assets.definitions import build_definitions
from nait_assets.lineage import reference
from nait_assets.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
METHODS = ["nait_standardized"]  # a tick looks at every asset: with a second method it takes half as long again
BOTH: dict[str, Any] = {"methods": ["nait", "nait_standardized"]}
CAPABILITIES = ("code", "math")
FIELDS: dict[str, Any] = {"methods": METHODS, "ratios": [0.3]}
MATH_ALONE = {"capabilities": {"math": {"source": "math.jsonl"}}}

POOL, MATH = "corpora/candidate_pool", "corpora/in_domain_set[math]"
CONTAMINATED = "corpora/contaminated_candidates"
REPORT = {"report/method_comparison", "report/selection_report"}
READ_POOL, READ_MATH = "extraction/candidate_activations", "extraction/in_domain_activations[math]"


def named(key: dg.AssetKey, partition: str | None) -> str:
    return reference("/".join(key.path), partition)


def key_and_partition(name: str) -> tuple[dg.AssetKey, str | None]:
    asset, _, partition = name.rstrip("]").partition("[")
    return dg.AssetKey(asset.split("/")), partition or None


@dataclass
class Automation:
    """Dagster's daemon in small: ticks, and what each of them requests is made at once.

    Attributes:
        instance: In memory.
        defs: Replaced where the code location is loaded again.
        unchanged: Outputs that have the same content whenever they are made; all others have new content.
    """

    instance: dg.DagsterInstance
    defs: dg.Definitions
    unchanged: set[str] = field(default_factory=lambda: {CONTAMINATED})
    _cursor: Any = None
    _n_made: int = 0

    def tick(self) -> list[str]:
        """What one tick requests."""
        result = dg.evaluate_automation_conditions(defs=self.defs, instance=self.instance, cursor=self._cursor)
        self._cursor = result.cursor
        keys = self.defs.resolve_asset_graph().get_all_asset_keys()
        return sorted(named(key, partition) for key in keys for partition in result.get_requested_partitions(key))

    def make(self, *names: str) -> None:
        """Report outputs as materialized."""
        for name in names:
            self._n_made += 1
            key, partition = key_and_partition(name)
            tags = {"dagster/data_version": "same" if name in self.unchanged else str(self._n_made)}
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, tags=tags))

    def make_everything(self) -> None:
        """The first load, which a person requests."""
        graph = self.defs.resolve_asset_graph()
        for key in graph.toposorted_asset_keys:
            definition = graph.get(key).partitions_def
            for partition in definition.get_partition_keys() if definition else [None]:
                self.make(named(key, partition))

    def begin(self, name: str) -> dg.DagsterRun:
        """A run of one output that has begun; the output is in progress until the run ends."""
        key, partition = key_and_partition(name)
        return self.instance.create_run_for_job(
            self.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={key}),
            asset_selection=frozenset({key}),
            tags={"dagster/partition": partition} if partition else {},
            status=dg.DagsterRunStatus.STARTED,
        )

    def succeed(self, run: dg.DagsterRun) -> None:
        """End a run well, after its output was made."""
        self.instance.report_dagster_event(
            DagsterEvent(DagsterEventType.RUN_SUCCESS.value, run.job_name), run_id=run.run_id
        )

    def settle(self) -> set[str]:
        """Tick until nothing is requested any more; all that was, each output once."""
        requested: set[str] = set()
        while wanted := self.tick():
            assert not requested & set(wanted), "an output is made twice for one change"
            self.make(*wanted)
            requested |= set(wanted)
        return requested


Automate = Callable[..., Automation]


@pytest.fixture
def automate(make_recipe: MakeRecipe, tmp_path: Path) -> Iterator[Automate]:
    """From fields of a recipe to its outputs, all of them made and seen."""
    with dg.DagsterInstance.ephemeral() as instance:

        def automate(**fields: Any) -> Automation:
            automation = Automation(instance, build_definitions(make_recipe(**{**FIELDS, **fields}), tmp_path))
            automation.make_everything()
            assert automation.tick() == []
            return automation

        yield automate


@pytest.fixture
def automation(automate: Automate) -> Automation:
    """The recipe as it is."""
    return automate()


def features(*capabilities: str) -> set[str]:
    """Centroids of capabilities."""
    return {f"features/standardized_centroids[{name}]" for name in capabilities}


def directions(*capabilities: str) -> set[str]:
    """What the method `nait` reads of capabilities."""
    return {f"features/nait_directions[{name}]" for name in capabilities}


def scores(*targets: str, methods: Iterable[str] = METHODS) -> set[str]:
    return {f"scoring/{method}_scores[{target}]" for method in methods for target in targets}


def subsets(*targets: str, ratio: str = "0.30", methods: Iterable[str] = METHODS) -> set[str]:
    return {f"selection/{method}_subset[{target}|{ratio}]" for method in methods for target in targets}


EVERY_TARGET = (*CAPABILITIES, "all")
READ = {READ_POOL, *(f"extraction/in_domain_activations[{name}]" for name in CAPABILITIES)}
EVERY_FEATURE = {"features/neuron_statistics", *features(*CAPABILITIES)}
EVERY_SUBSET = scores(*EVERY_TARGET) | subsets(*EVERY_TARGET)


def test_the_first_load_is_left_to_a_person(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A daemon that is started on an empty home must not begin hours of extraction by itself."""
    with dg.DagsterInstance.ephemeral() as instance:
        automation = Automation(instance, build_definitions(make_recipe(**FIELDS), tmp_path))
        assert [automation.tick(), automation.tick()] == [[], []]


def test_nothing_is_requested_while_nothing_changes(automation: Automation) -> None:
    """The daemon ticks every half minute, for months."""
    assert [automation.tick(), automation.tick(), automation.tick()] == [[], [], []]


def test_an_input_that_is_made_again_with_the_same_content_requests_nothing(automation: Automation) -> None:
    """A nightly check of the sources that finds nothing new is free. Dagster's own `eager` would run all of it."""
    automation.unchanged.add(MATH)
    automation.make(MATH)
    automation.settle()
    automation.make(MATH)
    assert automation.settle() == set()


def test_new_examples_request_their_column_and_the_comprehensive_target(automate: Automate) -> None:
    """The pool, the other capability and its subsets are left alone."""
    automation = automate(**BOTH)
    automation.make(MATH)
    column = scores("math", "all", **BOTH) | subsets("math", "all", **BOTH)
    assert automation.settle() == {CONTAMINATED, READ_MATH, *REPORT} | features("math") | directions("math") | column


@pytest.mark.parametrize("strategy", ["round_robin_targets", "union"])
def test_a_choice_among_targets_is_requested_with_any_of_them(automate: Automate, strategy: str) -> None:
    """`all` looks at every capability's ranks, which its own scores hold, and a capability at its own alone."""
    automation = automate(selection={"strategy": strategy})
    automation.make(MATH)
    column = scores("math", "all") | subsets("math", "all")
    made = {name for name in automation.settle() if not name.startswith("report/")}
    assert made == {CONTAMINATED, READ_MATH} | features("math") | column


def test_a_change_stops_where_it_has_no_effect(automate: Automate) -> None:
    """Features that come out the same spare every score and subset that rests on them; the report shows examples."""
    automation = automate(methods=["nait"])  # others are held against the examples themselves
    automation.unchanged |= directions("math")
    automation.make(*sorted(directions("math")))
    automation.settle()
    automation.make(MATH)
    assert automation.settle() == {CONTAMINATED, READ_MATH, "report/selection_report"} | directions("math")


def test_a_changed_pool_requests_all_but_the_directions(automate: Automate) -> None:
    """A NAIT direction rests on its examples alone; all else is measured against the pool."""
    automation = automate(**BOTH)
    automation.make(POOL)
    below = EVERY_FEATURE | scores(*EVERY_TARGET, **BOTH) | subsets(*EVERY_TARGET, **BOTH)
    assert automation.settle() == {CONTAMINATED, READ_POOL, *REPORT} | below


@pytest.mark.parametrize(
    ("before", "after", "requested"),
    [
        pytest.param({}, {"ratios": [0.3, 0.5]}, subsets(*EVERY_TARGET, ratio="0.50"), id="ratio added"),
        pytest.param({}, {"selection": {"strategy": "median"}}, subsets(*EVERY_TARGET), id="strategy changed"),
        pytest.param(
            BOTH,
            {**BOTH, "selection": {"by_method": {"nait": {"strategy": "union"}}}},
            subsets(*EVERY_TARGET, methods=["nait"]),
            id="strategy of a method changed",
        ),
        pytest.param({}, {"model": {"source": "another"}}, READ | EVERY_FEATURE | EVERY_SUBSET, id="model changed"),
        pytest.param({}, {"extraction": {"layers": [0]}}, READ | EVERY_FEATURE | EVERY_SUBSET, id="layers changed"),
        pytest.param(
            {"methods": ["nait"]},
            BOTH,
            EVERY_FEATURE | EVERY_SUBSET,
            id="method added",
        ),
        pytest.param(
            MATH_ALONE,
            {},
            {MATH, "corpora/in_domain_set[code]", CONTAMINATED, "extraction/in_domain_activations[code]"}
            | features("code")
            | scores(*EVERY_TARGET)
            | subsets("code", "all"),
            id="capability added",
        ),
        pytest.param({}, MATH_ALONE, {MATH, CONTAMINATED} | scores("math"), id="capability removed"),
    ],
)
def test_a_changed_recipe_requests_what_reads_the_change(
    automate: Automate,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    requested: set[str],
) -> None:
    """Each output once, when the code location is loaded again.

    A column of math whose code version changed with the list of capabilities comes out the same, and stops there.
    """
    automation = automate(**before)
    if MATH in requested:
        automation.unchanged |= {MATH, *scores("math")}
        automation.make(MATH, *sorted(scores("math")))
        automation.settle()
    automation.defs = build_definitions(make_recipe(**{**FIELDS, **after}), tmp_path)
    assert automation.settle() == requested | REPORT


@pytest.mark.parametrize("tick_in_between", [False, True], ids=["between two ticks", "over a tick"])
@pytest.mark.parametrize(("changed", "failing"), [(MATH, READ_MATH), (POOL, READ_POOL)])
def test_a_failed_run_is_tried_once_more_for_each_change(
    automation: Automation, changed: str, failing: str, tick_in_between: bool
) -> None:
    """A reader of the news sees one retry; what fails for a reason of its own must not run for ever."""

    def fail() -> bool:
        """Whether one tick requests the output, whose run then fails."""
        wanted = automation.tick()
        automation.make(*(name for name in wanted if name != failing))
        if failing in wanted:
            run = automation.begin(failing)
            if tick_in_between:
                assert failing not in automation.tick()
            automation.instance.report_run_failed(run)
        return failing in wanted

    automation.make(changed)
    assert [fail() for _ in range(5)] == [True, True, False, False, False]
    automation.make(changed)
    assert failing in automation.tick()


def test_a_retry_waits_for_the_inputs(automation: Automation) -> None:
    """It is not forgotten because an input was being made when the run failed."""
    automation.make(MATH)
    automation.tick()
    automation.make(CONTAMINATED)
    reading = automation.begin(READ_MATH)
    automation.tick()
    making = automation.begin(MATH)
    automation.instance.report_run_failed(reading)
    assert automation.tick() == []
    automation.succeed(making)
    assert automation.tick() == [READ_MATH]


@pytest.mark.parametrize("n_ticks", [0, 2])
def test_an_update_that_lands_while_a_run_reads_the_old_data_is_not_lost(automation: Automation, n_ticks: int) -> None:
    """The run may have read its input before the update; nothing else would ever tell that its output is old.

    Without a tick in between, request, update and end of the run fall into one window: the case that Dagster's
    `since_last_handled`, and `since` of a request, forget.
    """
    automation.make(MATH)
    assert automation.tick() == [CONTAMINATED, READ_MATH]
    automation.make(CONTAMINATED)
    run = automation.begin(READ_MATH)
    automation.make(MATH)
    seen = [name for _ in range(n_ticks) for name in automation.tick()]
    automation.make(READ_MATH)
    automation.succeed(run)
    assert READ_MATH not in seen
    assert READ_MATH in automation.tick()


def test_an_output_waits_for_all_work_upstream(automation: Automation) -> None:
    """Pool and examples are read side by side, and take different times.

    Scores of the new pool against features of the old examples would be thrown away, or fail.
    """
    automation.make(POOL, MATH)
    assert set(automation.tick()) == {CONTAMINATED, READ_POOL, READ_MATH}
    automation.make(CONTAMINATED)
    slow = automation.begin(READ_MATH)
    automation.make(READ_POOL)
    meanwhile = automation.settle()
    centroid_of_code = "features/standardized_centroids[code]"
    column_of_code = scores("code") | subsets("code")
    assert meanwhile == {"features/neuron_statistics", centroid_of_code} | column_of_code
    automation.make(READ_MATH)
    automation.succeed(slow)
    assert automation.settle() == REPORT | features("math") | scores("math", "all") | subsets("math", "all")


def test_nothing_is_requested_on_an_input_whose_blocking_check_failed(automation: Automation) -> None:
    """A check stops a run; without this, the next tick would carry the wrong data on. A warning stops nothing."""

    def judge(name: str, check: str, passed: bool) -> None:
        key, partition = key_and_partition(name)
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
        (record,) = automation.instance.fetch_materializations(wanted, limit=1).records
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        evaluation = dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=check,
            passed=passed,
            metadata={},
            target_materialization_data=target,
            partition=partition,
        )
        automation.instance.report_runless_asset_event(evaluation)

    automation.make(MATH)
    judge(MATH, "ids_are_their_own", False)
    assert automation.tick() == []
    automation.make(MATH)  # mended
    judge(MATH, "rows_are_accounted_for", True)
    assert automation.tick() == [CONTAMINATED, READ_MATH]
    automation.make(CONTAMINATED, READ_MATH)
    automation.settle()
    score = "scoring/nait_standardized_scores[math]"
    automation.make(score)
    judge(score, "length_is_not_the_score", False)
    assert automation.tick() == ["selection/nait_standardized_subset[math|0.30]"]
