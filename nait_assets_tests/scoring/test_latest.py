"""What is remembered: one value a name, as long as what it was made from stays the same."""

from nait_assets.scoring.latest import Latest


def test_a_value_is_made_once_while_nothing_changes() -> None:
    """Of many partitions, the first pays; a change of what it was made from is never overlooked."""
    latest: Latest[int] = Latest()
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [latest.of("a", {"pool": "1"}, make) for _ in range(3)] == [0, 0, 0]
    assert latest.of("b", {"pool": "1"}, make) == 1
    assert latest.of("a", {"pool": "2"}, make) == 2
    assert latest.of("a", {"pool": "1"}, make) == 3
    assert latest.of("b", {"pool": "1"}, make) == 1
    assert Latest[int]().of("a", {"pool": "1"}, make) == 4
