"""A published list as a method."""

import numpy as np
import polars as pl

from nait_assets.scoring.methods import method_named
from nait_assets.scoring.ranking import ranked
from nait_assets.tables import published_table
from nait_assets_tests.scoring.methods.small_texts import inputs


def test_order_is_the_lists_and_the_rest_has_a_reason_and_no_score() -> None:
    """A row that the authors left out was not judged the worst by them: it must never fill up a subset."""
    given = inputs()
    rows = pl.DataFrame({"sample_id": ["s04", "s01"], "position": [2, 7]}, published_table("cherry").columns)
    given.frames["corpora/published_cherry"] = rows  # type: ignore[index]
    found = method_named("cherry").scores(given)
    assert found.values.shape == (7, 3)
    np.testing.assert_array_equal(found.values[:, 0], [np.nan, -7, np.nan, np.nan, -2, np.nan, np.nan])
    np.testing.assert_array_equal(found.values[:, 0], found.values[:, 2])
    frame = ranked(given.sample_ids, found.values[:, 0], found.reasons)
    assert frame.select("sample_id", "score", "rank").rows()[:3] == [
        ("s04", -2, 1),
        ("s01", -7, 2),
        ("s00", None, None),
    ]
    assert frame["reason"].to_list() == [None, None, *["not on the list"] * 5]


def test_method_of_a_name_of_ours_is_ours() -> None:
    """Any other name is a list's; recipes refuse one that is in neither."""
    assert method_named("random").name == "random"
    assert "published list 'cherry'" in method_named("cherry").description
