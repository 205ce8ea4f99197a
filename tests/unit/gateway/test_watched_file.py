"""Watched files, in virtual time."""

import asyncio
import logging
from pathlib import Path

import pytest

from autoglm.gateway.watched_file import POLL_SECONDS, WatchedFile

pytestmark = pytest.mark.looptime


def number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError("it is no number") from error


async def test_new_contents_are_reported_once_and_nonsense_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "f"
    file.write_text("1")
    watched, values = WatchedFile(str(file), number), list[int]()
    task = asyncio.create_task(watched.watch(values.append))
    for text in ("1", "secret", "", "2", "2"):
        file.write_text(text)
        await asyncio.sleep(3.5 * POLL_SECONDS)
    file.unlink()
    await asyncio.sleep(3.5 * POLL_SECONDS)
    task.cancel()
    assert (watched.value, values) == (2, [2])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2, "one for nonsense, one for its absence"
    assert "secret" not in caplog.text


async def test_swapped_symlinks_of_a_mounted_secret_are_noticed(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(version)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "key").symlink_to("..data/key")
    watched, values = WatchedFile(str(tmp_path / "key"), number), list[int]()
    task = asyncio.create_task(watched.watch(values.append))
    (tmp_path / "..tmp").symlink_to("2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    await asyncio.sleep(1.5 * POLL_SECONDS)
    task.cancel()
    assert values == [2]


def test_file_that_is_bad_from_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WatchedFile(str(tmp_path / "f"), number)
    (tmp_path / "f").write_text("x")
    with pytest.raises(ValueError, match="no number"):
        WatchedFile(str(tmp_path / "f"), number)
