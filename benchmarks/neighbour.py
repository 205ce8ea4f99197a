"""A well-behaved client beside what is measured: small requests at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.processes import Process

Sent = Callable[[Process], str]
_SUCCEEDED = {"200", "OK"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended. `status` is the response's, or the error's."""

    seconds: float
    status: str

    @property
    def is_failed(self) -> bool:
        return self.status not in _SUCCEEDED


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Sends a small request every so many seconds, whether or not the last one has ended."""

    send: Sent
    period: float

    @contextmanager
    def at(self, server: Process) -> Iterator[list[Outcome]]:
        """Send until the context ends; what is yielded is whole when it has."""
        outcomes, ended = list[Outcome](), threading.Event()

        def one() -> None:
            started = time.monotonic()
            status = self.send(server)
            outcomes.append(Outcome(time.monotonic() - started, status))

        def many() -> None:
            threads = []
            while not ended.wait(self.period):
                threads.append(threading.Thread(target=one))
                threads[-1].start()
            for thread in threads:
                thread.join()

        sender = threading.Thread(target=many)
        sender.start()
        try:
            yield outcomes
        finally:
            ended.set()
            sender.join()
