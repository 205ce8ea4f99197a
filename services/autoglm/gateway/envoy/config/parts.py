"""Common parts of Envoy's configuration. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy"
EXT_PROC = "envoy.filters.http.ext_proc"
EXT_PROC_TYPE = f"{TYPE}.extensions.filters.http.ext_proc.v3"


def header(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    """Return a HeaderValueOption."""
    return {"header": {"key": name, "value": value}, "append_action": action}


def pipe(path: str) -> Json:
    """Return the address of a Unix socket that only this user may open."""
    return {"pipe": {"path": path, "mode": 0o600}}


def seconds(seconds: float) -> str:
    """Return a Duration."""
    return f"{seconds:.3f}s"
