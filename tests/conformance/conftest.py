"""One real vLLM pod on the tiny GLM-4 and a gateway, for third-party clients.

The pod has no compiler on its PATH, as in the images: no client's request may need one.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.processes import Served
from tests.support.without_compiler import path_without_compiler

MODEL = Path(__file__).parents[2] / "examples/tiny-glm/model"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    logs = tmp_path_factory.mktemp("served")
    pod = processes.vllm_pod(logs, MODEL, "vllm-0", "--engine-arg", "enable_scale_out=true")
    path = path_without_compiler(tmp_path_factory.mktemp("bin"))
    pod.environment = {**pod.environment, "PATH": str(path)}
    front = processes.gateway(logs, [pod])
    with processes.running(pod, front):
        yield Served(front.grpc_address, front.http_address, pod.grpc_address, pod.http_address)
