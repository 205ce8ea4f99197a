"""Traces one unary request through a gateway, over REST and over gRPC, in front of an echo pod."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENOUGH = 5
GATEWAY_REST = "unary REST, gateway"
GOAL_FILES, GOAL_LINES = 10, 2500
"""Of a gateway's unary REST request: what one reads in an hour."""
_ASIDE = re.compile(r"(^|/)(common|v1)/|errors?\.py$|metrics\.py$")
_TRACED = Path(__file__).with_name("traced.py")
_MODEL = "echo"
_WARM = 3
# Longer than the period of anything that a gateway or a pod at rest does.
_REST_SECONDS = 3.0
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """A file on the way of a request."""

    file: str
    executed: int
    lines: int


@dataclass(frozen=True, slots=True)
class Spine:
    name: str
    steps: tuple[Step, ...]

    @property
    def executed(self) -> int:
        return sum(step.executed for step in self.steps)

    @property
    def lines(self) -> int:
        return sum(step.lines for step in self.steps)


def steps(
    traced: Mapping[str, Sequence[int]],
    at_rest: Mapping[str, Sequence[int]],
    line_counts: Mapping[str, int],
) -> tuple[Step, ...]:
    """Files in which more than five lines executed that a process at rest does not execute.

    Left out: generated code, `common/`, errors and metrics. Longest first.
    """
    found = []
    for file, lines in traced.items():
        executed = len(set(lines) - set(at_rest.get(file, ())))
        if executed > ENOUGH and not _ASIDE.search(file):
            found.append(Step(file, executed, line_counts[file]))
    return tuple(sorted(found, key=lambda step: (-step.executed, step.file)))


def trace(directory: Path) -> list[Spine]:
    """Of gateway and pod of the package in `directory`, which has to be importable as `autoglm`."""
    pod_port, pod_http, pod_metrics, grpc_port, http_port, metrics = free_ports(6)
    pod = ["inference", "--engine", "echo", "--model-name", _MODEL, "--log-level", "error"]
    pod += ["--grpc-address", f"127.0.0.1:{pod_port}", "--http-address", f"127.0.0.1:{pod_http}"]
    pod += ["--metrics-address", f"127.0.0.1:{pod_metrics}"]
    gateway = ["gateway", "--endpoint", f"grpc://127.0.0.1:{pod_port}", "--log-level", "error"]
    gateway += ["--grpc-address", f"127.0.0.1:{grpc_port}", "--shutdown-grace-seconds", "1"]
    gateway += ["--http-address", f"127.0.0.1:{http_port}"]
    gateway += ["--metrics-address", f"127.0.0.1:{metrics}"]
    with Traced(directory, pod) as behind, Traced(directory, gateway) as front:
        url = f"http://127.0.0.1:{http_port}"
        _until_ready(url, behind, front)
        ways: dict[str, Callable[[], None]] = {
            "REST": lambda: rest_request(url),
            "gRPC": lambda: grpc_request(f"127.0.0.1:{grpc_port}"),
        }
        found = []
        for way, send in ways.items():
            for _ in range(_WARM):
                send()
            runs = _traced(send, front, behind)
            rest = _traced(lambda: time.sleep(_REST_SECONDS), front, behind)
            for name, ran, idle in zip(("gateway", "pod"), runs, rest, strict=True):
                counts = {file: len((directory / file).read_text().splitlines()) for file in ran}
                found.append(Spine(f"unary {way}, {name}", steps(ran, idle, counts)))
        return found


def _traced(action: Callable[[], None], *processes: Traced) -> list[dict[str, list[int]]]:
    for process in processes:
        process.command("start")
    time.sleep(0.1)
    action()
    # What a request leaves to do after its response: the log line, a load message.
    time.sleep(0.3)
    return [process.stopped() for process in processes]


class Traced:
    """A process of `autoglm` that can be traced."""

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, str(_TRACED), str(directory), *arguments]
        self._environment = {**os.environ, "PYTHONPATH": str(directory.parent)}

    def __enter__(self) -> Traced:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check_running(self) -> None:
        """Raise RuntimeError where the process has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended: {' '.join(self._command)}; run it with .venv/bin/python")

    def command(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def stopped(self) -> dict[str, list[int]]:
        self.command("stop")
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("traced "):
                found: dict[str, list[int]] = json.loads(line.removeprefix("traced "))
                return found
        raise RuntimeError(f"the process ended with code {self._process.wait()}")


def rest_request(url: str) -> None:
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "one two three"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        response.read()


def grpc_request(address: str) -> None:
    from autoglm.client import Client

    with Client(address) as client:
        client.chat("one two three", model=_MODEL)


def _until_ready(url: str, *processes: Traced) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            return rest_request(url)
        for process in processes:
            process.check_running()
        if time.monotonic() > end:
            raise RuntimeError(f"no response from {url} within {_START_SECONDS:.0f} seconds")
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        return [_bound(stack.enter_context(socket.socket())) for _ in range(count)]


def _bound(opened: socket.socket) -> int:
    opened.bind(("127.0.0.1", 0))
    port: int = opened.getsockname()[1]
    return port
