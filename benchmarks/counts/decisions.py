"""What letting a request on and choosing its endpoint cost, by the number of endpoints."""

from __future__ import annotations

from random import Random

from prometheus_client import CollectorRegistry

from autoglm.gateway.admission.capacity import Capacity
from autoglm.gateway.admission.lane import Waiter
from autoglm.gateway.admission.queue import Bounds, Queue
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.routing import Router
from benchmarks.counts.requests import Found
from benchmarks.counts.tracer import Counting
from benchmarks.decision import call, fleet, share

SIZES = (8, 512, 2000)
_PROMPTS, _ROUNDS = 40, 20


def decisions() -> Found:
    found: Found = {}
    for size in SIZES:
        for name, shared in (("", False), (", all hold a beginning", True)):
            own, libraries = _cost(size, shared)
            what = f"admission and pick at {size} endpoints{name}, instructions"
            found |= {f"{what}, own": own, f"{what}, all": own + libraries}
    return found


def _cost(size: int, shared: bool) -> tuple[int, int]:
    """Means of some decisions by prefix affinity; half of the prompts are known."""
    rng = Random(1)
    router = Router(Metrics(CollectorRegistry()), Random(1), "PrefixAffinity")
    snapshot = fleet(size, rng)
    calls = [call(number, rng) for number in range(_PROMPTS)]
    for known in calls[::2]:
        router.route(known, snapshot, 0.0)
    if shared:
        share(router, snapshot, calls)
    queue = Queue("m", Bounds())
    queue.resize(Capacity(64), 0.0)
    with Counting() as counting:
        for each in calls[:_ROUNDS]:
            waiter = Waiter("tenant", 100.0, 1000, 1e9)
            queue.arrive(waiter, 0.0)
            router.route(each, snapshot, 0.0)
            queue.leave(waiter, 0.0, 120.0)
    found = counting.found
    return round(found.own / _ROUNDS), round(found.libraries / _ROUNDS)
