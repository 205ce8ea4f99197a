"""`autoglm up`: from manifests to running processes, until a signal or a hopeless failure.

Wires manifest, runtime and display together. The CLI calls `up` and gives it its options.
"""

from __future__ import annotations

import asyncio
import fcntl
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from autoglm.api import InvalidSpec
from autoglm.api.engine_flags import flags
from autoglm.local import manifest
from autoglm.local.child import with_free_ports
from autoglm.local.command import Placed, gateway_workload, model_workload, notices
from autoglm.local.display import Display
from autoglm.local.planning import Addresses, Policy, Workload
from autoglm.local.runtime import Runtime, Timing

EXIT_BAD_MANIFEST = 65
EXIT_BUSY = 75
# Twice, so that a port taken in the moment before it was used is no verdict.
_HOPELESS_FAILURES = 2


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `autoglm up` can be told."""

    run_dir: Path
    """Directory for logs, termination messages and the endpoints file; one `up` at a time."""
    gateway: Addresses = field(default_factory=Addresses)
    """Where the gateway listens; port 0 takes a free one."""
    traces: str | None = None
    """Where spans of gateway and pods go: none, console, otlp:URL or file:PATH. None leaves it to
    each resource."""
    gateway_flags: tuple[str, ...] = ()
    """Further flags of `autoglm gateway`."""
    watch: bool = True
    """Whether to apply manifests when they are saved again. Without it nobody can mend what is
    wrong, so a failure that no retry can heal ends the run with the process's exit code."""
    table: bool | None = None
    """Whether to show a live table. None: if standard output is a terminal."""
    policy: Policy = field(default_factory=Policy)
    """When to restart and when to give up waiting."""
    timing: Timing = field(default_factory=Timing)
    """Pauses when replicas end."""
    program: tuple[str, ...] = (sys.executable, "-m", "autoglm.cli")
    """The command whose `inference` and `gateway` are run."""
    on_ready: Callable[[Addresses], None] | None = None
    """Called once with the gateway's addresses, when everything is ready for the first time."""
    stop: asyncio.Event | None = None
    """Set it to stop as Ctrl-C does; for callers that run `up` as a task."""

    @property
    def gateway_told(self) -> tuple[str, ...]:
        """What the gateway is told besides its addresses and endpoints."""
        return (*flags(("traces", self.traces)), *self.gateway_flags)


async def up(files: Sequence[Path], options: UpOptions) -> int:
    """Runs until stopped and drained. Returns the exit code."""
    console, errors = Console(), Display(Console(stderr=True), is_live=False)
    is_live = console.is_terminal if options.table is None else options.table
    display = Display(console, is_live=is_live)
    try:
        placed = manifest.read(files)
    except InvalidSpec as error:
        errors.say(str(error))
        return EXIT_BAD_MANIFEST
    options.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with _sole_user(options.run_dir), display.shown():
            options = replace(options, gateway=with_free_ports(options.gateway))
            return await _Session(files, options, display).run(placed)
    except BlockingIOError:
        errors.say(f"another `autoglm up` uses {options.run_dir}; choose another run directory")
        return EXIT_BUSY


class _Session:
    """One run of `up`."""

    def __init__(self, files: Sequence[Path], options: UpOptions, display: Display) -> None:
        self._files = files
        self._options = options
        self._display = display
        self._runtime = Runtime(options.run_dir, display.say, options.policy, options.timing)
        self._stop = options.stop or asyncio.Event()
        self._is_ending = False
        self._is_forced = False

    async def run(self, placed: list[Placed]) -> int:
        gateway = gateway_workload(
            placed,
            self._options.program,
            self._options.gateway,
            self._runtime.endpoints_file,
            self._options.gateway_told,
        )
        self._apply(gateway, placed)
        with self._signals():
            async with asyncio.TaskGroup() as tasks:
                jobs = [self._runtime.run(), self._display.follow(self._runtime), self._announce()]
                jobs += [self._apply_saves(gateway)] if self._options.watch else []
                running = [tasks.create_task(job) for job in jobs]
                code = await self._until_the_end()
                for task in running:
                    task.cancel()
        return 128 + signal.SIGINT if self._is_forced else code

    async def _until_the_end(self) -> int:
        """Waits for an order or a hopeless failure, then drains."""
        stop = asyncio.create_task(self._stop.wait())
        hopeless = asyncio.create_task(self._runtime.until(lambda: self._verdict() is not None))
        try:
            await asyncio.wait((stop, hopeless), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            hopeless.cancel()
        code = self._verdict() or 0
        self._is_ending = True
        await self._runtime.stop()
        return code

    def _verdict(self) -> int | None:
        """The exit code of a process that no retry can help and nobody will mend."""
        if self._options.watch:
            return None
        for member in self._runtime.members:
            failure = member.last_failure
            if failure and failure.is_permanent and member.replica.failures >= _HOPELESS_FAILURES:
                return failure.exit_code
        return None

    def _apply(self, gateway: Workload, placed: Sequence[Placed]) -> None:
        for sentence in (s for p in placed for s in notices(p.resource)):
            self._display.say(sentence)
        program, traces = self._options.program, self._options.traces
        self._runtime.tell(p.resource for p in placed)
        self._runtime.want([gateway, *(model_workload(p, program, traces) for p in placed)])

    async def _apply_saves(self, gateway: Workload) -> None:
        async for _ in manifest.saves(self._files):
            try:
                placed = manifest.read(self._files)
            except InvalidSpec as error:
                self._display.say(f"manifest not applied, all stays as it was:\n{error}")
            else:
                self._display.say("manifest applied")
                self._apply(gateway, placed)

    async def _announce(self) -> None:
        await self._runtime.until(lambda: self._runtime.is_ready or self._is_ending)
        if self._is_ending:
            return
        addresses = self._options.gateway
        self._display.say(f"ready: gRPC {addresses.grpc}, REST http://{addresses.http}/v1")
        if self._options.on_ready is not None:
            self._options.on_ready(addresses)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what nohup asks for
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._is_forced = True
            self._runtime.kill()
            return
        self._display.say("stopping: requests may finish; a second signal ends them at once")
        self._stop.set()


@contextmanager
def _sole_user(run_dir: Path) -> Iterator[None]:
    """Holds the run directory. Raises BlockingIOError when another `up` does."""
    with (run_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
