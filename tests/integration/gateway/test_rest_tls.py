"""TLS on both sides of the REST port, with client certificates, and renewed while it serves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web
from prometheus_client import CollectorRegistry

from autoglm.common.tls import (
    TlsFiles,
    http_client_context,
    http_server_context,
    reload_http_server,
)
from autoglm.gateway.app import Gateway
from autoglm.gateway.settings import GatewaySettings

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def issue(authority: trustme.CA, directory: Path, name: str = "localhost") -> TlsFiles:
    """Certificate files for a host, and the authority's own."""
    directory.mkdir(exist_ok=True)
    files = TlsFiles(*(str(directory / part) for part in ("cert.pem", "key.pem", "ca.pem")))
    leaf = authority.issue_cert(name, "localhost")
    leaf.private_key_pem.write_to_path(files.key_file)
    Path(files.cert_file).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    authority.cert_pem.write_to_path(files.ca_file)
    return files


@asynccontextmanager
async def serving(app: web.Application, context: ssl.SSLContext) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


def openai_server() -> web.Application:
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def chat(_: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


@asynccontextmanager
async def gateway(files: TlsFiles, upstream_port: int) -> AsyncIterator[str]:
    """Serves with, and trusts, and shows to the upstream, the same certificate."""
    settings = GatewaySettings(
        grpc_address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        endpoint=(f"https://localhost:{upstream_port}",),
        tls_cert_file=files.cert_file,
        tls_key_file=files.key_file,
        tls_client_ca_file=files.ca_file,
        upstream_cert_file=files.cert_file,
        upstream_key_file=files.key_file,
        upstream_ca_file=files.ca_file,
        shutdown_grace_seconds=0.1,
    )
    front = Gateway(settings, CollectorRegistry())
    await front.start()
    async with asyncio.timeout(30):
        while not front.core.pool.is_ready:
            front.core.changed.clear()
            await front.core.changed.wait()
    yield f"https://localhost:{front.http_port}"
    await front.close()


async def test_both_sides_speak_mutual_tls(tmp_path: Path) -> None:
    files = issue(trustme.CA(), tmp_path)
    ours, stranger = (
        http_client_context(files),
        http_client_context(TlsFiles("", "", files.ca_file)),
    )
    async with (
        serving(openai_server(), http_server_context(files)) as port,
        gateway(files, port) as url,
        aiohttp.ClientSession(url) as client,
    ):
        async with client.post("/v1/chat/completions", json=HELLO, ssl=ours) as response:
            assert (response.status, await response.json()) == (200, {"choices": []})
        with pytest.raises(aiohttp.ClientError):
            await client.post("/v1/chat/completions", json=HELLO, ssl=stranger)


async def test_a_renewed_certificate_is_served_to_new_connections(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = issue(authority, tmp_path, "old.example")
    client = http_client_context(files)
    context = http_server_context(files)
    async with serving(openai_server(), context) as port:
        reloading = asyncio.create_task(reload_http_server(context, files, 0.01))
        before = await names_served(port, client)
        issue(authority, tmp_path, "new.example")
        async with asyncio.timeout(30):
            while (after := await names_served(port, client)) == before:
                pass
        reloading.cancel()
    assert ("old.example" in before, "new.example" in after) == (True, True)


async def names_served(port: int, context: ssl.SSLContext) -> set[str]:
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return {name for _, name in certificate["subjectAltName"]}
