"""Where the pods of a resource find their weights, and who downloads them. Pure.

A path is used as it is; images (oci://) and other claims (pvc://) are mounted read-only. Everything
else is downloaded: by the engine itself into an emptyDir, by an init container into a directory of
the node, or once by a Job into a PersistentVolumeClaim, which pods then mount read-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from autoglm.api import Spec
from autoglm.api.uri import (
    CLAIM,
    HUBS,
    MODELSCOPE,
    OCI,
    PATH,
    S3,
    directory_of,
    for_engine,
    location_of,
)
from autoglm.operator.children.metadata import Body, digest

CACHE: Final = "/cache"
MODELS: Final = f"{CACHE}/models"
"""Where loaders write, a directory for each model."""
_SOURCES: Final = "/sources"
Downloader = Literal["engine", "init", "job"]


@dataclass(frozen=True, slots=True)
class Download:
    """A model, tokenizer or adapter that a loader writes into a directory."""

    uri: str
    revision: str | None = None

    @property
    def path(self) -> str:
        return f"{MODELS}/{directory_of(self.uri, self.revision)}"


def downloader(spec: Spec) -> Downloader:
    """Return who downloads: engines know hubs and nothing else, and cannot share a download."""
    match spec.model.cache.type:
        case "pvc":
            return "job"
        case "hostPath":
            return "init"
    return "init" if any(location_of(uri).scheme == S3 for uri in _uris(spec)) else "engine"


def downloads(spec: Spec) -> tuple[Download, ...]:
    """Return what a loader downloads, the model first; empty where the engine does itself."""
    if spec.engine.type != "vllm" or downloader(spec) == "engine":
        return ()
    uris = [uri for uri in _uris(spec) if location_of(uri).is_downloaded]
    return tuple(Download(uri, _revision(spec, uri)) for uri in uris)


def key_of(spec: Spec) -> str:
    """Return what identifies the downloads and the volume that they are on."""
    return digest([[one.path for one in downloads(spec)], spec.model.cache.claim_name or ""])


def engine_downloads(spec: Spec) -> bool:
    """Return whether the engine requests a hub: any of its URIs is a name there that no loader
    downloads."""
    loaded = {one.uri for one in downloads(spec)}
    hub = (uri for uri in _uris(spec) if location_of(uri).scheme in HUBS)
    return spec.engine.type == "vllm" and not loaded.issuperset(hub)


def uses_modelscope(spec: Spec) -> bool:
    """Return whether any of the URIs is one of ModelScope."""
    return any(location_of(uri).scheme == MODELSCOPE for uri in _uris(spec))


def pod_downloads(spec: Spec) -> bool:
    """Return whether a replica needs connections for downloads."""
    return engine_downloads(spec) or (downloader(spec) == "init" and bool(downloads(spec)))


def places(spec: Spec) -> Mapping[str, str]:
    """Return the path of each URI, as the engine names it, that is elsewhere than it says."""
    found = {for_engine(one.uri): one.path for one in downloads(spec)}
    for uri in _uris(spec):
        location = location_of(uri)
        if location.scheme == OCI:
            found[uri] = f"{_SOURCES}/{_volume(uri)}"
        elif location.scheme == CLAIM:
            claim, path = location.claim
            found[uri] = f"{_SOURCES}/{_volume(claim)}/{path}".rstrip("/")
    return found


def source_volumes(spec: Spec) -> tuple[list[Body], list[Body]]:
    """Return the volumes of images and claims that URIs name, and their mounts."""
    volumes: dict[str, Body] = {}
    for uri in _uris(spec) if spec.engine.type == "vllm" else ():
        location = location_of(uri)
        if location.scheme == OCI:
            name = _volume(uri)
            image = {"reference": location.name, "pullPolicy": "IfNotPresent"}
            volumes[name] = {"name": name, "image": image}
        elif location.scheme == CLAIM:
            claim = location.claim[0]
            name = _volume(claim)
            source = {"claimName": claim, "readOnly": True}
            volumes[name] = {"name": name, "persistentVolumeClaim": source}
    mounts = [{"name": n, "mountPath": f"{_SOURCES}/{n}", "readOnly": True} for n in volumes]
    return list(volumes.values()), mounts


def _uris(spec: Spec) -> Iterator[str]:
    model = spec.model
    given = (model.uri, model.tokenizer, *(adapter.uri for adapter in model.adapters))
    yield from dict.fromkeys(uri for uri in given if uri and location_of(uri).scheme != PATH)


def _revision(spec: Spec, uri: str) -> str | None:
    return spec.model.revision if uri == spec.model.uri else None


def _volume(source: str) -> str:
    return f"source-{digest(source)[:8]}"
