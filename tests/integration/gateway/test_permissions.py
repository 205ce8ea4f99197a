"""Who may call what: every inference API and every other path, by role, model and credential.

The cases come from the tables that the gateway serves by, so that a new API cannot be forgotten.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import msgspec
import pytest
from aiohttp import web
from google.protobuf import descriptor_pool, message_factory
from tests.support.rest_stack import fake_server

from autoglm import v1
from autoglm.client.requests import hint_metadata
from autoglm.common import rpc
from autoglm.gateway.app import Gateway
from autoglm.gateway.edges.grpc_local import OPEN_PAGES, PAGES
from autoglm.gateway.identity.keys import new_key
from autoglm.gateway.identity.throttle import FAILURES, FAILURES_PER_SECOND
from autoglm.gateway.request.grpc_methods import METHODS
from autoglm.gateway.request.principal import Role
from autoglm.testing.fake_pod import FakePod
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.validation import Operation
from autoglm.validation.http_apis import INFERENCE_POSTS, MODEL, HttpApi

pytestmark = pytest.mark.timeout(120)
OPEN, SHUT = "open-1", "shut-1"
CHAT = "/v1/chat/completions"
# By which proxies and parts of the gateway speak among themselves, or other software is led.
SPOOFED = {
    **{f"x-autoglm-{name}": "acme" for name in ("tenant", "subject", "roles", "models", "call")},
    **{f"x-autoglm-{name}": "acme" for name in ("principal", "peer", "route", "data-plane")},
    "x-autoglm-prefix-salt": "0123456789abcdef",
    "x-autoglm-replay": "1",
    "autoglm-usage": "0,0",
    "autoglm-recovered": "1",
    "autoglm-tenant": "acme",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-max-retries": "100",
    "x-envoy-retry-on": "5xx",
    "x-envoy-original-path": "/health",
    "x-envoy-internal": "true",
    "x-envoy-external-address": "127.0.0.1",
    "x-envoy-decorator-operation": "acme",
    "x-envoy-upstream-alt-stat-name": "acme",
    "x-gateway-destination-endpoint-subset": "127.0.0.1:1",
    "x-forwarded-for": "127.0.0.1, 10.0.0.1",
    "x-forwarded-user": "admin",
    "x-forwarded-email": "admin@acme",
    "x-forwarded-groups": "Admin",
    "x-forwarded-host": "acme",
    "x-forwarded-proto": "https",
    "x-forwarded-client-cert": "Subject=acme",
    "x-real-ip": "127.0.0.1",
    "forwarded": "for=127.0.0.1",
    "x-tenant-id": "acme",
    "x-user": "admin",
    "remote-user": "admin",
    "x-original-url": "/health",
    "x-rewrite-url": "/health",
    "x-http-method-override": "GET",
    "cookie": "session=admin",
    "proxy-authorization": "Bearer admin",
}
# Probes bring no credential, and these show the public interface and numbers only.
OPEN_PATHS = {"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
OPEN_PATHS |= {"/metrics", "/openapi.json", "/docs"}
INFERENCE_ROLES = {Role.USER, Role.ADMIN}
# Enough of every API for its body to be read.
TEXTS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello"}],
    "prompt": "Hello",
    "input": "Hello",
    "query": "Hello",
    "documents": ["a", "b"],
    "text_1": "Hello",
    "text_2": "Hello",
    "tokens": [1, 2],
    "text_input": "Hello",
    "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hello"]}],
    "max_tokens": 4,
}


@dataclass(frozen=True)
class Caller:
    """A key with its roles and patterns of models; None of them is no credential."""

    name: str
    roles: tuple[Role, ...] | None = None
    models: tuple[str, ...] | None = None

    def code(self, model: str) -> int:
        """Of an inference API; 200 stands for whatever is neither 401 nor 403."""
        if self.roles is None:
            return 401
        return 200 if INFERENCE_ROLES & {*self.roles} and self.may_use(model) else 403

    def may_use(self, model: str) -> bool:
        return self.models is None or (model == OPEN and bool(self.models))


CALLERS = (
    Caller("nobody"),
    *(
        Caller(f"{'-'.join(roles) or 'no role'} of {models}", roles, models)
        for roles in ((Role.USER,), (Role.ADMIN,), (Role.AUDITOR,), (), (Role.AUDITOR, Role.USER))
        for models in (None, ("open-*",), ())
    ),
)


@dataclass
class Site:
    gateway: Gateway
    pod: FakePod
    session: aiohttp.ClientSession
    channel: grpc.aio.Channel
    keys: dict[Caller, str]
    seen: list[str] = field(default_factory=list)

    @property
    def reached(self) -> int:
        """How many requests a pod has got."""
        return len(self.seen) + len(self.pod.received)

    async def post(
        self, api: HttpApi, model: str, caller: Caller, more: dict[str, Any] | None = None
    ) -> int:
        path = api.path.replace(MODEL, model or "x")
        body = {**TEXTS, **({"model": model} if model else {}), **(more or {})}
        sent: dict[str, Any] = {"json": body}
        if api.operation is Operation.TRANSCRIBE:
            form = aiohttp.FormData({"model": model})
            form.add_field("file", b"RIFF", filename="a.wav")
            sent = {"data": form}
        async with self.session.post(path, headers=self.headers(caller), **sent) as response:
            return 200 if response.status not in (401, 403) else response.status

    async def request(self, verb: str, path: str, caller: Caller) -> tuple[int, bytes]:
        async with self.session.request(verb, path, headers=self.headers(caller)) as response:
            return response.status, await response.read()

    async def call(self, service: str, name: str, model: str, caller: Caller) -> int:
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        message = message_factory.GetMessageClass(method.input_type)()
        for each in ("model", "model_name", "name"):
            if each in method.input_type.fields_by_name:
                setattr(message, each, model)
        path, metadata = f"/{service}/{name}", self.metadata(caller)
        try:
            if method.client_streaming:
                return await self._first_of_stream(path, message, metadata)
            if method.server_streaming:
                stream: Any = self.channel.unary_stream(path)
                async for _ in stream(message.SerializeToString(), metadata=metadata):
                    pass
            else:
                unary: Any = self.channel.unary_unary(path)
                await unary(message.SerializeToString(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            codes = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
            return codes.get(error.code().name, 200)
        return 200

    async def _first_of_stream(self, path: str, message: Any, metadata: Any) -> int:
        """Written after the status may have come: grpc.aio loses that where it writes at once."""
        open_stream: Any = self.channel.stream_stream(path)
        call = open_stream(metadata=metadata)
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(message.SerializeToString())
        reply = await call.read()
        call.cancel()
        if reply is grpc.aio.EOF:
            return 200
        said = oip.ModelStreamInferResponse.FromString(reply).error_message
        return 403 if said.startswith("PERMISSION_DENIED") else 200

    async def chat(self, model: str, caller: Caller, spoofed: dict[str, str]) -> int:
        """The status of one of the inference APIs over HTTP."""
        headers = spoofed | self.headers(caller)
        body = TEXTS | {"model": model}
        async with self.session.post(CHAT, json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def generate(self, model: str, caller: Caller, spoofed: dict[str, str]) -> str:
        """The code of one of the methods over gRPC."""
        binary = {k: v.encode() if k.endswith("-bin") else v for k, v in spoofed.items()}
        metadata = (*binary.items(), *self.metadata(caller))
        request = v1.GenerateRequest(model=model, text="Hello")
        try:
            await InferenceStub(self.channel).Generate(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    def headers(self, caller: Caller) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[caller]}"} if caller in self.keys else {}

    def metadata(self, caller: Caller) -> tuple[tuple[str, str], ...]:
        return tuple(self.headers(caller).items())


async def site(fleet: Any, stack: AsyncExitStack, directory: Path) -> Site:
    seen: list[str] = []

    async def respond(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request.path)
        return web.json_response({"choices": []})

    url = await stack.enter_async_context(fake_server(respond))
    port = int(url.rpartition(":")[2])
    (pod,) = await fleet.pods(FakePod(model=OPEN, aliases=(SHUT,), http_port=port))
    made = {
        caller: new_key("acme", roles=caller.roles, models=caller.models)
        for caller in CALLERS
        if caller.roles is not None
    }
    file = directory / "keys.json"
    file.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in made.values()]}))
    gateway = await fleet.gateway(pod, api_keys_file=str(file))
    address = f"http://127.0.0.1:{gateway.http_port}"
    session = await stack.enter_async_context(aiohttp.ClientSession(address))
    channel = rpc.channel(f"127.0.0.1:{gateway.grpc_port}")
    await stack.enter_async_context(channel)
    keys = {caller: key for caller, (key, _) in made.items()}
    return Site(gateway, pod, session, channel, keys, seen)


async def test_every_inference_api_is_for_those_who_may_use_its_model(
    fleet: Any, tmp_path: Path
) -> None:
    wrong: dict[tuple[str, ...], tuple[int, int]] = {}
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        for caller in CALLERS:
            for model in (OPEN, SHUT, "no-such-model"):
                expected, before = caller.code(model), here.reached
                for api in INFERENCE_POSTS:
                    found = await here.post(api, model, caller)
                    if found != expected:
                        wrong["POST", api.path, caller.name, model] = (found, expected)
                for method in METHODS:
                    found = await here.call(method.service, method.name, model, caller)
                    if found != expected:
                        wrong["gRPC", method.route, caller.name, model] = (found, expected)
                assert expected == 200 or here.reached == before, (caller, model)
        assert here.reached > 0, "those who may reach the pod"
    assert wrong == {}


async def test_request_that_names_no_model_or_two_is_no_way_around(
    fleet: Any, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        limited = Caller("User of ('open-*',)", (Role.USER,), ("open-*",))
        nothing = Caller("User of ()", (Role.USER,), ())
        for api in INFERENCE_POSTS:
            before = here.reached
            if not api.has_model:
                # Whatever a pod would take for the default, it is not one of these callers'.
                await here.post(api, "", nothing)
                headers = here.headers(limited) | {"content-type": "application/json"}
                for name in ("model", "mod\\u0065l"):
                    twice = json.dumps(TEXTS | {"model": OPEN})[:-1] + f', "{name}": "{SHUT}"}}'
                    async with here.session.post(api.path, data=twice, headers=headers) as response:
                        assert response.status in (400, 403, 415), (api.path, response.status)
            else:
                named = {"model": OPEN, "model_name": OPEN}
                assert await here.post(api, SHUT, limited, named) == 403
            assert here.reached == before, api.path


async def test_every_other_path_needs_a_credential_with_a_role(fleet: Any, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        nobody, none = CALLERS[0], Caller("no role of None", (), None)
        rest: Any = here.gateway._rest
        found: set[str] = set()
        routes = rest.handler.__self__.routes.values()
        for path, method in ((route.path, method) for route in routes for method in route.methods):
            found.add(path)
            filled = path.replace("{model}", OPEN).replace("{response_id}", "resp_1")
            code, _ = await here.request(method, filled, nobody)
            assert (code != 401) is (path in OPEN_PATHS), (method, path, code)
            code, _ = await here.request(method, filled, none)
            assert (code != 403) is (path in OPEN_PATHS), (method, path, code)
        assert found > OPEN_PATHS and "/v1/models" in found
        for service, name in PAGES:
            is_open = (service, name) in OPEN_PAGES
            assert (await here.call(service, name, OPEN, nobody) != 401) is is_open, name
            assert (await here.call(service, name, OPEN, none) != 403) is is_open, name
        served = {
            path.strip("/")
            for handler in here.gateway._edge.handlers()
            for path in vars(handler)["_method_handlers"]
        }
        tables = {m.route for m in METHODS} | {"/".join(page) for page in PAGES}
        assert served == tables, "a method that none of these tests calls"


async def test_lists_show_what_the_caller_may_use(fleet: Any, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        for caller in CALLERS[1:]:
            code, text = await here.request("GET", "/v1/models", caller)
            assert code == (200 if caller.roles else 403)
            if caller.roles:
                names = {card["id"] for card in json.loads(text)["data"]}
                expected = {name for name in (OPEN, SHUT) if caller.may_use(name)}
                assert names <= expected and bool(names) is bool(expected), caller
                for path in (
                    f"/v1/models/{SHUT}",
                    f"/v2/models/{SHUT}/ready",
                    f"/v2/models/{SHUT}",
                ):
                    code, text = await here.request("GET", path, caller)
                    # Else as of a model that is not served.
                    assert (code == 200) <= caller.may_use(SHUT), (path, caller)


async def test_no_header_but_a_credential_changes_a_decision(
    fleet: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decoyed: list[str] = []

    async def decoy(request: web.Request) -> web.Response:
        decoyed.append(request.path)
        return web.json_response({})

    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        (decoy_pod,) = await fleet.pods(FakePod(model=OPEN))
        url = await stack.enter_async_context(fake_server(decoy))
        nobody, none = CALLERS[0], Caller("no role of None", (), None)
        limited = Caller("User of ('open-*',)", (Role.USER,), ("open-*",))
        each = [{name: value} for name, value in SPOOFED.items()]
        for spoofed in ({}, *each, SPOOFED):
            to = "x-gateway-destination-endpoint"
            rest = spoofed | {to: url.removeprefix("http://")}
            rpcs = spoofed | {to: f"127.0.0.1:{decoy_pod.port}"}
            for caller, model, code, name in (
                (nobody, OPEN, 401, "UNAUTHENTICATED"),
                (none, OPEN, 403, "PERMISSION_DENIED"),
                (limited, SHUT, 403, "PERMISSION_DENIED"),
                (limited, OPEN, 200, "OK"),
            ):
                caplog.clear()
                with caplog.at_level("INFO", "autoglm.gateway.request"):
                    assert await here.chat(model, caller, rest) == code, (spoofed, caller)
                    assert await here.generate(model, caller, rpcs) == name, (spoofed, caller)
                    await fleet.until(lambda: len(caplog.records) >= 2)
                tenants = {vars(r)["fields"].get("tenant") for r in caplog.records}
                assert tenants == ({None} if caller is nobody else {"acme"}), spoofed
        assert decoyed == [] and decoy_pod.received == []
        for received in here.pod.received:
            assert received.metadata.get("x-autoglm-prefix-salt") != "0123456789abcdef"
            assert received.metadata.get("x-autoglm-call") != "acme"
            assert "authorization" not in received.metadata


async def test_claimed_address_is_no_way_around_the_throttle(fleet: Any, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        codes, begun = [401], time.monotonic()
        while codes[-1] == 401:
            number = len(codes)
            address = f"10.0.{number // 250}.{number % 250}"
            names = ("x-forwarded-for", "x-real-ip", "x-autoglm-peer", "x-envoy-external-address")
            claimed = dict.fromkeys(names, address) | {"forwarded": f"for={address}"}
            guess = claimed | {"authorization": f"Bearer agk_0000_{number}"}
            codes.append(await here.chat(OPEN, CALLERS[0], guess))
        allowed = FAILURES + FAILURES_PER_SECOND * (time.monotonic() - begun)
        assert codes[-1] == 429 and 2 < len(codes) <= allowed + 2


async def test_claim_about_the_request_does_not_stand_for_it(fleet: Any, tmp_path: Path) -> None:
    """`autoglm-request-info-bin` names the model ahead: not enough where models are restricted."""
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        limited = Caller("User of ('open-*',)", (Role.USER,), ("open-*",))
        claim = hint_metadata(v1.GenerateRequest(model=OPEN, text="Hello"))
        request = v1.GenerateRequest(model=SHUT, text="Hello")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await InferenceStub(here.channel).Generate(
                request, metadata=(*claim.items(), *here.metadata(limited))
            )
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert here.reached == 0
