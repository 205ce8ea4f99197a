"""What a test needs of the machine: without it the test is skipped, and fails in CI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
# How our scripts end where a tool that they need is not there.
_NO_TOOL = 3


def lacking(reason: str) -> NoReturn:
    """Ends the test; `reason` says what is missing and how to get it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def built(script: str, name: str) -> None:
    """Has a script build something. Raises AssertionError with its words where it cannot."""
    done = subprocess.run(
        [ROOT / "scripts" / script, name], capture_output=True, text=True, check=False
    )
    if done.returncode == _NO_TOOL:
        lacking(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def go_tool(name: str) -> Path:
    """A program of scripts/go_tools."""
    built("go_tools", name)
    return ROOT / "build/bin" / name
