"""Limits follow what pods say, on their own and with another gateway beside."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autoglm.gateway.admission.capacity import Capacity, Sizing
from autoglm.gateway.endpoints.endpoint import EndpointView, Load

SPARE = 4


def report(view: EndpointView, **load: Any) -> None:
    view.live.take(Load(**({"max_num_seqs": 64} | load)))


def views(make: Any, count: int = 1, **load: Any) -> list[EndpointView]:
    return [make.view(number, **({"max_num_seqs": 64} | load)) for number in range(count)]


def test_quiet_pods_take_their_batch_and_a_few_more(make: Any) -> None:
    fleet = views(make, 3, kv_tokens=1600)
    assert Sizing(SPARE).update(fleet, False, 0.0) == Capacity(3 * 68, 3 * 1600, 3 * SPARE + 6)


def test_unknown_cache_bounds_no_tokens_and_unknown_batch_is_vllms(make: Any) -> None:
    fleet = views(make, 1, max_num_seqs=0)
    assert Sizing(SPARE).update(fleet, False, 0.0) == Capacity(256 + SPARE, math.inf, SPARE + 8)


def test_small_batches_keep_a_quarter_free_at_most(make: Any) -> None:
    assert Sizing(SPARE).update(views(make, 1, max_num_seqs=8), False, 0.0).reserved == 3
    assert Sizing(1).update(views(make, 1, max_num_seqs=1), False, 0.0).reserved == 0


def test_room_without_places_keeps_their_part_of_the_tokens_and_one_place() -> None:
    assert Capacity(8, 100.0, 2).without(2) == Capacity(6, 75.0)
    assert Capacity(8, math.inf, 8).without(8) == Capacity(1, math.inf)
    assert Capacity(1, 100.0).without(3) == Capacity(1, 100.0)
    assert Capacity(0, 0.0).without(3) == Capacity(0, 0.0)


def test_load_of_others_is_left_to_them_at_first_but_for_half(make: Any) -> None:
    assert Sizing(SPARE).update(views(make, 1, running=20), False, 0.0).requests == 48
    assert Sizing(SPARE).update(views(make, 1, running=60), False, 0.0).requests == 34


def test_lost_pods_take_their_share_with_them(make: Any) -> None:
    sizing, fleet = Sizing(SPARE), views(make, 3)
    sizing.update(fleet, False, 0.0)
    assert sizing.update(fleet[:1], False, 0.01).requests == 68
    assert sizing.update([], False, 0.02).requests == 0


def test_burst_in_a_pod_is_no_congestion(make: Any) -> None:
    sizing, (view,) = Sizing(SPARE), views(make)
    sizing.update([view], False, -1.0)
    view.live.in_flight = 64
    for step in range(4):
        report(view, running=4 * step, waiting=64 - 4 * step)
        sizing.update([view], False, step * 0.25)
    report(view, running=64)
    assert sizing.update([view], False, 1.25).requests == 68


def test_lasting_queue_in_a_pod_lowers_the_limit_to_what_it_works_on(make: Any) -> None:
    sizing, (view,) = Sizing(SPARE), views(make)
    view.live.in_flight = 64
    for step in range(6):
        report(view, running=16, waiting=48)
        sizing.update([view], False, step * 0.25)
    assert sizing.update([view], False, 1.3).requests == 20


def test_limit_grows_back_when_the_pod_has_room(make: Any) -> None:
    sizing, (view,) = Sizing(SPARE), views(make)
    view.live.in_flight = 64
    for step in range(6):
        report(view, running=16, waiting=48)
        sizing.update([view], False, step * 0.25)
    for step in range(6, 26):
        report(view, running=16)
        capacity = sizing.update([view], False, step * 0.25)
    assert capacity.requests == 68


def test_one_message_is_not_counted_twice(make: Any) -> None:
    sizing, (view,) = Sizing(SPARE), views(make)
    view.live.in_flight = 64
    report(view, running=16, waiting=48)
    for step in range(6):
        sizing.update([view], False, step * 0.25)
        report(view, running=16, waiting=48) if step == 1 else None
    view.live.in_flight = 20
    for step in range(6, 40):
        capacity = sizing.update([view], False, step * 0.25)
    assert capacity.requests == 20


@pytest.mark.parametrize("first_share", [64, 40, 5])
def test_two_gateways_come_to_equal_shares(make: Any, first_share: int) -> None:
    """Both always have more to send than they may; the pod works on 64 at once."""
    sizings, pods = (Sizing(SPARE), Sizing(SPARE)), [views(make)[0], views(make)[0]]
    shares = [first_share, 64 - first_share]
    averages = [0.0, 0.0]
    for step in range(800):
        busy = sum(shares)
        for number, view in enumerate(pods):
            view.live.in_flight = shares[number]
            report(view, running=min(64, busy), waiting=max(0, busy - 64))
        shares = [
            sizing.update([view], False, step * 0.25).requests
            for sizing, view in zip(sizings, pods, strict=True)
        ]
        if step >= 600:
            averages = [a + s / 200 for a, s in zip(averages, shares, strict=True)]
    assert averages[0] == pytest.approx(averages[1], rel=0.15)
    assert 60 <= sum(averages) <= 95


def test_reservation_grows_while_the_cache_has_room_and_tokens_are_what_is_missing(
    make: Any,
) -> None:
    sizing, (view,) = Sizing(SPARE), views(make, 1, kv_tokens=1600)
    for step in range(100):
        report(view, running=10, kv_cache_usage=0.3, kv_tokens=1600)
        capacity = sizing.update([view], True, step * 0.25)
    assert capacity.tokens > 10 * 1600


def test_reservation_shrinks_when_the_batch_wants_for_cache(make: Any) -> None:
    sizing, (view,) = Sizing(SPARE), views(make, 1, kv_tokens=1600)
    for step in range(40):
        report(view, running=10, waiting=20, kv_cache_usage=1, kv_tokens=1600)
        capacity = sizing.update([view], True, step * 0.25)
    assert capacity.tokens < 1600
