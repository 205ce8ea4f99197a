"""The disk that a download goes to."""

from __future__ import annotations

import shutil
from pathlib import Path


def disk_of(path: Path) -> tuple[Path, int]:
    """Return the nearest directory of a path that exists, and the bytes that its disk has free."""
    existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    return existing, shutil.disk_usage(existing).free
