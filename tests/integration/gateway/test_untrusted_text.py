"""What a caller sets of its own (names, ids, paths, headers) in logs and ids, on both wires."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.common.status import REQUEST_ID
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.v1.open_inference_pb2_grpc import GRPCInferenceServiceStub

pytestmark = pytest.mark.timeout(120)
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) [\w.]+: ")
# Envoy's own lines are JSON; Envoy escapes what is in them.
ENVOYS = re.compile(r'\{"level":')
BREAKS = ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x1b[2K\x1b[1G", "\u202e", "\0"]
FORGED = "2026-01-01 00:00:00,000 INFO autoglm.gateway.request: forged"


@dataclass
class Site:
    gateway: Process
    pod: Process

    def rest(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and the request id of the response."""
        connection = http.client.HTTPConnection(self.gateway.http_address, timeout=10)
        text = None if body is None else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, text, {"content-type": "application/json"} | named)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.getheader(REQUEST_ID) or ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, plane: str) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("text")
    text = ("--log-format", "text", "--log-level", "debug")
    pod = processes.echo_pod(directory, "echo-0", *text)
    gateway = processes.gateway(directory, [pod], "--data-plane", plane, *text)
    with processes.running(pod, gateway):
        processes.eventually(lambda: gateway.ready_endpoints() > 0)
        yield Site(gateway, pod)


def test_no_caller_writes_a_line_of_a_log(site: Site) -> None:
    channel = grpc.insecure_channel(site.gateway.grpc_address)
    direct = grpc.insecure_channel(site.pod.grpc_address)
    for number, line_break in enumerate(BREAKS):
        name = f"model{line_break}{FORGED} {number}"
        hello = {"model": name, "messages": [{"role": "user", "content": name}]}
        site.rest("POST", "/v1/chat/completions", hello)
        site.rest("POST", "/v1/chat/completions", hello | {"model": "echo", "user": name})
        site.rest("POST", "/v1/completions", {"model": "echo", "prompt": "x", name: 1})
        site.rest("POST", f"/v2/models/{quote(name)}/infer", {"inputs": []})
        site.rest("GET", f"/v1/models/{quote(name)}")
        site.rest("GET", f"/{quote(name)}")
        for one in (channel, direct):
            with pytest.raises(grpc.RpcError):
                InferenceStub(one).Chat(v1.ChatRequest(model=name), timeout=10)
            with pytest.raises(grpc.RpcError):
                oip_stub = GRPCInferenceServiceStub(one)
                oip_stub.ModelInfer(oip.ModelInferRequest(model_name=name, id=name), timeout=10)
    for value in ("a\x85b", "\x9b31m", '" tenant=evil', "x tenant=evil"):
        encoded = value.encode("latin-1").decode("latin-1")
        site.rest("GET", "/v1/models", x_request_id=encoded, x_autoglm_debug=encoded)
        site.rest("POST", "/v1/completions", {}, x_request_timeout_seconds=encoded)
    channel.close()
    direct.close()
    for process in (site.gateway, site.pod):
        # Unlike str.splitlines, a terminal and most collectors break at a line feed alone.
        written = process.log.read_text(errors="replace")
        assert "forged" in written, "names are in the log, in one line each"
        for line in filter(None, written.split("\n")):
            assert RECORD.match(line) or ENVOYS.match(line) or line.startswith("    "), line
            assert line.isprintable(), ascii(line)
            assert not re.match(RECORD.pattern + "forged", line)
            assert not re.search(r"request_id=\S* tenant=evil", line)


@pytest.mark.parametrize("given", ["x" * 129, "x" * 4000, "two words", "~" * 128, "mine"])
def test_request_ids_are_bounded_alike_on_both_wires(site: Site, given: str) -> None:
    is_kept = len(given) <= 128 and " " not in given
    ids = [
        site.rest("GET", "/v1/models", x_request_id=given)[1],
        site.rest("POST", "/v1/completions", {"model": "none"}, x_request_id=given)[1],
        site.rest("POST", "/v1/completions", {"model": "echo", "prompt": "Hi"}, x_request_id=given)[
            1
        ],
    ]
    request = v1.GenerateRequest(model="echo", text="Hi")
    for address in (site.gateway.grpc_address, site.pod.grpc_address):
        with grpc.insecure_channel(address) as channel:
            stub = InferenceStub(channel)
            body, call = stub.Generate.with_call(request, metadata=((REQUEST_ID, given),))
            ids.append(body.id)
            named = dict((*call.initial_metadata(), *call.trailing_metadata()))
            ids.append(str(named[REQUEST_ID]))
            with pytest.raises(grpc.RpcError) as caught:
                stub.Generate(v1.GenerateRequest(model="none"), metadata=((REQUEST_ID, given),))
            failed: Any = caught.value
            ids.append(str(dict(failed.trailing_metadata())[REQUEST_ID]))
    for one in ids:
        assert (one == given) is is_kept
        assert re.fullmatch(r"[\x21-\x7e]{1,128}", one)
    for process in (site.gateway, site.pod):
        assert is_kept or given not in process.log.read_text()


NAMES = 1000
# Each ends its connection.
VERBS = 50


def series(process: Process) -> set[str]:
    if process.name == "gateway":
        process.wait_idle()
    status, page = process.get("/metrics")
    assert status == 200
    lines = (line for line in page.splitlines() if line and not line.startswith("#"))
    return {line.rpartition(" ")[0] for line in lines}


def make_up_over_rest(address: str, numbers: range) -> None:
    """Names of models, paths and methods that nothing here knows."""
    connection = http.client.HTTPConnection(address, timeout=10)
    for number in numbers:
        name = f"made-up-{number}"
        body = json.dumps({"model": name, "prompt": "x", name: number})
        headers = {"x-request-id": name, "user-agent": name, "tracestate": f"a={name}"}
        headers |= {"content-type": "application/json"}
        for verb, path, text in (
            ("POST", "/v1/completions", body),
            ("POST", f"/v2/models/{name}/infer", "{}"),
            ("GET", f"/{name}", None),
            ("GET", f"/v1/models/{name}", None),
            ("OPTIONS", f"/v1/{name}", None),
            *([(f"VERB{number}", "/v1/models", None)] if number < VERBS else []),
        ):
            try:
                connection.request(verb, path, text, headers)
                connection.getresponse().read()
            except (http.client.HTTPException, ConnectionError):
                # A method that is none ends the connection.
                connection.close()
    connection.close()


def make_up_over_grpc(address: str, numbers: range) -> None:
    with grpc.insecure_channel(address) as channel:
        calls = []
        for number in numbers:
            unknown: Any = channel.unary_unary(f"/autoglm.v1.Inference/Made{number}")
            request = v1.GenerateRequest(model=f"made-up-{number}", text="x")
            calls += [InferenceStub(channel).Generate.future(request), unknown.future(b"")]
        assert all(call.exception() is not None for call in calls)


def test_names_that_callers_make_up_add_no_series(site: Site, plane: str) -> None:
    """After the first few there is one of every route, outcome and code that they lead to."""
    # Pods are the same behind both planes.
    seen = (site.gateway, site.pod) if plane == "embedded" else (site.gateway,)
    before: list[set[str]] = []
    for numbers in (range(3), range(3, NAMES)):
        for process in seen:
            make_up_over_rest(process.http_address, numbers)
            make_up_over_grpc(process.grpc_address, numbers)
        before = before or [series(process) for process in seen]
    for process, known in zip(seen, before, strict=True):
        assert series(process) - known == set()
        assert not re.search("made-up|Made|VERB", str(known))


def test_a_long_name_is_cut_in_logs(site: Site) -> None:
    name = "long" * 250_000
    site.rest("POST", "/v1/completions", {"model": name, "prompt": "x"})
    for address in (site.gateway.grpc_address, site.pod.grpc_address):
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            InferenceStub(channel).Generate(v1.GenerateRequest(model=name, text="x"), timeout=10)
    for process in (site.gateway, site.pod):
        longest = max(map(len, process.log.read_text().split("\n")))
        assert longest < 10_000
