"""Names the command that installs what a core install lacks, from where this one was installed.

No package index has the package yet, so a hint that names one would fail. Where it came from is
recorded at installation (PEP 610).
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_PACKAGE: Final = "open-autoglm"


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    try:
        record = distribution(_PACKAGE).read_text("direct_url.json")
    except PackageNotFoundError:
        record = None
    return command_of(extra, json.loads(record) if record else None)


def command_of(extra: str, origin: dict[str, Any] | None) -> str:
    """Return the command for an installation with this record; None is one from an index."""
    if origin is None:
        return f"pip install '{_PACKAGE}[{extra}]'"
    path = Path(unquote(urlsplit(str(origin.get("url", ""))).path))
    if not path.exists():
        # Such as an image, which was built elsewhere.
        return f"pip install '.[{extra}]' in a clone of the repository"
    if path.is_dir() and extra.startswith("vllm"):
        # Its engine for CPUs needs overrides that pip does not have.
        return f"make -C '{path}' install"
    is_editable = (origin.get("dir_info") or {}).get("editable")
    return f"pip install {'-e ' if is_editable else ''}'{path}[{extra}]'"
