from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from autoglm.common.process.garbage import (
    LATEST_SECONDS,
    QUIET_REQUESTS,
    QUIET_SECONDS,
    collect,
    is_due,
)


@pytest.mark.parametrize(
    ("seconds", "requests", "due"),
    [
        (QUIET_SECONDS, 0, True),
        (QUIET_SECONDS, QUIET_REQUESTS, True),
        (QUIET_SECONDS - 0.1, 0, False),
        (QUIET_SECONDS, QUIET_REQUESTS + 1, False),
        (LATEST_SECONDS, 1000, True),
    ],
)
def test_full_collection_waits_for_a_quiet_moment_but_not_for_ever(
    seconds: float, requests: int, due: bool
) -> None:
    assert is_due(seconds, requests) is due


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("thresholds")
async def test_no_full_collection_comes_by_itself_once_it_runs() -> None:
    running = asyncio.create_task(collect(lambda: 0))
    await asyncio.sleep(0)
    assert gc.get_threshold()[2] >= 1_000_000
    assert gc.get_freeze_count() > 0
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.usefixtures("thresholds")
async def test_a_middle_collection_has_little_to_visit() -> None:
    """What many open streams have allocated since the last one is visited in one go."""
    running = asyncio.create_task(collect(lambda: 1000))
    await asyncio.sleep(0)
    looked_at = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal looked_at
        if phase == "start" and info["generation"] == 1:
            looked_at = max(looked_at, len(gc.get_objects(0)) + len(gc.get_objects(1)))

    gc.callbacks.append(note)
    kept = [[number] for number in range(50_000)]
    gc.callbacks.remove(note)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(kept) == 50_000
    assert 0 < looked_at < 12_000
