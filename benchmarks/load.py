"""Runs the compiled load generator (benchmarks/loadgen) against a server."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoglm import v1

ROOT = Path(__file__).parents[1]
BINARY = ROOT / "build/bin/loadgen"
GENERATE = "/autoglm.v1.Inference/Generate"
GENERATE_STREAM = "/autoglm.v1.Inference/GenerateStream"
COMPLETIONS = "/v1/completions"
CHATS = "/v1/chat/completions"
Kind = Literal["grpc-stream", "grpc-unary", "rest-stream", "rest-unary"]


@dataclass(frozen=True, slots=True)
class Work:
    """The parameters of each request. Greedy, and always `tokens` long."""

    model: str = "tiny-glm"
    prompt: str = "What is the gateway?"
    tokens: int = 200
    is_chat: bool = False
    """Over REST: of one message, instead of a completion."""

    def message(self) -> bytes:
        sampling = v1.SamplingParams(max_tokens=self.tokens, temperature=0, ignore_eos=True)
        request = v1.GenerateRequest(model=self.model, text=self.prompt, sampling_params=sampling)
        return request.SerializeToString()

    def body(self, stream: bool) -> bytes:
        request: dict[str, Any] = {
            "model": self.model,
            **self._prompt(),
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        if stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(request).encode()

    def _prompt(self) -> dict[str, Any]:
        if self.is_chat:
            return {"messages": [{"role": "user", "content": self.prompt}]}
        return {"prompt": self.prompt}


@dataclass(frozen=True, slots=True)
class Load:
    """How requests are sent; with a rate in an open loop. `headers` are NAME:VALUE.

    In a closed loop none is sent after `limit_seconds`, where that is not 0. With
    `gaps_from_seconds` the report has all pauses between messages of a stream that old.
    """

    clients: int = 1
    requests: int = 10
    warmup: int = 0
    rate: float = 0
    timeout_seconds: float = 60.0
    headers: tuple[str, ...] = ()
    limit_seconds: float = 0
    gaps_from_seconds: float = 0


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
    how = Load(clients=clients, requests=requests, warmup=warmup, rate=rate)
    report = offer(kind, address, [work], how)
    if report["errors"]:
        raise RuntimeError(f"{report['errors']} of {requests} failed: {report['first_error']}")
    return report


def offer(kind: Kind, address: str, works: Sequence[Work], how: Load) -> dict[str, Any]:
    """The generator's report, in which requests may have failed: `statuses` says how many, how."""
    grpc = kind.startswith("grpc")
    streaming = kind.endswith("stream")
    path = CHATS if works[0].is_chat else COMPLETIONS
    if grpc:
        path = GENERATE_STREAM if streaming else GENERATE
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / f"{number}" for number in range(len(works))]
        for file, work in zip(files, works, strict=True):
            file.write_bytes(work.message() if grpc else work.body(streaming))
        bodies = ",".join(str(file) for file in files)
        command = [
            *(str(BINARY), "-kind", kind, "-address", address, "-path", path, "-body", bodies),
            *("-clients", str(how.clients), "-requests", str(how.requests)),
            *("-warmup", str(how.warmup), "-rate", str(how.rate)),
            *(part for header in how.headers for part in ("-header", header)),
            *("-timeout", f"{how.timeout_seconds}s", "-limit", f"{how.limit_seconds}s"),
            *("-gaps-from", f"{how.gaps_from_seconds}s"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report
