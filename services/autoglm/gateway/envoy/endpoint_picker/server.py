"""The server of the endpoint picker: TLS, health, start and stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2_grpc

from autoglm.common import rpc
from autoglm.common.tls import TlsFiles
from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import ext_proc_pb2_grpc
from autoglm.gateway.envoy.endpoint_picker.service import EndpointPicker
from autoglm.gateway.request.request import Handler
from autoglm.gateway.settings import GatewaySettings

# The service names of health checks by proxies and kubelets; liveness holds while it responds.
READINESS = ("readiness", "inference-extension", "envoy.service.ext_proc.v3.ExternalProcessor")
LIVENESS = "liveness"
# Space for the message around a body.
_ROOM_BYTES = 1024 * 1024
_NAME = "open-autoglm-endpoint-picker"
_VALID = timedelta(days=3650)
# Clocks differ.
_BEFORE = timedelta(hours=1)


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
        self._picker = EndpointPicker(relay, bounds)
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
        settings = self._settings
        credentials: TlsFiles | grpc.ServerCredentials | None = settings.endpoint_picker_tls
        if settings.endpoint_picker_plaintext:
            credentials = None
        elif not credentials:
            # Other gateways' proxies require TLS without verifying it; files are for those that do.
            credentials = grpc.ssl_server_credentials([self_signed(_NAME, datetime.now(UTC))])
        self.port = rpc.bind(self._server, settings.endpoint_picker_address, credentials)
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Accept no new streams; open ones may end within `grace` seconds."""
        await self._server.stop(grace or None)
        await self._picker.close()


def self_signed(name: str, now: datetime) -> tuple[bytes, bytes]:
    """Return the PEM of a new private key and of its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
