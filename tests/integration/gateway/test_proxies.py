"""The client's address behind proxies, as authentication sees it, on both data planes."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from autoglm import v1
from autoglm.common import rpc
from autoglm.gateway.app import Gateway
from autoglm.gateway.identity.keys import new_key
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub

pytestmark = pytest.mark.timeout(60)
PROXY, CLIENT, SPOOFED = "127.0.0.3", "203.0.113.5", "198.51.100.1"
V1 = f"PROXY TCP4 {CLIENT} 198.51.100.2 4711 80\r\n".encode()
V2 = b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x11, 12)
V2 += bytes((203, 0, 113, 5, 198, 51, 100, 2)) + struct.pack(">HH", 4711, 80)
POST = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\nx-api-key: k\r\ncontent-length: 2\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: h\r\nx-api-key: k\r\n"


async def watched(fleet: Any, directory: Path, proxy: str) -> tuple[Gateway, list[str]]:
    """Return a gateway that trusts one proxy, and the addresses that it authenticates."""
    _, entry = new_key("one")
    file = directory / "keys.json"
    file.write_bytes(msgspec.json.encode({"keys": [entry]}))
    (pod,) = await fleet.pods(FakePod())
    gateway: Gateway = await fleet.gateway(
        pod, api_keys_file=str(file), trusted_proxies=(f"{proxy}/32",)
    )
    seen: list[str] = []
    authenticator = gateway.core._identity._authenticator  # type: ignore[union-attr]
    judge = authenticator.judge

    def watch(presented: Any, peer: str, now: float, wall: float) -> Any:
        seen.append(peer)
        return judge(presented, peer, now, wall)

    authenticator.judge = watch  # type: ignore[method-assign]
    return gateway, seen


async def rest(
    port: int, source: str, request: bytes, *, header: bytes = b"", xff: str = ""
) -> None:
    """Send a request with a wrong key, from an address of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    forwarded = f"x-forwarded-for: {xff}\r\n".encode() if xff else b""
    body = b"{}" if request is POST else b""
    writer.write(header + request + forwarded + b"connection: close\r\n\r\n" + body)
    assert (await reader.read()).startswith(b"HTTP/1.1 401")
    writer.close()


@pytest.mark.parametrize("request_head", [POST, MODELS], ids=["pod", "local"])
async def test_a_trusted_proxy_names_the_client_of_a_rest_request(
    fleet: Any, tmp_path: Path, request_head: bytes
) -> None:
    gateway, seen = await watched(fleet, tmp_path, PROXY)
    port = gateway.http_port
    await rest(port, PROXY, request_head, xff=f"{SPOOFED}, {CLIENT}")
    await rest(port, PROXY, request_head, header=V1)
    await rest(port, PROXY, request_head, header=V2)
    await rest(port, PROXY, request_head, header=V1, xff=SPOOFED)
    assert seen == [CLIENT] * 4
    seen.clear()
    await rest(port, PROXY, request_head)
    await rest(port, "127.0.0.2", request_head, xff=CLIENT)
    assert seen == [PROXY, "127.0.0.2"]


async def test_a_proxy_header_of_another_peer_names_no_client(fleet: Any, tmp_path: Path) -> None:
    gateway, seen = await watched(fleet, tmp_path, PROXY)
    for header in (V1, V2):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.http_port, local_addr=("127.0.0.2", 0)
        )
        writer.write(header + MODELS + b"connection: close\r\n\r\n")
        assert (await reader.read())[9:12] in (b"400", b"401")
        writer.close()
    assert set(seen) <= {"127.0.0.2"}


@pytest.mark.parametrize(("proxy", "client"), [("127.0.0.1", CLIENT), (PROXY, "127.0.0.1")])
async def test_a_trusted_proxy_names_the_client_of_a_grpc_request(
    fleet: Any, tmp_path: Path, proxy: str, client: str
) -> None:
    gateway, seen = await watched(fleet, tmp_path, proxy)
    metadata = (("x-api-key", "k"), ("x-forwarded-for", f"{SPOOFED}, {CLIENT}"))
    async with rpc.channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        stub = InferenceStub(channel)
        for call in (
            stub.Generate(v1.GenerateRequest(model="fake", text="x"), metadata=metadata),
            stub.ListModels(v1.ListModelsRequest(), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert seen == [client] * 2
