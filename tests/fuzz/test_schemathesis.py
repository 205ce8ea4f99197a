"""Schemathesis on the gateway's REST API, over a real gateway and a real pod of the echo engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.soak import examples

ROOT = Path(__file__).parents[2]
# Looks for so long, then finishes what it has begun.
SECONDS = examples(60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_that_the_description_suggests_breaks_the_server(tmp_path: Path) -> None:
    pod = processes.echo_pod(tmp_path)
    front = processes.gateway(tmp_path, [pod])
    command = [
        *(str(ROOT / "scripts/schemathesis"), f"http://{front.http_address}"),
        *(
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            str(examples(25)),
            "--max-time",
            str(SECONDS),
        ),
        *("--request-timeout", "10", "--generation-database", "none", "--no-color"),
    ]
    with processes.running(pod, front):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-10_000:] + found.stderr[-2_000:]
