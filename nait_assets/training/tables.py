"""Tables of the training: one row a model, one a step of its training, one a row of a probe."""

import polars as pl

from nait_assets.tables import Table

TRAINED_MODELS = Table(
    "training.models",
    pl.Schema(
        {
            "asset": pl.String(),
            "partition": pl.String(),
            "number": pl.Int64(),
            "seed": pl.Int64(),
            "key": pl.String(),
            "n_rows": pl.Int64(),
            "n_tokens": pl.Int64(),
            "n_answer_tokens": pl.Int64(),
            "n_steps": pl.Int64(),
            "batch_size": pl.Int64(),
            "loss": pl.Float64(),
            "seconds": pl.Float64(),
            "peak_bytes": pl.Int64(),
            "shared_with": pl.String(),
        }
    ),
    ("asset", "partition"),
    ("number",),
)
"""`number` is the seed of a method's model, the draw of a random one, or the probe; `loss` the mean of the last epoch.
`n_tokens` and `n_answer_tokens` are of one epoch, `seconds` and `peak_bytes` of the training, whoever had it done:
`shared_with` is the first output that has the same model, "" where this one is."""

LOSS_CURVES = Table(
    "training.loss_curves",
    pl.Schema(
        {
            "key": pl.String(),
            "step": pl.Int64(),
            "epoch": pl.Float64(),
            "loss": pl.Float64(),
            "grad_norm": pl.Float64(),
            "learning_rate": pl.Float64(),
            "n_tokens": pl.Int64(),
            "seconds": pl.Float64(),
        }
    ),
    ("key",),
    ("step",),
)
"""`n_tokens` and `seconds` since the beginning of the training."""

PROBE_SUBSETS = Table(
    "training.probe_subsets",
    pl.Schema({"probe": pl.Int64(), "sample_id": pl.String(), "kind": pl.String()}),
    (),
    ("probe", "sample_id"),
)
"""`kind` is `neighbourhood`, rows near to one another by their words, or `uniform`."""
