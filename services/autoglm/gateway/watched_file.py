"""Watches a small file and reloads it when its contents change.

Contents are compared, not times: kubelet swaps symlinks in a mounted Secret, and editors write in
place. An unreadable or invalid file is ignored. Used for API keys, secrets of tokens and rules of
tenants.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_SECONDS = 1.0
MAX_BYTES = 32 * 1024 * 1024
_log = logging.getLogger("autoglm.gateway")


class WatchedFile(Generic[T]):
    """A file whose last valid contents, as parsed by `parse`, are `value`.

    The constructor raises OSError or ValueError if the file is not valid. `parse` raises ValueError
    without quoting the contents, which may be secret.
    """

    def __init__(self, path: str, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._contents = self._read()
        try:
            self.value = parse(self._contents)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    async def watch(self, on_change: Callable[[T], None]) -> None:
        """Call `on_change` with every new value until cancelled."""
        logged = ""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                if not await asyncio.to_thread(self._reload):
                    continue
            except (OSError, ValueError) as error:
                if logged != str(error):
                    logged = str(error)
                    _log.warning(
                        "ignoring invalid %s, keeping the previous version: %s", self._path, error
                    )
                continue
            logged = ""
            _log.info("%s has changed and is in force", self._path)
            on_change(self.value)

    def _reload(self) -> bool:
        """Read the file; return whether its contents have changed."""
        contents = self._read()
        if contents == self._contents:
            return False
        self.value = self._parse(contents)
        self._contents = contents
        return True

    def _read(self) -> bytes:
        file = Path(self._path)
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{self._path} has more than {MAX_BYTES} bytes")
        return file.read_bytes()
