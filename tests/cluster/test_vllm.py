"""Real vLLM in the image for CPUs, on real nodes: the tiny GLM-4 through the gateway's Service.

Weights come by a volume that lies on one node, as a local disk does, so that only this node needs
the image of gigabytes.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.kube import product
from tests.support.kube.node import Node
from tests.support.kube.product import Model, is_ready, local_volume
from tests.support.processes import eventually
from tests.support.traffic import Send, Traffic, traffic

from autoglm.client import Client

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/kubernetes"
LESSONS = yaml.safe_load((ROOT / "examples/tiny-glm/questions.yaml").read_text())["questions"]
ANSWERS = {lesson["question"]: lesson["answer"] for lesson in LESSONS}
QUESTION = "What is the gateway?"
SPACE = "models"
NAMESPACE = product.restricted_namespace(SPACE)
LOOK = """
print(open("/proc/1/status").read())
try:
    open("/opt/autoglm/new", "w")
except OSError as error:
    print(error.strerror)
"""
# Two engines and a third one that starts share two cores with everything else.
READY_SECONDS = 900.0

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def weights(
    cluster: Node, cpu_node: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """The model in a volume, as examples/kubernetes/weights.yaml says."""
    cluster.apply(NAMESPACE, local_volume("weights", tmp_path_factory.mktemp("disk"), cpu_node))
    cluster.kubectl("apply", "-n", SPACE, "-f", str(EXAMPLES / "weights.yaml"))
    cluster.kubectl("wait", "-n", SPACE, "pod/weights", "--for=condition=Ready", "--timeout=60s")
    source = ROOT / "examples/tiny-glm/model"
    cluster.kubectl("cp", "-n", SPACE, str(source), "weights:/weights/tiny-glm")
    cluster.kubectl("delete", "pod", "-n", SPACE, "weights")
    yield cluster
    cluster.kubectl("delete", "namespace", SPACE)
    cluster.kubectl("delete", "pv", "weights")


@pytest.fixture(scope="module")
def model(weights: Node, cpu_node: str) -> Iterator[Model]:
    weights.kubectl("apply", "-n", SPACE, "-f", str(EXAMPLES / "tiny-glm.yaml"))
    model = Model(weights, "tiny-glm", SPACE)
    eventually(lambda: model.progress() != "", READY_SECONDS, "the status says what a start does")
    model.wait_ready(READY_SECONDS)
    yield model
    weights.kubectl("delete", "agd", "-n", SPACE, "--all", "--timeout=120s")


def senders(address: str) -> list[Send]:
    """Clients that try once and know the response: what is lost, doubled or failed is seen."""

    def grpc() -> None:
        with Client(f"{address}:50051") as client:
            response = client.chat(QUESTION, model="tiny-glm", temperature=0, timeout=60)
            assert response.choices[0].message.content == ANSWERS[QUESTION]

    def stream() -> None:
        with Client(f"{address}:50051") as client:
            chunks = client.chat_stream(QUESTION, model="tiny-glm", temperature=0, timeout=60)
            assert "".join(chunk.delta.content for chunk in chunks) == ANSWERS[QUESTION]

    def rest() -> None:
        assert product.chat(address, "tiny-glm", QUESTION) == ANSWERS[QUESTION]

    return [grpc, stream, rest]


def test_vllm_responds_over_grpc_and_rest_through_the_gateways_service(
    model: Model, address: str
) -> None:
    for send in senders(address):
        send()
    for question in list(ANSWERS)[:5]:
        assert product.chat(address, "tiny-glm", question) == ANSWERS[question]


def test_the_engines_own_metrics_are_on_the_pod(model: Model, cluster: Node) -> None:
    def generated() -> float:
        pages = (
            cluster.run(
                "curl", "--silent", "--fail", f"http://{pod['status']['podIP']}:9090/metrics"
            )
            for pod in model.pods()
        )
        found = (re.findall(r"^vllm:generation_tokens_total\{.*\} (\S+)$", p, re.M) for p in pages)
        return sum(float(value) for page in found for value in page)

    before = generated()
    with Client(f"{product.gateway_address(cluster)}:50051") as client:
        client.chat(QUESTION, model="tiny-glm", temperature=0, timeout=60)
    eventually(lambda: generated() > before, 15, "vLLM counts its tokens")


def test_the_pod_runs_under_the_restricted_standard(model: Model, cluster: Node) -> None:
    pod = model.pods()[0]["metadata"]["name"]
    shown = cluster.kubectl("exec", "-n", SPACE, pod, "--", "python", "-c", LOOK)
    lines = dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["10001"] * 4
    assert int(lines["CapBnd"], 16) == 0
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
    assert "Read-only file system" in shown


def test_a_pod_that_is_deleted_fails_no_request(model: Model, cluster: Node, address: str) -> None:
    gone = sorted(model.pod_names())[0]
    with traffic(senders(address)) as result:
        result.wait_served(20)
        cluster.kubectl("delete", "pod", "-n", SPACE, gone, "--timeout=120s")
        result.wait_served(20)
        with result.slowed():
            eventually(lambda: model.ready() == [True] * 2, READY_SECONDS, "its successor is ready")
        result.wait_served(20)
    assert result.failures == []


def ready_beside(model: Model, before: set[str]) -> int:
    """How many pods are ready that are not those of before."""
    new = [pod for pod in model.pods() if pod["metadata"]["name"] not in before]
    return sum(is_ready(pod) for pod in new)


def listed(model: Model) -> set[str]:
    """The names of all pods, those that are ending too."""
    chosen = ("-n", model.namespace, "-l", f"autoglm.io/deployment={model.name}")
    return {pod["metadata"]["name"] for pod in model.node.get("pods", *chosen)["items"]}


def wait_replaced(model: Model, before: set[str], number: int, result: Traffic) -> None:
    """While an engine starts nothing else happens; the old pod ends under full traffic."""
    with result.slowed():
        eventually(lambda: ready_beside(model, before) >= number, READY_SECONDS, "a new pod")
    eventually(lambda: len(before - listed(model)) >= number, 120, "an old pod is gone")


def test_a_rolling_update_of_vllm_fails_no_request(model: Model, address: str) -> None:
    before = model.pod_names()
    with traffic(senders(address)[:2]) as result:
        result.wait_served(20)
        model.patch({"engine": {"maxNumSeqs": 32}})
        for number in (1, 2):
            wait_replaced(model, before, number, result)
        model.wait_ready(2 * READY_SECONDS)
        result.wait_served(20)
    assert result.failures == []
    assert before.isdisjoint(model.pod_names())
