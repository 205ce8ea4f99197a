"""What each data plane costs, and what a proxy without a brain would: an instant backend behind
nothing, behind bare Envoy, and behind the gateway with either data plane and everything on.

Everything on: API keys, validation, limits, admission, routing, metrics, a log line a request, one
trace in a hundred.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil

from autoglm import v1
from autoglm.gateway.envoy import program
from autoglm.gateway.envoy.clusters import NO_BREAKERS
from autoglm.gateway.identity.keys import new_key
from autoglm.testing import processes
from autoglm.testing.processes import Process, free_ports
from benchmarks import load
from benchmarks.report import Report, Row, median_spread

COLUMNS = (
    *("kind", "tokens", "clients", "way", "requests/s", "spread", "tokens/s"),
    *("first p50 ms", "p50 ms", "p99 ms", "CPU s per 1000 requests"),
)
MOCK = load.ROOT / "build/bin/mockpod"
LENGTHS = (4, 64, 512)
_TYPE = "type.googleapis.com/envoy"


@dataclass(frozen=True, slots=True)
class Case:
    """One row's worth of load for each way. A unary answer has 4 tokens."""

    kind: load.Kind
    tokens: int
    clients: int
    requests: int

    def work(self) -> load.Work:
        return load.Work(f"mock-{self.tokens}", "What is the gateway?", self.tokens)


CASES = (
    Case("grpc-unary", 4, 1, 1000),
    Case("grpc-unary", 4, 16, 3000),
    Case("grpc-stream", 64, 1, 500),
    Case("grpc-stream", 64, 16, 1000),
    Case("grpc-stream", 512, 64, 256),
    Case("rest-unary", 4, 16, 3000),
    Case("rest-stream", 64, 16, 1000),
    Case("rest-stream", 512, 64, 256),
)


@dataclass(frozen=True, slots=True)
class Way:
    """Where load is sent, and whose CPU time it takes on the way."""

    name: str
    grpc: str
    http: str
    pid: int | None = None

    def cpu_seconds(self) -> float:
        if self.pid is None:
            return 0.0
        parent = psutil.Process(self.pid)
        times = [p.cpu_times() for p in (parent, *parent.children(recursive=True))]
        return float(sum(t.user + t.system for t in times))


def build() -> None:
    directory = load.ROOT / "benchmarks/mockpod"
    subprocess.run(["go", "build", "-o", str(MOCK), "."], cwd=directory, check=True)


def run(directory: Path, *, quick: bool) -> Report:
    build()
    report = Report("routers", "Data planes: instant backend, everything on", COLUMNS)
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        key, ways = started(Path(scratch), stack)
        for case in CASES[::3] if quick else CASES:
            print(f"{case} ...", file=sys.stderr, flush=True)
            report.rows.extend(rows(case, ways, key, rounds))
    report.publish(directory)
    return report


def started(scratch: Path, stack: ExitStack) -> tuple[str, list[Way]]:
    """The key, and all ways, running until the stack ends."""
    key, entry = new_key("acme")
    keys = scratch / "keys.json"
    keys.write_bytes(msgspec.json.encode({"keys": [entry]}))
    backend = stack.enter_context(mock(scratch))
    ways = [backend, stack.enter_context(bare_envoy(scratch, backend))]
    for plane in ("embedded", "envoy"):
        arguments = (
            *("gateway", "--data-plane", plane, "--envoy-concurrency", "1"),
            *("--endpoint", f"grpc://{backend.grpc}", "--api-keys-file", str(keys)),
            *("--traces", f"file:{scratch / 'spans'}", "--trace-sample-ratio", "0.01"),
        )
        gateway = Process(plane, arguments, scratch / f"{plane}.log")
        stack.enter_context(processes.running(gateway))
        processes.eventually(partial(_sees_a_pod, gateway))
        ways.append(Way(plane, gateway.grpc_address, gateway.http_address, gateway.pid))
    return key, ways


def _sees_a_pod(gateway: Process) -> bool:
    return gateway.ready_endpoints() > 0


def answers(http_port: int) -> Mapping[str, bytes]:
    """What the mock is given to say."""
    models = [v1.Model(name=f"mock-{n}", max_model_len=100_000, engine="mock") for n in LENGTHS]
    told = {
        "models": v1.ListModelsResponse(models=models),
        "load": v1.WatchLoadResponse(max_num_seqs=1024, http_port=http_port),
        "chunk": v1.GenerateChunk(text=" token", token_ids=[1234]),
    }
    for count in LENGTHS:
        usage = v1.Usage(prompt_tokens=4, completion_tokens=count)
        done = v1.Completion(text=" token" * count, finish_reason=v1.FINISH_REASON_LENGTH)
        ended = v1.GenerateChunk(finish_reason=v1.FINISH_REASON_LENGTH, usage=usage)
        told[f"end-{count}"] = ended
        told[f"unary-{count}"] = v1.GenerateResponse(completions=[done], usage=usage)
    return {name: message.SerializeToString() for name, message in told.items()}


@contextlib.contextmanager
def mock(scratch: Path) -> Iterator[Way]:
    grpc_port, http_port = free_ports(2)
    directory = scratch / "answers"
    directory.mkdir()
    for name, message in answers(http_port).items():
        (directory / name).write_bytes(message)
    way = Way("direct", f"127.0.0.1:{grpc_port}", f"127.0.0.1:{http_port}")
    command = [str(MOCK), "-grpc", way.grpc, "-http", way.http, "-answers", str(directory)]
    with _child(command, scratch / "mock.log"):
        yield way


@contextlib.contextmanager
def bare_envoy(scratch: Path, backend: Way) -> Iterator[Way]:
    """One worker, round robin, nothing else."""
    grpc_port, http_port = free_ports(2)
    way = Way("bare Envoy", f"127.0.0.1:{grpc_port}", f"127.0.0.1:{http_port}")
    listeners = [_listener("grpc", grpc_port), _listener("http", http_port)]
    clusters = [_cluster("grpc", backend.grpc), _cluster("http", backend.http)]
    file = scratch / "bare.json"
    file.write_text(
        json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}})
    )
    command = [program.find(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
    with _child([*command, "--log-level", "error"], scratch / "bare.log") as pid:
        yield Way(way.name, way.grpc, way.http, pid)


def _listener(wire: str, port: int) -> dict[str, Any]:
    manager = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": wire, "timeout": "0s"}}
    typed = {
        "@type": manager,
        "stat_prefix": wire,
        "codec_type": "HTTP2" if wire == "grpc" else "AUTO",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "*", "domains": ["*"], "routes": [route]}]},
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}
    return {
        "name": wire,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [network]}],
    }


def _cluster(wire: str, address: str) -> dict[str, Any]:
    host, _, port = address.partition(":")
    where = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    protocol = "http2_protocol_options" if wire == "grpc" else "http_protocol_options"
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    explicit = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {protocol: {}}}
    return {
        "name": wire,
        "type": "STATIC",
        "circuit_breakers": NO_BREAKERS,
        "load_assignment": {
            "cluster_name": wire,
            "endpoints": [{"lb_endpoints": [{"endpoint": where}]}],
        },
        "typed_extension_protocol_options": {options: explicit},
    }


@contextlib.contextmanager
def _child(command: list[str], log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait(30)


def rows(case: Case, ways: list[Way], key: str, rounds: int) -> list[Row]:
    """Each round goes through all ways, so that a drifting machine hits all alike."""
    results: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            results[way.name].append(once(case, way, key))
    return [row(case, name, found) for name, found in results.items()]


def once(case: Case, way: Way, key: str) -> dict[str, Any]:
    address = way.grpc if case.kind.startswith("grpc") else way.http
    how = load.Load(case.clients, case.requests, case.clients, header=f"x-api-key:{key}")
    before = way.cpu_seconds()
    found = load.offer(case.kind, address, [case.work()], how)
    if found["errors"]:
        raise RuntimeError(f"{case} by {way.name}: {found['first_error']}")
    return found | {"cpu": way.cpu_seconds() - before}


def row(case: Case, way: str, results: list[dict[str, Any]]) -> Row:
    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return median_spread([value(found) for found in results])[0]

    rates = [found["requests"] / found["seconds"] for found in results]
    return {
        "kind": case.kind,
        "tokens": case.tokens,
        "clients": case.clients,
        "way": way,
        "requests/s": median_spread(rates)[0],
        "spread": median_spread(rates)[1],
        "tokens/s": median(lambda f: f["tokens"] / f["seconds"]),
        "first p50 ms": median(lambda f: f["time_to_first_message"]["p50"] * 1000),
        "p50 ms": median(lambda f: f["latency"]["p50"] * 1000),
        "p99 ms": median(lambda f: f["latency"]["p99"] * 1000),
        "CPU s per 1000 requests": median(
            lambda f: f["cpu"] / (case.requests + case.clients) * 1e3
        ),
    }
