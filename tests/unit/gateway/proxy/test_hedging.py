from hypothesis import given
from hypothesis import strategies as st

from autoglm.api.spec.traffic import Hedging
from autoglm.gateway.proxy.hedging import Hedges

P90 = Hedging(percentile=90, max_extra_ratio=0.1)


def test_the_delay_is_the_percentile_of_what_was_seen() -> None:
    hedges = Hedges()
    for wait in range(19):
        hedges.note(P90, float(wait))
        assert hedges.delay(P90) is None
    hedges.note(P90, 19.0)
    assert hedges.delay(P90) == 18.0


def test_old_first_chunks_are_forgotten() -> None:
    hedges = Hedges()
    for wait in [9.0] * 500 + [1.0] * 256:
        hedges.note(P90, wait)
    assert hedges.delay(P90) == 1.0


def test_a_fixed_delay_needs_no_history() -> None:
    assert Hedges().delay(Hedging(delay_seconds=0.5)) == 0.5


@given(st.lists(st.booleans(), max_size=300))
def test_extra_load_is_a_share_of_the_requests_and_the_first_one(story: list[bool]) -> None:
    hedges, requests, extra = Hedges(), 0, 0
    for asks in story:
        if asks:
            extra += hedges.withdraw()
        else:
            hedges.note(P90, 1.0)
            requests += 1
    assert extra <= 1 + requests * P90.max_extra_ratio + 1e-6
