"""Runs manifests as processes until a signal or a permanent failure.

Composes manifest, runtime and display. Called by the command `autoglm up`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from autoglm.api import InvalidSpec
from autoglm.api.engine_flags import flags
from autoglm.common.process import ExitCode
from autoglm.common.rpc import check_free
from autoglm.local import control, manifest
from autoglm.local.child import with_free_ports
from autoglm.local.display import Display
from autoglm.local.gpus import NO_GPUS, Gpus
from autoglm.local.gpus import find as find_gpus
from autoglm.local.manifest import (
    Manifests,
    Placed,
    Source,
    gateway_workload,
    gpus_of,
    model_workload,
    notices,
)
from autoglm.local.member import views
from autoglm.local.planning import Addresses, Policy, State, Workload
from autoglm.local.runtime import Runtime, Timing


@dataclass(frozen=True, slots=True)
class UpOptions:
    """Options of `autoglm up`."""

    run_dir: Path
    """Directory for logs, termination messages and the endpoints file; one `up` at a time."""
    gateway: Addresses = field(default_factory=Addresses)
    """Addresses of the gateway; port 0 selects a free one."""
    traces: str | None = None
    """Exporter of spans of gateway and pods: none, console, otlp:URL or file:PATH. None: as in each
    resource."""
    gateway_flags: tuple[str, ...] = ()
    """Further flags of `autoglm gateway`."""
    watch: bool = True
    """Apply manifests when their files change. Without it, a failure that a restart cannot
    resolve ends the run with the exit code of the process, as one of the gateway always does."""
    is_detached: bool = False
    """Until all processes are ready for the first time, fail as without `watch`."""
    table: bool | None = None
    """Show a live table. None: if standard output is a terminal."""
    gpus: Gpus | None = None
    """The machine's GPUs, of which each replica gets its own. None: those that are found."""
    policy: Policy = field(default_factory=Policy)
    """Back-off of restarts."""
    timing: Timing = field(default_factory=Timing)
    """Pauses when replicas end."""
    program: tuple[str, ...] = (sys.executable, "-m", "autoglm")
    """The program of the commands `inference` and `gateway`."""
    on_ready: Callable[[Addresses], None] | None = None
    """Called once with the gateway's addresses, when all processes are ready for the first time."""
    stop: asyncio.Event | None = None
    """Set it to stop as Ctrl-C does; for callers that run `up` as a task."""

    @property
    def scheme(self) -> str:
        """Return the scheme of the gateway's REST port."""
        has_tls = any(flag.startswith("--tls-cert-file=") for flag in self.gateway_flags)
        return "https" if has_tls else "http"

    @property
    def all_gateway_flags(self) -> tuple[str, ...]:
        """Return the gateway's flags besides its addresses and endpoints."""
        return (*flags(("traces", self.traces)), *self.gateway_flags)


async def up(files: Sequence[Source], options: UpOptions) -> int:
    """Run until stopped and drained; return the exit code."""
    console, errors = Console(), Display(Console(stderr=True), is_live=False)
    is_live = console.is_terminal if options.table is None else options.table
    display = Display(console, is_live=is_live)
    try:
        manifests = manifest.read_all(files)
    except InvalidSpec as error:
        errors.report(str(error))
        return ExitCode.BAD_MANIFEST
    if options.gpus is None:
        options = replace(options, gpus=await asyncio.to_thread(find_gpus))
    if why := too_few_gpus(manifests.placed, options.gpus or NO_GPUS):
        errors.report(why)
        return ExitCode.BAD_MANIFEST
    options.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with control.sole_user(options.run_dir), display.shown():
            options = replace(options, gateway=with_free_ports(options.gateway))
            if why := taken_address(options.gateway):
                display.report(why)
                return ExitCode.ADDRESS_IN_USE
            session = _Session(files, options, display)
            async with control.served(options.run_dir, session):
                return await session.run(manifests)
    except BlockingIOError:
        errors.report(control.in_use(options.run_dir))
        return ExitCode.ADDRESS_IN_USE


class _Session:
    """One run of `up`."""

    def __init__(self, files: Sequence[Source], options: UpOptions, display: Display) -> None:
        self._files = files
        self._options = options
        self._display = display
        display.gateway = options.gateway, options.scheme
        self._runtime = Runtime(
            options.run_dir,
            display.report,
            options.policy,
            options.timing,
            options.gpus or NO_GPUS,
        )
        self._stop = options.stop or asyncio.Event()
        self._is_ending = False
        self._is_forced = False
        self._was_ready = False

    async def run(self, manifests: Manifests) -> int:
        gateway = gateway_workload(
            manifests.placed,
            self._options.program,
            self._options.gateway,
            self._runtime.endpoints_file,
            self._options.all_gateway_flags,
        )
        self._apply(gateway, manifests)
        with self._signals():
            async with asyncio.TaskGroup() as tasks:
                jobs = [self._runtime.run(), self._announce()]
                jobs += [self._display.follow(self._runtime), self._display.measure(self._runtime)]
                jobs += [self._apply_saves(gateway)] if self._options.watch else []
                running = [tasks.create_task(job) for job in jobs]
                code = await self._wait_and_drain()
                for task in running:
                    task.cancel()
        return 128 + signal.SIGINT if self._is_forced else code

    async def _wait_and_drain(self) -> int:
        """Wait for a signal or a permanent failure, then drain; return the exit code."""
        stop = asyncio.create_task(self._stop.wait())
        failed = asyncio.create_task(self._runtime.until(lambda: self._failed() is not None))
        try:
            await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            failed.cancel()
        code = self._failed() or 0
        self._is_ending = True
        await self._runtime.stop()
        return code

    def _failed(self) -> int | None:
        """Return the exit code of a process for which no saved manifest can help."""
        waits = self._options.watch and (self._was_ready or not self._options.is_detached)
        for member in self._runtime.members:
            if member.is_in(State.FAILED) and not (waits and member.is_routed):
                return member.last_failure.exit_code if member.last_failure else None
        return None

    def _apply(self, gateway: Workload, manifests: Manifests) -> None:
        placed = manifests.placed
        for sentence in (*manifests.notes, *(s for p in placed for s in notices(p))):
            self._display.report(sentence)
        program, traces = self._options.program, self._options.traces
        self._runtime.set_resources(p.resource for p in placed)
        self._runtime.set_workloads(
            [gateway, *(model_workload(p, program, traces) for p in placed)]
        )

    async def _apply_saves(self, gateway: Workload) -> None:
        async for _ in manifest.saves(self._files):
            try:
                manifests = manifest.read_all(self._files)
            except InvalidSpec as error:
                self._display.report(
                    f"manifest not applied, keeping the previous version:\n{error}"
                )
            else:
                self._display.report("manifest applied")
                self._apply(gateway, manifests)
                # What they failed for may be mended beside the manifest, such as a missing file.
                self._runtime.retry()

    async def _announce(self) -> None:
        await self._runtime.until(lambda: self._runtime.is_ready or self._is_ending)
        if self._is_ending:
            return
        self._was_ready = True
        addresses = self._options.gateway
        self._display.report(
            f"ready: gRPC {addresses.grpc}, REST {self._options.scheme}://{addresses.http}/v1"
        )
        if self._options.on_ready is not None:
            self._options.on_ready(addresses)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Drain and end the run; called again, end it at once."""
        if self._stop.is_set():
            self._is_forced = True
            self._runtime.kill()
            return
        self._display.report("stopping: waiting for running requests; a second signal ends them")
        self._stop.set()

    def state(self) -> dict[str, Any]:
        """Return the run's processes, its gateway, and whether all is ready."""
        now = self._runtime.now()
        return {
            "pid": os.getpid(),
            "ready": self._was_ready and self._runtime.is_ready,
            "gateway": asdict(self._options.gateway),
            "replicas": [asdict(each) for each in views(self._runtime.members, now)],
        }

    async def restart(self, name: str) -> dict[str, Any] | None:
        """Restart a replica or the gateway; return its state then, or None for an unknown name."""
        if name not in self._names():
            return None
        await self._runtime.restart([name])
        return next((each for each in self.state()["replicas"] if each["name"] == name), None)

    def _names(self) -> set[str]:
        return {member.name for member in self._runtime.members}


def taken_address(addresses: Addresses) -> str:
    """Return what to do where another process listens at one of the addresses; else empty.

    Its gateway would be taken for the one that is started.
    """
    for address in (addresses.grpc, addresses.http, addresses.metrics):
        try:
            check_free(address)
        except OSError as error:
            return (
                f"cannot listen on {address}: {error.strerror}; end what listens there (another "
                "`autoglm up`?), or choose other addresses with --grpc-address, --http-address "
                "and --metrics-address"
            )
    return ""


def too_few_gpus(placed: Iterable[Placed], gpus: Gpus) -> str:
    """Return what to do where the resources want more GPUs than there are; empty otherwise."""
    wanted = {
        each.resource.name: (each.resource.desired_replicas, count)
        for each in placed
        if (count := gpus_of(each.resource))
    }
    return gpus.too_few(wanted)
