"""Tables of the evaluation: a row a model, task and metric; a row an example; and what is concluded from them."""

import polars as pl

from nait_assets.tables import Table

RESULTS = Table(
    "evaluation.results",
    pl.Schema(
        {
            "asset": pl.String(),
            "partition": pl.String(),
            "number": pl.Int64(),
            "model": pl.String(),
            "task": pl.String(),
            "metric": pl.String(),
            "value": pl.Float64(),
            "n_examples": pl.Int64(),
            "evaluation_key": pl.String(),
        }
    ),
    ("asset", "partition"),
    ("number", "task", "metric"),
)
"""`number` is the seed of a method's model, the draw of a random one, or the probe; 0 of the base. `model` is the key
of the model, `evaluation_key` that of its examples in `EXAMPLES`, which models of equal content share."""

EXAMPLES = Table(
    "evaluation.examples",
    pl.Schema(
        {
            "evaluation_key": pl.String(),
            "sample_id": pl.String(),
            "metric": pl.String(),
            "value": pl.Float64(),
            "weight": pl.Float64(),
        }
    ),
    ("evaluation_key",),
    ("sample_id", "metric"),
)
"""A task's value of a model is the mean of its examples' values by their weights, such as the answer's tokens."""

FORESIGHT = Table(
    "evaluation.foresight",
    pl.Schema(
        {
            "target": pl.String(),
            "task": pl.String(),
            "predictor": pl.String(),
            "kind": pl.String(),
            "correlation": pl.Float64(),
            "low": pl.Float64(),
            "high": pl.Float64(),
            "partial": pl.Float64(),
            "partial_low": pl.Float64(),
            "partial_high": pl.Float64(),
            "above_length": pl.Float64(),
            "above_length_low": pl.Float64(),
            "above_length_high": pl.Float64(),
            "by_score": pl.Float64(),
            "n_probes": pl.Int64(),
            "share_scored": pl.Float64(),
        }
    ),
    (),
    ("target", "task", "predictor", "kind"),
)
"""`task` is "" for all tasks of the target together, where it has several; `target` is "" for the mean over the targets
but the comprehensive one, where several have tasks. `kind` is `method`, or `control` for a length of the rows.
`correlation` is by the mean rank of a probe's rows, `by_score` by their mean score, `partial` given the number of their
answers' tokens and their answers' mean rank by length; `above_length` is the correlation less that of the control, more
or less of it, that foretells best. Intervals are of 95 %."""

_CELL = {"model": pl.String(), "target": pl.String(), "ratio": pl.String()}
_VALUE = {"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64()}

COMPARISON = Table(
    "evaluation.comparison",
    pl.Schema(
        {
            **_CELL,
            "task": pl.String(),
            "metric": pl.String(),
            "against": pl.String(),
            **_VALUE,
            "verdict": pl.String(),
            "n_models": pl.Int64(),
            "n_examples": pl.Int64(),
        }
    ),
    (),
    ("model", "target", "ratio", "task", "metric", "against"),
)
"""`model` is a method or a reference, as in the key of its results; `target` may be `(own)`: each task by the models of
its own target. `task` is "" for the average over the tasks of a metric. `against` is "" for the value itself, else the
reference from which `value` is the difference. Intervals are of 95 %."""

TRANSFERABILITY = Table(
    "evaluation.transferability",
    pl.Schema(
        {
            **_CELL,
            "task_target": pl.String(),
            "task": pl.String(),
            "metric": pl.String(),
            **_VALUE,
            "verdict": pl.String(),
        }
    ),
    (),
    ("model", "target", "ratio", "task", "metric"),
)
"""`value` is the result of the model of `target` on a task of `task_target`, less that of this one's own model."""

IN_DOMAIN_SIZE_CURVE = Table(
    "evaluation.in_domain_size_curve",
    pl.Schema(
        {
            **_CELL,
            "n_in_domain": pl.Int64(),
            "task": pl.String(),
            "metric": pl.String(),
            **_VALUE,
        }
    ),
    (),
    ("model", "target", "ratio", "n_in_domain", "task", "metric"),
)
"""`target` is the capability of which `n_in_domain` examples chose; "" with 0 examples for base, full and random, which
read none. `(own)` with the task "" is the average over the tasks, each by the models of its own capability."""

PROPORTION_CURVE = Table(
    "evaluation.proportion_curve",
    pl.Schema(
        {
            "model": pl.String(),
            "target": pl.String(),
            "share": pl.Float64(),
            "task": pl.String(),
            "metric": pl.String(),
            **_VALUE,
        }
    ),
    (),
    ("model", "target", "share", "task", "metric"),
)
"""`share` of the pool: 0 of the base, 1 of the model of the whole pool."""
