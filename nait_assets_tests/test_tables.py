"""The content hash: the same content has the same version, and any other content another."""

import itertools

import polars as pl
import pytest

from nait_assets.tables import CANDIDATE_POOL, EXAMPLE, VECTOR, content_version, scores_table

SCHEMA = {"key": pl.Int64, "text": pl.String, "score": pl.Float64, "count": pl.Int64, "vector": VECTOR}
ROWS = [(1, "a", 0.5, 3, [1.0, 2.0]), (2, "b", 0.25, None, [3.0])]


def frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def version(rows: list[tuple[object, ...]]) -> str:
    return content_version(frame(rows), ("key",))


def test_version_is_independent_of_row_and_column_order() -> None:
    """A data base returns rows in any order; unchanged content must not look changed."""
    shuffled = frame(ROWS[::-1]).select(sorted(SCHEMA, reverse=True))
    assert content_version(shuffled, ("key",)) == version(ROWS)


def test_version_is_independent_of_how_the_frame_is_stored() -> None:
    """The same rows in several chunks, as after a concatenation, are the same content."""
    assert content_version(pl.concat([frame(ROWS[:1]), frame(ROWS[1:])], rechunk=False), ("key",)) == version(ROWS)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (0, 3),
        (1, "c"),
        (1, None),
        (1, "None"),
        (2, 0.25 + 2**-54),
        (2, None),
        (2, float("nan")),
        (3, 0),
        (4, [3.0000002]),
        (4, [3.0, 0.0]),
        (4, []),
        (4, None),
    ],
)
def test_version_is_sensitive_to_every_value(column: int, value: object) -> None:
    """A change that the version does not see leaves everything downstream stale in silence."""
    changed = [ROWS[0], (*ROWS[1][:column], value, *ROWS[1][column + 1 :])]
    assert version(changed) != version(ROWS)


def test_version_tells_apart_text_and_null_and_empty() -> None:
    """`None` written as text, no text, and empty text are three contents."""
    versions = [version([ROWS[0], (2, text, 0.25, None, [3.0])]) for text in ("None", None, "", "'None'")]
    assert len(set(versions)) == 4


def test_version_is_sensitive_to_where_a_boundary_lies() -> None:
    """The same numbers or letters, divided otherwise among rows, are another content."""
    for column, first, second in [(4, ([1.0, 2.0], [3.0]), ([1.0], [2.0, 3.0])), (1, ("ab", "c"), ("a", "bc"))]:
        versions = {
            version([(*row[:column], value, *row[column + 1 :]) for row, value in zip(ROWS, values, strict=True)])
            for values in (first, second)
        }
        assert len(versions) == 2


def test_version_is_sensitive_to_added_and_missing_rows_and_to_column_names() -> None:
    """An empty table, a shorter one and one with a renamed column have versions of their own."""
    renamed = frame(ROWS).rename({"score": "scores"})
    versions = [version(ROWS), version(ROWS[:1]), version([]), content_version(renamed, ("key",))]
    assert all(one != other for one, other in itertools.combinations(versions, 2))


def test_version_of_examples_is_sensitive_to_role_text_and_topic() -> None:
    """Examples hold lists of structs, which no numeric path hashes."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

    def example(messages: list[dict[str, str]], topic: str | None = None) -> str:
        row = {"sample_id": "x", "messages": messages, "source": "s", "source_row": 1, "topic": topic}
        return content_version(pl.DataFrame([row], schema=EXAMPLE), CANDIDATE_POOL.key)

    other_role = [{"role": "system", "content": "q"}, turns[1]]
    other_text = [turns[0], {"role": "assistant", "content": "a "}]
    assert (
        len({example(turns), example(turns, "t"), example(other_role), example(other_text), example(turns[::-1])}) == 5
    )


def test_version_of_a_known_frame_stays_what_it_is() -> None:
    """Versions are compared with those of runs weeks ago: a change of the hash itself recomputes every home."""
    assert version(ROWS) == "eb366d7b8e944ff0"


def test_scores_of_two_methods_lie_in_two_tables() -> None:
    """Each method's asset writes its own table; the columns are the same, so that one view can join them."""
    first, second = scores_table("nait"), scores_table("random")
    assert (first.name, second.name) == ("scoring.nait_scores", "scoring.random_scores")
    assert (
        list(first.columns)
        == list(second.columns)
        == ["target", "sample_id", "score", "rank", "turn", "target_turn", "whose_turn", "best_rank", "reason"]
    )
