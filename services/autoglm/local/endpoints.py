"""The file by which the gateway learns where replicas are.

Rewritten whole and renamed into place, so that a reader sees the old list or the new one. Written
by `runtime`, read by the gateway (`--endpoints-file`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from autoglm.local.planning import Addresses


def url_of(addresses: Addresses) -> str:
    return f"grpc://{addresses.grpc}"


def write(path: Path, addresses: Iterable[Addresses]) -> None:
    """Replaces the list."""
    urls = sorted(map(url_of, addresses))
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps({"endpoints": urls}) + "\n")
    draft.replace(path)
