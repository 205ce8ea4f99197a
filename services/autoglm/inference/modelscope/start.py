"""Fetches what a pod's settings name by ms:// before its engine starts, which then gets paths.

Replicas of one machine fetch a model once: the others wait for it. Called by the pod's app.
"""

from __future__ import annotations

import asyncio
import errno
import time
from dataclasses import dataclass

from autoglm.api.uri import MODELSCOPE, location_of
from autoglm.common.process import ExitCode
from autoglm.inference.disk import disk_of
from autoglm.inference.modelscope.api import ModelScopeError
from autoglm.inference.modelscope.snapshot import Snapshot, snapshot
from autoglm.inference.settings import InferenceSettings
from autoglm.inference.startup import Sample, Stage, Startup

_SAMPLE_SECONDS = 1.0


async def with_paths(settings: InferenceSettings, startup: Startup) -> InferenceSettings:
    """Return settings for the engine, noting the progress of downloads. Raises ModelScopeError."""
    fetching = _Fetching(startup)
    model, tokenizer, adapters = settings.model_path, settings.tokenizer, settings.adapter
    changes: dict[str, object] = {}
    if _is_there(model):
        path = await fetching.path(model, settings.revision)
        changes |= {"model_path": path, "model_name": settings.served_name, "revision": ""}
    if _is_there(tokenizer):
        changes["tokenizer"] = await fetching.path(tokenizer)
    pairs = [adapter.partition("=") for adapter in adapters]
    if any(_is_there(uri) for *_, uri in pairs):
        changes["adapter"] = tuple(
            [
                f"{name}={await fetching.path(uri) if _is_there(uri) else uri}"
                for name, _, uri in pairs
            ]
        )
    return settings.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class _Fetching:
    startup: Startup

    async def path(self, uri: str, revision: str = "") -> str:
        """Return the directory of a model, tokenizer or adapter, fetched if it is not here."""
        found = await asyncio.to_thread(snapshot, uri, revision)
        if found.missing:
            self.startup.total_bytes = sum(file.size for file in found.files)
            fetching = asyncio.create_task(asyncio.to_thread(_fetch, found))
            while not fetching.done():
                self._sample(found)
                await asyncio.wait((fetching,), timeout=_SAMPLE_SECONDS)
            self._sample(found)
            await fetching
        return str(found.directory)

    def _sample(self, found: Snapshot) -> None:
        sample = Sample(Stage.DOWNLOAD, cached_bytes=found.present())
        self.startup.observe(sample, time.monotonic())


def _fetch(found: Snapshot) -> None:
    uri, root = found.source.uri, found.directory
    _, free = disk_of(root)
    if found.missing > free:
        raise _full(f"{uri} needs {_gb(found.missing)}, and {root} has {_gb(free)} free")
    try:
        found.fetch(lambda size: None, check=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(f"there is no space left on a disk ({error})") from error
        raise ModelScopeError(
            f"{uri} cannot be stored ({error}); set MODELSCOPE_CACHE to a directory that can be "
            "written",
            ExitCode.BAD_SETTINGS,
        ) from error


def _full(why: str) -> ModelScopeError:
    message = f"{why}: free some, or set MODELSCOPE_CACHE to another disk"
    return ModelScopeError(message, ExitCode.DISK_FULL)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _is_there(uri: str) -> bool:
    return location_of(uri).scheme == MODELSCOPE
