"""Screens that need no server are what the page shows; `python -m scripts.screens` draws all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
def test_screens_of_the_page_are_current() -> None:
    command = [sys.executable, "-m", "scripts.screens", "--check", "size", "fields"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
