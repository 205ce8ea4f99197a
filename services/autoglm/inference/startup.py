"""The progress of an engine's start: its stage, its numbers, and when it last moved.

Pure; the engine's own watch takes samples of what the machine shows, since engines do not report
their progress. Read by probes, by clients' errors, and by the app, which ends a start that stalls.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

_RATE_SECONDS = 10.0
# Less is the housekeeping of processes that wait.
_LEAST_IO_BYTES = 1024 * 1024
_GB = 1e9


class Stage(StrEnum):
    IMPORT = "import"
    DOWNLOAD = "download"
    LOAD = "load"
    COMPILE = "compile"
    WARM_UP = "warm-up"


@dataclass(frozen=True, slots=True)
class Sample:
    """State of a start at one time, as the machine shows it."""

    stage: Stage
    """The stage by the engine's log."""
    log_bytes: int = 0
    """Bytes that the engine has logged."""
    io_bytes: int = 0
    """Bytes that its processes have read and written."""
    cached_bytes: int = 0
    """Bytes of the model in the hub's local cache."""


_NOTHING = Sample(Stage.IMPORT)


@dataclass
class Startup:
    """The progress so far; `observe` takes the samples in order."""

    started: float
    """Time of the start, in seconds of a monotonic clock."""
    total_bytes: int = 0
    """Bytes of the weights; 0 if unknown."""
    _last: Sample | None = None
    _progressed: float = 0.0
    _downloads: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._progressed = self.started

    def observe(self, sample: Sample, now: float) -> None:
        # What the cache has at first was downloaded before.
        last = self._last or replace(_NOTHING, cached_bytes=sample.cached_bytes)
        grew = sample.cached_bytes > last.cached_bytes
        moved = (
            grew
            or sample.stage is not last.stage
            or sample.log_bytes > last.log_bytes
            or sample.io_bytes >= last.io_bytes + _LEAST_IO_BYTES
        )
        if moved or self._last is None:
            self._last = sample
        if moved:
            self._progressed = now
        if grew:
            self._downloads.append((now, sample.cached_bytes))
        while self._downloads and now - self._downloads[0][0] > _RATE_SECONDS:
            self._downloads.popleft()

    def stage(self, now: float) -> Stage:
        """Return the stage: a download as long as bytes arrive, or are missing and expected."""
        last = self._last or _NOTHING
        is_late = last.stage in (Stage.COMPILE, Stage.WARM_UP)
        arrives = bool(self._downloads) and now - self._downloads[-1][0] <= _RATE_SECONDS
        is_partial = 0 < last.cached_bytes < self.total_bytes
        return Stage.DOWNLOAD if (arrives or is_partial) and not is_late else last.stage

    def idle_seconds(self, now: float) -> float:
        """Return the time without progress."""
        return max(0.0, now - self._progressed)

    def rate(self, now: float) -> float:
        """Return the bytes a second that were downloaded of late."""
        if len(self._downloads) < 2:
            return 0.0
        (began, first), (_, latest) = self._downloads[0], self._downloads[-1]
        return (latest - first) / max(now - began, 1.0)

    def text(self, now: float) -> str:
        """Return the stage for people: `download 3.1 of 16.4 GB at 45.0 MB/s`."""
        stage = self.stage(now)
        if stage is Stage.DOWNLOAD:
            done, rate = (self._last or _NOTHING).cached_bytes / _GB, self.rate(now) / 1e6
            of = f" of {self.total_bytes / _GB:.1f}" if self.total_bytes else ""
            return f"{stage} {done:.1f}{of} GB at {rate:.1f} MB/s"
        if stage is Stage.LOAD and self.total_bytes:
            return f"{stage} {self.total_bytes / _GB:.1f} GB"
        return stage.value

    def view(self, now: float) -> dict[str, Any]:
        """Return the progress for machines, of the page of readiness."""
        return {
            "stage": self.stage(now).value,
            "text": self.text(now),
            "downloaded_bytes": (self._last or _NOTHING).cached_bytes,
            "total_bytes": self.total_bytes,
            "bytes_per_second": round(self.rate(now)),
            "seconds": round(now - self.started, 1),
            "idle_seconds": round(self.idle_seconds(now), 1),
        }
