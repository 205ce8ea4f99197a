from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.addresses import TrustedProxies
from autoglm.gateway.identity.throttle import FAILURES, FAILURES_PER_SECOND, Throttle


def emptied(throttle: Throttle, peer: str, now: float = 0.0) -> None:
    for _ in range(int(FAILURES)):
        assert throttle.wait(peer, now) == 0
        throttle.charge(peer, now)


def test_address_that_failed_often_must_wait_and_others_need_not() -> None:
    throttle = Throttle()
    emptied(throttle, "10.0.0.1")
    assert throttle.wait("10.0.0.1", 0) == 1 / FAILURES_PER_SECOND
    assert throttle.wait("10.0.0.2", 0) == 0


def test_after_the_wait_it_may_try_once() -> None:
    throttle = Throttle()
    emptied(throttle, "a")
    wait = throttle.wait("a", 0)
    assert throttle.wait("a", wait) == 0
    throttle.charge("a", wait)
    assert throttle.wait("a", wait) > 0


def test_guesses_made_at_once_run_up_no_debt() -> None:
    throttle = Throttle()
    for _ in range(10_000):
        throttle.charge("a", 0)
    assert throttle.wait("a", 0) == 1 / FAILURES_PER_SECOND


def test_a_whole_ipv6_network_is_one_caller() -> None:
    throttle = Throttle()
    emptied(throttle, "2001:db8::1")
    assert throttle.wait("2001:db8::ffff:2", 0) > 0
    assert throttle.wait("2001:db8:0:1::1", 0) == 0


def test_mapped_address_is_the_ipv4_one() -> None:
    throttle = Throttle()
    emptied(throttle, "::ffff:10.0.0.1")
    assert throttle.wait("10.0.0.1", 0) > 0


def test_the_address_of_a_trusted_proxy_is_never_throttled() -> None:
    throttle = Throttle(proxies=TrustedProxies(["10.0.0.0/8"]))
    for _ in range(100):
        throttle.charge("10.0.0.1", 0)
    assert throttle.wait("10.0.0.1", 0) == 0 and not len(throttle)
    emptied(throttle, "192.0.2.1")
    assert throttle.wait("192.0.2.1", 0) > 0


def test_memory_is_bounded_however_many_addresses_fail() -> None:
    throttle = Throttle(limit=100)
    for number in range(1_000):
        throttle.charge(f"10.0.{number // 256}.{number % 256}", 0)
    assert len(throttle) == 100


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_no_timing_gets_more_guesses_than_the_rate(times: list[float]) -> None:
    throttle, made = Throttle(), 0
    for now in sorted(times):
        if throttle.wait("a", now) == 0:
            throttle.charge("a", now)
            made += 1
    assert made <= FAILURES + max(times) * FAILURES_PER_SECOND + 1e-6
