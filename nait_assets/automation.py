"""The one automation condition: when Dagster requests a partition by itself."""

import dagster as dg

LONGEST_WAY = 4
"""Steps up from an output that are looked at for work under way: from a subset to the activations."""


def when_inputs_change() -> dg.AutomationCondition:
    """Request a partition when the content of an input or the asset's code changed since it was last requested.

    An input that was materialized again with the same content requests nothing, so a change stops where it has no
    effect. A new partition is requested, and so is a new asset whose inputs are there; but of an empty home nothing
    is: the first load is a person's. Four traps of Dagster's own building blocks are avoided:

    - `since` forgets a change that arrives in the tick after a request, when the run may have read the old input.
      So a request only settles what was not changed again in that tick.
    - `execution_failed` turns true again at each failed run of an asset without partitions, and would request it for
      ever. So a failure counts once after each change or success.
    - A retry that could not start at once, as an input was in progress, was forgotten. It waits like a change does.
    - An output was requested together with its inputs and read the old ones. So it waits for the inputs that are
      wanted themselves, and for all work upstream.

    Nothing is requested on an input whose blocking check failed, or has not ended yet. One that was never run, as in a
    home from before there were checks, stops nothing, as it would with Dagster's `all_deps_blocking_checks_passed`.
    """
    condition = dg.AutomationCondition
    wanted = _wanted()
    unproven = condition.check_failed() | condition.in_progress()
    ready = (
        ~condition.any_deps_missing()
        & ~condition.any_deps_match(wanted)
        & ~condition.any_deps_match(condition.any_checks_match(unproven, blocking_only=True))
        & ~_any_upstream(condition.in_progress())
        & ~condition.in_progress()
    )
    return (wanted & ready).with_label("when_inputs_change")


def _wanted() -> dg.AutomationCondition:
    condition = dg.AutomationCondition
    changed = condition.any_deps_match(condition.data_version_changed()) | condition.code_version_changed()
    failed = condition.execution_failed() & ~condition.in_progress()
    failed_once = failed.since(changed | condition.newly_updated()).newly_true()
    beside_others = ~condition.initial_evaluation() | condition.any_deps_match(~condition.missing())
    event = changed | failed_once | (condition.newly_missing() & beside_others)
    return event.since(condition.newly_requested() & ~event).with_label("wanted")


def _any_upstream(condition: dg.AutomationCondition) -> dg.AutomationCondition:
    """Whether the condition holds of anything that the partition rests on, directly or not."""
    upstream = dg.AutomationCondition.any_deps_match(condition)
    for _ in range(LONGEST_WAY - 1):
        upstream = dg.AutomationCondition.any_deps_match(condition | upstream)
    return upstream.with_label("any_upstream_in_progress")
