"""Every form of credential of docs/security.md, with its decision, on every wire and data plane."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from tests.support.rest_stack import fake_server

from autoglm import v1
from autoglm.common import rpc
from autoglm.gateway.app import Gateway
from autoglm.gateway.identity.keys import new_key
from autoglm.gateway.identity.throttle import Throttle
from autoglm.testing.fake_pod import FakePod
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1.inference_pb2_grpc import InferenceStub
from autoglm.v1.open_inference_pb2_grpc import GRPCInferenceServiceStub

pytestmark = pytest.mark.timeout(90)
Presented = tuple[tuple[str, str], ...]
# Whether a request that presents these is served, and the sentence where it is not.
Send = Callable[[Presented], Awaitable[tuple[bool, str]]]
HELLO = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}
SIGNING, OTHERS = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
FAR = 4_000_000_000


def token(key: Any = SIGNING, kid: str = "k1", exp: int = FAR) -> str:
    claims = {"iss": "https://i", "aud": "a", "sub": "alice", "exp": exp, "tenant": "globex"}
    return jwt.encode(claims, key, "ES256", {"kid": kid})


@dataclass
class Site:
    gateway: Gateway
    stack: AsyncExitStack
    secrets: dict[str, str]

    def forget(self) -> None:
        """What was judged before, and who guessed."""
        identity = self.gateway.core._identity
        assert identity is not None
        identity._authenticator.know(identity._authenticator.known)
        identity._authenticator.throttle = Throttle()

    def filled(self, presented: Presented) -> Presented:
        names = re.compile("|".join(self.secrets))
        return tuple((n, names.sub(lambda m: self.secrets[m[0]], v)) for n, v in presented)

    async def sender(self, wire: str) -> Send:
        if wire == "rest":
            return self.rest
        address = f"127.0.0.1:{self.gateway.grpc_port}"
        channel = await self.stack.enter_async_context(rpc.channel(address))
        return rpcs(wire, channel)

    async def rest(self, presented: Presented) -> tuple[bool, str]:
        """As it is on the wire, so that nothing between here and there tidies it up."""
        body = json.dumps(HELLO)
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: gateway", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in presented]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.http_port)
        writer.write("\r\n".join([*lines, "", body]).encode())
        answer = (await reader.read()).decode()
        writer.close()
        code = int(answer.split(" ", 2)[1])
        assert code in (200, 401), answer
        return code == 200, answer


def rpcs(wire: str, channel: grpc.aio.Channel) -> Send:
    async def chat(metadata: Presented) -> None:
        await InferenceStub(channel).Chat(
            v1.ChatRequest(model="fake", messages=[v1.ChatMessage(role="user", content="Hello")]),
            metadata=metadata,
        )

    async def stream(metadata: Presented) -> None:
        request = oip.ModelInferRequest(model_name="fake")
        tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(b"Hello")
        call: Any = GRPCInferenceServiceStub(channel).ModelStreamInfer(metadata=metadata)
        # The status may have come already: grpc.aio loses it where an iterator of requests fails.
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(request)
        reply = await call.read()
        call.cancel()
        assert not reply.error_message

    async def send(presented: Presented) -> tuple[bool, str]:
        try:
            await (chat if wire == "grpc" else stream)(presented)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error.details()
            return False, error.details() or ""
        return True, ""

    return send


async def site(fleet: Any, stack: AsyncExitStack, directory: Path) -> Site:
    async def respond(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"choices": []})

    url = await stack.enter_async_context(fake_server(respond))
    (pod,) = await fleet.pods(FakePod(http_port=int(url.rpartition(":")[2])))
    (key, entry), (other, other_entry) = new_key("acme", "ci"), new_key("initech", "cd")
    keys, jwks = directory / "keys.json", directory / "jwks.json"
    keys.write_bytes(msgspec.json.encode({"keys": [entry, other_entry]}))
    public = ECAlgorithm.to_jwk(SIGNING.public_key(), as_dict=True)
    jwks.write_text(json.dumps({"keys": [public | {"kid": "k1"}]}))
    gateway = await fleet.gateway(
        pod,
        api_keys_file=str(keys),
        jwt_jwks=str(jwks),
        jwt_issuer="https://i",
        jwt_audience=("a",),
    )
    secrets = {"KEY": key, "OTHER": other, "WRONG": "agk_0000_wrong", "JWT": token()}
    secrets |= {"EXPIRED": token(exp=1), "FORGED": token(OTHERS), "UNKNOWN": token(kid="k9")}
    return Site(gateway, stack, secrets)


@pytest.mark.parametrize("wire", ["rest", "grpc", "stream"])
async def test_form_of_credential_has_one_decision_on_every_wire(
    fleet: Any, wire: str, credential_forms: Any, tmp_path: Path
) -> None:
    wrong = {}
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        send = await here.sender(wire)
        for form in credential_forms:
            presented = here.filled(form.presented)
            if wire != "rest" and any("\t" in value for _, value in presented):
                # gRPC has no tabs in metadata; its clients send none.
                continue
            here.forget()
            is_served, said = await send(presented)
            names = {name for name, _ in presented}
            is_named = not names or any(f"header {name}: " in said for name in names)
            if is_served != form.is_served or not (is_served or is_named):
                wrong[form.text] = (is_served, said)
            assert not any(secret in said for secret in here.secrets.values())
    assert wrong == {}


@pytest.mark.parametrize("wire", ["rest", "grpc", "stream"])
async def test_a_malformed_credential_never_locks_the_good_one_out(
    fleet: Any, wire: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        here = await site(fleet, stack, tmp_path)
        send = await here.sender(wire)
        for good in (here.secrets["KEY"], here.secrets["JWT"]):
            here.forget()
            bare: Presented = (("authorization", good),)
            assert not (await send(bare))[0]
            assert (await send((("authorization", f"Bearer {good}"),)))[0]
            assert (await send((("x-api-key", good),)))[0]
            assert not (await send(bare))[0], "also where the right form was accepted"
