"""A grpc.aio server with the health service alone, which shows what grpcio does by itself.

python -m benchmarks.bare_grpc HOST:PORT
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc


async def serve(address: str) -> None:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
