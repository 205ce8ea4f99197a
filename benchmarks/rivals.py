"""Other routers in front of our pods, as one would run them instead, with their own defaults."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm.testing.processes import free_ports, serving
from benchmarks.load import ROOT

_ENVIRONMENT = ROOT / ".venv-rivals"


@dataclass(frozen=True, slots=True)
class Rival:
    """A router and the arguments that choose its way of routing."""

    name: str
    command: str
    arguments: Sequence[str]


CACHE_AWARE = (
    Rival("vllm-router cache_aware", "vllm-router", ("--policy", "cache_aware")),
    Rival("smg cache_aware", "smg", ("launch", "--policy", "cache_aware")),
)


def install() -> None:
    command = (ROOT / "scripts/python_env", "rivals", "benchmarks/rivals.txt")
    subprocess.run(command, check=True)


@contextlib.contextmanager
def started(rival: Rival, workers: Sequence[str], log: Path) -> Iterator[str]:
    """The router in front of workers (HOST:PORT); yields its own HOST:PORT."""
    port, metrics = free_ports(2)
    command = [
        *(str(_ENVIRONMENT / "bin" / rival.command), *rival.arguments),
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics)),
        *("--worker-urls", *(f"http://{worker}" for worker in workers)),
    ]
    with serving(command, f"http://127.0.0.1:{port}/v1/models", log):
        yield f"127.0.0.1:{port}"
