"""What the operator costs at size: many AutoGLMDeployments on a real API server.

The control plane is real (etcd, API server, controllers, scheduler), kwok plays the kubelets. All
of it shares the machine with the operator, so the table says who used its processors. Replicas run
nothing: figures are the control side's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from kubernetes.client import ApiException

from autoglm.api.deployment import API_VERSION, KIND
from autoglm.api.labels import DEPLOYMENT
from benchmarks import scale_rig
from benchmarks.report import Report
from benchmarks.scale_rig import Bench, name, namespace, until

COLUMNS = ("what", "value", "goal")
REST_SECONDS = 30.0
SAMPLES = 100
# Seldom enough to cost nothing beside what is measured.
POLL_SECONDS = 0.5


def run(directory: Path, *, quick: bool) -> Report:
    size = int(os.environ.get("AUTOGLM_BENCH_RESOURCES", 100 if quick else 1000))
    report = Report("operator", f"Operator: {size} AutoGLMDeployments", COLUMNS)
    with (
        tempfile.TemporaryDirectory() as place,
        scale_rig.started(Path(place), size) as bench,
    ):
        begun(bench, report)
        rest(bench, report)
        say("deleting children ...")
        samples = sampled(size)
        quantiles(report, "repair of a deleted child", [repaired(bench, n) for n in samples], "2")
        say("changing specs ...")
        quantiles(report, "reaction to a spec change", [reacted(bench, n) for n in samples])
    report.publish(directory)
    return report


def begun(bench: Bench, report: Report) -> None:
    """From nothing until all is ready and writes have ended."""
    say("creating resources ...")
    used, begin = bench.processor_seconds(), time.monotonic()
    asyncio.run(scale_rig.create(bench))
    add(report, "all resources created, s", time.monotonic() - begin)
    until(lambda: scale_rig.children_exist(bench), 420, POLL_SECONDS)
    seconds = time.monotonic() - begin
    add(report, "all children exist, s after the first create", seconds, "60")
    processors(report, bench.processor_seconds() - used, seconds)
    say("waiting for rest ...")
    settled = until(lambda: scale_rig.at_rest(bench), 300, POLL_SECONDS)
    add(report, "all ready and at rest, s more", settled)
    for verb in ("", "GET", *scale_rig.WRITES):
        calls = bench.metric("autoglm_operator_api_calls_total", **({"verb": verb} if verb else {}))
        add(report, f"API calls a resource until then{verb and ', ' + verb}", calls / bench.size)


def processors(report: Report, used: Counter[str], seconds: float) -> None:
    for program, share in used.most_common():
        if share > 0.01 * seconds:
            add(report, f"processor time until then, s: {program}", share)


def rest(bench: Bench, report: Report) -> None:
    say(f"resting for {REST_SECONDS:.0f} s ...")
    before, used = bench.writes(), bench.processor_seconds()
    time.sleep(REST_SECONDS)
    written = bench.writes() - before
    add(report, f"writes in {REST_SECONDS:.0f} s at rest", written, "0")
    share = (bench.processor_seconds() - used)["operator"] / REST_SECONDS
    add(report, "processor at rest, % of a core", share * 100)
    add(report, "memory at rest, MB", bench.operator.memory_info().rss / 1e6, "300")


def sampled(size: int) -> list[int]:
    return Random(0).sample(range(size), min(SAMPLES, size))


def repaired(bench: Bench, number: int) -> float:
    """Seconds from deleting a Service until there is another."""
    services = bench.kind("v1", "Service")
    old = uid(services, number)
    begin = time.monotonic()
    services.delete(name(number), namespace(number))
    until(lambda: uid(services, number) not in ("", old), 60)
    return time.monotonic() - begin


def uid(kind: Any, number: int) -> str:
    try:
        return str(kind.get(name(number), namespace(number)).metadata.uid)
    except ApiException as error:
        if error.status != 404:
            raise
        return ""


def reacted(bench: Bench, number: int) -> float:
    """Seconds from requesting two replicas until the Deployment has them in its spec."""
    deployments = bench.kind("apps/v1", "Deployment")
    selector = f"{DEPLOYMENT}={name(number)}"
    begin = time.monotonic()
    bench.kind(API_VERSION, KIND).patch(
        {"spec": {"replicas": 2}},
        name(number),
        namespace(number),
        content_type="application/merge-patch+json",
    )

    def has_two() -> bool:
        found = deployments.get(namespace=namespace(number), label_selector=selector).items
        return any(d.spec.replicas == 2 for d in found)

    until(has_two, 60)
    return time.monotonic() - begin


def quantiles(report: Report, what: str, seconds: list[float], goal: str = "") -> None:
    ordered = sorted(seconds)
    for q in (50, 99):
        at = ordered[round(q / 100 * (len(ordered) - 1))]
        add(report, f"{what}, p{q} s", at, goal if q == 99 else "")


def add(report: Report, what: str, value: float, goal: str = "") -> None:
    say(f"  {what}: {value:.3g}")
    report.rows.append({"what": what, "value": value, "goal": goal})


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
