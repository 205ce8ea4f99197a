"""Responses that the gateway makes itself over gRPC: models, readiness, metadata. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata

from google.protobuf.message import DecodeError

from autoglm import v1
from autoglm.common.errors import InvalidRequest
from autoglm.gateway.endpoints.snapshot import ModelView, Snapshot, check_reached
from autoglm.gateway.request.grpc_methods import INFERENCE, OIP
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import Operation, RequestInfo, validate
from autoglm.validation.request_info import FieldNames

SERVER_NAME = "open-autoglm"
EXTENSIONS = ("model_stream_infer",)
Page = Callable[[Snapshot, bytes], bytes]


def list_models(snapshot: Snapshot, _: bytes) -> bytes:
    """Return the models with a ready endpoint, over either wire."""
    views = {view.model.name: view for view in snapshot.models.values() if view.ready_endpoints}
    models = [_with_count(view) for _, view in sorted(views.items())]
    return v1.ListModelsResponse(models=models).SerializeToString()


def get_model(snapshot: Snapshot, payload: bytes) -> bytes:
    try:
        name = v1.GetModelRequest.FromString(payload).name
    except DecodeError as error:
        raise InvalidRequest("the request is not a valid autoglm.v1.GetModelRequest") from error
    found = snapshot.models.get(name)
    if name and found is None:
        check_reached(snapshot, f"name {name[:60]!r}", "name")
    info = RequestInfo(Operation.INFER, name, field_name=FieldNames("", {"model": "name"}))
    validate(info, found.model if found else None, tuple(snapshot.models))
    assert found is not None
    return v1.GetModelResponse(model=_with_count(found)).SerializeToString()


def _with_count(view: ModelView) -> v1.Model:
    model = v1.Model()
    model.CopyFrom(view.model)
    model.ready_endpoints = view.ready_endpoints
    return model


def _server_live(_: Snapshot, __: bytes) -> bytes:
    return oip.ServerLiveResponse(live=True).SerializeToString()


def _server_ready(snapshot: Snapshot, _: bytes) -> bytes:
    return oip.ServerReadyResponse(ready=snapshot.is_ready).SerializeToString()


def _server_metadata(_: Snapshot, __: bytes) -> bytes:
    return oip.ServerMetadataResponse(
        name=SERVER_NAME, version=metadata.version("open-autoglm"), extensions=EXTENSIONS
    ).SerializeToString()


def _model_ready(snapshot: Snapshot, payload: bytes) -> bytes:
    try:
        name = oip.ModelReadyRequest.FromString(payload).name
    except DecodeError as error:
        raise InvalidRequest("the request is not a valid inference.ModelReadyRequest") from error
    found = snapshot.models.get(name)
    return oip.ModelReadyResponse(ready=bool(found and found.grpc)).SerializeToString()


PAGES: Mapping[tuple[str, str], Page] = {
    (INFERENCE, "ListModels"): list_models,
    (INFERENCE, "GetModel"): get_model,
    (OIP, "ServerLive"): _server_live,
    (OIP, "ServerReady"): _server_ready,
    (OIP, "ServerMetadata"): _server_metadata,
    (OIP, "ModelReady"): _model_ready,
}
# Probes, which carry no credentials.
OPEN_PAGES = frozenset(((OIP, "ServerLive"), (OIP, "ServerReady")))
