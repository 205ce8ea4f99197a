"""The server of the endpoint picker: TLS, health, start and stop."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from autoglm.common import rpc
from autoglm.common.tls import TlsFiles
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import ext_proc_pb2_grpc
from autoglm.gateway.envoy.certificate import self_signed
from autoglm.gateway.envoy.endpoint_picker.service import EndpointPicker
from autoglm.gateway.envoy.exchange import Exchanges
from autoglm.gateway.request.request import Handler
from autoglm.gateway.settings import GatewaySettings

# The service names of health checks by proxies and kubelets; liveness holds while it responds.
READINESS = ("readiness", "inference-extension", "envoy.service.ext_proc.v3.ExternalProcessor")
LIVENESS = "liveness"
# Space for the message around a body.
_ROOM_BYTES = 1024 * 1024
_NAME = "open-autoglm-endpoint-picker"


class PickerServer:
    """The gRPC server of the endpoint picker; `port` is set by `start`."""

    def __init__(
        self,
        settings: GatewaySettings,
        relay: Handler,
        bounds: Bounds,
        healths: health.aio.HealthServicer,
        max_streams: int,
    ) -> None:
        self._settings = settings
        # Separate exchanges: no request resumes one of these.
        self._picker = EndpointPicker(relay, Exchanges(), bounds)
        # A body may arrive in one message.
        longest = ("grpc.max_receive_message_length", bounds.max_body_bytes + _ROOM_BYTES)
        self._server = grpc.aio.server(
            options=(*rpc.SERVER_OPTIONS, longest), maximum_concurrent_rpcs=max_streams
        )
        ext_proc_pb2_grpc.add_ExternalProcessorServicer_to_server(self._picker, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(healths, self._server)
        self.port = 0

    async def start(self) -> None:
        """Start serving. Raises OSError if the address or a file is not available."""
        self.port = rpc.bind(
            self._server, self._settings.endpoint_picker_address, self._credentials()
        )
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Accept no new streams; open ones may end within `grace` seconds."""
        await self._server.stop(grace or None)
        await self._picker.close()

    def _credentials(self) -> TlsFiles | grpc.ServerCredentials | None:
        if self._settings.endpoint_picker_plaintext:
            return None
        if files := self._settings.endpoint_picker_tls:
            return files
        return grpc.ssl_server_credentials([self_signed(_NAME, datetime.now(UTC))])
