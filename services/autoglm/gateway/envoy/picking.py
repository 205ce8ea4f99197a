"""One process's servers for Envoy's questions and its access log. Made by `plane`.

Of several processes each has a socket of its own for the log, so that it can end the questions
first and still hear how its calls end.
"""

from __future__ import annotations

import grpc

from autoglm.gateway.edges.rest_request import Bounds
from autoglm.gateway.envoy import access_log_pb2_grpc, ext_proc_pb2_grpc
from autoglm.gateway.envoy.config.bootstrap import WINDOW_BYTES
from autoglm.gateway.envoy.config.names import Sockets
from autoglm.gateway.envoy.exchange import Exchanges
from autoglm.gateway.envoy.ext_proc_edge import AccessLogService, Picker
from autoglm.gateway.request.request import Handler

# What Envoy shows of a body that is too long, and what it puts around it.
_ROOM_BYTES = 2 * WINDOW_BYTES


class Picking:
    """`is_alone`: no other process decides for the same Envoy."""

    def __init__(
        self, sockets: Sockets, relay: Handler, exchanges: Exchanges, bounds: Bounds, is_alone: bool
    ) -> None:
        process = None if is_alone else sockets.number
        self._picker = Picker(relay, exchanges, bounds, process=process)
        options = (("grpc.max_receive_message_length", bounds.max_body_bytes + _ROOM_BYTES),)
        self._questions = grpc.aio.server(options=options)
        self._log = self._questions if is_alone else grpc.aio.server()
        ext_proc_pb2_grpc.add_ExternalProcessorServicer_to_server(self._picker, self._questions)
        access_log_pb2_grpc.add_AccessLogServiceServicer_to_server(
            AccessLogService(exchanges), self._log
        )
        self._questions.add_insecure_port(f"unix:{sockets.picker}")
        if not is_alone:
            self._log.add_insecure_port(f"unix:{sockets.ends}")

    async def start(self) -> None:
        # First, so that nothing is decided whose end is not heard of.
        await self._log.start()
        if self._log is not self._questions:
            await self._questions.start()

    async def ask_others(self, grace: float) -> None:
        """No new questions; those there are may be answered within the grace, in seconds."""
        await self._questions.stop(grace)

    async def close(self) -> None:
        await self._picker.close()
        await self._questions.stop(None)
        if self._log is not self._questions:
            await self._log.stop(None)
