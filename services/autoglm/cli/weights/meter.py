"""Shows how far a download or a check of files is: `download 3.1 GB of 16.4 GB at 45.0 MB/s`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from autoglm.cli.weights.listing import amount
from autoglm.inference.startup import Sample, Stage, Startup

_TERMINAL_SECONDS = 0.2
_LINE_SECONDS = 10.0


class Meter:
    """Counts bytes, and shows them on stderr: in place on a terminal, else in a line at times."""

    def __init__(self, verb: str, total: int, now: float) -> None:
        self._verb, self._total, self._done = verb, total, 0
        self._startup = Startup(now, total)
        self._startup.observe(Sample(Stage.DOWNLOAD), now)
        self._is_terminal = sys.stderr.isatty()
        self._shown = now

    def add(self, size: int) -> None:
        """Count bytes, fewer than 0 where some have to come again, and show them if it is time."""
        now = time.monotonic()
        self._done += size
        self._startup.observe(Sample(Stage.DOWNLOAD, cached_bytes=self._done), now)
        if now - self._shown >= (_TERMINAL_SECONDS if self._is_terminal else _LINE_SECONDS):
            self._shown = now
            self._show(now)

    def text(self, now: float) -> str:
        done, total = amount(max(0, self._done)), amount(self._total)
        return f"{self._verb} {done} of {total} at {self._startup.rate(now) / 1e6:.1f} MB/s"

    def _show(self, now: float) -> None:
        if self._is_terminal:
            click.echo(f"\r{self.text(now):<60}", err=True, nl=False)
        else:
            click.echo(self.text(now), err=True)

    def close(self) -> None:
        """Show the last state, and leave the line."""
        if self._done:
            self._show(time.monotonic())
            if self._is_terminal:
                click.echo("", err=True)


@contextmanager
def metered(verb: str, total: int) -> Iterator[Meter]:
    """Show the progress of what happens inside."""
    meter = Meter(verb, total, time.monotonic())
    try:
        yield meter
    finally:
        meter.close()
