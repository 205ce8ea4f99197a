"""The election: never two that write, never none for long."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.soak import examples

from autoglm.kube.election import Election, Move, Record, Terms

TERMS = Terms(10)


def election(name: str = "me") -> Election:
    return Election(name, TERMS)


def held(by: str, version: str = "1", duration: float = 10) -> Record:
    return Record(by, duration, version)


def test_a_missing_lease_is_created_and_a_free_one_taken() -> None:
    assert election().move(None, 0) is Move.CREATE
    assert election().move(held(""), 0) is Move.ACQUIRE


def test_a_lease_is_taken_only_after_its_whole_duration_without_renewal() -> None:
    me = election()
    moves = [me.move(held("other"), now) for now in (0, 9.9, 10)]
    assert moves == [Move.WAIT, Move.WAIT, Move.ACQUIRE]


def test_every_renewal_restarts_the_wait() -> None:
    me = election()
    me.move(held("other", "1"), 0)
    assert me.move(held("other", "2"), 9.9) is Move.WAIT
    assert me.move(held("other", "2"), 19) is Move.WAIT
    assert me.move(held("other", "2"), 19.9) is Move.ACQUIRE


def test_an_own_lease_is_renewed() -> None:
    assert election().move(held("me"), 0) is Move.RENEW


def test_writes_begin_only_for_the_deadline_after_a_renewal_began() -> None:
    me = election()
    assert me.time_left(0) == 0
    me.renewed(began=100)
    assert [me.time_left(now) for now in (100, 104, 106, 200)] == [6, 2, 0, 0]


def test_a_candidate_that_lost_the_lease_writes_no_more() -> None:
    me = election()
    me.renewed(began=0)
    me.lost()
    assert me.time_left(0.1) == 0


def test_the_last_write_ends_before_another_may_begin() -> None:
    assert TERMS.deadline + TERMS.request_timeout < TERMS.duration


def test_takeover_after_a_crash_takes_less_than_fifteen_seconds() -> None:
    # Renewed just before the crash, seen by the other one look later, taken at the look after.
    assert TERMS.duration + 2 * TERMS.poll_period < 15


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 4.0), st.booleans()), max_size=60))
def test_two_candidates_never_may_write_at_once(steps: list[tuple[str, float, bool]]) -> None:
    """Steps in any order and pace; a request may fail after it took effect."""
    candidates = {name: election(name) for name in "ab"}
    lease: Record | None = None
    now, version = 0.0, 0
    for name, pause, response_arrives in steps:
        now += pause
        me = candidates[name]
        if me.move(lease, now) is Move.WAIT:
            me.lost()
        else:
            version += 1
            lease = held(name, str(version))
            if response_arrives:
                me.renewed(now)
        assert sum(c.time_left(now) > 0 for c in candidates.values()) <= 1
