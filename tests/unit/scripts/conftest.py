from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from scripts.measure.source import Module, read_package

Tree = Callable[[dict[str, str]], tuple[Module, ...]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files of a package `app` and reads it."""

    def write(files: dict[str, str]) -> tuple[Module, ...]:
        for path, text in files.items():
            file = tmp_path / "app" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))
        return read_package(tmp_path / "app")

    return write
