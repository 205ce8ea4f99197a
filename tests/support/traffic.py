"""Continuous traffic from several clients, for tests that break something meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Send = Callable[[], None]


@dataclass
class Traffic:
    """Counts what happened. `failures` holds the text of every exception that a sender raised."""

    served: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """How long each request took that was served."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stop: threading.Event = field(default_factory=threading.Event)
    _turnstile: threading.Lock = field(default_factory=threading.Lock)
    _busy: int = 0
    _pause: float = 0.0

    def wait_served(self, more: int, seconds: float = 300.0) -> None:
        """Until `more` requests have been served from now on. Raises TimeoutError."""
        with self._changed:
            goal = self.served + more
            if not self._changed.wait_for(lambda: self.served >= goal, seconds):
                raise TimeoutError(f"{self.served} served of {goal}; failures: {self.failures}")

    @contextmanager
    def between_requests(self) -> Iterator[None]:
        """Hold new requests back and wait until none is under way."""
        with self._turnstile:
            with self._changed:
                self._changed.wait_for(lambda: self._busy == 0)
            yield

    @contextmanager
    def slowed(self, seconds: float = 1.0) -> Iterator[None]:
        """Each client pauses between its requests, while something starts and nothing else happens.

        An engine that starts on a small machine takes three times as long beside full traffic.
        """
        self._set_pause(seconds)
        try:
            yield
        finally:
            self._set_pause(0.0)

    def run(self, send: Send) -> None:
        while not self._stop.is_set():
            with self._turnstile:
                self._count(busy=1)
            begun = time.monotonic()
            try:
                send()
            except Exception as error:  # every failure is what the test is about
                self.failures.append(f"{type(error).__name__}: {error}")
                self._count(busy=-1)
            else:
                self.seconds.append(time.monotonic() - begun)
                self._count(busy=-1, served=1)
            with self._changed:
                self._changed.wait_for(self._may_send, self._pause)

    def stop(self) -> None:
        with self._changed:
            self._stop.set()
            self._changed.notify_all()

    def _may_send(self) -> bool:
        return self._stop.is_set() or not self._pause

    def _set_pause(self, seconds: float) -> None:
        with self._changed:
            self._pause = seconds
            self._changed.notify_all()

    def _count(self, busy: int, served: int = 0) -> None:
        with self._changed:
            self._busy += busy
            self.served += served
            self._changed.notify_all()


@contextmanager
def traffic(senders: Sequence[Send]) -> Iterator[Traffic]:
    """Call each sender again and again on a thread of its own until the block ends."""
    result = Traffic()
    threads = [threading.Thread(target=result.run, args=(send,)) for send in senders]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        result.stop()
        for thread in threads:
            thread.join()
