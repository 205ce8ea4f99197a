"""Names that Envoy and the gateway know each other by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

# Of the Gateway API Inference Extension's endpoint picker protocol.
DESTINATION_HEADER = "x-gateway-destination-endpoint"
# Where in a stream's dynamic metadata the same is said, and where proxies say what may be picked.
DESTINATION_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
SERVED_KEY = "x-gateway-destination-endpoint-served"
# Which process has decided, beside the destination; only where there are several.
PROCESS_KEY = "autoglm-process"
PLANE_HEADER = "x-autoglm-data-plane"
# For what this plane does not do with an answer.
PLANE_WITHOUT = "envoy; without=token-replay,hedging"


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets between Envoy and a process of the gateway, in a directory that is theirs alone.

    So is Envoy's configuration.
    """

    directory: Path
    number: int = 0

    def of(self, number: int) -> Sockets:
        """Those of another process."""
        return replace(self, number=number)

    @property
    def config(self) -> Path:
        return self.directory / "envoy.json"

    @property
    def picker(self) -> str:
        return self._path("picker")

    @property
    def ends(self) -> str:
        """For the access log, where there are several processes."""
        return self._path("ends")

    @property
    def grpc(self) -> str:
        return self._path("grpc")

    @property
    def http(self) -> str:
        return self._path("http")

    @property
    def admin(self) -> str:
        return str(self.directory / "admin")

    def _path(self, name: str) -> str:
        """Number 0 is the process that owns Envoy, and has the plain names."""
        return str(self.directory / (f"{name}-{self.number}" if self.number else name))
