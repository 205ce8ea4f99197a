"""Responses that the gateway makes itself on the REST port: models, readiness, metadata. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from importlib import metadata, resources

from autoglm import v1
from autoglm.common.errors import InvalidRequest, ModelNotFound, Unimplemented
from autoglm.gateway.endpoints.snapshot import ModelView, Snapshot, check_reached
from autoglm.validation.http_apis import INFERENCE_GETS, INFERENCE_POSTS, OWN

OWNER = "open-autoglm"
_SHOWN = 20
OIP_EXTRAS = ("ready", "config", "stats")
"""What may follow a model's name in a GET's path."""
_VERSION = re.compile("/versions/[^/]+$")


def models(snapshot: Snapshot) -> dict[str, object]:
    """Return the models with a ready endpoint, merged over all endpoints."""
    found = {view.model.name: view for view in snapshot.models.values() if view.ready_endpoints}
    return {"object": "list", "data": [_card(name, view) for name, view in sorted(found.items())]}


def model(snapshot: Snapshot, name: str) -> dict[str, object]:
    return _card(name, _found(snapshot, name))


def oip_get(rest: str, names: Container[str]) -> tuple[str, str]:
    """Parse what follows `/v2/models/` in a path: the model and `ready`, `config` or `stats`.

    Empty for the model's metadata. A served name may itself end like one of them. Models have no
    versions, so any version is the model.
    """
    if rest in names:
        return rest, ""
    name, _, what = rest.rpartition("/")
    if not name or what not in OIP_EXTRAS:
        name, what = rest, ""
    if name not in names:
        name = _VERSION.sub("", name)
    return name, what


def oip_unimplemented(snapshot: Snapshot, name: str, what: str) -> dict[str, object]:
    """Raises ModelNotFound, or else Unimplemented."""
    _found(snapshot, name)
    raise Unimplemented(
        f"the {what} extension is not served; GET /v2/models/{name[:60]} has the model's metadata"
    )


def index() -> dict[str, object]:
    """Return the list of paths, for a user who opens the port in a browser."""
    return {
        "name": f"{OWNER} gateway",
        "get": {**OWN, **{api.path: api.needs for api in INFERENCE_GETS}},
        "post": [api.path for api in INFERENCE_POSTS],
    }


def version() -> dict[str, object]:
    return {"version": metadata.version(OWNER)}


def oip_model_ready(snapshot: Snapshot, name: str) -> dict[str, object]:
    return {"name": name, "ready": _found(snapshot, name).ready_endpoints > 0}


def oip_server() -> dict[str, object]:
    return {"name": OWNER, "version": metadata.version(OWNER), "extensions": []}


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
    """Return OpenAI's fields, then vLLM's, then the gateway's own."""
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
