"""grpc.health.v1 of a pod: SERVING, overall and by model, exactly while the pod is ready."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from autoglm.inference.pod import Pod

SERVICES = ("", "autoglm.v1.Inference", "inference.GRPCInferenceService")
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._servicer = health.aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def update(self) -> None:
        """Publishes the pod's phase as health status; call it after every change of phase."""
        status = _SERVING if self._pod.is_ready else _NOT_SERVING
        for name in (*SERVICES, *self._pod.model_names):
            await self._servicer.set(name, status)
