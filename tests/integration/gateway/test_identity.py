"""A gateway with authentication, as a process with a real echo pod, at log level debug.

With OpenAI's client, ours, and bare gRPC, REST and Open Inference Protocol.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import jwt
import msgspec
import openai
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from tests.support import processes
from tests.support.processes import Process
from tests.support.rest_stack import rest_stack

from autoglm.client import Client, RetryPolicy
from autoglm.common import errors, status
from autoglm.gateway.identity.keys import KeyEntry, new_key
from autoglm.gateway.identity.throttle import FAILURES, FAILURES_PER_SECOND
from autoglm.gateway.request.principal import Principal, Role
from autoglm.gateway.request.request import GatewayRequest
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1.open_inference_pb2_grpc import GRPCInferenceServiceStub

pytestmark = pytest.mark.timeout(120)
ISSUER, AUDIENCE, FAR = "https://issuer.example", "autoglm", 4_000_000_000
HELLO: dict[str, Any] = {
    "model": "echo",
    "max_tokens": 4,
    "messages": [{"role": "user", "content": "one two"}],
}
ONCE = RetryPolicy(attempts=1)


@dataclass
class Stage:
    """A gateway, its pod, and every secret that was used."""

    gateway: Process
    pod: Process
    keys_file: Path
    jwks_file: Path
    secrets: list[str] = field(default_factory=list)
    entries: list[KeyEntry] = field(default_factory=list)
    clients: list[openai.OpenAI] = field(default_factory=list)
    sources: int = 0
    """Addresses that guessed."""

    def key(self, **about: Any) -> str:
        """A new key that the gateway knows."""
        key, entry = new_key("acme", **about)
        self.entries.append(entry)
        self.write_keys()
        self.secrets.append(key)
        processes.eventually(
            lambda: self.models_from_elsewhere(key) != 401, what="the key is known"
        )
        return key

    def write_keys(self) -> None:
        self.keys_file.write_bytes(msgspec.json.encode({"keys": self.entries}))

    def client(self, key: str) -> Client:
        return Client(self.gateway.grpc_address, model="echo", api_key=key, retries=ONCE)

    def openai(self, key: str) -> openai.OpenAI:
        url = f"http://{self.gateway.http_address}/v1"
        self.clients.append(openai.OpenAI(base_url=url, api_key=key, max_retries=0))
        return self.clients[-1]

    def get(self, path: str, source: str = "127.0.0.1", **headers: str) -> tuple[int, Any, Any]:
        address = self.gateway.http_address
        connection = HTTPConnection(address, timeout=60, source_address=(source, 0))
        with closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers, json.load(response)

    def models(self, key: str) -> int:
        return self.get("/v1/models", authorization=f"Bearer {key}")[0]

    def models_from_elsewhere(self, key: str) -> int:
        """From an address that has not guessed before: its first guess is never throttled."""
        self.sources += 1
        source = f"127.1.{self.sources // 250}.{self.sources % 250 + 1}"
        return self.get("/v1/models", source, authorization=f"Bearer {key}")[0]

    def oip(self, call: str, request: Any, key: str = "") -> Any:
        metadata = (("x-api-key", key),) if key else ()
        with grpc.insecure_channel(self.gateway.grpc_address) as channel:
            method = getattr(GRPCInferenceServiceStub(channel), call)
            return method(request, metadata=metadata, timeout=60)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, plane: str) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("identity")
    keys_file, jwks_file = directory / "keys.json", directory / "jwks.json"
    keys_file.write_text('{"keys": []}')
    jwks_file.write_text(jwks(SIGNING, "k1"))
    pod = processes.echo_pod(directory)
    gateway = processes.gateway(
        directory,
        [pod],
        *("--data-plane", plane),
        *("--api-keys-file", str(keys_file), "--jwt-jwks", str(jwks_file)),
        *("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--log-level", "debug"),
        *("--traces", f"file:{directory / 'spans'}"),
    )
    with processes.running(pod, gateway):
        processes.eventually(lambda: gateway.ready_endpoints() > 0)
        made = Stage(gateway, pod, keys_file, jwks_file)
        yield made
        for client in made.clients:
            client.close()


SIGNING = ec.generate_private_key(ec.SECP256R1())


def jwks(key: Any, kid: str) -> str:
    entry: Any = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return json.dumps({"keys": [entry | {"kid": kid}]})


def token(key: Any = SIGNING, kid: str = "k1", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": FAR, "tenant": "globex"}
    return jwt.encode(claims | changes, key, "ES256", {"kid": kid})


def test_key_opens_every_way_in(stage: Stage) -> None:
    key = stage.key(name="ci")
    answer = stage.openai(key).chat.completions.create(**HELLO)
    assert answer.choices[0].message.content
    with stage.client(key) as client:
        assert client.chat("one two", max_tokens=4).choices[0].message.content
        assert "".join(c.delta.content for c in client.chat_stream("one two", max_tokens=4))
    assert stage.get("/v1/models", **{"x-api-key": key})[0] == 200
    assert stage.oip("ModelReady", oip.ModelReadyRequest(name="echo"), key).ready


def test_token_opens_as_well_as_a_key(stage: Stage) -> None:
    stage.secrets.append(token())
    assert stage.openai(token()).chat.completions.create(**HELLO).choices
    with stage.client(token()) as client:
        assert [m.name for m in client.list_models()] == ["echo"]


def test_without_a_credential_nothing_but_probes_is_served(stage: Stage) -> None:
    code, headers, body = stage.get("/v1/models")
    assert (code, headers["www-authenticate"]) == (401, 'Bearer realm="open-autoglm"')
    assert body["error"]["type"] == "authentication_error"
    with stage.client("") as client, pytest.raises(errors.Unauthenticated):
        client.chat("Hello")
    with pytest.raises(grpc.RpcError) as caught:
        stage.oip("ModelInfer", oip.ModelInferRequest(model_name="echo"))
    assert status.from_grpc(caught.value).grpc_status == "UNAUTHENTICATED"
    assert stage.get("/health/ready")[0] == stage.get("/v2/health/live")[0] == 200
    assert stage.oip("ServerReady", oip.ServerReadyRequest()).ready
    # The health service itself, as kubelet and load balancers call it.
    with grpc.insecure_channel(stage.gateway.grpc_address) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=60) == b"\x08\x01"


def test_auditor_sees_models_and_uses_none(stage: Stage) -> None:
    key = stage.key(roles=(Role.AUDITOR,))
    assert [m.id for m in stage.openai(key).models.list()] == ["echo"]
    with pytest.raises(openai.PermissionDeniedError, match="role Admin or User"):
        stage.openai(key).chat.completions.create(**HELLO)


def test_models_that_may_not_be_used_are_neither_shown_nor_confirmed(stage: Stage) -> None:
    key = stage.key(models=("glm-*",))
    assert list(stage.openai(key).models.list()) == []
    for name in ("echo", "made-up"):
        with pytest.raises(openai.PermissionDeniedError, match=name):
            stage.openai(key).chat.completions.create(**HELLO | {"model": name})
    with stage.client(key) as client:
        with pytest.raises(errors.PermissionDenied, match="'echo' is not among"):
            client.chat("Hello")
        with pytest.raises(errors.ModelNotFound) as caught:
            client.chat("Hello", model="glm-9")
    assert "echo" not in caught.value.message


def test_key_that_is_taken_out_of_the_file_ends_while_others_continue(stage: Stage) -> None:
    kept, gone = stage.key(), stage.key()
    assert stage.models(gone) == 200
    stage.entries.pop()
    stage.write_keys()
    processes.eventually(lambda: stage.models_from_elsewhere(gone) == 401, what="the key ends")
    assert stage.models(kept) == 200


def test_rotated_keys_take_over_from_the_old_ones(stage: Stage) -> None:
    fresh = ec.generate_private_key(ec.SECP256R1())
    old, new = token(sub="old"), token(fresh, "k2", sub="new")
    stage.secrets += [old, new]
    assert stage.models(old) == 200
    stage.jwks_file.write_text(jwks(fresh, "k2"))
    processes.eventually(
        lambda: stage.models_from_elsewhere(new) == 200, what="the new key is known"
    )
    assert stage.models_from_elsewhere(old) == 401
    stage.jwks_file.write_text(jwks(SIGNING, "k1"))
    processes.eventually(
        lambda: stage.models_from_elsewhere(old) == 200, what="the old key is back"
    )


async def test_server_behind_never_sees_a_credential() -> None:
    seen: list[dict[str, str]] = []

    async def respond(request: web.Request) -> web.Response:
        seen.append({k.lower(): v for k, v in request.headers.items()})
        return web.json_response({})

    async def identify(_: GatewayRequest) -> Principal:
        return Principal("acme", "alice")

    credentials = {"authorization": "Bearer hush", "x-api-key": "hush", "x-other": "1"}
    async with rest_stack(respond, identify=identify) as behind:
        body = HELLO | {"model": "m"}
        async with behind.client.post("/v1/chat/completions", json=body, headers=credentials):
            pass
    assert seen[0]["x-other"] == "1"
    assert "hush" not in str(seen)


def present_every_form(stage: Stage, forms: Any, secrets: dict[str, str]) -> None:
    """Right, malformed and wrong, over both wires; over REST each from an address of its own."""
    secrets |= {"JWT": token(), "FORGED": token(ec.generate_private_key(ec.SECP256R1()))}
    secrets |= {"EXPIRED": token(exp=1), "UNKNOWN": token(kid="k9")}
    secrets["WRONG"] = "agk_0000_a-wrong-guess-of-a-key"
    stage.secrets += secrets.values()
    names = re.compile("|".join(secrets))
    with grpc.insecure_channel(stage.gateway.grpc_address) as channel:
        ready = GRPCInferenceServiceStub(channel).ModelReady
        for number, form in enumerate(forms):
            presented = [(n, names.sub(lambda m: secrets[m[0]], v)) for n, v in form.presented]
            source = (f"127.0.1.{number}", 0)
            rest = HTTPConnection(stage.gateway.http_address, timeout=60, source_address=source)
            rest.putrequest("GET", "/v1/models")
            for name, value in presented:
                rest.putheader(name, value)
            rest.endheaders()
            assert (rest.getresponse().status == 200) is form.is_served
            rest.close()
            # gRPC has no tabs in metadata.
            metadata = tuple((name, value.replace("\t", " ")) for name, value in presented)
            with suppress(grpc.RpcError):
                ready(oip.ModelReadyRequest(name="echo"), metadata=metadata, timeout=60)


def test_guessing_is_slowed_and_no_secret_was_written_anywhere(
    stage: Stage, credential_forms: Any
) -> None:
    key = stage.key(name="worker")
    assert stage.models(key) == 200
    guesses: list[str] = []
    code, begun = 401, time.monotonic()
    while code == 401:
        guesses.append(f"agk_0000_{len(guesses)}-guess")
        code, headers, body = stage.get("/v1/models", authorization=f"Bearer {guesses[-1]}")
    allowed = FAILURES + FAILURES_PER_SECOND * (time.monotonic() - begun)
    assert 1 < len(guesses) <= allowed + 1
    assert (code, body["error"]["code"]) == (429, "rate_limited")
    assert int(headers["retry-after"]) >= 1
    assert stage.models(key) == 200, "whoever was in stays in"
    metrics = stage.gateway.wait_idle().get("/metrics")[1]
    assert 'authentications_total{method="api_key",outcome="throttled"}' in metrics

    present_every_form(stage, credential_forms, {"KEY": key, "OTHER": stage.key(name="other")})
    metrics = stage.gateway.wait_idle().get("/metrics")[1]
    written = metrics + stage.gateway.log.read_text() + stage.pod.log.read_text()
    written += (stage.gateway.log.parent / "spans").read_text()
    assert '"tenant":"acme"' in written and '"subject":"worker"' in written
    assert "autoglm.tenant" in written
    for secret in (*stage.secrets, *guesses):
        # The part of it that cannot be guessed.
        assert secret[-20:] not in written
