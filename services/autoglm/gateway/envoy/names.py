"""Names that Envoy and the gateway know each other by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Of the Gateway API Inference Extension's endpoint picker protocol.
DESTINATION_HEADER = "x-gateway-destination-endpoint"
# Where in a stream's dynamic metadata the same is said, and where proxies say what may be picked.
DESTINATION_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
SERVED_KEY = "x-gateway-destination-endpoint-served"
PLANE_HEADER = "x-autoglm-data-plane"
# For what this plane does not do with an answer.
PLANE_WITHOUT = "envoy; without=token-replay,hedging"


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets between Envoy and the gateway, in a directory that is theirs alone.

    So is Envoy's configuration.
    """

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "envoy.json"

    @property
    def picker(self) -> str:
        return str(self.directory / "picker")

    @property
    def grpc(self) -> str:
        return str(self.directory / "grpc")

    @property
    def http(self) -> str:
        return str(self.directory / "http")

    @property
    def admin(self) -> str:
        return str(self.directory / "admin")
