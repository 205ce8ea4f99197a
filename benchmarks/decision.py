"""What a routing decision costs, in microseconds: by policy and number of endpoints, and by prompt;
and a turn of the admission queue.

In one process, on the gateway's own code; no servers. `picked` includes what the router remembers
of its decision. Every endpoint holds some of the prompts, and half of the prompts are known.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry
from tests.support.snapshots import take_snapshot

from autoglm import v1
from autoglm.gateway.admission.capacity import Capacity
from autoglm.gateway.admission.lane import Waiter
from autoglm.gateway.admission.queue import Bounds, Queue
from autoglm.gateway.endpoints.endpoint import Endpoint, EndpointView, Live, Load, Phase, State
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing import POLICIES, Router
from autoglm.gateway.routing.prefix_index import salt_of
from autoglm.validation import Operation, RequestInfo, prefix_hash
from autoglm.validation.request_info import Prompt
from benchmarks.report import Report

SIZES = (8, 64, 512, 2000)
PROMPTS = (1_000, 10_000, 100_000)
_TOKENS = 2000
WAITING, TENANTS = (100, 1_000, 10_000), (1, 100, 1_000)
_PLACES = 64
_SHARED = 7


def run(output: Path, *, quick: bool) -> None:
    rounds = 200 if quick else 2000
    report = Report(
        "decision",
        "microseconds for a decision, prompts of 2,000 tokens",
        ("policy", *(f"{size} endpoints" for size in SIZES)),
    )
    for policy in POLICIES:
        costs = {f"{size} endpoints": cost(policy, size, rounds) for size in SIZES}
        report.rows.append({"policy": policy, **costs})
    report.publish(output)
    _admission(output, rounds)
    _hashing(output, rounds)


def _admission(output: Path, rounds: int) -> None:
    report = Report(
        "admission",
        "microseconds for one request to come, another to end, and the next one to be let on",
        ("requests that wait", *(f"{tenants} tenants" for tenants in TENANTS)),
    )
    for waiting in WAITING:
        costs = {f"{tenants} tenants": turn(waiting, tenants, rounds) for tenants in TENANTS}
        report.rows.append({"requests that wait": waiting, **costs})
    report.publish(output)


def turn(waiting: int, tenants: int, rounds: int) -> float:
    queue = Queue("m", Bounds(requests=2 * waiting))
    queue.resize(Capacity(_PLACES), 0.0)
    running: deque[Waiter] = deque()

    def arrive(number: int) -> None:
        waiter = Waiter(f"tenant-{number % tenants}", 100.0 + number % 100, 1000, 1e9)
        running.extend(v.waiter for v in queue.arrive(waiter, 0.0) if v.error is None)

    for number in range(_PLACES + waiting):
        arrive(number)

    def go_round(number: int) -> None:
        arrive(number)
        running.extend(v.waiter for v in queue.leave(running.popleft(), 0.0, 120.0))

    return microseconds(go_round, rounds)


def cost(policy: str, size: int, rounds: int, *, shared: bool = False) -> float:
    """Microseconds. With `shared`, every endpoint holds the beginning of all prompts."""
    rng = Random(1)
    router = Router(Metrics(CollectorRegistry()), rng, policy)  # type: ignore[arg-type]  # a key of POLICIES
    snapshot, calls = fleet(size, rng), [call(n, rng) for n in range(200)]
    for known in calls[::2]:
        router.route(known, snapshot, 0.0)
    if shared:
        share(router, snapshot, calls)
    rounds = max(100, rounds * 64 // max(64, size))
    return microseconds(lambda n: router.route(calls[n % 200], snapshot, 0.0), rounds)


def share(router: Router, snapshot: Snapshot, calls: Sequence[GatewayRequest]) -> None:
    """Every endpoint holds the beginning of all prompts."""
    first = calls[0]
    beginning = first.info.prefix.blocks[:_SHARED] if first.info else ()
    for view in snapshot.endpoints:
        router.memory.prefixes.add(view.url, beginning, salt_of(first.principal.tenant, "m"))


def fleet(size: int, rng: Random) -> Snapshot:
    views = []
    for number in range(size):
        live = Live()
        live.take(Load(running=rng.randrange(40), max_num_seqs=64, kv_tokens=400_000))
        endpoint = Endpoint(f"grpc://10.0.{number // 250}.{number % 250}:50051", "pod", "h", 1)
        views.append(EndpointView(endpoint, State(Phase.READY, models=(v1.Model(name="m"),)), live))
    return take_snapshot(views)


def call(number: int, rng: Random) -> GatewayRequest:
    ids = [*range(500), *(rng.getrandbits(31) for _ in range(_TOKENS - 500))]
    prompts = (Prompt("p", 4 * _TOKENS, _TOKENS),)
    ask = RequestInfo(Operation.CHAT, "m", prompts=prompts, prefix=prefix_hash.of_token_ids(ids))
    return GatewayRequest("grpc", "r", "t", b"", "id", 0.0, 600.0, ask)


def _hashing(output: Path, rounds: int) -> None:
    report = Report(
        "hashing", "microseconds to name the blocks of a prompt", ("prompt tokens", "text", "ids")
    )
    for tokens in PROMPTS:
        text, ids = "abcd" * tokens, list(range(tokens))
        count = max(5, rounds * 100 // tokens)
        report.rows.append(
            {
                "prompt tokens": tokens,
                "text": microseconds(lambda _, text=text: prefix_hash.of_text(text), count),  # type: ignore[misc]
                "ids": microseconds(lambda _, ids=ids: prefix_hash.of_token_ids(ids), count),  # type: ignore[misc]
            }
        )
    report.publish(output)


def microseconds(work: Callable[[int], object], rounds: int) -> float:
    """The best of five means, as others use the machine as well."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for number in range(rounds):
            work(number)
        best = min(best, (time.perf_counter() - begun) / rounds)
    return best * 1e6
