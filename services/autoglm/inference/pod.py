"""The state of the pod: its phase, its engine, and the number of requests in flight.

Servicers get the engine from it, health follows its phase, `app.py` moves it from phase to phase.
It does no I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from autoglm.common import errors
from autoglm.common.process import DrainGate
from autoglm.inference.engine import Engine


class Phase(StrEnum):
    LOADING = "loading"
    READY = "ready"
    # Not ready any more, but requests that still come are served: callers need time to notice.
    DRAINING = "draining"
    # New requests are rejected; those under way may finish.
    CLOSING = "closing"
    DEAD = "dead"


class Pod:
    """`changed` is set, and replaced, at every change of phase."""

    def __init__(self, doing: Callable[[], str] = lambda: "") -> None:
        """`doing` returns what the engine's start does, for clients."""
        self._doing = doing
        self.phase = Phase.LOADING
        self.in_flight = 0
        self.http_port = 0
        self.changed = asyncio.Event()
        self._engine: Engine | None = None
        self._cause_of_death = ""
        self._idle = asyncio.Event()
        self._idle.set()
        self.gate = DrainGate()

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def is_draining(self) -> bool:
        return self.phase in (Phase.DRAINING, Phase.CLOSING, Phase.DEAD)

    @property
    def model_names(self) -> list[str]:
        """Return the names and aliases of the engine's models; none before there is an engine."""
        models = self._engine.models() if self._engine else ()
        return [name for model in models for name in (model.name, *model.aliases)]

    def engine(self) -> Engine:
        """Return the engine. Raises NoReadyEndpoint or EngineDead while there is none."""
        if self.phase is Phase.DEAD:
            raise errors.EngineDead(f"the engine has stopped: {self._cause_of_death}")
        if self._engine is None:
            doing = f" ({text})" if (text := self._doing()) else ""
            raise errors.NoReadyEndpoint(
                f"the model is still loading{doing}; retry", retry_after=1.0
            )
        return self._engine

    def ready(self, engine: Engine) -> None:
        self._engine = engine
        self._enter(Phase.READY)

    def drain(self) -> None:
        self._enter(Phase.DRAINING)

    def close(self) -> None:
        if self.phase is not Phase.DEAD:
            self._enter(Phase.CLOSING)

    def die(self, cause: str) -> None:
        self._cause_of_death = cause
        self._enter(Phase.DEAD)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it lasts. Raises ShuttingDown when no more may come."""
        if self.phase is Phase.CLOSING:
            raise errors.ShuttingDown(
                "this pod is shutting down; retry on another", retry_after=0.1
            )
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def idle(self) -> None:
        """Return when no request is under way."""
        await self._idle.wait()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.changed.set()
        self.changed = asyncio.Event()
