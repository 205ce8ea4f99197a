"""Where Envoy is found."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from autoglm.common.packages import install_command
from autoglm.gateway.envoy import program


def test_envoy_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "envoy"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.find() == str(mine)


def test_the_packages_envoy_needs_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = Path(program.find())
    assert found.parts[-3:] == ("envoy", "_bin", "envoy") and found.exists()


def test_without_any_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(program.EnvoyMissing, match=re.escape(install_command("envoy"))):
        program.find()
