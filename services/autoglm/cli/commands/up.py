"""`autoglm up`: runs manifests as local processes, through `autoglm.local`."""

from __future__ import annotations

import asyncio
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from autoglm.api import InvalidSpec
from autoglm.cli.gateway_options import COMMON, as_flags, merged
from autoglm.cli.options import examples, settings_options
from autoglm.cli.running import run_dir_option
from autoglm.common.process import ExitCode, raise_open_file_limit
from autoglm.gateway.settings import GatewaySettings
from autoglm.local.detached import start as start_detached
from autoglm.local.gpus import find as find_gpus
from autoglm.local.manifest import (
    Source,
    Text,
    files_of,
    gateway_workload,
    model_workload,
    notices,
    read_all,
)
from autoglm.local.planning import Addresses, Workload
from autoglm.local.up import UpOptions, too_few_gpus, up

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS = Addresses()
_STDIN = Path("-")
_ADDRESSES = {f"{kind}_address": kind for kind in ("grpc", "http", "metrics")}


def _address(kind: str, default: str, text: str) -> Callable[[F], F]:
    return click.option(
        f"--{kind}-address",
        metavar="HOST:PORT",
        help=f"Address at which the gateway {text}. [default: {default}]",
    )


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    _address("grpc", _DEFAULTS.grpc, "serves gRPC"),
    _address("http", _DEFAULTS.http, "serves REST"),
    _address("metrics", _DEFAULTS.metrics, "serves probes and metrics"),
    run_dir_option,
    click.option(
        "--traces",
        metavar="SPEC",
        help="Exporter of spans: none, console, file:PATH or otlp:URL. "
        "[default: as in the manifest]",
    ),
    settings_options(GatewaySettings, COMMON),
    click.option(
        "--gateway-config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML or JSON file with any settings of `autoglm gateway`, by the names of its flags; "
        "flags given here override it.",
    ),
    click.option(
        "-d",
        "--detach",
        is_flag=True,
        help="Run in the background: return when all is ready, or with the cause and the exit code "
        "of what fails before. `autoglm ps`, `logs`, `restart` and `down` do the rest.",
    ),
    click.option("--dry-run", is_flag=True, help="Print the commands instead of running them."),
)


def run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a run; the command gets `options` and `dry_run` instead of them.

    Invalid settings end it before anything starts.
    """

    @functools.wraps(command)
    def with_options(
        *,
        run_dir: Path,
        traces: str | None,
        gateway_config: Path | None,
        detach: bool,
        **others: Any,
    ) -> int:
        names = (*_ADDRESSES, *COMMON)
        settings = merged(gateway_config, {name: others.pop(name) for name in names})
        if traces is not None:
            settings.pop("traces", None)
        at = {kind: settings.pop(name) for name, kind in _ADDRESSES.items() if name in settings}
        gateway, gateway_flags = replace(_DEFAULTS, **at), as_flags(settings)
        options = UpOptions(
            run_dir, gateway, traces, gateway_flags, watch=False, is_detached=detach
        )
        return command(options=options, **others)

    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), with_options)


@click.command(
    epilog=examples(
        "autoglm up -f examples/tiny-glm.yaml",
        "autoglm up -f chat.yaml -f embed.yaml --grpc-address 127.0.0.1:50061",
        "autoglm up -f manifests/ -f secrets.yaml",
        "autoglm up -d -f chat.yaml && autoglm logs -f chat",
        "helm template chat ./chart | autoglm up -f -",
        "autoglm up -f chat.yaml --grpc-address 0.0.0.0:50051 --api-keys-file keys.json",
        "autoglm up -f chat.yaml --gateway-config gateway.yaml --route-debug --dry-run",
        "autoglm up -f examples/tiny-glm.yaml --traces otlp:http://localhost:4317",
        "autoglm up -f examples/tiny-glm.yaml --dry-run",
    )
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    help="Manifest with AutoGLMDeployment documents, a directory of them, or - for standard input; "
    "may be repeated.",
)
@click.option(
    "--watch/--no-watch",
    default=True,
    show_default=True,
    help="Apply a manifest when its file changes.",
)
@run_options
def command(files: tuple[Path, ...], watch: bool, options: UpOptions, dry_run: bool) -> int:
    """Run manifests as local processes: pods on free ports, and a gateway.

    Ctrl-C drains and stops all processes; a second one kills them. With -d they run on until
    `autoglm down`.
    """
    found = _sources(files)
    options = replace(options, watch=watch)
    if dry_run:
        return print_commands(found, options)
    return run(found, options)


def run(sources: Sequence[Source], options: UpOptions) -> int:
    """Run manifests here or detached; return the exit code."""
    if options.is_detached:
        return start_detached(sources, options, click.echo)
    raise_open_file_limit()
    return asyncio.run(up(sources, options))


def _sources(files: Sequence[Path]) -> tuple[Source, ...]:
    """Return the manifests, with the text of standard input for `-`. Raises BadParameter."""
    try:
        named = files_of([file for file in files if file != _STDIN])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--file") from error
    return (*named, *([Text(sys.stdin.read())] if _STDIN in files else ()))


def print_commands(files: Sequence[Source], options: UpOptions) -> int:
    """Print the command of each process that would run; return the exit code."""
    try:
        manifests = read_all(files)
    except InvalidSpec as error:
        click.echo(str(error), err=True)
        return ExitCode.BAD_MANIFEST
    placed = manifests.placed
    for sentence in (*manifests.notes, *(each for one in placed for each in notices(one))):
        click.echo(sentence, err=True)
    gpus = find_gpus()
    if why := too_few_gpus(placed, gpus):
        click.echo(why, err=True)
        return ExitCode.BAD_MANIFEST
    program, taken = ("autoglm",), list[str]()
    endpoints = options.run_dir / "endpoints.json"
    gateway_flags = options.all_gateway_flags
    _print_command(gateway_workload(placed, program, options.gateway, endpoints, gateway_flags))
    for each in placed:
        workload = model_workload(each, program, options.traces)
        of_replicas = []
        for _ in range(workload.replicas):
            devices = gpus.place(workload.process.gpus, taken)
            taken += devices
            of_replicas.append(",".join(devices))
        _print_command(workload, of_replicas if any(of_replicas) else ())
    return 0


def _print_command(workload: Workload, gpus: Sequence[str] = ()) -> None:
    process = workload.process
    if process.addresses is None:
        count = f"{workload.replicas} replica{'s' if workload.replicas != 1 else ''}"
        own = f"addresses and GPUs ({'; '.join(gpus)})" if gpus else "addresses"
        click.echo(f"# {workload.name}: {count}, each with its own {own}")
    flags = process.addresses.flags() if process.addresses else ()
    variables = [f"{name}={shlex.quote(value)}" for name, value in process.env]
    click.echo(" ".join([*variables, shlex.join([*process.argv, *flags])]))
