import pytest
from tests.support.fidelity import Fork, Measured, Said, first_forks, is_tie, penalty_threshold

STEP = 1 / 16


def said(*choices: tuple[int, ...], text: str = "") -> Said:
    return Said(text, choices)


def measured(gap: float, base: float = -1.0) -> Measured:
    return Measured(base, base - gap, (base, base - 4 * STEP, base - 5 * STEP))


def test_equal_responses_have_no_forks() -> None:
    assert first_forks(said((1, 2), (3,)), said((1, 2), (3,))) == []


def test_the_first_difference_of_each_choice_counts_and_nothing_after_it() -> None:
    forks = first_forks(said((1, 2, 3), (4,), (5, 6)), said((1, 9, 8), (4,), (7, 6)))
    assert forks == [Fork(0, (1,), 2, 9), Fork(2, (), 5, 7)]


@pytest.mark.parametrize(
    "seen",
    [said((1, 2)), said((1, 2, 3, 4)), said((1, 2, 3), (4,)), said((1, 2, 3), text="other")],
    ids=["lost", "doubled", "a choice too many", "other text"],
)
def test_what_no_rounding_explains_has_no_forks_to_measure(seen: Said) -> None:
    assert first_forks(said((1, 2, 3)), seen) is None


@pytest.mark.parametrize(("gap", "tie"), [(0, True), (STEP, True), (2 * STEP, True), (0.3, False)])
def test_candidates_within_rounding_tie(gap: float, tie: bool) -> None:
    assert is_tie([measured(gap)]) is tie
    assert is_tie([measured(-gap)]) is tie


def test_candidates_tie_within_what_undisturbed_runs_differ_by() -> None:
    assert not is_tie([measured(0.5), measured(0.5)])
    assert is_tie([measured(0.5), measured(0.9)])


def test_penalties_move_the_point_where_the_choice_turns() -> None:
    fork = Fork(0, (2, 2, 9), expected=2, seen=9)
    threshold = penalty_threshold(fork, 0.5)
    assert threshold == 0.5
    assert is_tie([measured(0.5)], threshold)
    assert not is_tie([measured(0.0)], threshold)
