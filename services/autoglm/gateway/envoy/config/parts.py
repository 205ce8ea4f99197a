"""Pieces of Envoy's configuration that its parts share. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy"
EXT_PROC = "envoy.filters.http.ext_proc"
EXT_PROC_TYPE = f"{TYPE}.extensions.filters.http.ext_proc.v3"


def header(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    return {"header": {"key": name, "value": value}, "append_action": action}


def pipe(path: str) -> Json:
    return {"pipe": {"path": path, "mode": 0o600}}


def seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"
