"""Watches a small file and reloads it when its contents change.

Contents are compared, not times: kubelet swaps symlinks in a mounted Secret, and editors write in
place. An unreadable or invalid file is ignored. Used for keys, tokens'
secrets and tenants' rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
LOOK_SECONDS = 1.0
MAX_BYTES = 32 * 1024 * 1024
_log = logging.getLogger("autoglm.gateway")


class FollowedFile(Generic[T]):
    """`value` is what `parse` made of the last good contents.

    Made from a file that must be good: raises OSError or ValueError. `parse` raises ValueError
    without quoting the contents, which may be secret.
    """

    def __init__(self, path: str, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen = _read(path)
        try:
            self.value = parse(self._seen)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    async def follow(self, on_change: Callable[[T], None]) -> None:
        """Calls `on_change` with every new value until it is cancelled."""
        complaint = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if not await asyncio.to_thread(self._reload):
                    continue
            except (OSError, ValueError) as error:
                if complaint != str(error):
                    complaint = str(error)
                    _log.warning(
                        "ignoring invalid %s, keeping the previous version: %s", self._path, error
                    )
                continue
            complaint = ""
            _log.info("%s has changed and is in force", self._path)
            on_change(self.value)

    def _reload(self) -> bool:
        """Reads the file; returns whether its contents have changed."""
        found = _read(self._path)
        if found == self._seen:
            return False
        self.value = self._parse(found)
        self._seen = found
        return True


def _read(path: str) -> bytes:
    file = Path(path)
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes")
    return file.read_bytes()
