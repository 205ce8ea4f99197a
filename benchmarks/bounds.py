"""What one large request costs the others: bodies of many small values and of few large ones.

Two echo pods and a gateway that samples its own event loop; a neighbour sends 20 small requests a
second all the while. The longest stop is in the gateway's own CPU time between two samples of a
millisecond, so that a busy machine does not count.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc
from google.protobuf.message import Message
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import rpc
from benchmarks.report import Report, Row

COLUMNS = (
    *("wire", "body", "MB", "status", "longest stop ms", "CPU ms", "seconds"),
    *("neighbour p50 ms", "neighbour p99 ms"),
)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_PERIOD_SECONDS = 0.05
_ROOM = ("--max-model-len", "1100000", "--echo-kv-blocks", "100000")
Sent = Callable[[Process], str]


def run(directory: Path, *, quick: bool) -> Report:
    report = Report("bounds", "One large request beside 20 small ones a second", COLUMNS)
    scale = 10 if quick else 1
    with _served() as (gateway, stops):
        for wire, name, size, send in cases(scale):
            print(f"{wire} {name} ...", file=sys.stderr, flush=True)
            report.rows.append(_measured(gateway, stops, wire, name, size, send))
    report.publish(directory)
    return report


def cases(scale: int) -> Iterator[tuple[str, str, int, Sent]]:
    for name, (path, body) in _bodies(scale).items():
        yield "REST", name, len(body), _rest(path, body)
    for name, (method, request) in _messages(scale).items():
        yield "gRPC", name, request.ByteSize(), _grpc(method, request)


def _bodies(scale: int) -> dict[str, tuple[str, bytes]]:
    many, message = 500_000 // scale, '{"role":"user","content":"x"}'
    image = {"type": "image_url", "image_url": {"url": "data:," + "A" * (10_000_000 // scale)}}

    def listed(entry: str, count: int) -> str:
        return "[" + ",".join([entry] * count) + "]"

    def chat(messages: str, more: str = "") -> tuple[str, bytes]:
        return CHAT, f'{{"model":"echo","max_tokens":2,"messages":{messages}{more}}}'.encode()

    def completion(prompt: object) -> tuple[str, bytes]:
        fields = {"model": "echo", "max_tokens": 2, "prompt": prompt}
        return COMPLETIONS, json.dumps(fields).encode()

    biases = "{" + ",".join(f'"{i}":1' for i in range(many)) + "}"
    parts = listed('{"type":"text","text":"x"}', many)
    return {
        "an ordinary chat": chat(listed(message, 100)),
        "messages": chat(listed(message, many)),
        "messages, twice as many": chat(listed(message, 2 * many)),
        "messages, as many as allowed": chat(listed(message, 2048)),
        "content parts": chat('[{"role":"user","content":' + parts + "}]"),
        "logit_bias": chat(f"[{message}]", f',"logit_bias":{biases}'),
        "tools": chat(f"[{message}]", ',"tools":' + listed("{}", many)),
        "an unknown field": chat(f"[{message}]", ',"x":' + listed("[]", 2 * many)),
        "token ids": completion([353] * (many // 5)),
        "prompts": completion(["x"] * many),
        "a text": completion("word " * (3_000_000 // scale)),
        "a text of escapes": completion('"\\' * (7_500_000 // scale)),
        "six images": chat(json.dumps([{"role": "user", "content": [image] * 6}])),
        "white space": chat(f"[{message}{' ' * (60_000_000 // scale)}]"),
    }


def _messages(scale: int) -> dict[str, tuple[str, Message]]:
    many, message = 500_000 // scale, v1.ChatMessage(role="user", content="x")
    params = v1.SamplingParams(max_tokens=2)
    image = v1.ContentPart(image_url="data:," + "A" * (10_000_000 // scale))

    def chat(*messages: v1.ChatMessage, **more: Any) -> tuple[str, Message]:
        fields = {"model": "echo", "messages": messages, "sampling_params": params}
        return "Chat", v1.ChatRequest(**fields | more)

    def prompt(**given: Any) -> tuple[str, Message]:
        return "Generate", v1.GenerateRequest(model="echo", sampling_params=params, **given)

    biased = v1.SamplingParams(logit_bias=dict.fromkeys(range(many), 1.0))
    return {
        "an ordinary chat": chat(*[message] * 100),
        "messages": chat(*[message] * many),
        "messages, as many as allowed": chat(*[message] * 2048),
        "content parts": chat(v1.ChatMessage(parts=[v1.ContentPart(text="x")] * many)),
        "logit_bias": chat(message, sampling_params=biased),
        "token ids": prompt(token_ids=v1.TokenIds(ids=[353] * (many // 5))),
        "a text": prompt(text="word " * (3_000_000 // scale)),
        "six images": chat(v1.ChatMessage(role="user", parts=[image] * 6)),
    }


def _rest(path: str, body: bytes) -> Sent:
    def send(gateway: Process) -> str:
        connection = http.client.HTTPConnection(*gateway.http_address.split(":"), timeout=120)
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        try:
            connection.request("POST", path, io.BytesIO(body), headers)
            response = connection.getresponse()
            response.read()
            return str(response.status)
        except OSError as error:
            return type(error).__name__
        finally:
            connection.close()

    return send


def _grpc(method: str, request: Message) -> Sent:
    def send(gateway: Process) -> str:
        with rpc.sync_channel(gateway.grpc_address) as channel:
            call = channel.unary_unary(
                f"/autoglm.v1.Inference/{method}",
                request_serializer=lambda _: request.SerializeToString(),
            )
            try:
                call(None, timeout=120)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

    return send


@contextmanager
def _served() -> Iterator[tuple[Process, Path]]:
    with tempfile.TemporaryDirectory() as logs:
        pods = [processes.echo_pod(Path(logs), f"echo-{i}", *_ROOM) for i in range(2)]
        with processes.running(*pods):
            gateway = processes.gateway(Path(logs), pods)
            stops = Path(logs) / "stops.json"
            flags = ("grpc", gateway.grpc_address), ("http", gateway.http_address)
            command = [sys.executable, "-m", "benchmarks.bounds_gateway", *gateway.arguments]
            for name, address in (*flags, ("metrics", gateway.metrics_address)):
                command += (f"--{name}-address", address)
            environment = {**os.environ, "AUTOGLM_STOPS_FILE": str(stops)}
            with gateway.log.open("ab") as log:
                gateway.child = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                gateway.wait_ready(120)
                processes.eventually(lambda: gateway.ready_endpoints() == 2, 60)
                yield gateway, stops
            finally:
                gateway.stop()


def _measured(gateway: Process, stops: Path, wire: str, name: str, size: int, send: Sent) -> Row:
    processes.eventually(lambda: gateway.ready_endpoints() > 0, 60)
    before = _stops(gateway, stops)
    with _neighbour(gateway) as seconds:
        time.sleep(1.0)
        started = time.monotonic()
        status = send(gateway)
        took = time.monotonic() - started
        time.sleep(1.0)
    after = _stops(gateway, stops)
    cuts = quantiles(seconds, n=100) if len(seconds) > 1 else [0.0] * 99
    return {
        "wire": wire,
        "body": name,
        "MB": size / 1e6,
        "status": status,
        "longest stop ms": 1000 * after["cpu"],
        "longest stop ms, wall": 1000 * after["wall"],
        "CPU ms": 1000 * (after["process"] - before["process"]),
        "seconds": took,
        "neighbour p50 ms": 1000 * cuts[49],
        "neighbour p99 ms": 1000 * cuts[98],
    }


def _stops(gateway: Process, path: Path) -> dict[str, float]:
    path.unlink(missing_ok=True)
    gateway.signal(signal.SIGUSR2)
    processes.eventually(path.exists, 120)
    found: dict[str, float] = json.loads(path.read_text())
    return found


@contextmanager
def _neighbour(gateway: Process) -> Iterator[list[float]]:
    """Seconds of each of its requests; those that fail count as 20."""
    _, body = _bodies(500_000)["an ordinary chat"]
    send, seconds, ended = _rest(CHAT, body), list[float](), threading.Event()

    def one() -> None:
        started = time.monotonic()
        ok = send(gateway) == "200"
        seconds.append(time.monotonic() - started if ok else 20.0)

    def many() -> None:
        threads = []
        while not ended.wait(_PERIOD_SECONDS):
            threads.append(threading.Thread(target=one))
            threads[-1].start()
        for thread in threads:
            thread.join()

    sender = threading.Thread(target=many)
    sender.start()
    try:
        yield seconds
    finally:
        ended.set()
        sender.join()
