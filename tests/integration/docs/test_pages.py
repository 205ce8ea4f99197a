"""Commands of the pages that need no model do what their pages say; `make pages` runs all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
QUICK = ("api-keys", "gated-models", "gpus", "own-model-cluster")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", QUICK)
def test_the_commands_of_a_page_do_what_it_says(page: str) -> None:
    command = [sys.executable, "-m", "scripts.pages", f"docs/guides/{page}.md"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
