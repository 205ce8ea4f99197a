"""The real gateway and real pods under `up`, with the echo engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from autoglm.local.planning import Addresses
from autoglm.local.up import UpOptions, up

MANIFEST = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {{name: echo}}
spec:
  replicas: {replicas}
  model: {{maxModelLen: {max_model_len}}}
  engine: {{type: echo}}
"""
ANY = "127.0.0.1:0"
QUESTION = {
    "model": "echo",
    "max_tokens": 4,
    "messages": [{"role": "user", "content": "one two three four"}],
}


@asynccontextmanager
async def served(file: Path, run_dir: Path) -> AsyncIterator[str]:
    """The gateway's REST address."""
    ready: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    options = UpOptions(
        run_dir, gateway=Addresses(ANY, ANY, ANY), on_ready=ready.set_result, stop=stop
    )
    task = asyncio.create_task(up([file], options))
    await asyncio.wait((ready, task), return_when=asyncio.FIRST_COMPLETED)
    yield f"http://{ready.result().http}"
    stop.set()
    assert await task == 0


@pytest.mark.timeout(120)
async def test_a_changed_manifest_fails_no_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(MANIFEST.format(replicas=1, max_model_len=2048))
    statuses: list[int] = []
    shown = ""

    async with served(file, tmp_path / "run") as url, aiohttp.ClientSession() as session:
        file.write_text(MANIFEST.format(replicas=1, max_model_len=4096))
        while "echo-0: stopped" not in shown:
            async with session.post(f"{url}/v1/chat/completions", json=QUESTION) as response:
                await response.read()
            statuses.append(response.status)
            shown += capsys.readouterr().out
        async with session.get(f"{url}/v1/models") as response:
            [model] = (await response.json())["data"]

    assert set(statuses) == {200}
    assert model["max_model_len"] == 4096


@pytest.mark.timeout(120)
async def test_a_model_that_gets_its_first_replica_later_is_served_then(tmp_path: Path) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(MANIFEST.format(replicas=0, max_model_len=2048))
    statuses: list[int] = []

    async with served(file, tmp_path / "run") as url, aiohttp.ClientSession() as session:
        while 200 not in statuses:
            async with session.post(f"{url}/v1/chat/completions", json=QUESTION) as response:
                await response.read()
            if not statuses:
                file.write_text(MANIFEST.format(replicas=1, max_model_len=2048))
            statuses.append(response.status)

    assert set(statuses) == {503, 200}
