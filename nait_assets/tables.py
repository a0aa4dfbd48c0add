"""What one row is, for every table: the column names that all rooms share, and the content hash of a frame.

Belongs here: schemas and what follows from them. Does not belong here: where tables are stored (`resources.warehouse`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl

from nait_assets.digests import SLICE_ROWS, digest_of_columns
from nait_assets.recipe import Pooling, pooled

MESSAGES = pl.List(pl.Struct({"role": pl.String(), "content": pl.String()}))
VECTOR = pl.List(pl.Float32)
INDICES = pl.List(pl.Int32)
N_ANSWER_CHARACTERS = (
    pl.col("messages")
    .list.eval(
        pl.when(pl.element().struct.field("role") == "assistant")
        .then(pl.element().struct.field("content").str.len_chars())
        .otherwise(0)
    )
    .list.sum()
)
N_CHARACTERS = pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()
"""Characters of a conversation."""

EXAMPLE = pl.Schema(
    {
        "sample_id": pl.String(),
        "messages": MESSAGES,
        "conversation": pl.String(),
        "source": pl.String(),
        "source_row": pl.Int64(),
        "topic": pl.String(),
    }
)
"""`messages` are normalised; `conversation` is JSON of what the source says, null where that is no more."""
REJECTED = pl.Schema(
    {
        "corpus": pl.String(),
        "source": pl.String(),
        "source_row": pl.Int64(),
        "sample_id": pl.String(),
        "reason": pl.String(),
        "excerpt": pl.String(),
    }
)


@dataclass(frozen=True)
class Table:
    """A table of the warehouse.

    Attributes:
        name: `<room>.<name>`, the schema and table in DuckDB.
        columns: Column names and types.
        slice_columns: Columns that are constant within what one materialization writes.
        key: Columns that identify a row, and by which the content is ordered before it is hashed.
    """

    name: str
    columns: pl.Schema
    slice_columns: tuple[str, ...]
    key: tuple[str, ...]

    def only(self, *names: str) -> "Table":
        """The same table with a few of its columns, for who reads no more of it."""
        return replace(self, columns=pl.Schema({name: self.columns[name] for name in names}))

    def of_pooling(self, pooling: Pooling) -> "Table":
        """The table of the same columns about another pooling of the activations."""
        room, _, name = self.name.partition(".")
        return replace(self, name=f"{room}.{pooled(name, pooling)}")

    @property
    def asset(self) -> str:
        """Key, as a path, of the asset that writes it."""
        return self.name.replace(".", "/")

    def slice_of(self, partition: str) -> dict[str, str]:
        """Values of the slice columns for a partition key of the asset."""
        return dict(zip(self.slice_columns, partition.split("|"), strict=True)) if partition else {}

    @property
    def written_columns(self) -> pl.Schema:
        """Columns but those of the slice: what a materialization hashes."""
        return pl.Schema({name: kind for name, kind in self.columns.items() if name not in self.slice_columns})


CANDIDATE_POOL = Table("corpora.candidate_pool", EXAMPLE, (), ("sample_id",))
IN_DOMAIN_SET = Table(
    "corpora.in_domain_set", pl.Schema({"capability": pl.String(), **EXAMPLE}), ("capability",), ("sample_id",)
)
EVALUATION_SET = Table(
    "corpora.evaluation_set", pl.Schema({"evaluation": pl.String(), **EXAMPLE}), ("evaluation",), ("sample_id",)
)
TASK_SET = Table("corpora.task_set", pl.Schema({"task": pl.String(), **EXAMPLE}), ("task",), ("sample_id",))
CONTAMINATED_CANDIDATES = Table(
    "corpora.contaminated_candidates",
    pl.Schema(
        {
            "sample_id": pl.String(),
            "corpus": pl.String(),
            "example_id": pl.String(),
            "match": pl.String(),
            "shared_text": pl.String(),
        }
    ),
    (),
    ("sample_id", "corpus"),
)
CORPUS_COUNTS = Table(
    "corpora.counts",
    pl.Schema(
        {
            "corpus": pl.String(),
            "n_rows": pl.Int64(),
            "n_duplicates": pl.Int64(),
            "n_unsampled": pl.Int64(),
            "n_excluded": pl.Int64(),
            "n_cut": pl.Int64(),
        }
    ),
    ("corpus",),
    ("corpus",),
)
"""Of each corpus: rows of its sources; of those, that repeat an earlier one, that `limit` and `skip` leave out, that
`where` leaves out; and how many lost turns behind their last response."""
REJECTED_ROWS = Table("corpora.rejected", REJECTED, ("corpus",), ("source", "source_row"))
REJECTED_SAMPLES = Table("extraction.rejected", REJECTED, ("corpus",), ("sample_id",))
STATISTICS = pl.Schema({"layer": pl.Int16(), "mean": VECTOR, "standard_deviation": VECTOR, "n_samples": pl.Int64()})
CALIBRATION_STATISTICS = Table(
    "extraction.calibration_statistics",
    pl.Schema({**STATISTICS, "components": VECTOR, "calibration_id": pl.String(), "sample_ids": pl.List(pl.String())}),
    (),
    ("layer",),
)
"""`sample_ids`, the same in every row: the candidates that calibrated."""
NEURON_STATISTICS = Table("features.neuron_statistics", STATISTICS, (), ("layer",))
NAIT_DIRECTIONS = Table(
    "features.nait_directions",
    pl.Schema(
        {
            "capability": pl.String(),
            "layer": pl.Int16(),
            "direction": VECTOR,
            "explained_variance_ratio": pl.Float64(),
            "n_samples": pl.Int64(),
        }
    ),
    ("capability",),
    ("layer",),
)
STANDARDIZED_CENTROIDS = Table(
    "features.standardized_centroids",
    pl.Schema(
        {
            "capability": pl.String(),
            "layer": pl.Int16(),
            "centroid": VECTOR,
            "mean_activation": VECTOR,
            "n_samples": pl.Int64(),
        }
    ),
    ("capability",),
    ("layer",),
)
SUBSETS = Table(
    "selection.subsets",
    pl.Schema(
        {
            "method": pl.String(),
            "target": pl.String(),
            "ratio": pl.String(),
            "sample_id": pl.String(),
            "score": pl.Float64(),
            "rank": pl.Int64(),
        }
    ),
    ("method", "target", "ratio"),
    ("rank",),
)

SUBSET_HISTORY = Table(
    "selection.history",
    pl.Schema(
        {
            "method": pl.String(),
            "target": pl.String(),
            "ratio": pl.String(),
            "number": pl.Int64(),
            "data_version": pl.String(),
            "made_at": pl.String(),
            "run_id": pl.String(),
            "sample_ids": pl.List(pl.String()),
            "lineage": pl.String(),
        }
    ),
    ("method", "target", "ratio"),
    ("number",),
)
"""Every version that a subset ever had: rows are added, never changed. `lineage` is JSON, as in a subset's manifest."""

COSTS = Table(
    "lineage.costs",
    pl.Schema(
        {
            "asset": pl.String(),
            "partition": pl.String(),
            "n_forward": pl.Int64(),
            "n_backward": pl.Int64(),
            "n_tokens": pl.Int64(),
            "n_calls": pl.Int64(),
            "seconds": pl.Float64(),
        }
    ),
    ("asset", "partition"),
    ("asset", "partition"),
)
"""What each output has taken so far, over all its materializations; no version covers it."""

AUDIT_LINKS = Table(
    "audit.links",
    pl.Schema({"output": pl.String(), "what": pl.String(), "holds": pl.Boolean(), "says": pl.String()}),
    (),
    ("output", "what"),
)


METHOD_COSTS = Table(
    "report.method_costs",
    pl.Schema(
        {
            "method": pl.String(),
            "n_forward": pl.Int64(),
            "n_backward": pl.Int64(),
            "n_tokens": pl.Int64(),
            "n_calls": pl.Int64(),
            "seconds": pl.Float64(),
            "shared_seconds": pl.Float64(),
        }
    ),
    (),
    ("method",),
)
METHOD_OVERLAPS = Table(
    "report.method_overlaps",
    pl.Schema(
        {
            "target": pl.String(),
            "ratio": pl.String(),
            "one": pl.String(),
            "other": pl.String(),
            "overlap": pl.Float64(),
            "by_chance": pl.Float64(),
        }
    ),
    (),
    ("target", "ratio", "one", "other"),
)
METHOD_LENGTHS = Table(
    "report.method_lengths",
    pl.Schema(
        {
            "method": pl.String(),
            "target": pl.String(),
            "ratio": pl.String(),
            "length_correlation": pl.Float64(),
            "median_characters": pl.Float64(),
            "median_characters_of_pool": pl.Float64(),
        }
    ),
    (),
    ("method", "target", "ratio"),
)
METHOD_RETRIEVALS = Table(
    "report.method_retrievals",
    pl.Schema(
        {
            "method": pl.String(),
            "capability": pl.String(),
            "area": pl.Float64(),
            "precision": pl.Float64(),
            "n_wanted": pl.Int64(),
        }
    ),
    (),
    ("method", "capability"),
)
METHOD_REPRODUCTIONS = Table(
    "report.method_reproductions",
    pl.Schema(
        {
            "published": pl.String(),
            "method": pl.String(),
            "n_listed": pl.Int64(),
            "n_best": pl.Int64(),
            "n_shared": pl.Int64(),
            "n_by_chance": pl.Float64(),
            "p_by_chance": pl.Float64(),
        }
    ),
    (),
    ("published", "method"),
)


def scores_table(method: str) -> Table:
    """Scores of one method: `rank` 1 is the best, `score` is higher for better, ties are broken by `sample_id`.

    `turn` is the place in a round robin over the examples, of a method that scores by example. Of the comprehensive
    target, `target_turn` is the place in one over the capabilities, `whose_turn` the capability that takes a row then,
    `best_rank` the best rank among them. A candidate without a score has a `reason`, and neither rank nor turn.
    """
    columns = pl.Schema(
        {
            "target": pl.String(),
            "sample_id": pl.String(),
            "score": pl.Float64(),
            "rank": pl.Int64(),
            "turn": pl.Int64(),
            "target_turn": pl.Int64(),
            "whose_turn": pl.String(),
            "best_rank": pl.Int64(),
            "reason": pl.String(),
        }
    )
    return Table(f"scoring.{method}_scores", columns, ("target",), ("sample_id",))


def published_table(name: str) -> Table:
    """Candidates on a published list: `position` 1 stands first there."""
    columns = pl.Schema({"sample_id": pl.String(), "position": pl.Int64()})
    return Table(f"corpora.published_{name}", columns, (), ("position",))


def rejection_rows(refused: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Rows of `REJECTED_SAMPLES`, of pairs of `sample_id` and reason; whoever stores them adds the corpus."""
    rows = [
        {"corpus": "", "source": None, "source_row": None, "sample_id": sample_id, "reason": reason, "excerpt": ""}
        for sample_id, reason in refused
    ]
    return pl.DataFrame(rows, schema=REJECTED_SAMPLES.columns)


def version_with(version: str, *beside: pl.DataFrame) -> str:
    """A data version that also covers what is stored beside an output's rows, such as what was refused; 16 hex digits.

    Args:
        version: Version of the rows.
        *beside: Frames, hashed by all their columns, in any order of their rows.
    """
    if not beside:
        return version
    parts = [version, *(content_version(frame, tuple(frame.columns)) for frame in beside)]
    return hashlib.sha256(":".join(parts).encode()).hexdigest()[:16]


def version_with_refused(version: str, rejected: pl.DataFrame) -> str:
    """`version_with` the samples that were refused and why: their ids are ranked without a score, so scores follow.

    Args:
        version: Version of the rows.
        rejected: Rows of `REJECTED_SAMPLES` of the corpus.
    """
    return version_with(version, rejected.select("sample_id", "reason"))


def content_version(frame: pl.DataFrame, key: tuple[str, ...]) -> str:
    """The first 16 hex digits of `content_digest`."""
    return content_digest(frame, key)[:16]


def content_digest(frame: pl.DataFrame, key: tuple[str, ...]) -> str:
    """SHA-256 of a frame's content, hex, whatever the order of its rows and the version of its library.

    Args:
        frame: Any frame; lists and structs are allowed.
        key: Columns by which the rows are ordered before hashing.
    """
    order = frame.select(pl.arg_sort_by(*key)).to_series()

    def parts(name: str) -> Iterator[pl.Series]:  # of a part at a time: sorted as a whole, the frame lies there twice
        for begin in range(0, len(frame), SLICE_ROWS):
            yield frame[name].gather(order[begin : begin + SLICE_ROWS])

    return digest_of_columns(frame.schema, len(frame), lambda name: frame[name].null_count() > 0, parts)
