"""A pod that is killed takes its engine's processes along; nothing keeps the device's memory."""

import signal
from pathlib import Path

import psutil
import pytest
from tests.support import processes

MODEL = Path(__file__).parents[2] / "examples/tiny-glm/model"

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_the_engine_ends_with_its_killed_pod(tmp_path: Path) -> None:
    pod = processes.vllm_pod(tmp_path, MODEL)
    with processes.running(pod):
        engine = psutil.Process(pod.pid).children(recursive=True)
        assert engine

        pod.signal(signal.SIGKILL)
        pod.wait()

        _, alive = psutil.wait_procs(engine, timeout=15)
        assert not alive
