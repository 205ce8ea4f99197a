"""Real pods and gateways as child processes on free loopback ports, for tests and benchmarks.

`Process.wait_ready` polls the admin port; a child that exits first is an error with the end of its
log. Everything is ended by process group, so that an engine's own children go too.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from prometheus_client.parser import text_string_to_metric_families

READY_SECONDS = 600.0
STOP_SECONDS = 45.0
_POLL_SECONDS = 0.1
_POLL_SHARE = 3
"""Of the time that a poll takes, the time until the next one."""
_PORTS = (11_000, 30_000)
# Not the seeded one, which would give two runs the same ports.
_random = random.SystemRandom()
_given: set[int] = set()
# Proven on small CPU machines; a GPU machine overrides nothing of this.
VLLM_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Without these every engine binds itself to the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
# A worker in a process of its own spins while it waits, which takes half of a small machine.
ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


class ChildFailed(RuntimeError):
    """A child ended or did not become ready; the text ends with its log."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; none is returned twice.

    Below those that Linux gives to connections and to servers without a port of their own: one of
    these could take a port before it is listened on.
    """
    found: list[int] = []
    while len(found) < count:
        port = _random.randrange(*_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def eventually(condition: Callable[[], bool], seconds: float = 60.0, what: str = "") -> None:
    """Polls until the condition holds. Raises AssertionError when it never does.

    One that takes long is polled less often: what is waited for needs the CPU, and kubectl takes
    a tenth of a second of it.
    """
    begun = time.monotonic()
    end = begun + seconds
    while not condition():
        now = time.monotonic()
        assert now < end, f"not true after {seconds} s: {what or condition}"
        time.sleep(min(max(_POLL_SHARE * (now - begun), 0.05), 1.0))
        begun = time.monotonic()


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@dataclass
class Process:
    """One pod or gateway. Addresses are HOST:PORT."""

    name: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    child: subprocess.Popen[bytes] | None = None

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def http_address(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def metrics_address(self) -> str:
        return f"127.0.0.1:{self.ports[2]}"

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.name} was not started"
        return self.child.pid

    def start(self) -> Process:
        command = [
            *(sys.executable, "-m", "autoglm", *self.arguments),
            *("--grpc-address", self.grpc_address),
            *("--http-address", self.http_address),
            *("--metrics-address", self.metrics_address),
        ]
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        return self

    def wait_ready(self, seconds: float = READY_SECONDS) -> Process:
        end = time.monotonic() + seconds
        while not self.is_ready():
            if self.child is None or self.child.poll() is not None:
                raise ChildFailed(f"{self.name} ended before it was ready:\n{self.log_tail()}")
            if time.monotonic() > end:
                raise ChildFailed(f"{self.name} not ready in {seconds} s:\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)
        return self

    def is_ready(self) -> bool:
        return self.get("/health/ready")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page on the admin port; status 0 without a response."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=5) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Its value on /metrics, of all labels together; not a number without a response."""
        status, page = self.get("/metrics")
        if status != 200:
            return math.nan
        families = text_string_to_metric_families(page)
        return float(sum(s.value for family in families for s in family.samples if s.name == name))

    def ready_endpoints(self) -> int:
        """How many endpoints a gateway has ready; 0 without a response."""
        return self.get("/admin/endpoints")[1].count('"ready"')

    def wait_idle(self) -> Process:
        """Until a gateway has recorded the end of each request: its usage, log line and metrics.

        Envoy reports the end of a request after its client has the whole response.
        """
        eventually(lambda: self.metric("autoglm_gateway_requests_in_flight") == 0, what="idle")
        return self

    def signal(self, number: signal.Signals) -> None:
        """To the process itself, as a kubelet would."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9 of the process and all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """The exit code."""
        assert self.child is not None
        return self.child.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and SIGKILL to the group when that does not help; the exit code."""
        if self.child is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True, slots=True)
class Served:
    """Where a model is served, as HOST:PORT: through a gateway, and by the pod itself."""

    grpc_address: str
    http_address: str
    pod_grpc_address: str
    pod_http_address: str
    model: str = "tiny-glm"


def echo_pod(directory: Path, name: str = "echo-0", *arguments: str) -> Process:
    base = ("inference", "--engine", "echo", "--model-name", "echo")
    return Process(name, [*base, *arguments], directory / f"{name}.log")


def vllm_pod(
    directory: Path, model: Path, name: str = "vllm-0", *arguments: str, compiled: bool = False
) -> Process:
    """Not `compiled`, it starts in half the time and needs no C++ compiler."""
    base = (
        *("inference", "--engine", "vllm", "--model-path", str(model)),
        *("--model-name", "tiny-glm", "--max-model-len", "2048", "--gpu-memory-utilization", "0.3"),
        *("--engine-arg", "tool_call_parser=hermes"),
        *("--engine-arg", "enable_auto_tool_choice=true"),
        *("--engine-arg", f"distributed_executor_backend={ONE_PROCESS}"),
        *("--engine-arg", f"enforce_eager={str(not compiled).lower()}"),
    )
    log = directory / f"{name}.log"
    return Process(name, [*base, *arguments], log, VLLM_ENVIRONMENT)


def gateway(directory: Path, pods: Sequence[Process], *arguments: str) -> Process:
    endpoints = [a for pod in pods for a in ("--endpoint", f"grpc://{pod.grpc_address}")]
    return Process("gateway", ["gateway", *endpoints, *arguments], directory / "gateway.log")


@contextlib.contextmanager
def plain_vllm(
    directory: Path, model: Path, *arguments: str, compiled: bool = False
) -> Iterator[str]:
    """vLLM's own OpenAI server on the same model, to compare with; yields its HOST:PORT."""
    (port,) = free_ports(1)
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", "tiny-glm", "--max-model-len", "2048"),
        *("--gpu-memory-utilization", "0.3", "--host", "127.0.0.1", "--port", str(port)),
        *("--tool-call-parser", "hermes", "--enable-auto-tool-choice"),
        *("--distributed-executor-backend", ONE_PROCESS),
        *(() if compiled else ("--enforce-eager",)),
        *arguments,
    ]
    log = directory / "plain-vllm.log"
    with serving(command, f"http://127.0.0.1:{port}/health", log, VLLM_ENVIRONMENT):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    url: str,
    log: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[int]:
    """A third-party server as a child, from when it responds at `url`; its pid.

    Raises ChildFailed.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        _wait_for_page(url, child, log)
        yield child.pid
    finally:
        child.terminate()
        child.wait(STOP_SECONDS)


def _wait_for_page(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(_POLL_SECONDS)
    raise ChildFailed(f"{url} does not answer:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Start all, wait for all, stop all."""
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_ready()
        yield
    finally:
        for process in reversed(processes):
            process.stop()
