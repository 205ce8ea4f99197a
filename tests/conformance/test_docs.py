"""The Python examples in the documents run, against the real gateway."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.processes import Served

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
DEFAULT_ADDRESS = "127.0.0.1:50051"


def examples() -> list[tuple[str, str]]:
    """Those that talk to a server at the default address."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [
        (f"{document.name}-{number}", code)
        for document in documents
        for number, code in enumerate(_PYTHON.findall(document.read_text()))
        if "Client" in code and "gateway.example" not in code
    ]


@pytest.mark.parametrize(("name", "code"), examples(), ids=lambda v: v if "\n" not in v else "")
def test_an_example_runs(gateway: Served, name: str, code: str) -> None:
    here = code.replace(DEFAULT_ADDRESS, gateway.grpc_address)
    # `Client()` takes the default address, which no test can be sure to have.
    here = here.replace("Client(model", f'Client("{gateway.grpc_address}", model')
    here = here.replace("Client()", f'Client("{gateway.grpc_address}")')
    done = subprocess.run(
        [sys.executable, "-c", here], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
