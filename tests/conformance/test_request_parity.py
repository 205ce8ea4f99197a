"""A gateway and the pod behind it make the same of the same request, but for listed differences."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support import processes
from tests.support.parity import Outcome, outcomes, problems
from tests.support.parity_bodies import Body, bodies
from tests.support.parity_differences import GENERATING, POOLING
from tests.support.parity_grpc import grpc_outcome, requests
from tests.support.processes import Served

from autoglm.validation.http_apis import inference_post

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
MODEL = Path(__file__).parents[2] / "examples/tiny-glm/model"
# Answered by models that pool. A model that generates serves none of them, so nothing is compared.
POOLED = (
    *("/v1/embeddings", "/v2/embed", "/v1/score", "/score", "/classify", "/pooling"),
    *("/v1/rerank", "/rerank", "/v2/rerank"),
)
# What the echo engine serves.
ECHOED = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/v2/inference")
Seen = tuple[dict[str, Outcome], dict[str, Outcome]]


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny model as one that makes vectors."""
    logs = tmp_path_factory.mktemp("pooling")
    options = [o for name in ("runner=pooling", "convert=embed") for o in ("--engine-arg", name)]
    pod = processes.vllm_pod(logs, MODEL, "pooling", *options)
    front = processes.gateway(logs, [pod])
    with processes.running(pod, front):
        yield Served(front.grpc_address, front.http_address, pod.grpc_address, pod.http_address)


@pytest.fixture(scope="module")
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    logs = tmp_path_factory.mktemp("echoing")
    pod = processes.echo_pod(logs, "echo-0", "--model-alias", "tiny-glm")
    front = processes.gateway(logs, [pod])
    with processes.running(pod, front):
        yield Served(front.grpc_address, front.http_address, pod.grpc_address, pod.http_address)


def seen_by_both(served: Served, chosen: list[Body]) -> Seen:
    pod = asyncio.run(outcomes(served.pod_http_address, chosen))
    return pod, asyncio.run(outcomes(served.http_address, chosen))


@pytest.fixture(scope="module")
def generating_seen(gateway: Served) -> Seen:
    forwarded = [b for b in bodies() if inference_post(b.path)]
    return seen_by_both(gateway, [b for b in forwarded if b.path not in POOLED])


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


def test_apis_of_a_pooling_model_are_alike(pooling: Served) -> None:
    forwarded = [b for b in bodies() if inference_post(b.path)]
    seen = seen_by_both(pooling, [b for b in forwarded if b.path in POOLED])
    found = problems(*seen, POOLING)
    assert not found, "\n".join(found)


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
