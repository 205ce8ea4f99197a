"""The disk of a directory that is not there yet is that of its nearest ancestor."""

import shutil
from pathlib import Path

import pytest

from autoglm.inference.disk import disk_of


@pytest.mark.parametrize("below", ["", "a", "a/b/c"])
def test_the_nearest_directory_that_exists_is_found(tmp_path: Path, below: str) -> None:
    existing, free = disk_of(tmp_path / below)

    assert existing == tmp_path
    assert 0 < free <= shutil.disk_usage(tmp_path).total


def test_a_relative_path_is_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert disk_of(Path("a/b"))[0] == tmp_path
