"""What the operator costs at size: many AutoGLMDeployments on a real API server.

The control plane is real (etcd, API server, controllers, scheduler), kwok plays the kubelets. It
shares the machine with the operator. Replicas run nothing, so figures are the control side's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
from kubernetes.client import ApiException
from kubernetes.dynamic import DynamicClient

from autoglm.api.deployment import API_VERSION, KIND
from autoglm.api.labels import DEPLOYMENT
from autoglm.testing.controlplane import ControlPlane
from autoglm.testing.processes import free_ports
from benchmarks import load
from benchmarks.report import Report

CRD = load.ROOT / "deploy/crds/autoglm.io_autoglmdeployments.yaml"
NAMESPACE = "benchmark"
# Kinds whose objects are counted, with how many one resource has.
CHILDREN = {
    ("apps/v1", "Deployment"): 1,
    ("v1", "Service"): 2,
    ("v1", "ServiceAccount"): 1,
    ("v1", "ConfigMap"): 1,
    ("policy/v1", "PodDisruptionBudget"): 1,
    ("networking.k8s.io/v1", "NetworkPolicy"): 1,
}
# The operator replaces (PUT) nothing but its Lease.
WRITES = ("PATCH", "POST", "DELETE")
COLUMNS = ("what", "value", "goal")
PODS_PER_NODE = 100
REST_SECONDS = 30.0
SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Bench:
    """The parts of one run."""

    cluster: ControlPlane
    api: DynamicClient
    operator: psutil.Process
    metrics_port: int
    size: int

    def kind(self, api_version: str, kind: str) -> Any:
        return self.api.resources.get(api_version=api_version, kind=kind)

    def metric(self, name: str, **labels: str) -> float:
        """Sum over all series that have the labels."""
        text = subprocess.run(
            ["curl", "-sf", f"http://127.0.0.1:{self.metrics_port}/metrics"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(v) for series, v in lines if all(w in series for w in wanted))


def run(directory: Path, *, quick: bool) -> Report:
    size = 100 if quick else 1000
    report = Report("operator", f"Operator: {size} AutoGLMDeployments", COLUMNS)
    with tempfile.TemporaryDirectory() as place, started(Path(place), size) as bench:
        say("creating resources ...")
        create_seconds = create(bench)
        children_seconds = until(lambda: children_exist(bench), 600)
        add(report, "all resources created, s", create_seconds)
        add(
            report,
            "all children exist, s after the first create",
            create_seconds + children_seconds,
            "60",
        )
        say("waiting for rest ...")
        settled = until(lambda: at_rest(bench), 600)
        add(report, "all ready and at rest, s more", settled)
        calls = bench.metric("autoglm_operator_api_calls_total")
        add(report, "API calls a resource until then", calls / size)
        rest(bench, report)
        say("deleting children ...")
        samples = sampled(bench, size)
        quantiles(report, "repair of a deleted child", [repaired(bench, n) for n in samples], "2")
        say("changing specs ...")
        quantiles(report, "reaction to a spec change", [reacted(bench, n) for n in samples])
    report.publish(directory)
    return report


@contextmanager
def started(place: Path, size: int) -> Iterator[Bench]:
    with ControlPlane(place / "cluster", fake_nodes=-(-size * 2 // PODS_PER_NODE)) as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(CRD))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        cluster.kubectl("create", "namespace", NAMESPACE)
        (port,) = free_ports(1)
        command = [
            *(sys.executable, "-m", "autoglm.cli", "operator"),
            *("--kubeconfig", str(cluster.kubeconfig), "--lease-namespace", NAMESPACE),
            *("--metrics-address", f"127.0.0.1:{port}"),
        ]
        with (place / "operator.log").open("w") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
            try:
                api = DynamicClient(cluster.client())  # type: ignore[no-untyped-call]  # the library has no types
                bench = Bench(cluster, api, psutil.Process(child.pid), port, size)
                until(lambda: is_leader(bench), 60)
                yield bench
            finally:
                child.terminate()
                child.wait(30)


def is_leader(bench: Bench) -> bool:
    try:
        return bench.metric("autoglm_operator_leader") == 1
    except subprocess.CalledProcessError:
        return False


def create(bench: Bench) -> float:
    """Seconds."""
    resources = bench.kind(API_VERSION, KIND)
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: resources.create(resource(n), NAMESPACE), range(bench.size)))
    return time.monotonic() - begin


def resource(number: int) -> dict[str, Any]:
    spec = {"model": {}, "engine": {"type": "echo"}, "replicas": 1}
    metadata = {"name": name(number), "namespace": NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def name(number: int) -> str:
    return f"model-{number:04d}"


def children_exist(bench: Bench) -> bool:
    return all(count(bench, *kind) >= each * bench.size for kind, each in CHILDREN.items())


def count(bench: Bench, api_version: str, kind: str) -> int:
    """Of the operator's objects; from the API server's cache, names only."""
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    answer = bench.api.request(
        "get",
        bench.kind(api_version, kind).path(namespace=NAMESPACE),
        label_selector=DEPLOYMENT,
        resource_version="0",
        header_params={"Accept": accept},
        serialize=False,
    )
    return len(json.loads(answer.data)["items"])


def at_rest(bench: Bench) -> bool:
    """Everything is ready, and nothing has been written for five seconds."""
    if bench.metric("autoglm_operator_resources", phase="Ready") < bench.size:
        time.sleep(1)
        return False
    before = writes(bench)
    time.sleep(5)
    return writes(bench) == before


def writes(bench: Bench) -> float:
    return sum(bench.metric("autoglm_operator_api_calls_total", verb=verb) for verb in WRITES)


def rest(bench: Bench, report: Report) -> None:
    say(f"resting for {REST_SECONDS:.0f} s ...")
    before, used = writes(bench), cpu_seconds(bench)
    time.sleep(REST_SECONDS)
    written = writes(bench) - before
    add(report, f"writes in {REST_SECONDS:.0f} s at rest", written, "0")
    add(report, "processor at rest, % of a core", (cpu_seconds(bench) - used) / REST_SECONDS * 100)
    add(report, "memory at rest, MB", bench.operator.memory_info().rss / 1e6, "300")


def cpu_seconds(bench: Bench) -> float:
    times = bench.operator.cpu_times()
    return float(times.user + times.system)


def sampled(bench: Bench, size: int) -> list[int]:
    return Random(0).sample(range(size), min(SAMPLES, size))


def repaired(bench: Bench, number: int) -> float:
    """Seconds from deleting a Service until there is another."""
    services = bench.kind("v1", "Service")
    old = services.get(name(number), NAMESPACE).metadata.uid
    begin = time.monotonic()
    services.delete(name(number), NAMESPACE)
    until(lambda: uid(services, name(number)) not in ("", old), 60)
    return time.monotonic() - begin


def uid(kind: Any, which: str) -> str:
    try:
        return str(kind.get(which, NAMESPACE).metadata.uid)
    except ApiException as error:
        if error.status != 404:
            raise
        return ""


def reacted(bench: Bench, number: int) -> float:
    """Seconds from asking for two replicas until the Deployment has them in its spec."""
    deployments = bench.kind("apps/v1", "Deployment")
    selector = f"{DEPLOYMENT}={name(number)}"
    begin = time.monotonic()
    bench.kind(API_VERSION, KIND).patch(
        {"spec": {"replicas": 2}},
        name(number),
        NAMESPACE,
        content_type="application/merge-patch+json",
    )

    def has_two() -> bool:
        found = deployments.get(namespace=NAMESPACE, label_selector=selector).items
        return any(d.spec.replicas == 2 for d in found)

    until(has_two, 60)
    return time.monotonic() - begin


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until it held. Raises TimeoutError."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"not true after {seconds} s")
        time.sleep(0.02)
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
