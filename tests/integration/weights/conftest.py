"""Runs the command as its users do, with a hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def autoglm(tmp_path: Path) -> Run:
    """Run `autoglm` with a cache of its own; `hub` is the address of the hub."""

    def run(*arguments: str, hub: str, **variables: str) -> subprocess.CompletedProcess[str]:
        unset = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "MODELSCOPE_API_TOKEN")
        own = {name: value for name, value in os.environ.items() if name not in unset}
        own |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        own |= {"MODELSCOPE_ENDPOINT": hub, "MODELSCOPE_CACHE": str(tmp_path / "ms")}
        return subprocess.run(
            [sys.executable, "-m", "autoglm", *arguments],
            env=own | {"HF_HUB_DISABLE_XET": "1"} | variables,
            capture_output=True,
            text=True,
            timeout=50,
            cwd=tmp_path,
            check=False,
        )

    return run
