"""The audit in Dagster: an asset with a check, made by a schedule that is off until it is switched on."""

from pathlib import Path

import dagster as dg

from nait_assets.definitions import build_definitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import AUDIT_LINKS
from nait_assets_tests.audit.test_chain import edit


def audited(recipe: Recipe, home: Path) -> dg.AssetCheckEvaluation:
    """What the schedule's job finds."""
    job = build_definitions(recipe, home).resolve_job_def("audit")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        assert result.success
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation


def test_the_scheduled_job_verifies_every_chain(recipe: Recipe, home: Path) -> None:
    """What nobody looks at goes bad unseen."""
    evaluation = audited(recipe, home)
    assert evaluation.passed
    assert evaluation.description == "all 12 chains hold"  # of 9 subsets, 2 reports, the home
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        links = snapshot.rows(AUDIT_LINKS)
    assert links["holds"].all()
    assert {"content", "code", "source:0:pool.jsonl"} <= set(links["what"].to_list())


def test_a_broken_chain_fails_the_check_and_not_the_run(recipe: Recipe, home: Path) -> None:
    """The audit itself worked; what it found is the check's to say."""
    edit(home / "warehouse.duckdb", "UPDATE scoring.random_scores SET score = 2 WHERE target = 'code' AND rank = 3")
    evaluation = audited(recipe, home)
    assert not evaluation.passed
    assert evaluation.description is not None
    assert evaluation.description.startswith("3 of 12 chains are broken; first scoring/random_scores[code], content")


def test_the_schedule_is_off_until_it_is_switched_on(recipe: Recipe, home: Path) -> None:
    """A clone must not begin to work by itself."""
    schedule = build_definitions(recipe, home).resolve_schedule_def("weekly_audit")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 4 * * 1"
    assert "Off until it is switched on" in (schedule.description or "")


def test_a_run_leaves_the_audit_alone(recipe: Recipe, home: Path) -> None:
    """It is no output that can be out of date, so `nait run` must not make it, nor `nait status` miss it."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        assert not snapshot.has_table(AUDIT_LINKS.name)
