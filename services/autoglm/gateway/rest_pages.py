"""What the gateway answers on the REST port by itself: models, readiness, metadata. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, resources

from autoglm import v1
from autoglm.common.errors import InvalidRequest, ModelNotFound
from autoglm.gateway.snapshot import ModelView, Snapshot, check_reached

OWNER = "open-autoglm"
_SHOWN = 20


def models(snapshot: Snapshot) -> dict[str, object]:
    """Those that can be asked for now, merged over all endpoints."""
    found = {view.model.name: view for view in snapshot.models.values() if view.ready_endpoints}
    return {"object": "list", "data": [_card(name, view) for name, view in sorted(found.items())]}


def model(snapshot: Snapshot, name: str) -> dict[str, object]:
    return _card(name, _found(snapshot, name))


def oip_model_ready(snapshot: Snapshot, name: str) -> dict[str, object]:
    return {"name": name, "ready": _found(snapshot, name).ready_endpoints > 0}


def oip_server() -> dict[str, object]:
    return {"name": OWNER, "version": metadata.version("open-autoglm"), "extensions": []}


def openapi() -> bytes:
    return resources.files("autoglm.gateway").joinpath("openapi.json").read_bytes()


def _found(snapshot: Snapshot, name: str) -> ModelView:
    if view := snapshot.models.get(name):
        return view
    known = ", ".join(repr(n) for n in sorted(snapshot.models)[:_SHOWN]) or "none now"
    if not name:
        raise InvalidRequest(f"model is empty; there are: {known}", field="model")
    check_reached(snapshot, f"model {name[:60]!r}", "model")
    raise ModelNotFound(f"model {name[:60]!r} is not served; there are: {known}", field="model")


def _card(name: str, view: ModelView) -> dict[str, object]:
    """OpenAI's fields first, then vLLM's, then ours."""
    about: v1.Model = view.model
    optional: Mapping[str, object] = {
        "max_model_len": about.max_model_len,
        "quantization": about.quantization,
    }
    return {
        "id": name,
        "object": "model",
        "created": about.created,
        "owned_by": OWNER,
        "root": about.uri or about.name,
        "parent": about.parent or None,
        **{key: value for key, value in optional.items() if value},
        "aliases": list(about.aliases),
        "tasks": list(about.tasks),
        "engine": about.engine,
        "ready_endpoints": view.ready_endpoints,
    }
