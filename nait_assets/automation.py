"""The one automation condition: when Dagster requests a partition by itself."""

import dagster as dg


def when_inputs_change() -> dg.AutomationCondition:
    """Request a partition when the content of an input or the asset's code changed since it was last requested.

    An input that was materialized again with the same content requests nothing, so a change stops where it has no
    effect. A failed partition is requested once more. The first load is requested by a person.
    """
    condition = dg.AutomationCondition
    handled = condition.newly_requested() | condition.initial_evaluation()
    changed = condition.any_deps_match(condition.data_version_changed()) | condition.code_version_changed()
    wanted = (
        changed.since(handled)
        | condition.newly_missing().since_last_handled()
        | condition.execution_failed().newly_true()
    )
    ready = ~condition.any_deps_missing() & ~condition.any_deps_in_progress() & ~condition.in_progress()
    return (wanted & ready).with_label("when_inputs_change")
