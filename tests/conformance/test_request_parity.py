"""A gateway and the pod behind it make the same of the same request, but for listed differences."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support import parity_forms, processes, tiny_models
from tests.support.parity import Outcome, outcomes, problems
from tests.support.parity_bodies import bodies
from tests.support.parity_body import Body
from tests.support.parity_differences import GENERATING, OF_KIND
from tests.support.parity_grpc import grpc_outcome, requests
from tests.support.processes import Process, Served

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
MODEL = Path(__file__).parents[2] / "examples/tiny-glm/model"
POOLED = (
    *("/v1/embeddings", "/v2/embed", "/v1/score", "/score", "/classify", "/pooling"),
    *("/v1/rerank", "/rerank", "/v2/rerank"),
)
# APIs that the generating model lacks, by the kind of model that serves them.
SERVED_BY = {"pooling": POOLED, "speech": parity_forms.PATHS, "labels": ("/v1/systemone",)}
# What the echo engine serves.
ECHOED = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/v2/inference")
Seen = tuple[dict[str, Outcome], dict[str, Outcome]]


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """Pods of the kinds of models in `SERVED_BY`, which start at the same time."""
    logs = tmp_path_factory.mktemp("special")
    models = {kind: tmp_path_factory.mktemp(kind) for kind in ("speech", "labels")}
    pooling = ("--engine-arg", "runner=pooling", "--engine-arg", "convert=embed")
    speech, labels = tiny_models.whisper(models["speech"]), tiny_models.qwen3(models["labels"])
    pods = {
        "pooling": processes.vllm_pod(logs, MODEL, "pooling", *pooling),
        "speech": processes.vllm_pod(
            logs, speech, "speech", *tiny_models.DUMMY, "--max-model-len", "448"
        ),
        "labels": processes.vllm_pod(logs, labels, "labels", *tiny_models.DUMMY),
    }
    fronts = {kind: processes.gateway(models.get(kind, logs), [pod]) for kind, pod in pods.items()}
    with processes.running(*pods.values(), *fronts.values()):
        yield {kind: served_by(fronts[kind], pod) for kind, pod in pods.items()}


@pytest.fixture(scope="module")
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    logs = tmp_path_factory.mktemp("echoing")
    pod = processes.echo_pod(logs, "echo-0", "--model-alias", "tiny-glm")
    front = processes.gateway(logs, [pod])
    with processes.running(pod, front):
        yield served_by(front, pod)


def served_by(front: Process, pod: Process) -> Served:
    return Served(front.grpc_address, front.http_address, pod.grpc_address, pod.http_address)


def seen_by_both(served: Served, chosen: list[Body]) -> Seen:
    pod = asyncio.run(outcomes(served.pod_http_address, chosen))
    return pod, asyncio.run(outcomes(served.http_address, chosen))


@pytest.fixture(scope="module")
def generating_seen(gateway: Served) -> Seen:
    lacking = {path for paths in SERVED_BY.values() for path in paths}
    return seen_by_both(gateway, [b for b in bodies() if b.path not in lacking])


def test_apis_of_a_generating_model_are_alike(generating_seen: Seen) -> None:
    assert len(generating_seen[0]) > 600
    found = problems(*generating_seen, GENERATING)
    assert not found, "\n".join(found)


def test_good_and_wrong_bodies_are_both_many(generating_seen: Seen) -> None:
    """Otherwise all might be alike because all are rejected."""
    statuses = [outcome.status for outcome in generating_seen[0].values()]
    assert statuses.count(200) > 100
    assert statuses.count(400) > 100


def test_no_body_ends_the_pod(generating_seen: Seen, gateway: Served) -> None:
    good = [b for b in bodies() if b.name == "/v1/chat/completions good"]
    assert seen_by_both(gateway, good)[1] == {good[0].name: Outcome(200)}


@pytest.mark.parametrize("kind", SERVED_BY)
def test_apis_of_another_kind_of_model_are_alike(special: dict[str, Served], kind: str) -> None:
    pod, front = seen_by_both(special[kind], [b for b in bodies() if b.path in SERVED_BY[kind]])
    found = problems(pod, front, OF_KIND.get(kind, ()))
    assert not found, "\n".join(found)
    assert {outcome.status for outcome in pod.values()} >= {200, 400, 404}


def test_apis_of_the_echo_engine_are_alike(echoing: Served) -> None:
    served = [b for b in bodies() if b.path in ECHOED or b.path.startswith("/v2/models")]
    pod, front = seen_by_both(echoing, served)
    found = problems(pod, front, ())
    assert not found, "\n".join(found)
    assert 500 not in {outcome.status for outcome in pod.values()}


def test_methods_of_grpc_are_alike(gateway: Served) -> None:
    def seen(address: str) -> list[str]:
        with grpc.insecure_channel(address) as channel:
            return [f"{r.name}: {grpc_outcome(channel, r)}" for r in requests()]

    pod = seen(gateway.pod_grpc_address)
    assert sum(line.endswith("OK") for line in pod) > 50
    assert seen(gateway.grpc_address) == pod
