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
            "by_score": pl.Float64(),
            "n_probes": pl.Int64(),
            "share_scored": pl.Float64(),
        }
    ),
    (),
    ("target", "task", "predictor", "kind"),
)
"""`task` is "" for all tasks of the target together, where it has several. `kind` is `method`, or `control` for the
length of the rows. `correlation` is by the mean rank of a probe's rows, `by_score` by their mean score, `partial` given
the tokens of their answers; intervals are of 95 %."""
