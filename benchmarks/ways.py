"""What load is sent through in `routers`: nothing, bare Envoy, a flat relay (`sketch`), our gateway
with either data plane and everything on, and the routers that one would run instead. All in front
of one mock pod: our gateway takes it as a pod of ours, or by its REST port alone as a stock OpenAI
server (`-stock`), as the other routers do.

Everything on: API keys, validation, limits, admission, routing, metrics, a log line a request, one
trace in a hundred. Envoy has one worker; the others what they take by themselves.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil
from google.protobuf.message import Message
from tests.support import processes
from tests.support.processes import Process, free_ports

from autoglm import v1
from autoglm.gateway.envoy import program
from autoglm.gateway.identity.keys import new_key
from benchmarks import load, rivals

MOCK = load.ROOT / "build/bin/mockpod"
# Tokens of a response, milliseconds before each message, and tokens in each.
ANSWERS = ((4, 0, 1), (64, 0, 1), (256, 0, 1), (512, 0, 1), (512, 0, 8), (64, 20, 1))
MODEL = "instant"
# Our gateways by name: data plane, and what the mock is to them.
_OURS = {
    "embedded": ("embedded", "grpc"),
    "embedded-stock": ("embedded", "http"),
    "envoy": ("envoy", "grpc"),
    "envoy-stock": ("envoy", "http"),
}
PYTHON = ("sketch", *_OURS, "litellm")
NAMES = ("direct", "bare-envoy", "sketch", *_OURS, "envoy-client", *rivals.NAMES)
_TYPE = "type.googleapis.com/envoy"
_UNLIMITED = 2**31 - 1
_NO_BREAKERS = {
    "thresholds": [
        dict.fromkeys(
            ("max_connections", "max_pending_requests", "max_requests", "max_retries"), _UNLIMITED
        )
    ]
}


def wish(tokens: int, pace: int, together: int) -> str:
    """The prefix of prompts with this response of the mock.

    The model has one name for all responses, since smg knows of the first one only.
    """
    return f"mock-{tokens}p{pace}g{together}"


@dataclass(frozen=True, slots=True)
class Way:
    """Where load is sent, and whose CPU time and memory it takes. Empty: it is not used so."""

    name: str
    http: str
    grpc: str = ""
    pid: int | None = None
    most_tokens: float = math.inf
    """Of all responses at once; it would take minutes for more."""
    is_our_client: bool = False
    """Its requests carry what routing needs in metadata, as our clients' do."""

    def cpu_seconds(self) -> float:
        return _cpu_seconds(self._processes())

    def own_cpu_seconds(self) -> float:
        """Of the process that was started, without those that it has started."""
        return _cpu_seconds(self._processes()[:1])

    def megabytes(self) -> float:
        return float(sum(process.memory_info().rss for process in self._processes())) / 1e6

    def _processes(self) -> list[psutil.Process]:
        if self.pid is None:
            return []
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]


def _cpu_seconds(taken: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in taken]
    return float(sum(t.user + t.system for t in times))


def build() -> None:
    directory = load.ROOT / "benchmarks/mockpod"
    subprocess.run(["go", "build", "-o", str(MOCK), "."], cwd=directory, check=True)


def started(scratch: Path, stack: ExitStack, names: Sequence[str] = NAMES) -> tuple[str, list[Way]]:
    """The key, and the ways with these names, running until the stack ends."""
    key, entry = new_key("acme")
    keys = scratch / "keys.json"
    keys.write_bytes(msgspec.json.encode({"keys": [entry]}))
    backend = stack.enter_context(mock(scratch))
    found = {"direct": backend}
    if "bare-envoy" in names:
        found["bare-envoy"] = stack.enter_context(bare_envoy(scratch, backend))
    if "sketch" in names:
        found["sketch"] = stack.enter_context(sketch(scratch, backend, keys))
    for name in _OURS:
        if name in names or (name == "envoy" and "envoy-client" in names):
            found[name] = stack.enter_context(ours(scratch, name, backend, keys))
    if "envoy-client" in names:
        found["envoy-client"] = replace(
            found["envoy"], name="envoy-client", http="", is_our_client=True
        )
    for rival in rivals.routers(f"http://{backend.http}", [MODEL], scratch):
        if rival.name in names:
            log = scratch / f"{rival.command}.log"
            http, pid = stack.enter_context(rivals.started(rival, [backend.http], log))
            found[rival.name] = Way(rival.name, http, pid=pid, most_tokens=rival.most_tokens)
    return key, [way for name, way in found.items() if name in names]


@contextlib.contextmanager
def ours(scratch: Path, name: str, backend: Way, keys: Path) -> Iterator[Way]:
    """Our gateway of that name. gRPC is sent to pods of ours only."""
    plane, wire = _OURS[name]
    endpoint = f"grpc://{backend.grpc}" if wire == "grpc" else f"http://{backend.http}"
    arguments = (
        *("gateway", "--data-plane", plane, "--envoy-concurrency", "1"),
        *("--endpoint", endpoint, "--api-keys-file", str(keys)),
        # All clients are at one address, and the mock takes a thousand requests at once.
        *("--max-connections-per-address", "4096", "--pod-waiting-requests", "1000"),
        *("--traces", f"file:{scratch / f'spans-{name}'}", "--trace-sample-ratio", "0.01"),
    )
    gateway = Process(name, arguments, scratch / f"{name}.log")
    with processes.running(gateway):
        processes.eventually(partial(_sees_a_pod, gateway))
        grpc = gateway.grpc_address if wire == "grpc" else ""
        yield Way(name, gateway.http_address, grpc, gateway.pid)


def _sees_a_pod(gateway: Process) -> bool:
    return gateway.ready_endpoints() > 0


def responses(http_port: int) -> Mapping[str, bytes]:
    """What the mock is given to say."""
    made: dict[str, Message] = {
        "models": v1.ListModelsResponse(
            models=[v1.Model(name=MODEL, max_model_len=100_000, engine="mock")]
        ),
        "load": v1.WatchLoadResponse(max_num_seqs=1024, http_port=http_port),
    }
    for together in {response[2] for response in ANSWERS}:
        chunk = v1.GenerateChunk(text=" token" * together, token_ids=[1234] * together)
        made[f"chunk-{together}"] = chunk
    for count in {response[0] for response in ANSWERS}:
        usage = v1.Usage(prompt_tokens=4, completion_tokens=count)
        done = v1.Completion(text=" token" * count, finish_reason=v1.FINISH_REASON_LENGTH)
        ended = v1.GenerateChunk(finish_reason=v1.FINISH_REASON_LENGTH, usage=usage)
        made[f"end-{count}"] = ended
        made[f"unary-{count}"] = v1.GenerateResponse(completions=[done], usage=usage)
    listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
    messages = {name: message.SerializeToString() for name, message in made.items()}
    return messages | {"models.json": json.dumps(listed).encode()}


@contextlib.contextmanager
def mock(scratch: Path, instead: Mapping[str, bytes] = {}) -> Iterator[Way]:
    """`instead` are messages in place of those of `responses`."""
    grpc_port, http_port = free_ports(2)
    directory = scratch / "responses"
    directory.mkdir()
    for name, message in (*responses(http_port).items(), *instead.items()):
        (directory / name).write_bytes(message)
    way = Way("direct", f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}")
    command = [str(MOCK), "-grpc", way.grpc, "-http", way.http, "-responses", str(directory)]
    with _child(command, scratch / "mock.log"):
        yield way


@contextlib.contextmanager
def sketch(scratch: Path, backend: Way, keys: Path) -> Iterator[Way]:
    """The flat relay of benchmarks/sketch.py."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.sketch", str(port), backend.http, str(keys)]
    with _child([*command, str(scratch / "sketch.access.log")], scratch / "sketch.log") as pid:
        processes.eventually(partial(_listens, port))
        yield Way("sketch", f"127.0.0.1:{port}", pid=pid)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def bare_envoy(scratch: Path, backend: Way) -> Iterator[Way]:
    """One worker, round robin, nothing else."""
    grpc_port, http_port = free_ports(2)
    listeners = [_listener("grpc", grpc_port), _listener("http", http_port)]
    clusters = [_cluster("grpc", backend.grpc), _cluster("http", backend.http)]
    file = scratch / "bare.json"
    file.write_text(
        json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}})
    )
    command = [program.find(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
    with _child([*command, "--log-level", "error"], scratch / "bare.log") as pid:
        yield Way("bare-envoy", f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}", pid)


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
        "circuit_breakers": _NO_BREAKERS,
        "load_assignment": {
            "cluster_name": wire,
            "endpoints": [{"lb_endpoints": [{"endpoint": where}]}],
        },
        "typed_extension_protocol_options": {options: explicit},
    }


@contextlib.contextmanager
def _child(command: list[str], log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, cwd=load.ROOT)
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait(30)
