"""Many AutoGLMDeployments on a real API server, for `operator_scale`: starts, creates, counts.

Nothing here measures for long what it observes: objects are counted by the API server, and the
operator's own metrics have the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from kubernetes.dynamic import DynamicClient
from tests.support.kube.controlplane import ControlPlane
from tests.support.processes import free_ports

from autoglm.api.deployment import API_VERSION, KIND
from autoglm.kube.client import Client, configure
from autoglm.kube.kinds import RESOURCE
from autoglm.kube.transport import Request
from benchmarks import load

CRD = load.ROOT / "deploy/crds/autoglm.io_autoglmdeployments.yaml"
# Teams share a cluster, not a namespace; Kubernetes' own controllers check all of a namespace's
# budgets and Services for each pod.
PER_NAMESPACE = 50
HOME = "autoglm-system"
# The collections whose objects are counted, with how many one resource has.
CHILDREN = {
    "apis/apps/v1": {"deployments": 1},
    "api/v1": {"services": 2, "serviceaccounts": 1, "configmaps": 1},
    "apis/policy/v1": {"poddisruptionbudgets": 1},
    "apis/networking.k8s.io/v1": {"networkpolicies": 1},
}
# What Kubernetes itself puts into each namespace, by collection.
BESIDES = {"serviceaccounts": "default", "configmaps": "kube-root-ca.crt"}
# The operator replaces (PUT) nothing but its Lease.
WRITES = ("PATCH", "POST", "DELETE")
PODS_PER_NODE = 100
CREATORS = 8
CREATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Bench:
    """The parts of one run."""

    cluster: ControlPlane
    api: DynamicClient
    operator: psutil.Process
    metrics_port: int
    size: int
    before: dict[str, int] = field(default_factory=dict)
    """How many objects a collection had before the first resource."""

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

    def writes(self) -> float:
        return sum(self.metric("autoglm_operator_api_calls_total", verb=verb) for verb in WRITES)

    def processor_seconds(self) -> Counter[str]:
        """By program, since they started."""
        used: Counter[str] = Counter()
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            times = process.cpu_times()
            used[self._program(process)] += times.user + times.system
        return used

    def _program(self, process: psutil.Process) -> str:
        if process.pid == os.getpid():
            return "this benchmark"
        return "operator" if process.pid == self.operator.pid else Path(process.cmdline()[0]).name


@contextmanager
def started(place: Path, size: int) -> Iterator[Bench]:
    # Programs in Go: a fifth of their time was garbage collection, with memory to spare.
    os.environ.setdefault("GOGC", "400")
    with ControlPlane(place / "cluster", fake_nodes=-(-size * 2 // PODS_PER_NODE)) as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(CRD))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for home in (HOME, *namespaces(size)):
            cluster.kubectl("create", "namespace", home)
        (port,) = free_ports(1)
        command = [
            *(sys.executable, "-m", "autoglm", "operator"),
            *("--kubeconfig", str(cluster.kubeconfig), "--lease-namespace", HOME),
            *("--metrics-address", f"127.0.0.1:{port}"),
        ]
        with (place / "operator.log").open("w") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
            try:
                api = DynamicClient(cluster.client())  # type: ignore[no-untyped-call]  # the library has no types
                bench = Bench(cluster, api, psutil.Process(child.pid), port, size)
                until(lambda: is_leader(bench), 60)
                counted(bench)
                yield bench
            finally:
                child.terminate()
                child.wait(30)


def is_leader(bench: Bench) -> bool:
    try:
        return bench.metric("autoglm_operator_leader") == 1
    except subprocess.CalledProcessError:
        return False


async def create(bench: Bench) -> None:
    """All resources, some at a time."""
    client = Client(await configure(str(bench.cluster.kubeconfig), ""), "benchmark")
    numbers = iter(range(bench.size))

    async def some() -> None:
        for number in numbers:
            request = Request("POST", RESOURCE.path(namespace(number)), (), resource(number))
            await client.send(request, CREATE_SECONDS)

    await asyncio.gather(*(some() for _ in range(CREATORS)))
    await client.close()


def resource(number: int) -> dict[str, Any]:
    spec = {"model": {}, "engine": {"type": "echo"}, "replicas": 1}
    metadata = {"name": name(number), "namespace": namespace(number)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def namespaces(size: int) -> list[str]:
    return [namespace(number) for number in range(0, size, PER_NAMESPACE)]


def namespace(number: int) -> str:
    return f"team-{number // PER_NAMESPACE:02d}"


def name(number: int) -> str:
    return f"model-{number:04d}"


def children_exist(bench: Bench) -> bool:
    return all(
        count(bench, path) - bench.before[path] >= each * bench.size
        for path, each in collections().items()
    )


def collections() -> dict[str, int]:
    """Paths in all namespaces, with how many objects of each a resource has."""
    return {f"/{api}/{plural}": n for api, kinds in CHILDREN.items() for plural, n in kinds.items()}


def counted(bench: Bench) -> None:
    """Remembers what there is, once Kubernetes has put its own into every namespace."""
    homes = count(bench, "/api/v1/namespaces")

    def is_settled() -> bool:
        named = (
            len(items(bench, f"/api/v1/{plural}", fieldSelector=f"metadata.name={name}"))
            for plural, name in BESIDES.items()
        )
        return all(number >= homes for number in named)

    until(is_settled, 60)
    bench.before.update({path: count(bench, path) for path in collections()})


def items(bench: Bench, path: str, **query: str) -> list[Any]:
    response = bench.api.request("get", path, query_params=list(query.items()), serialize=False)
    found: list[Any] = json.loads(response.data)["items"]
    return found


def count(bench: Bench, path: str) -> int:
    """The API server counts what it leaves out of a list."""
    response = bench.api.request("get", path, limit=1, serialize=False)
    body = json.loads(response.data)
    return len(body["items"]) + int(body["metadata"].get("remainingItemCount", 0))


def at_rest(bench: Bench) -> bool:
    """Everything is ready, and nothing has been written for five seconds."""
    if bench.metric("autoglm_operator_resources", phase="Ready") < bench.size:
        return False
    before = bench.writes()
    time.sleep(5)
    return bench.writes() == before


def until(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> float:
    """Seconds until it held. Raises TimeoutError."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"not true after {seconds} s")
        time.sleep(pause)
    return time.monotonic() - begin
