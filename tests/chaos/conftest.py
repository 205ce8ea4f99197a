"""Two real vLLM pods and two gateways that tests may break; each test starts the pods it kills."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.chaos_fidelity import Fidelity
from tests.support.fidelity import Verdict
from tests.support.processes import Process
from tests.support.soak import IS_SOAK, REPETITIONS
from tests.support.traffic import Traffic

FIGURES: list[str] = []
MODEL = Path(__file__).parents[2] / "examples/tiny-glm/model"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if IS_SOAK:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(REPETITIONS))


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def pods(logs: Path) -> Iterator[list[Process]]:
    pods = [processes.vllm_pod(logs, MODEL, f"vllm-{i}") for i in range(2)]
    with processes.running(*pods):
        yield pods


@pytest.fixture(scope="session")
def gateways(logs: Path, pods: list[Process]) -> Iterator[list[Process]]:
    # Clients that have found one ready have so long to connect to it, on a busy machine too.
    drain = ("--drain-delay-seconds", "5")
    gateways = [processes.gateway(logs, pods, *drain) for _ in range(2)]
    with processes.running(*gateways):
        yield gateways


@pytest.fixture
def fidelity() -> Fidelity:
    """What a test's clients have read, and what they should have."""
    return Fidelity()


@pytest.fixture
def figures(
    request: pytest.FixtureRequest, fidelity: Fidelity, pods: list[Process]
) -> Callable[[Traffic, float], None]:
    """Judges what was read, and keeps the figures of a test for the end of the run.

    Called once the traffic has ended, since the pod that measures must be undisturbed.
    """

    def note(result: Traffic, recovered: float) -> None:
        seconds = sorted(result.seconds)
        middle, last = seconds[len(seconds) // 2], seconds[-1]
        verdicts = fidelity.judge(pods[1])
        counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in Verdict)
        FIGURES.append(
            f"{request.node.name}: {result.served + len(result.failures)} sent, "
            f"{len(result.failures)} failed, {recovered:.0f} recovered, {counts}, "
            f"median {middle:.2f} s, slowest {last:.2f} s"
        )
        assert verdicts[Verdict.DIFFERENT] == 0, fidelity.different

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in FIGURES:
        terminalreporter.write_line(line)


def has_all_ready(gateway: Process) -> bool:
    status, page = gateway.get("/admin/endpoints")
    return status == 200 and all(e["state"] == "ready" for e in json.loads(page)["endpoints"])


@pytest.fixture
def revive(gateways: list[Process]) -> Callable[[Process], None]:
    """Start an ended process again and wait until it is ready, and every gateway knows it."""

    def start_again(process: Process) -> None:
        process.start().wait_ready()
        processes.eventually(lambda: all(map(has_all_ready, gateways)), what="all are routable")

    return start_again
