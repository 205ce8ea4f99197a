"""Other routers in front of our pods, as one would run them instead, with their own defaults."""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tests.support.processes import free_ports, serving

from benchmarks.load import ROOT

_ENVIRONMENT = ROOT / ".venv-rivals"


@dataclass(frozen=True, slots=True)
class Rival:
    """A router and the arguments that choose its way of routing."""

    name: str
    command: str
    arguments: Sequence[str]
    takes_workers: bool = True
    """By its command line, with a port for its metrics."""
    environment: Mapping[str, str] = field(default_factory=dict)
    most_tokens: float = math.inf
    """It would take minutes for more, of all responses at once."""


CACHE_AWARE = (
    Rival("vllm-router cache_aware", "vllm-router", ("--policy", "cache_aware")),
    Rival("smg cache_aware", "smg", ("launch", "--policy", "cache_aware")),
)
_ROUND_ROBIN = (
    Rival("vllm-router", "vllm-router", ("--policy", "round_robin")),
    Rival("smg", "smg", ("launch", "--policy", "round_robin")),
    Rival("sglang-router", "sglang-router", ("launch", "--policy", "round_robin")),
)
RUST = tuple(rival.name for rival in _ROUND_ROBIN)
NAMES = (*RUST, "litellm")


def routers(backend: str, models: Sequence[str], scratch: Path) -> Sequence[Rival]:
    """Those that `routers` compares; `backend` is the one server's URL."""
    return (*_ROUND_ROBIN, _litellm(backend, models, scratch))


def _litellm(backend: str, models: Sequence[str], scratch: Path) -> Rival:
    """Its servers come from a file. Without keys, which costs it nothing."""
    file = scratch / "litellm.yaml"
    served = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": f"{backend}/v1",
                "api_key": "none",
            },
        }
        for name in models
    ]
    file.write_text(yaml.safe_dump({"model_list": served}))
    arguments = ("--config", str(file), "--num_workers", "1", "--telemetry", "False")
    environment = {
        # Without requesting prices over the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return Rival("litellm", "litellm", arguments, False, environment, most_tokens=1024)


def install() -> None:
    command = (ROOT / "scripts/python_env", "rivals", "benchmarks/rivals.txt")
    subprocess.run(command, check=True)


@contextlib.contextmanager
def started(rival: Rival, workers: Sequence[str], log: Path) -> Iterator[tuple[str, int]]:
    """The router in front of workers (HOST:PORT); yields its own HOST:PORT and its pid."""
    port, metrics = free_ports(2)
    command = [
        *(str(_ENVIRONMENT / "bin" / rival.command), *rival.arguments),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    if rival.takes_workers:
        command += ["--prometheus-port", str(metrics), "--worker-urls"]
        command += [f"http://{worker}" for worker in workers]
    url = f"http://127.0.0.1:{port}/v1/models"
    with serving(command, url, log, rival.environment) as pid:
        yield f"127.0.0.1:{port}", pid
