"""kopf, for as much as it is used: the stream of AutoGLMDeployments. Called by `app`.

Only raw event handlers are registered, so that kopf keeps no state: it writes no annotation, no
finalizer and no event. Whatever it may miss (a deletion while it was cut off) the resync finds.
kopf runs in a thread of its own, since it cancels all tasks of its event loop when it ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import kopf
import msgspec
from kubernetes.aio.client import Configuration

from autoglm.api import GROUP, VERSION
from autoglm.api.labels import PLURAL
from autoglm.operator.queue import Backoff

Take = Callable[[str | None, bytes], None]
_BACKOFF = Backoff(first=0.5, most=10.0)
_CLOSING_SECONDS = 0.25
_log = logging.getLogger("autoglm.operator")


def registry_of(
    take: Take, login: Callable[[], Awaitable[kopf.ConnectionInfo]]
) -> kopf.OperatorRegistry:
    """Handlers that pass every event on, as JSON."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await login()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def pass_on(event: Mapping[str, Any], **_: Any) -> None:
        take(event["type"], msgspec.json.encode(event["object"]))

    return registry


def quiet_settings() -> kopf.OperatorSettings:
    """Settings under which kopf reads and never writes."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # Namespaces and kinds are known: neither needs to be discovered, nor the rights to do it.
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    return settings


async def connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """The official client's way to the API server, for kopf; also after a token was renewed."""
    token = await configuration.get_api_key_with_prefix("BearerToken", "authorization")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme="Bearer" if token else None,
        token=token.removeprefix("Bearer ") if token else None,
    )


class Stream:
    """Runs kopf, and runs it again whenever it ends."""

    def __init__(
        self, configuration: Configuration, namespaces: tuple[str, ...], rng: Random
    ) -> None:
        self._configuration = configuration
        self._namespaces = namespaces
        self._rng = rng

    async def run(self, take: Take) -> None:
        """Until cancelled. `take` is called in this event loop."""
        # It warns that it gets no signals in its thread; that is as intended.
        logging.getLogger("kopf").setLevel(logging.ERROR)
        loop, failures = asyncio.get_running_loop(), 0

        def hand_over(kind: str | None, json: bytes) -> None:
            loop.call_soon_threadsafe(take, kind, json)

        while True:
            began = loop.time()
            error = await self._run_once(hand_over)
            failures = 1 if loop.time() - began > _BACKOFF.most else failures + 1
            _log.warning("kopf ended, starting it again", extra={"fields": {"error": error}})
            await asyncio.sleep(_BACKOFF.delay(failures, self._rng))

    async def _run_once(self, take: Take) -> str:
        """Why kopf ended."""
        stop = threading.Event()
        thread = asyncio.get_running_loop().run_in_executor(None, self._serve, take, stop)
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            stop.set()
            await thread
            raise

    def _serve(self, take: Take, stop: threading.Event) -> str:
        async def log_in() -> kopf.ConnectionInfo:
            return await connection(self._configuration)

        async def serve() -> None:
            await kopf.operator(
                registry=registry_of(take, log_in),
                settings=quiet_settings(),
                stop_flag=stop,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
            )
            # aiohttp's TLS connections take a moment to end, and kopf does not wait for them.
            await asyncio.sleep(_CLOSING_SECONDS)

        try:
            asyncio.run(serve())
        except Exception as error:
            # kopf gives up on what it cannot watch; the caller says so and starts it again.
            return f"{type(error).__name__}: {error}"
        return "stopped"
