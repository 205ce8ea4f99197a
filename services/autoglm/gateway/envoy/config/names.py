"""Header names, metadata keys and sockets shared by Envoy and the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# From the Gateway API Inference Extension's endpoint picker protocol.
DESTINATION_HEADER = "x-gateway-destination-endpoint"
# Namespaces of dynamic metadata: of the destination, and of the endpoints that may be picked.
DESTINATION_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
SERVED_KEY = "x-gateway-destination-endpoint-served"
PLANE_HEADER = "x-autoglm-data-plane"
# The features that this data plane lacks.
PLANE_WITHOUT = "envoy; without=token-replay,hedging"


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets between Envoy and the gateway, in a directory of their own.

    The directory has Envoy's configuration file, too.
    """

    directory: Path

    @property
    def config(self) -> Path:
        """Return the path of Envoy's configuration."""
        return self.directory / "envoy.json"

    @property
    def picker(self) -> str:
        """Return the socket of the picker and the access log."""
        return str(self.directory / "picker")

    @property
    def grpc(self) -> str:
        """Return the socket of the gateway's own gRPC server."""
        return str(self.directory / "grpc")

    @property
    def http(self) -> str:
        """Return the socket of the gateway's own REST server."""
        return str(self.directory / "http")

    @property
    def admin(self) -> str:
        """Return the socket of Envoy's admin API."""
        return str(self.directory / "admin")
