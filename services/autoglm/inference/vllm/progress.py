"""Samples the progress of vLLM's start: its log, its processes' I/O, and the hub's local cache.

vLLM reports no progress of its own. Decides nothing; `autoglm.inference.startup` does.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from autoglm.inference.engine import EngineOptions
from autoglm.inference.startup import Sample, Stage, Startup
from autoglm.inference.weight_files import size_of

_SAMPLE_SECONDS = 1.0
_HUB_SECONDS = 10.0
# Sentences of vLLM's log; the last one that is found says what it does.
_STAGES = (
    (re.compile(r"Starting to load model"), Stage.LOAD),
    (re.compile(r"Compiling|torch\.compile|Dynamo bytecode transform"), Stage.COMPILE),
    (re.compile(r"Model loading took|[Ww]arming up|[Cc]aptur\w+ CUDA graph"), Stage.WARM_UP),
)


async def watch(startup: Startup, options: EngineOptions, log: Path) -> None:
    """Take samples until cancelled; `log` is the file of vLLM's messages."""
    sizing = asyncio.create_task(asyncio.to_thread(_total, options))
    try:
        while True:
            startup.observe(await asyncio.to_thread(_sample, options, log), time.monotonic())
            if sizing.done():
                startup.total_bytes = sizing.result()
            await asyncio.sleep(_SAMPLE_SECONDS)
    finally:
        sizing.cancel()


def _sample(options: EngineOptions, log: Path) -> Sample:
    text = log.read_text(errors="replace") if log.exists() else ""
    cached = sum(map(_bytes_on_disk, _cached(options)))
    return Sample(stage_in(text), len(text), sum(map(_io_bytes, _family(os.getpid()))), cached)


def stage_in(log: str) -> Stage:
    """Return the stage that vLLM's messages show."""
    found = [
        (match.start(), stage) for pattern, stage in _STAGES for match in pattern.finditer(log)
    ]
    return max(found)[1] if found else Stage.IMPORT


def _total(options: EngineOptions) -> int:
    """Return the size of the model, here or on the hub; 0 where the hub does not say."""
    directory = Path(options.model)
    if directory.is_dir():
        return size_of((each.name, each.stat().st_size) for each in directory.iterdir())
    from huggingface_hub import HfApi

    # Without the hub there is a download without a total, or none at all.
    with suppress(Exception):
        info = HfApi().model_info(
            options.model, revision=options.revision, files_metadata=True, timeout=_HUB_SECONDS
        )
        return size_of((each.rfilename, each.size or 0) for each in info.siblings or ())
    return 0


def _cached(options: EngineOptions) -> Iterator[Path]:
    """Yield the files of a model in the hub's local cache, those that are being written too."""
    if Path(options.model).exists():
        return
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    chosen = options.engine_args.get("download_dir") or options.engine_args.get("download-dir")
    root = Path(str(chosen or constants.HF_HUB_CACHE))
    with suppress(OSError):
        folder = repo_folder_name(repo_id=options.model, repo_type="model")
        yield from (root / folder / "blobs").iterdir()


def _bytes_on_disk(file: Path) -> int:
    try:
        about = file.stat()
    except OSError:
        return 0
    # A file may be made at its full length before its bytes arrive.
    return min(about.st_size, about.st_blocks * 512)


def _family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants; of other systems than Linux the process alone."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _io_bytes(pid: int) -> int:
    with suppress(OSError, ValueError):
        lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(lines["rchar"]) + int(lines["wchar"])
    return 0
