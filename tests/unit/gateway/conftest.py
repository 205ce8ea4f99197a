"""Builders of what the gateway's decisions take."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import (
    Endpoint,
    EndpointView,
    Live,
    Load,
    Loaded,
    ModelsDiscovered,
    Phase,
    State,
)
from autoglm.gateway.endpoints.static_discovery import parse_target
from autoglm.gateway.request.request import GatewayRequest
from autoglm.validation import Operation, RequestInfo


class Make:
    """Frozen data with everything that a test does not mention."""

    @staticmethod
    def request(model: str = "glm", **changes: Any) -> GatewayRequest:
        values: dict[str, Any] = {
            "wire": "grpc",
            "route": "autoglm.v1.Inference/Generate",
            "target": "/autoglm.v1.Inference/Generate",
            "payload": b"",
            "request_id": "r1",
            "started": 0.0,
            "deadline": 60.0,
            "info": RequestInfo(Operation.GENERATE, model),
        }
        return GatewayRequest(**(values | changes))

    @staticmethod
    def endpoint(number: int = 1) -> Endpoint:
        target = parse_target(f"grpc://10.0.0.{number}:50051")
        assert isinstance(target, Endpoint)
        return target

    @staticmethod
    def model(name: str = "glm", **fields: Any) -> v1.Model:
        return v1.Model(name=name, max_model_len=2048, **fields)

    @classmethod
    def view(cls, number: int = 1, phase: Phase = Phase.READY, **load: Any) -> EndpointView:
        live = Live()
        live.take(Load(**({"max_num_seqs": 8} | load)))
        return EndpointView(cls.endpoint(number), State(phase=phase, models=(cls.model(),)), live)

    @classmethod
    def up(cls, **load: Any) -> tuple[ModelsDiscovered, Loaded]:
        """The events by which an endpoint becomes routable."""
        return ModelsDiscovered((cls.model(),)), Loaded(Load(**({"max_num_seqs": 8} | load)))


@pytest.fixture
def make() -> type[Make]:
    return Make
