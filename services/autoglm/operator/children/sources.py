"""Decides whether a replica downloads from a model hub, and from which ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from autoglm.api import Spec

_DEFAULT_PORTS = {"https": 443, "http": 80}


def is_path(uri: str) -> bool:
    return uri.startswith("/")


def hub_ports(spec: Spec) -> list[int]:
    """Return the ports of the model hub and its mirrors; none if all files are on a volume."""
    if not needs_hub(spec):
        return []
    mirrors = [e.value for e in spec.engine.env if e.name == "HF_ENDPOINT" and e.value]
    # Hubs serve large files from other hosts, always by HTTPS.
    return sorted({443, *(port for url in mirrors if (port := port_of(url)))})


def needs_hub(spec: Spec) -> bool:
    """Return whether any model, tokenizer or adapter is not a path."""
    return spec.engine.type == "vllm" and not all(map(is_path, _uris(spec)))


def port_of(url: str) -> int | None:
    """Return the port of a URL, given or of its scheme; None without either."""
    try:
        parts = urlsplit(url)
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None


def _uris(spec: Spec) -> Iterator[str]:
    model = spec.model
    yield from (uri for uri in (model.uri, model.tokenizer) if uri)
    yield from (adapter.uri for adapter in model.adapters)
