"""The relay that is the yardstick of `routers` passes responses on, to those with a key."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from pathlib import Path

from benchmarks.sketch import Client, Relay

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond to each request, when it is whole."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(RESPONSE)
    writer.close()


def post(key: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def test_a_valid_request_with_a_key_gets_the_servers_bytes_and_a_log_line(
    tmp_path: Path,
) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "log"
    digest = hashlib.sha256(b"secret").hexdigest()
    keys.write_text(json.dumps({"keys": [{"sha256": digest}]}))
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    relay = Relay(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", str(keys), str(log))
    loop = asyncio.get_running_loop()
    front = await loop.create_server(lambda: Client(relay), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())

    for key, body in (("secret", CHAT), ("secret", CHAT), ("other", CHAT), ("secret", {})):
        writer.write(post(key, body))
        accepted = key == "secret" and body == CHAT
        expected = (
            RESPONSE if accepted else b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
        )
        assert await reader.readexactly(len(expected)) == expected
    assert relay.busy == [0] * len(relay.busy) and len(relay.idle) == 1

    relay.log.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["served", "served"]
    writer.close()
    await writer.wait_closed()
    for upstream in relay.idle:
        upstream.transport.abort()
    for listener in (front, server):
        listener.close()
    # The server's side ends once it has read that its client is gone.
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=10)
    await asyncio.sleep(0)
