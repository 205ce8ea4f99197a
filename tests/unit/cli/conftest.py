from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from autoglm import cli
from autoglm.testing.fake_server import FakeServer


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Autoglm = Callable[..., Result]


@pytest.fixture
def autoglm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Autoglm:
    """Runs the command in process: `autoglm("models", "--output", "json")`."""
    monkeypatch.setenv("COLUMNS", "60")

    def run(*args: str) -> Result:
        code = cli.run(args)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with FakeServer() as fake:
        monkeypatch.setenv("AUTOGLM_ADDRESS", fake.address)
        yield fake
