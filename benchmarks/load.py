"""Runs the compiled load generator (benchmarks/loadgen) against a server."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoglm import v1

ROOT = Path(__file__).parents[1]
BINARY = ROOT / "build/bin/loadgen"
GENERATE = "/autoglm.v1.Inference/Generate"
GENERATE_STREAM = "/autoglm.v1.Inference/GenerateStream"
COMPLETIONS = "/v1/completions"
Kind = Literal["grpc-stream", "grpc-unary", "rest-stream", "rest-unary"]


@dataclass(frozen=True, slots=True)
class Work:
    """What each request asks for. Greedy, and always `tokens` long."""

    model: str = "tiny-glm"
    prompt: str = "What is the gateway?"
    tokens: int = 200

    def message(self) -> bytes:
        sampling = v1.SamplingParams(max_tokens=self.tokens, temperature=0, ignore_eos=True)
        request = v1.GenerateRequest(model=self.model, text=self.prompt, sampling_params=sampling)
        return request.SerializeToString()

    def body(self, stream: bool) -> bytes:
        request: dict[str, Any] = {
            "model": self.model,
            "prompt": self.prompt,
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        if stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(request).encode()


def build() -> None:
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-o", str(BINARY), "."], cwd=ROOT / "benchmarks/loadgen", check=True
    )


def run(
    kind: Kind,
    address: str,
    work: Work,
    *,
    clients: int,
    requests: int,
    warmup: int = 0,
    rate: float = 0,
) -> dict[str, Any]:
    """The generator's report; times in seconds. Raises RuntimeError when any request failed."""
    grpc = kind.startswith("grpc")
    streaming = kind.endswith("stream")
    path = (GENERATE_STREAM if streaming else GENERATE) if grpc else COMPLETIONS
    with tempfile.NamedTemporaryFile() as body:
        body.write(work.message() if grpc else work.body(streaming))
        body.flush()
        command = [
            *(str(BINARY), "-kind", kind, "-address", address, "-path", path, "-body", body.name),
            *("-clients", str(clients), "-requests", str(requests), "-warmup", str(warmup)),
            *("-rate", str(rate)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    if report["errors"]:
        raise RuntimeError(f"{report['errors']} of {requests} failed: {report['first_error']}")
    return report
