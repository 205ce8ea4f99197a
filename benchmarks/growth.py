"""How a gateway's cost of a request grows with endpoints, models, tenants and open streams.

What is decided is timed in this process, on the gateway's own code; open streams are real ones,
through a gateway process. `exponent` is the slope of cost over size, both as logarithms: 1 is
linear, 0 constant, and a logarithm has less than 0.25 from a hundred on.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from msgspec import structs
from prometheus_client import CollectorRegistry

from autoglm import v1
from autoglm.common.rpc import AUTHORIZATION
from autoglm.gateway.admission import Admission, AdmissionSettings
from autoglm.gateway.endpoints.endpoint import Endpoint, Load, Loaded, ModelsDiscovered
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.identity.authenticate import Authenticator, Known
from autoglm.gateway.identity.keys import ApiKey, ApiKeys, id_of, new_key
from autoglm.gateway.limits.tenants import TenantPolicy, Tenants
from autoglm.gateway.limits.token_buckets import RateLimits, reserve, settle, shortage
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import RequestRecord
from autoglm.gateway.routing import Router
from benchmarks import growth_pods, growth_streams
from benchmarks.decision import call, cost, microseconds, turn
from benchmarks.loglog import Curve, Panel, exponent, svg
from benchmarks.report import Report

ENDPOINTS = (2, 8, 32, 128, 512, 2000)
MODELS = (1, 5, 20, 100, 500)
TENANTS = (1, 10, 100, 1000, 10_000)
POLICIES = ("PrefixAffinity", "LatencyAware", "LeastLoaded")
_PER_MODEL = 4
_WAITING = 10_000
_PEERS = 4
Measure = Callable[[int, int], float]


def run(directory: Path, *, quick: bool) -> Report:
    rounds = 100 if quick else 1000
    panels = [
        _panel("endpoints", ENDPOINTS, endpoints(), rounds),
        _panel("models", MODELS, models(), rounds),
        _panel("tenants", TENANTS, tenants(), rounds),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        panels.append(growth_pods.panel(Path(scratch), quick))
        panels.append(growth_streams.panel(Path(scratch), quick))
    report = Report("growth", "Growth of a request's cost", ("of", "what", "costs", "exponent"))
    for panel in panels:
        for curve in panel.curves:
            shown = ", ".join(f"{size:,}: {value:.3g}" for size, value in curve.points)
            report.rows.append(
                {
                    "of": panel.title,
                    "what": curve.name,
                    "costs": shown,
                    "exponent": round(exponent(curve.points), 2),
                    "exponent of the upper half": round(exponent(curve.upper), 2),
                }
            )
    report.publish(directory)
    (directory / "growth.svg").write_text(svg(panels))
    (directory / "growth-points.json").write_text(
        json.dumps({p.title: {c.name: c.points for c in p.curves} for p in panels}, indent=1)
    )
    return report


def _panel(title: str, sizes: Sequence[int], measures: dict[str, Measure], rounds: int) -> Panel:
    curves = [
        Curve(name, tuple((size, measure(size, rounds)) for size in sizes))
        for name, measure in measures.items()
    ]
    return Panel(title, "microseconds", tuple(curves))


def endpoints() -> dict[str, Measure]:
    def pick(policy: str, *, shared: bool = False) -> Measure:
        return lambda size, rounds: cost(policy, size, rounds, shared=shared)

    return {
        **{f"pick, {policy}": pick(policy) for policy in POLICIES},
        "pick, PrefixAffinity, all hold a beginning": pick("PrefixAffinity", shared=True),
        "a pod's load message": lambda size, rounds: _reported(*_pool(1, size), rounds),
        "a pod comes or goes": lambda size, rounds: _changed(*_pool(1, size), rounds),
    }


def models() -> dict[str, Measure]:
    return {
        "pick": _picked,
        "admission": lambda size, rounds: asyncio.run(_admitted(size, rounds)),
        "a pod comes or goes": lambda size, rounds: _changed(*_pool(size, _PER_MODEL), rounds),
    }


def tenants() -> dict[str, Measure]:
    return {
        "authenticate, API key": _authenticated,
        "limits": _limited,
        f"a turn of the queue, {_WAITING:,} wait": lambda size, rounds: turn(
            _WAITING, size, rounds
        ),
    }


def _pool(names: int, each: int) -> tuple[Pool, list[str]]:
    pool, urls = Pool(Random(1)), []
    for number in range(names * each):
        host = f"10.{number // 62500}.{number // 250 % 250}.{number % 250}"
        urls.append(f"grpc://{host}:50051")
        pool.change_endpoints((), [Endpoint(urls[-1], "pod", host, 50051)], 0.0)
        pool.apply(urls[-1], ModelsDiscovered((v1.Model(name=f"m{number // each}"),)), 0.0)
        pool.apply(urls[-1], Loaded(Load(max_num_seqs=64, kv_tokens=400_000)), 0.0)
    assert len(pool.snapshot.models) == names
    return pool, urls


def _reported(pool: Pool, urls: list[str], rounds: int) -> float:
    message = Loaded(Load(running=3, max_num_seqs=64, kv_tokens=400_000))

    def reported(number: int) -> None:
        pool.apply(urls[number % len(urls)], message, 1.0)
        assert pool.snapshot

    return microseconds(reported, rounds)


def _changed(pool: Pool, urls: list[str], rounds: int) -> float:
    """It drains and is back, each time with a snapshot for the next request; half of both."""
    ready = Loaded(Load(max_num_seqs=64, kv_tokens=400_000))
    drains = Loaded(replace(ready.load, draining=True))

    def changed(number: int) -> None:
        url = urls[number // 2 % len(urls)]
        pool.apply(url, ready if number % 2 else drains, 1.0)
        assert pool.snapshot

    return microseconds(changed, max(10, min(rounds, 100_000 // len(urls))))


def _calls(names: int) -> list[object]:
    rng = Random(1)
    return [
        structs.replace(made, info=structs.replace(made.info, model=f"m{rng.randrange(names)}"))
        for number in range(200)
        if (made := call(number, rng)).info is not None
    ]


def _picked(names: int, rounds: int) -> float:
    pool, _ = _pool(names, _PER_MODEL)
    router = Router(_metrics(), Random(1), "PrefixAffinity")
    calls, snapshot = _calls(names), pool.snapshot
    for known in calls[::2]:
        router.route(known, snapshot, 0.0)  # type: ignore[arg-type]
    return microseconds(lambda n: router.route(calls[n % 200], snapshot, 0.0), rounds)  # type: ignore[arg-type]


async def _admitted(names: int, rounds: int) -> float:
    pool, _ = _pool(names, _PER_MODEL)
    admission = Admission(pool, AdmissionSettings(), _metrics(), clock=lambda: 0.0)
    calls = _calls(names)

    async def places() -> None:
        for number in range(rounds):
            record = RequestRecord()
            slot = await admission.enter(calls[number % 200], record)  # type: ignore[arg-type]
            admission.leave(slot, record)

    loop, best = asyncio.get_running_loop(), math.inf
    for _ in range(5):
        begun = loop.time()
        await places()
        best = min(best, (loop.time() - begun) / rounds)
    return best * 1e6


def _authenticated(number_of: int, rounds: int) -> float:
    """Some of the keys come again, from a few addresses."""
    keys = [new_key(f"tenant-{number}") for number in range(number_of)]
    by_id = {
        id_of(key): ApiKey(bytes.fromhex(entry.sha256), Principal(entry.tenant, entry.id))
        for key, entry in keys
    }
    authenticator = Authenticator(Known(False, ApiKeys(by_id)))
    chosen = Random(1).choices(keys, k=2000)
    headers = [((AUTHORIZATION, f"Bearer {key}"),) for key, _ in chosen]

    def judged(number: int) -> None:
        verdict = authenticator.judge(headers[number % 2000], f"10.0.0.{number % _PEERS}", 0.0, 0.0)
        assert verdict.principal

    return microseconds(judged, rounds)


def _limited(number_of: int, rounds: int) -> float:
    policy = TenantPolicy(requests_per_minute=1e9, tokens_per_minute=1e12)
    names = [f"tenant-{number}" for number in range(number_of)]
    rates = RateLimits(Tenants(dict.fromkeys(names, policy)))
    for name in names:
        rates.account_of(name, 0.0)
    asking = Random(1).choices(names, k=2000)

    def limited(number: int) -> None:
        account = rates.account_of(asking[number % 2000], 0.0)
        assert account is not None and shortage(account, 100.0, 0.0)[1] <= 0
        settle(reserve(account, 100.0, 0.0), 80.0, 0.0)

    return microseconds(limited, rounds)


def _metrics() -> Metrics:
    return Metrics(CollectorRegistry())
