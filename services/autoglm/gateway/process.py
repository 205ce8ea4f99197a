"""The gateway process: logs, traces, limits, signals and exit codes. Called by the CLI."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import uvloop

from autoglm.common.packages import install_command
from autoglm.common.process import (
    ExitCode,
    Shutdown,
    connections_within,
    raise_open_file_limit,
    tune_allocator,
)
from autoglm.common.telemetry import set_up_logs, set_up_traces
from autoglm.gateway.app import AddressInUse, Gateway
from autoglm.gateway.endpoints import kubernetes_discovery
from autoglm.gateway.envoy.program import EnvoyFailed, EnvoyMissing
from autoglm.gateway.gateway import cancel_all
from autoglm.gateway.settings import GatewaySettings
from autoglm.validation.scan.reading import SWITCH_SECONDS

_FEW_CONNECTIONS = 1000
_log = logging.getLogger("autoglm.gateway")


def run(settings: GatewaySettings, exposed: Sequence[str] = ()) -> int:
    """Serve until a signal and return the exit code. `exposed` are flags that contain a secret."""
    set_up_logs(settings.log_level, settings.log_format)
    for flag in exposed:
        _log.warning("%s shows its secret in the process list; use %s-file instead", flag, flag)
    files = raise_open_file_limit()
    tune_allocator()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        if settings.kubernetes:
            _check_kubernetes(settings)
        set_up_traces("autoglm-gateway", settings.traces, settings.trace_sample_ratio)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, files))
    except AddressInUse as error:
        return _cannot_start(str(error), ExitCode.ADDRESS_IN_USE)
    except EnvoyMissing as error:
        return _cannot_start(str(error), ExitCode.MISSING_PACKAGE)
    except EnvoyFailed as error:
        print(f"autoglm gateway ends: {error}", file=sys.stderr)
        return ExitCode.START_FAILED
    except (OSError, ValueError) as error:
        # Certificate files that cannot be read, a wrong --traces.
        return _cannot_start(str(error), ExitCode.BAD_SETTINGS)
    return 0


def _log_open_files(settings: GatewaySettings, limit: int, fitting: int) -> None:
    if fitting == settings.max_connections:
        return
    # The default needs a high limit of open files.
    is_set = "max_connections" in settings.model_fields_set
    _log.log(
        logging.WARNING if is_set or fitting < _FEW_CONNECTIONS else logging.INFO,
        "--max-connections is %d on each of two ports, and this process may have %d files open: "
        "%d connections a port are accepted; raise the limit (ulimit -n, LimitNOFILE)",
        settings.max_connections,
        limit,
        fitting,
    )


def _check_kubernetes(settings: GatewaySettings) -> None:
    """Raises ValueError where no cluster's API is configured or reachable."""
    try:
        asyncio.run(kubernetes_discovery.configure(settings.kubeconfig))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--kubernetes needs the package {(error.name or '').partition('.')[0]!r}: "
            f"{install_command('gateway-kubernetes')}"
        ) from error


def _cannot_start(why: str, code: int) -> int:
    print(f"autoglm gateway cannot start: {why}", file=sys.stderr)
    return code


async def _serve(settings: GatewaySettings, files: int) -> None:
    shutdown = Shutdown()
    shutdown.install()
    fitting = connections_within(files, settings.max_connections, ports=2)
    gateway = Gateway(settings.model_copy(update={"max_connections": fitting}))
    try:
        await gateway.start()
        _log_open_files(settings, files, fitting)
        await _until(shutdown, gateway)
        await gateway.drain()
    finally:
        await gateway.close()


async def _until(shutdown: Shutdown, gateway: Gateway) -> None:
    """Wait for a signal. Raises EnvoyFailed where Envoy exits before."""
    signal, broken = asyncio.create_task(shutdown.wait()), asyncio.create_task(gateway.broken())
    try:
        await asyncio.wait((signal, broken), return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()
    finally:
        await cancel_all(signal, broken)
