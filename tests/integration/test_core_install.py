"""The package without extras, installed into an environment of its own: client and command work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
HEAVY = ("aiohttp", "kopf", "kubernetes", "opentelemetry.sdk", "pydantic", "rich", "vllm", "yaml")
CALLS = f"""
import asyncio, importlib, sys
from autoglm.client import AsyncClient, Client
from autoglm.testing.fake_server import FakeServer

def is_installed(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True

async def ask(address):
    async with AsyncClient(address, model="fake") as client:
        return "".join([chunk.text async for chunk in client.generate_stream("Hi")])

with FakeServer() as server, Client(server.address, model="fake") as client:
    answer = client.chat([{{"role": "user", "content": "Hi"}}])
    print(answer.choices[0].message.content)
    print(asyncio.run(ask(server.address)))
print([name for name in {HEAVY!r} if is_installed(name)])
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's bin directory; packages come from uv's cache when it has them."""
    home = tmp_path_factory.mktemp("core") / "venv"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
    python = home / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, ROOT], check=True)
    return home / "bin"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["GRPC_VERBOSITY"] = "ERROR"
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd="/", timeout=60
    )


def test_both_clients_work_and_nothing_heavy_is_there(core: Path) -> None:
    done = run(core / "python", "-W", "error", "-c", CALLS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Hello there.", "Hello there.", "[]"]


@pytest.mark.parametrize(
    "args", [["--help"], ["chat", "--help"], ["version"], ["status", "--help"]]
)
def test_the_command_works(core: Path, args: list[str]) -> None:
    done = run(core / "autoglm", *args)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["autoglm", "openautoglm"])
def test_every_name_is_the_same_command(core: Path, name: str) -> None:
    assert run(core / name, "--version").stdout.startswith("autoglm ")


def test_kubectls_plugin_says_what_to_install(core: Path) -> None:
    assert run(core / "kubectl-autoglm", "--version").stdout.startswith("kubectl autoglm ")
    for command in (("kubectl-autoglm", "status"), ("autoglm", "status", "-k")):
        done = run(core / command[0], *command[1:])
        assert done.returncode == 1
        assert f"pip install '{ROOT}[cli]'" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "extra"), [("gateway", "gateway"), ("inference", "vllm"), ("up", "cli")]
)
def test_a_command_that_needs_more_says_what_to_install(
    core: Path, command: str, extra: str
) -> None:
    done = run(core / "autoglm", command, "--help")
    assert done.returncode == 1
    vllm = f"make -C '{ROOT}' install"
    assert (vllm if extra == "vllm" else f"pip install '{ROOT}[{extra}]'") in done.stderr
    assert "Traceback" not in done.stderr
