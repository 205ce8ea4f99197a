from random import Random
from typing import Any

import pytest
from benchmarks.counts.tracer import Counting

from autoglm.gateway.endpoints.snapshot import take_snapshot
from autoglm.gateway.routing import POLICIES, Decision, Memory, Reason, pick
from autoglm.gateway.routing.prefix import salt_of
from autoglm.gateway.routing.rings import Ring, Rings
from autoglm.gateway.routing.sample import MOST
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.prefix_hash import Prefix


class Fleet:
    def __init__(self, make: Any, size: int = 1000) -> None:
        self.make, self.memory = make, Memory()
        self.views = [make.view(n, running=n % 5) for n in range(size)]
        self.snapshot = take_snapshot(self.views)

    def decide(self, policy: Any, prefix: Prefix, seed: int = 0, **rest: Any) -> Decision:
        call = self.make.call(info=RequestInfo(Operation.CHAT, "glm", prefix=prefix))
        return pick(
            call, self.snapshot, 0, Random(seed), memory=self.memory, default=policy, **rest
        )


def test_the_holder_of_the_prompt_is_among_those_scored(make: Any) -> None:
    fleet, names = Fleet(make), (1, 2, 3)
    call = make.call(info=RequestInfo(Operation.CHAT, "glm", prefix=Prefix(names, 9)))
    for seed in range(20):
        holder = Random(seed).choice(fleet.views[::5])
        fleet.memory = Memory()
        fleet.memory.picked(call, holder, 0)
        decision = fleet.decide("PrefixAffinity", Prefix(names, 9), seed)
        assert decision.endpoint == holder and decision.reason is Reason.PREFIX


@pytest.mark.parametrize("policy", POLICIES)
def test_a_bounded_number_is_scored_and_tried_ones_come_last(make: Any, policy: Any) -> None:
    fleet, tried = Fleet(make), frozenset[str]()
    for seed in range(5):
        decision = fleet.decide(policy, Prefix((seed,), seed + 1), seed, exclude=tried)
        assert decision.endpoint.url not in tried
        assert not decision.trail.scores or len(decision.trail.candidates) <= MOST
        tried |= {decision.endpoint.url}


def test_gateways_place_alike_whatever_their_samples(make: Any) -> None:
    fleet = Fleet(make, 500)
    for view in fleet.views:
        view.live.others = 0
    prompts = [Prefix((n,), n * 0x9E3779B97F4A7C15 % 2**64, True) for n in range(1, 40)]
    one, two = (
        [fleet.decide("PrefixAffinity", p, seed).endpoint.url for p in prompts] for seed in (1, 2)
    )
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert same == len(prompts) and len(set(one)) > 20


def test_rings_are_remade_when_endpoints_change_and_few_are_kept(make: Any) -> None:
    rings, views = Rings(most=2), tuple(make.view(n) for n in range(5))
    ring = rings.of(views)
    assert rings.of(views) is ring and rings.of(views[1:]) is not ring
    rings.of(views[2:])
    assert rings.of(views) is not ring


@pytest.mark.parametrize("place", [0, 2**63, 2**64 - 1])
def test_a_ring_goes_round(make: Any, place: int) -> None:
    ring = Ring([make.view(n) for n in range(10)])
    assert len(set(ring.around(place, 10))) == 10 and len(ring.around(place, 4)) == 4


def test_a_beginning_that_all_hold_costs_no_visit_of_all_of_them(make: Any) -> None:
    costs = []
    for size in (500, 1500):
        fleet, prefix = Fleet(make, size), Prefix((1, 2, 3), 9)
        for view in fleet.views:
            fleet.memory.prefixes.add(
                view.url, (1, 2), salt_of(make.call().principal.tenant, "glm")
            )
        fleet.decide("PrefixAffinity", prefix)
        with Counting() as counting:
            fleet.decide("PrefixAffinity", prefix)
        costs.append(counting.found.own)
    assert costs[1] < 1.2 * costs[0]
